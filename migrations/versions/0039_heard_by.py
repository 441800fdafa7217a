"""Who was ever told that an alert stands: a channel that is added or changed meanwhile hears of it too."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0039"
down_revision = "0038"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("alerts", sa.Column("heard_by", ARRAY(sa.Text)))


def downgrade() -> None:
    op.drop_column("alerts", "heard_by")
