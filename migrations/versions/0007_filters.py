"""Jobs are found by their accession number and their slide."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("jobs_by_accession", "jobs", ["accession_number"])
    op.create_index("jobs_by_slide", "jobs", ["slide_id"])


def downgrade() -> None:
    op.drop_index("jobs_by_slide", "jobs")
    op.drop_index("jobs_by_accession", "jobs")
