"""What the last release remembered of results on slides keeps its place."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import psycopg

from gateway.jobs.records import area_of
from gateway.jobs.schema import migrate

POINTS = [{"x": 0, "y": 0.0}, {"x": 0.25, "y": 1}, {"x": 0.1, "y": 0.2}]
TAGGED = {
    "type": "taggedPolygon",
    "content": {"polygon": {"points": POINTS}, "tags": ["A", "B"], "tagIndex": 1},
}
SEVERAL = {"type": "multiArea", "content": {"polygons": [{"points": POINTS}, {"points": POINTS[:1]}]}}
INPUTS: list[dict[str, Any] | None] = [{"type": "wholeSlide"}, TAGGED, SEVERAL, None]


def test_results_and_grants_of_the_last_release_get_their_area(empty_database_url: str) -> None:
    assert migrate(empty_database_url, to="0002") == (None, "0002")
    jobs = {str(number): uuid4() for number in range(len(INPUTS))}
    with psycopg.connect(empty_database_url) as connection:
        for given, (slide, job) in zip(INPUTS, jobs.items(), strict=True):
            connection.execute(
                "INSERT INTO jobs (id, department, application, adapter, origin, state, server, input)"
                " VALUES (%s, 'd', 'a', 'v', 'sectra', 'done', 'main', %s)",
                (job, None if given is None else json.dumps(given)),
            )
            connection.execute(
                "INSERT INTO slide_results (server, application, slide_id, result_id, job_id, taken)"
                " VALUES ('main', 'a', %s, 1, %s, %s)",
                (slide, job, slide == "1"),
            )
            connection.execute(
                "INSERT INTO grants (job_id, adapter, application, slide_id) VALUES (%s, 'v', 'a', %s)",
                (job, slide),
            )
    migrate(empty_database_url)
    with psycopg.connect(empty_database_url) as connection:
        for given, (slide, job) in zip(INPUTS, jobs.items(), strict=True):
            kept = connection.execute(
                "SELECT area, taken_by FROM slide_results WHERE slide_id = %s", (slide,)
            ).fetchone()
            assert kept == (area_of(given), job if slide == "1" else None)
            granted = connection.execute(
                "SELECT area, server FROM grants WHERE slide_id = %s", (slide,)
            ).fetchone()
            assert granted == (area_of(given), "main")
