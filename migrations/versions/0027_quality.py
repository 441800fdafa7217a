"""Canaries, which version of a vendor made a result, and what is counted of vendors day by day."""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("canary", sa.Boolean, nullable=False, server_default="false"))
    op.add_column("jobs", sa.Column("vendor_version", sa.Text))
    moment, now = sa.DateTime(timezone=True), sa.text("now()")
    op.create_table(
        "canaries",
        sa.Column("adapter", sa.Text, primary_key=True),
        sa.Column("began_at", moment, nullable=False, server_default=now),
        sa.Column("pending", sa.Boolean, nullable=False, server_default="false"),
        sa.Column("job_id", sa.Uuid),
        sa.Column("ok", sa.Boolean),
        sa.Column("since", moment),
        sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
        sa.Column("seconds", sa.Float),
        sa.Column("why", sa.Text),
        sa.Column("succeeded_at", moment),
        sa.Column("whole_way", sa.Boolean, nullable=False, server_default="true"),
    )
    op.create_table(
        "tallies",
        sa.Column("application", sa.Text, primary_key=True),
        sa.Column("version", sa.Text, primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("what", sa.Text, primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "verdicts",
        sa.Column("job_id", sa.Uuid, sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("what", sa.Text, primary_key=True),
        sa.Column("at", moment, nullable=False, server_default=now),
    )
    op.create_table(
        "followed",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("transaction", sa.BigInteger, nullable=False),
        sa.Column("event", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    for table in ("followed", "verdicts", "tallies", "canaries"):
        op.drop_table(table)
    op.drop_column("jobs", "vendor_version")
    op.drop_column("jobs", "canary")
