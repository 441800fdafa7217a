"""Which configuration was in force since when, and which of them a job ran under."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("revision", sa.Text))
    op.create_table(
        "revisions",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("revision", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("refused", JSONB, nullable=False, server_default="[]"),
    )


def downgrade() -> None:
    op.drop_table("revisions")
    op.drop_column("jobs", "revision")
