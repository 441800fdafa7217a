"""What is done once in a while by one replica, and studies that an archive has and nobody has processed."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rounds",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("taken_until", sa.DateTime(timezone=True)),
    )
    op.create_table(
        "unprocessed",
        sa.Column("application", sa.Text, primary_key=True),
        sa.Column("study_instance_uid", sa.Text, primary_key=True),
        sa.Column("archive", sa.Text, nullable=False),
        sa.Column("found_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
    )


def downgrade() -> None:
    op.drop_table("unprocessed")
    op.drop_table("rounds")
