"""Where an image lies, so that what is marked in space is drawn in it."""

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("instances", sa.Column("lies", sa.Text))


def downgrade() -> None:
    op.drop_column("instances", "lies")
