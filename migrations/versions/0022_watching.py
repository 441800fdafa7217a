"""What peers' certificates say, and alerts that are told channel by channel, again while they stand, and
cleared when nobody finds them standing any more."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)
_NEW = {
    "circuits": [
        sa.Column("certificate_expires", _MOMENT),
        sa.Column("certificate_asked_at", _MOMENT),
    ],
    "alerts": [
        sa.Column("departments", ARRAY(sa.Text), nullable=False, server_default="{}"),
        sa.Column("seen_at", _MOMENT),
        sa.Column("told_to", ARRAY(sa.Text), nullable=False, server_default="{}"),
        sa.Column("reminded_at", _MOMENT),
    ],
}


def upgrade() -> None:
    for table, columns in _NEW.items():
        for column in columns:
            op.add_column(table, column)


def downgrade() -> None:
    for table, columns in _NEW.items():
        for column in columns:
            op.drop_column(table, column.name)
