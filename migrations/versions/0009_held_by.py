"""A held job says which peer it is held for, if it goes on by itself once that answers again."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("held_by", sa.Text))
    op.add_column("jobs", sa.Column("recoveries", sa.Integer, nullable=False, server_default="0"))
    op.add_column("deliveries", sa.Column("held_by", sa.Text))


def downgrade() -> None:
    op.drop_column("deliveries", "held_by")
    op.drop_column("jobs", "recoveries")
    op.drop_column("jobs", "held_by")
