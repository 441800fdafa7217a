"""What identifies a patient in a history can be purged, and the history still verified."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("purged_at", sa.DateTime(timezone=True)))
    op.add_column("job_events", sa.Column("salt", sa.Text))
    op.add_column("job_events", sa.Column("detail_digest", sa.Text))


def downgrade() -> None:
    op.drop_column("job_events", "detail_digest")
    op.drop_column("job_events", "salt")
    op.drop_column("jobs", "purged_at")
