"""A database has an id, by which a folder of files knows whose it is."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "installation",
        sa.Column("single", sa.Boolean(), sa.CheckConstraint("single"), server_default="true"),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("single", name="installation_pkey"),
    )


def downgrade() -> None:
    op.drop_table("installation")
