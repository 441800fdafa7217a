"""Whose result stands on a slide, so that no news of the same job takes its place."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("slide_results", sa.Column("result_of", sa.Uuid))


def downgrade() -> None:
    op.drop_column("slide_results", "result_of")
