"""Our own account is used for a job only once Sectra has let in the token that its invocation brought."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "jobs", sa.Column("callback_accepted", sa.Boolean(), nullable=False, server_default="false")
    )
    op.execute(
        """
        UPDATE jobs SET callback_accepted = true
        WHERE slide_width IS NOT NULL AND state NOT IN ('done', 'failed', 'cancelled')
        """
    )


def downgrade() -> None:
    op.drop_column("jobs", "callback_accepted")
