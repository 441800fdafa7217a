"""The tables. A migration makes each change to them; a test compares the two."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData()
_moment = DateTime(timezone=True)
_now = text("now()")

_ALIVE = "state NOT IN ('done', 'failed', 'cancelled')"
ALIVE = text(f"jobs.{_ALIVE}")  # in the very words of the partial indexes, or the planner won't use them

jobs = Table(
    "jobs",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("department", Text, nullable=False),
    Column("application", Text, nullable=False),
    Column("adapter", Text, nullable=False),
    Column("origin", Text, nullable=False),
    # where it is
    Column("state", Text, nullable=False),
    Column("held_in", Text),
    Column("held_by", Text),
    Column("recoveries", Integer, nullable=False, server_default="0"),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("next_at", _moment),
    Column("waits_why", Text),
    Column("priority", SmallInteger, nullable=False, server_default="0"),
    Column("created_at", _moment, nullable=False, server_default=_now),
    Column("updated_at", _moment, nullable=False, server_default=_now),
    # who works on it
    Column("fence", BigInteger, nullable=False, server_default="0"),
    Column("lease_holder", Integer),
    Column("leased_until", _moment),
    Column("at_vendor", Boolean, nullable=False, server_default="false"),
    # what was asked
    Column("study_instance_uid", Text),
    Column("accession_number", Text),
    Column("accession_number_issuer", Text),
    Column("exam_id", Text),
    Column("patient_id", LargeBinary),  # encrypted
    Column("slide_id", Text),
    Column("server", Text),
    Column("callback_url", Text),
    Column("callback_token", LargeBinary),  # encrypted
    Column("input", JSONB),
    Column("context", JSONB),
    Column("cancellation_tokens", ARRAY(Text), nullable=False, server_default="{}"),
    Column("join_key", Text),
    Column("caller", Text),
    Column("idempotency_key", Text),
    Column("request_digest", Text),
    # what is known
    Column("slide_width", Integer),
    Column("slide_height", Integer),
    Column("archive", Text),
    Column("unasked", Text),
    Column("submit_began", Boolean, nullable=False, server_default="false"),
    Column("doubted_until", _moment),
    Column("ticket", JSONB),
    Column("result_by", _moment),
    Column("result", LargeBinary),  # encrypted
    # the proof
    Column("promised", Integer),
    Column("sent", Integer),
    Column("acknowledged", Integer),
    Column("received", Integer),
    Column("stored", Integer),
    # the last failure
    Column("error_kind", Text),
    Column("error_message", Text),
    Column("error_advice", Text),
    Column("purged_at", _moment),
    CheckConstraint(
        "state IN ('received','locating','submitting','analysing','delivering',"
        "'done','failed','cancelled','held')",
        name="jobs_state_is_known",
    ),
    Index(
        "jobs_due",
        text("priority DESC"),
        "created_at",
        postgresql_where=text("next_at IS NOT NULL"),
    ),
    Index("jobs_next", "next_at", postgresql_where=text("next_at IS NOT NULL")),
    Index("jobs_leased", "lease_holder", postgresql_where=text("lease_holder IS NOT NULL")),
    Index("jobs_at_vendor", "adapter", postgresql_where=text("at_vendor")),
    Index("jobs_joined", "join_key", unique=True, postgresql_where=text(_ALIVE)),
    Index(
        "jobs_idempotent",
        "caller",
        "idempotency_key",
        unique=True,
        postgresql_where=text("idempotency_key IS NOT NULL"),
    ),
    Index("jobs_listed", text("created_at DESC"), text("id DESC")),
    Index("jobs_by_state", "state", text("created_at DESC"), text("id DESC")),
    Index("jobs_by_study", "study_instance_uid"),
    Index("jobs_by_accession", "accession_number"),
    Index("jobs_by_slide", "slide_id"),
    Index("jobs_by_application", "application", text("created_at DESC"), text("id DESC")),
    Index("jobs_alive", "application", "state", postgresql_where=text(_ALIVE)),
    Index("jobs_cancellable", "cancellation_tokens", postgresql_using="gin", postgresql_where=text(_ALIVE)),
)

job_events = Table(
    "job_events",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("job_id", Uuid, ForeignKey("jobs.id"), nullable=False),
    Column("at", _moment, nullable=False),
    Column("state", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("detail", JSONB, nullable=False),
    Column("previous_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("salt", Text),
    Column("detail_digest", Text),
    Column(
        "transaction", BigInteger, nullable=False, server_default=text("pg_current_xact_id()::text::bigint")
    ),
    Index("job_events_by_job", "job_id", "id"),
    Index("job_events_followed", "transaction", "id"),
)

seals = Table(
    "seals",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("at", _moment, nullable=False),
    Column("last_event_id", BigInteger, nullable=False),
    Column("heads", JSONB, nullable=False),  # job id: hash of its last event
    Column("previous_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("job_id", Uuid, ForeignKey("jobs.id"), primary_key=True),
    Column("destination", Text, primary_key=True),
    Column("state", Text, nullable=False, server_default="pending"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_at", _moment),
    Column("reference", Text),
    Column("stored", Integer),
    Column("last_error", Text),
    Column("held_by", Text),
    Column("updated_at", _moment, nullable=False, server_default=_now),
)

instances = Table(
    "instances",
    metadata,
    Column("job_id", Uuid, ForeignKey("jobs.id"), primary_key=True),
    Column("sop_instance_uid", Text, primary_key=True),
    Column("series_instance_uid", Text, nullable=False),
    Column("sop_class_uid", Text),
    Column("width", Integer),
    Column("bytes", BigInteger),
    Column("blake3", Text),
    Column("sent", Boolean, nullable=False, server_default="false"),
    Column("acknowledged", Boolean, nullable=False, server_default="false"),
)

delivered = Table(  # results that went through us: never a vendor's input
    "delivered",
    metadata,
    Column("sop_instance_uid", Text, primary_key=True),
    Column("job_id", Uuid, ForeignKey("jobs.id"), nullable=False),
)

slide_results = Table(
    "slide_results",
    metadata,
    Column("server", Text, primary_key=True),
    Column("application", Text, primary_key=True),
    Column("slide_id", Text, primary_key=True),
    Column("area", Text, primary_key=True, server_default=""),  # empty: the whole slide
    Column("result_id", BigInteger),
    Column("version_id", Text),
    Column("job_id", Uuid),
    Column("job_created_at", _moment),
    Column("rank", BigInteger),
    Column("creating_until", _moment),
    Column("taken_by", Uuid),
    Column("replaced", ARRAY(Text), nullable=False, server_default="{}"),
)

grants = Table(
    "grants",
    metadata,
    Column("job_id", Uuid, ForeignKey("jobs.id"), primary_key=True),
    Column("adapter", Text, nullable=False),
    Column("application", Text, nullable=False),
    Column("server", Text, nullable=False, server_default=""),
    Column("slide_id", Text, nullable=False),
    Column("area", Text, nullable=False, server_default=""),
    Column("token", LargeBinary),  # encrypted
    Column("token_sha256", Text),
    Column("opened_at", _moment, nullable=False, server_default=_now),
    Column("reopened_until", _moment),
    # what the vendor did with it
    Column("calls", BigInteger, nullable=False, server_default="0"),
    Column("read_at", _moment),
    Column("results", JSONB, nullable=False, server_default="{}"),  # id: version
    Column("stored_at", _moment),
    Column("stores", BigInteger, nullable=False, server_default="0"),  # how often it stored
    Column("shown", LargeBinary),  # encrypted: the text of its last result
    Column("noted", Integer, nullable=False, server_default="0"),
    Column("tiles", BigInteger, nullable=False, server_default="0"),
    Column("tile_bytes", BigInteger, nullable=False, server_default="0"),
    Index("grants_by_token", "token_sha256", unique=True),
    Index("grants_by_slide", "server", "application", "slide_id"),
)

vendor_calls = Table(
    "vendor_calls",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("job_id", Uuid, ForeignKey("jobs.id"), nullable=False),
    Column("at", _moment, nullable=False, server_default=_now),
    Column("what", Text, nullable=False),
    Column("bytes", BigInteger),
    Column("outcome", Text),
    Index("vendor_calls_by_job", "job_id", "id"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("at", _moment, nullable=False, server_default=_now),
    Column("who", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("job_id", Uuid),
    Column("detail", JSONB, nullable=False, server_default="{}"),
)

installation = Table(
    "installation",
    metadata,
    Column("single", Boolean, CheckConstraint("single"), primary_key=True, server_default="true"),
    Column("id", Uuid, nullable=False),
)
