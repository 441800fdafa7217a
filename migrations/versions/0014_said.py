"""Peers' own words are kept apart from the histories, encrypted."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "said",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("job_id", sa.Uuid, sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.Column("what", sa.Text, nullable=False),
        sa.Column("words", sa.LargeBinary, nullable=False),
    )
    op.create_index("said_by_job", "said", ["job_id", "id"])


def downgrade() -> None:
    op.drop_table("said")
