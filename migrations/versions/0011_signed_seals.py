"""Seals are signed, cover stretches of events and of the audit; events say what their job was about."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_OF_A_SEAL = (
    ("after_event_id", sa.BigInteger),
    ("events_digest", sa.Text),
    ("after_audit_id", sa.BigInteger),
    ("last_audit_id", sa.BigInteger),
    ("audit_hash", sa.Text),
    ("signed_by", sa.Text),
    ("signature", sa.Text),
)


def upgrade() -> None:
    op.add_column("job_events", sa.Column("job_digest", sa.Text))
    op.add_column("audit", sa.Column("hash", sa.Text))
    for name, kind in _OF_A_SEAL:
        op.add_column("seals", sa.Column(name, kind))


def downgrade() -> None:
    for name, _ in reversed(_OF_A_SEAL):
        op.drop_column("seals", name)
    op.drop_column("audit", "hash")
    op.drop_column("job_events", "job_digest")
