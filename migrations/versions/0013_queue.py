"""The queue by whose turn it is, and events that are chained by the statement that writes them."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # jobs_due stays for the release that is still running; jobs_next would be taken for the new one.
    op.execute("DROP INDEX jobs_next")
    op.execute(
        """
        CREATE INDEX jobs_queue ON jobs (adapter, priority, state, at_vendor, next_at)
        WHERE next_at IS NOT NULL AND lease_holder IS NULL
        """
    )
    op.execute(
        """
        CREATE FUNCTION event_before(job uuid) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
        BEGIN
            RETURN coalesce(
                (SELECT hash FROM job_events WHERE job_id = job ORDER BY id DESC LIMIT 1), '');
        END
        $$
        """
    )


def downgrade() -> None:
    op.execute("DROP FUNCTION event_before(uuid)")
    op.execute("DROP INDEX jobs_queue")
    op.execute(
        """
        CREATE INDEX jobs_next ON jobs (next_at) WHERE next_at IS NOT NULL
        """
    )
