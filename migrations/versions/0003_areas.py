"""Each area of a slide keeps a result of its own; a grant knows its server; who issued what Sectra names."""

import hashlib
import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in ("accession_number_issuer", "exam_id"):
        op.add_column("jobs", sa.Column(column, sa.Text()))
    op.add_column("grants", sa.Column("server", sa.Text(), server_default="", nullable=False))
    op.add_column("grants", sa.Column("area", sa.Text(), server_default="", nullable=False))
    op.add_column("grants", sa.Column("stores", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("slide_results", sa.Column("area", sa.Text(), server_default="", nullable=False))
    op.add_column("slide_results", sa.Column("taken_by", sa.Uuid()))
    op.execute("UPDATE slide_results SET taken_by = job_id WHERE taken")
    op.drop_column("slide_results", "taken")
    op.execute("UPDATE grants SET server = coalesce(jobs.server, '') FROM jobs WHERE jobs.id = grants.job_id")
    op.drop_constraint("slide_results_pkey", "slide_results")
    op.create_primary_key(
        "slide_results_pkey", "slide_results", ["server", "application", "slide_id", "area"]
    )
    op.drop_index("grants_by_slide", "grants")
    op.create_index("grants_by_slide", "grants", ["server", "application", "slide_id"])
    _fill_areas(op.get_bind())


def downgrade() -> None:
    op.drop_index("grants_by_slide", "grants")
    op.create_index("grants_by_slide", "grants", ["application", "slide_id"])
    op.drop_constraint("slide_results_pkey", "slide_results")
    op.execute(
        "DELETE FROM slide_results one USING slide_results other WHERE one.server = other.server"
        " AND one.application = other.application AND one.slide_id = other.slide_id"
        " AND (one.job_created_at, one.area) < (other.job_created_at, other.area)"
    )
    op.create_primary_key("slide_results_pkey", "slide_results", ["server", "application", "slide_id"])
    op.add_column("slide_results", sa.Column("taken", sa.Boolean(), server_default="false", nullable=False))
    op.execute("UPDATE slide_results SET taken = taken_by IS NOT NULL")
    op.drop_column("slide_results", "taken_by")
    op.drop_column("slide_results", "area")
    for column in ("stores", "area", "server"):
        op.drop_column("grants", column)
    for column in ("exam_id", "accession_number_issuer"):
        op.drop_column("jobs", column)


def _fill_areas(connection: sa.Connection) -> None:
    """As `gateway.jobs.records.area_of` had it when this was written."""
    asked = sa.text(
        "SELECT id, input FROM jobs WHERE input ->> 'type' IN ('taggedPolygon', 'multiArea') AND"
        " (id IN (SELECT job_id FROM slide_results) OR id IN (SELECT job_id FROM grants))"
    )
    for job_id, given in connection.execute(asked).all():
        for table in ("slide_results", "grants"):
            connection.execute(
                sa.text(f"UPDATE {table} SET area = :area WHERE job_id = :job"),  # noqa: S608
                {"area": _area(given), "job": job_id},
            )


def _area(given: dict[str, Any]) -> str:
    content = given.get("content") or {}
    polygons = content.get("polygons") or [content.get("polygon")]
    outlines = sorted(
        [[float(point["x"]) + 0.0, float(point["y"]) + 0.0] for point in each["points"]] for each in polygons
    )
    tags, index = content.get("tags") or [], content.get("tagIndex")
    tag = tags[index] if tags and index is not None else None
    return hashlib.sha256(json.dumps([given["type"], outlines, tag]).encode()).hexdigest()
