"""The studies that were fetched from each archive lately, for all replicas."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "pulls",
        sa.Column("archive", sa.Text, primary_key=True),
        sa.Column("kept", JSONB, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("pulls")
