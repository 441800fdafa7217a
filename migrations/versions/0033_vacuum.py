"""What went through the queue leaves its index soon, however many jobs there are."""

from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "ALTER TABLE jobs SET (autovacuum_vacuum_threshold = 1000,"
        " autovacuum_vacuum_scale_factor = 0.002, vacuum_index_cleanup = on)"
    )


def downgrade() -> None:
    op.execute(
        "ALTER TABLE jobs RESET"
        " (autovacuum_vacuum_threshold, autovacuum_vacuum_scale_factor, vacuum_index_cleanup)"
    )
