"""Which processes of the gateway there are; and the audit is found by person, act, job and time."""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

_moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "replicas",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("process", sa.Integer, nullable=False),
        sa.Column("does", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("revision", sa.Text, nullable=False),
        sa.Column("worker", sa.Integer, nullable=False, server_default="0"),
        sa.Column("began_at", _moment, nullable=False, server_default=sa.text("now()")),
        sa.Column("seen_at", _moment, nullable=False),
    )
    op.create_index("audit_by_who", "audit", ["who", "id"])
    op.create_index("audit_by_what", "audit", ["what", "id"])
    op.create_index("audit_by_job", "audit", ["job_id", "id"], postgresql_where=sa.text("job_id IS NOT NULL"))
    op.create_index("audit_by_time", "audit", ["at"])


def downgrade() -> None:
    for name in ("time", "job", "what", "who"):
        op.drop_index(f"audit_by_{name}", "audit")
    op.drop_table("replicas")
