"""How a peer fails, where more is known than that it does: that it answers 503."""

import sqlalchemy as sa
from alembic import op

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("circuits", sa.Column("manner", sa.Text))


def downgrade() -> None:
    op.drop_column("circuits", "manner")
