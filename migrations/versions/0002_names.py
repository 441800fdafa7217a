"""Names that say what they mean: grants of vendors, and studies that were sent to us by whichever way."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE passes RENAME TO grants")
    op.execute("ALTER INDEX passes_by_slide RENAME TO grants_by_slide")
    op.execute("ALTER INDEX passes_by_token RENAME TO grants_by_token")
    op.execute("ALTER INDEX passes_pkey RENAME TO grants_pkey")
    op.execute("UPDATE jobs SET origin = 'sent' WHERE origin = 'dimse'")


def downgrade() -> None:
    op.execute("UPDATE jobs SET origin = 'dimse' WHERE origin = 'sent'")
    op.execute("ALTER TABLE grants RENAME TO passes")
    op.execute("ALTER INDEX grants_by_slide RENAME TO passes_by_slide")
    op.execute("ALTER INDEX grants_by_token RENAME TO passes_by_token")
    op.execute("ALTER INDEX grants_pkey RENAME TO passes_pkey")
