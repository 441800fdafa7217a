"""After a sending that broke off, the vendor is asked for a while what has arrived."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("doubted_until", sa.DateTime(timezone=True)))


def downgrade() -> None:
    op.drop_column("jobs", "doubted_until")
