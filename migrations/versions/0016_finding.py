"""What lists, doors and upkeep look for is found by an index."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX jobs_by_department ON jobs (department, created_at DESC, id DESC)")
    op.execute(
        """
        CREATE INDEX jobs_unpurged ON jobs (application, updated_at)
        WHERE purged_at IS NULL AND state IN ('done', 'failed', 'cancelled')
        """
    )
    op.create_index("instances_by_uid", "instances", ["sop_instance_uid"])
    op.create_index("slide_results_by_job", "slide_results", ["job_id"])


def downgrade() -> None:
    op.drop_index("slide_results_by_job")
    op.drop_index("instances_by_uid")
    op.drop_index("jobs_unpurged")
    op.drop_index("jobs_by_department")
