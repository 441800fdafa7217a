"""Who was told that a living job is his too is kept until Sectra has let him in."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "joining",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("job_id", sa.Uuid, sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("at", moment, nullable=False, server_default=sa.text("now()")),
        sa.Column("application", sa.Text, nullable=False),
        sa.Column("cancellation_token", sa.Text),
        sa.Column("asked", sa.LargeBinary, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False, server_default="1"),
        sa.Column("next_at", moment, nullable=False),
    )
    op.create_index("joining_by_job", "joining", ["job_id"])
    op.create_index("joining_due", "joining", ["next_at"])
    op.create_index("joining_cancellable", "joining", ["application", "cancellation_token"])


def downgrade() -> None:
    op.drop_table("joining")
