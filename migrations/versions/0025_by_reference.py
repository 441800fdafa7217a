"""Jobs are found by the vendor's reference."""

from alembic import op
from sqlalchemy import text

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("jobs_by_reference", "jobs", [text("(ticket ->> 'reference')")])


def downgrade() -> None:
    op.drop_index("jobs_by_reference", "jobs")
