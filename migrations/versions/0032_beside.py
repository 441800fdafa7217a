"""Jobs that only try a vendor, and what a shadow made of a study beside the vendor in use."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.add_column("jobs", sa.Column("beside", sa.Boolean, nullable=False, server_default="false"))
    op.create_table(
        "shadows",
        sa.Column("job_id", sa.Uuid, sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("of", sa.Uuid, sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("application", sa.Text, nullable=False),
        sa.Column("shadow", sa.Text, nullable=False),
        sa.Column("began_at", moment, nullable=False, server_default=sa.text("now()")),
        sa.Column("compared_at", moment),
        sa.Column("own_outcome", sa.Text),
        sa.Column("own_version", sa.Text),
        sa.Column("own_seconds", sa.Float),
        sa.Column("own_found", ARRAY(sa.Text), nullable=False, server_default="{}"),
        sa.Column("outcome", sa.Text),
        sa.Column("version", sa.Text),
        sa.Column("seconds", sa.Float),
        sa.Column("found", ARRAY(sa.Text), nullable=False, server_default="{}"),
    )
    uncompared = sa.text("compared_at IS NULL")
    op.create_index("shadows_uncompared", "shadows", ["job_id"], postgresql_where=uncompared)
    op.create_index("shadows_by_time", "shadows", ["application", "shadow", sa.text("began_at DESC")])


def downgrade() -> None:
    op.drop_table("shadows")
    op.drop_column("jobs", "beside")
