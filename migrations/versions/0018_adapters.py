"""Lists by adapter: without an index a vendor of few jobs is looked for among all there are."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX jobs_by_adapter ON jobs (adapter, created_at DESC, id DESC)")


def downgrade() -> None:
    op.execute("DROP INDEX jobs_by_adapter")
