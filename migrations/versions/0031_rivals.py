"""A token for each call on a vendor for the same job: the first that is heard counts."""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("grants", sa.Column("heard_sha256", sa.Text))
    op.create_table(
        "rivals",
        sa.Column("token_sha256", sa.Text, primary_key=True),
        sa.Column("job_id", sa.Uuid, sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("token", sa.LargeBinary),
        sa.Column("ended", sa.Boolean, nullable=False, server_default="false"),
        sa.Column("refused", sa.Boolean, nullable=False, server_default="false"),
    )
    op.create_index("rivals_by_job", "rivals", ["job_id"])


def downgrade() -> None:
    op.drop_table("rivals")
    op.drop_column("grants", "heard_sha256")
