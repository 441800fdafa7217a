"""Peers that are away, refuse us or are paused; the jobs that wait for them; and who was alerted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "circuits",
        sa.Column("peer", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False, server_default="closed"),
        sa.Column("number", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("kind", sa.Text),
        sa.Column("since", _moment, nullable=False, server_default=sa.text("now()")),
        sa.Column("reason", sa.Text),
        sa.Column("advice", sa.Text),
        sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
        sa.Column("jobs_met", sa.Integer, nullable=False, server_default="0"),
        sa.Column("last_job", sa.Uuid),
        sa.Column("refusals", sa.Integer, nullable=False, server_default="0"),
        sa.Column("probes", sa.Integer, nullable=False, server_default="0"),
        sa.Column("pause", sa.Float, nullable=False, server_default="0"),
        sa.Column("next_probe_at", _moment),
        sa.Column("prober", sa.Text),
        sa.Column("probing_until", _moment),
        sa.Column("trial_job", sa.Uuid),
        sa.Column("succeeded_at", _moment),
        sa.CheckConstraint("state IN ('closed','open')", name="circuits_state_is_known"),
    )
    op.create_table(
        "pauses",
        sa.Column("peer", sa.Text, primary_key=True),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("since", _moment, nullable=False, server_default=sa.text("now()")),
    )
    op.create_table(
        "alerts",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("sentence", sa.Text, nullable=False),
        sa.Column("advice", sa.Text, nullable=False, server_default=""),
        sa.Column("since", _moment, nullable=False, server_default=sa.text("now()")),
        sa.Column("cleared_at", _moment),
        sa.Column("told_at", _moment),
        sa.Column("clear_told_at", _moment),
        sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
        sa.Column("next_try_at", _moment, nullable=False, server_default=sa.text("now()")),
    )
    op.create_index(
        "alerts_standing", "alerts", ["cause"], unique=True, postgresql_where=sa.text("cleared_at IS NULL")
    )
    op.create_index(
        "alerts_untold",
        "alerts",
        ["next_try_at"],
        postgresql_where=sa.text("told_at IS NULL OR (cleared_at IS NOT NULL AND clear_told_at IS NULL)"),
    )
    op.add_column("jobs", sa.Column("waits_for", sa.Text))
    op.add_column("deliveries", sa.Column("waits_for", sa.Text))
    op.create_index(
        "jobs_waiting",
        "jobs",
        ["waits_for", sa.text("priority DESC"), "created_at"],
        postgresql_where=sa.text("waits_for IS NOT NULL"),
    )
    op.create_index(
        "deliveries_waiting",
        "deliveries",
        ["waits_for"],
        postgresql_where=sa.text("waits_for IS NOT NULL"),
    )


def downgrade() -> None:
    op.execute("UPDATE jobs SET next_at = now() WHERE waits_for IS NOT NULL")  # nobody else would wake them
    op.execute("UPDATE deliveries SET next_at = now() WHERE waits_for IS NOT NULL")
    op.drop_index("deliveries_waiting", "deliveries")
    op.drop_index("jobs_waiting", "jobs")
    op.drop_column("deliveries", "waits_for")
    op.drop_column("jobs", "waits_for")
    op.drop_table("alerts")
    op.drop_table("pauses")
    op.drop_table("circuits")
