"""How much of the line each process has for a vendor's uploads."""

import sqlalchemy as sa
from alembic import op

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "uploads",
        sa.Column("peer", sa.Text, primary_key=True),
        sa.Column("sender", sa.Uuid, primary_key=True),
        sa.Column("share", sa.Double, nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("uploads")
