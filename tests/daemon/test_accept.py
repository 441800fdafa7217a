"""What an application accepts: else a notification is ignored, an invocation refused, and the reason told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.peers.gateway import TRAUMA, hospital

# one application for each filter, and a slide property that doesn't pass it
OUTSIDE: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "staining": ({"staining": ["HE"]}, {"staining": "Ki-67"}, "staining (Ki-67)"),
    "body": ({"body_parts": ["BREAST"]}, {"body_part": "SKIN"}, "body part (SKIN)"),
    "exam": ({"exam_codes": ["MAM1"]}, {"exam_code": "DERM7"}, "exam code (DERM7)"),
    "urgent": ({"priorities": ["9"]}, {"priority": 1}, "priority (1)"),
    "fine": ({"max_microns_per_pixel": 0.3}, {"microns": 0.5}, "at most 0.3"),
    "coarse": ({"min_microns_per_pixel": 0.6}, {"microns": 0.5}, "at least 0.6"),
    "small": ({"max_pixels": 1000}, {}, "number of pixels"),
    "modality": ({"modalities": ["MR"]}, {}, "not in accept.modalities"),
    "bytes": ({"max_bytes": "1kB"}, {}, "larger than this application accepts"),
}


@pytest.mark.timeout(180)
async def test_every_filter_ignores_a_notification_and_refuses_an_invocation(tmp_path: Path) -> None:
    async with hospital(tmp_path) as house:
        applications = house.configuration["departments"]["emergency"]["applications"]
        for name, (accept, _, _) in OUTSIDE.items():
            applications[name] = applications[TRAUMA] | {"accept": accept}
        await house.start()

        async def try_one(name: str) -> None:
            _, slide, reason = OUTSIDE[name]
            for action in ("newImageFiles", "create"):
                patient = house.admit(slide=False)
                house.show(
                    patient.slide,
                    study_instance_uid=patient.study,
                    accession_number=patient.accession,
                    **slide,
                )
                answer = await house.fire(patient.slide, action, url=house.app(name), applicationId=name)
                assert answer.complaints == []
                job = await house.job_on(patient.slide)
                assert reason in job["error"]["message"]
                if action == "create":
                    assert (job["state"], job["error"]["kind"]) == ("failed", "permanent")
                    await house.until(
                        lambda slide=patient.slide: any(
                            reason in result["displayResult"] for result in house.results_on(slide, name)
                        ),
                        "the slide says why",
                    )
                else:
                    assert (job["state"], job["error"]["kind"]) == ("cancelled", "ignored")
                    assert any(reason in str(event["detail"]) for event in job["events"])
                    if name != "bytes":  # its size shows only on the way to the vendor
                        assert house.results_on(patient.slide, name) == []
                assert house.milvue.posts.get(patient.study, 0) == 0

        await asyncio.gather(*map(try_one, OUTSIDE))


async def test_what_sectra_does_not_tell_is_not_held_against_a_slide(tmp_path: Path) -> None:
    async with hospital(tmp_path) as house:
        house.application["accept"] = {"exam_codes": ["MAM1"], "body_parts": ["BREAST"], "staining": ["he"]}
        await house.start()
        patient = house.admit()  # no exam code, no body part, stained HE
        await house.fire(patient.slide, "newImageFiles")
        assert (await house.job_on(patient.slide))["state"] == "done"
