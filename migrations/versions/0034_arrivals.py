"""What was sent to us and lies in a bucket that several machines share."""

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "arrivals",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.Column("sop_instance_uid", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("application", sa.Text),
        sa.Column("study_instance_uid", sa.Text),
        sa.Column("delivery", sa.Uuid),
        sa.Column("job_id", sa.Uuid),
    )
    op.create_index("arrivals_of_studies", "arrivals", ["application", "study_instance_uid"])
    op.create_index(
        "arrivals_under_way",
        "arrivals",
        ["application", "study_instance_uid"],
        postgresql_where=sa.text("delivery IS NULL AND application IS NOT NULL"),
    )
    op.create_index(
        "arrivals_for_jobs", "arrivals", ["job_id"], postgresql_where=sa.text("job_id IS NOT NULL")
    )


def downgrade() -> None:
    op.drop_table("arrivals")
