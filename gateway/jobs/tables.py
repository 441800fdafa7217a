"""The tables. A migration makes each change to them; a test compares the two."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Double,
    Float,
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
    and_,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData()
_moment = DateTime(timezone=True)
_now = text("now()")

_ALIVE = "state NOT IN ('done', 'failed', 'cancelled')"
_UNPURGED = "purged_at IS NULL AND state IN ('done', 'failed', 'cancelled')"
UNPURGED = text(_UNPURGED)
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
    Column("waits_for", Text),  # the peer that is away or paused; next_at is none until it is back
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
    Column("callback_accepted", Boolean, nullable=False, server_default="false"),
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
    Column("revision", Text),  # of the configuration
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
    Column("canary", Boolean, nullable=False, server_default="false"),  # a test study of nobody
    Column("vendor_version", Text),  # of what made the result
    Column("beside", Boolean, nullable=False, server_default="false"),  # tries a vendor; nobody waits for it
    CheckConstraint(
        "state IN ('received','locating','submitting','analysing','delivering',"
        "'done','failed','cancelled','held')",
        name="jobs_state_is_known",
    ),
    Index(
        "jobs_queue",
        *("adapter", "priority", "state", "at_vendor", "next_at"),
        postgresql_where=text("next_at IS NOT NULL AND lease_holder IS NULL"),
    ),
    Index(  # of the release before: nothing reads it any more
        "jobs_due",
        text("priority DESC"),
        "created_at",
        postgresql_where=text("next_at IS NOT NULL"),
    ),
    Index(
        "jobs_waiting",
        "waits_for",
        text("priority DESC"),
        "created_at",
        postgresql_where=text("waits_for IS NOT NULL"),
    ),
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
    Index("jobs_by_reference", text("(ticket ->> 'reference')")),
    Index("jobs_by_application", "application", text("created_at DESC"), text("id DESC")),
    Index("jobs_by_adapter", "adapter", text("created_at DESC"), text("id DESC")),
    Index("jobs_by_department", "department", text("created_at DESC"), text("id DESC")),
    Index("jobs_unpurged", "application", "updated_at", postgresql_where=text(_UNPURGED)),
    Index("jobs_alive", "application", "state", postgresql_where=text(_ALIVE)),
    Index("jobs_cancellable", "cancellation_tokens", postgresql_using="gin", postgresql_where=text(_ALIVE)),
    # Whoever looks for work steps over what is left in the queue's index of those who were due before. By
    # PostgreSQL's own measure, a fifth of the table, that would be more the more jobs have ended.
    postgresql_with={
        "autovacuum_vacuum_threshold": 1000,
        "autovacuum_vacuum_scale_factor": 0.002,
        "vacuum_index_cleanup": "on",
    },
)

# All that somebody asked for: what neither is nobody's study nor goes to a vendor that is only tried.
REAL = and_(jobs.c.canary.is_(False), jobs.c.beside.is_(False))

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
    Column("job_digest", Text),
    Column(
        "transaction", BigInteger, nullable=False, server_default=text("pg_current_xact_id()::text::bigint")
    ),
    Index("job_events_by_job", "job_id", "id"),
    Index("job_events_followed", "transaction", "id"),
)

joining = Table(  # invocations for a job that there is, acknowledged, until Sectra has let them in
    "joining",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("job_id", Uuid, ForeignKey("jobs.id"), nullable=False),
    Column("at", _moment, nullable=False, server_default=_now),
    Column("application", Text, nullable=False),
    Column("cancellation_token", Text),
    Column("asked", LargeBinary, nullable=False),  # encrypted
    Column("tries", Integer, nullable=False, server_default="1"),  # the last one's is who may write
    Column("next_at", _moment, nullable=False),
    Index("joining_by_job", "job_id"),
    Index("joining_due", "next_at"),
    Index("joining_cancellable", "application", "cancellation_token"),
)

said = Table(  # by peers, of a job: foreign words, for operators alone
    "said",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("job_id", Uuid, ForeignKey("jobs.id"), nullable=False),
    Column("at", _moment, nullable=False, server_default=_now),
    Column("what", Text, nullable=False),
    Column("words", LargeBinary, nullable=False),  # encrypted
    Index("said_by_job", "job_id", "id"),
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
    # from here on empty in a seal of an older release
    Column("after_event_id", BigInteger),
    Column("events_digest", Text),
    Column("after_audit_id", BigInteger),
    Column("last_audit_id", BigInteger),
    Column("audit_hash", Text),
    Column("signed_by", Text),
    Column("signature", Text),
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
    Column("waits_for", Text),
    Column("updated_at", _moment, nullable=False, server_default=_now),
    Index("deliveries_waiting", "waits_for", postgresql_where=text("waits_for IS NOT NULL")),
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
    Column("lies", Text),
    Index("instances_by_uid", "sop_instance_uid"),
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
    Index("slide_results_by_job", "job_id"),
    Column("alone", Boolean, nullable=False, server_default="true"),
    Column("result_of", Uuid),
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
    Column("heard_sha256", Text),  # the token of the call that was heard first
    Column("heard_at", _moment),
    Index("grants_by_token", "token_sha256", unique=True),
    Index("grants_by_slide", "server", "application", "slide_id"),
)

rivals = Table(  # of the token with the grant: those of other calls on the vendor for the same job
    "rivals",
    metadata,
    Column("token_sha256", Text, primary_key=True),
    Column("job_id", Uuid, ForeignKey("jobs.id"), nullable=False),
    Column("token", LargeBinary),  # encrypted
    Column("ended", Boolean, nullable=False, server_default="false"),
    Column("refused", Boolean, nullable=False, server_default="false"),  # and its history tells of it
    Index("rivals_by_job", "job_id"),
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
    Column("hash", Text),  # once it is sealed
    Index("audit_by_who", "who", "id"),
    Index("audit_by_what", "what", "id"),
    Index("audit_by_job", "job_id", "id", postgresql_where=text("job_id IS NOT NULL")),
    Index("audit_by_time", "at"),
)

circuits = Table(  # of each peer that ever failed or was paused
    "circuits",
    metadata,
    Column("peer", Text, primary_key=True),
    Column("state", Text, nullable=False, server_default="closed"),
    Column("number", BigInteger, nullable=False, server_default="0"),  # of its openings and closings
    Column("kind", Text),
    Column("manner", Text),  # where more is known than the kind tells
    Column("since", _moment, nullable=False, server_default=_now),
    Column("reason", Text),
    Column("advice", Text),
    # in a row, since it last answered as it should
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("jobs_met", Integer, nullable=False, server_default="0"),
    Column("last_job", Uuid),
    Column("refusals", Integer, nullable=False, server_default="0"),
    # looking whether it is back
    Column("probes", Integer, nullable=False, server_default="0"),
    Column("pause", Float, nullable=False, server_default="0"),
    Column("next_probe_at", _moment),
    Column("prober", Text),
    Column("probing_until", _moment),
    Column("trial_job", Uuid),
    Column("succeeded_at", _moment),
    Column("certificate_expires", _moment),  # the one that it shows
    Column("certificate_asked_at", _moment),
    CheckConstraint("state IN ('closed','open')", name="circuits_state_is_known"),
)

pauses = Table(
    "pauses",
    metadata,
    Column("peer", Text, primary_key=True),
    Column("why", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("since", _moment, nullable=False, server_default=_now),
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("cause", Text, nullable=False),
    Column("sentence", Text, nullable=False),
    Column("advice", Text, nullable=False, server_default=""),
    Column("since", _moment, nullable=False, server_default=_now),
    Column("cleared_at", _moment),
    Column("told_at", _moment),
    Column("clear_told_at", _moment),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("next_try_at", _moment, nullable=False, server_default=_now),
    Column("departments", ARRAY(Text), nullable=False, server_default="{}"),
    Column("seen_at", _moment),  # by whoever finds it standing; none: it is ended by whoever began it
    Column("told_to", ARRAY(Text), nullable=False, server_default="{}"),  # who has it of what is being told
    Column("heard_by", ARRAY(Text)),  # who was ever told that it stands
    Column("reminded_at", _moment),
    Index("alerts_standing", "cause", unique=True, postgresql_where=text("cleared_at IS NULL")),
    Index(
        "alerts_untold",
        "next_try_at",
        postgresql_where=text("told_at IS NULL OR (cleared_at IS NOT NULL AND clear_told_at IS NULL)"),
    ),
)

revisions = Table(  # of the configuration: which was in force since when, and which was refused
    "revisions",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("at", _moment, nullable=False, server_default=_now),
    Column("who", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("revision", Text, nullable=False),
    Column("text", Text, nullable=False),  # secrets masked
    Column("refused", JSONB, nullable=False, server_default="[]"),
)

pulls = Table(
    "pulls",
    metadata,
    Column("archive", Text, primary_key=True),
    Column("kept", JSONB, nullable=False),
)

uploads = Table(
    "uploads",
    metadata,
    Column("peer", Text, primary_key=True),
    Column("sender", Uuid, primary_key=True),
    Column("share", Double, nullable=False),  # bytes a second
    Column("until", _moment, nullable=False),
)

ended_visits = Table(
    "ended_visits",
    metadata,
    Column("visit", Text, primary_key=True),
    Column("until", _moment, nullable=False),
)

installation = Table(
    "installation",
    metadata,
    Column("single", Boolean, CheckConstraint("single"), primary_key=True, server_default="true"),
    Column("id", Uuid, nullable=False),
)

replicas = Table(  # the gateway's own processes
    "replicas",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("host", Text, nullable=False),
    Column("process", Integer, nullable=False),
    Column("does", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("revision", Text, nullable=False),
    Column("worker", Integer, nullable=False, server_default="0"),  # whose leases are its own; 0: nobody's
    Column("began_at", _moment, nullable=False, server_default=_now),
    Column("seen_at", _moment, nullable=False),
)

rounds = Table(  # what one replica does for all, once in a while
    "rounds",
    metadata,
    Column("name", Text, primary_key=True),
    Column("done_at", _moment, nullable=False),
    Column("taken_until", _moment),
)

unprocessed = Table(  # studies that an archive has, an application would have accepted, and no job was about
    "unprocessed",
    metadata,
    Column("application", Text, primary_key=True),
    Column("study_instance_uid", Text, primary_key=True),
    Column("archive", Text, nullable=False),
    Column("found_at", _moment, nullable=False, server_default=_now),
)

canaries = Table(  # how each vendor's test study fares
    "canaries",
    metadata,
    Column("adapter", Text, primary_key=True),
    Column("began_at", _moment, nullable=False, server_default=_now),
    Column("pending", Boolean, nullable=False, server_default="false"),
    Column("job_id", Uuid),
    Column("ok", Boolean),
    Column("since", _moment),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("seconds", Float),
    Column("why", Text),
    Column("succeeded_at", _moment),
    Column("whole_way", Boolean, nullable=False, server_default="true"),  # not only asked whether it is there
)

tallies = Table(  # what became of jobs, day by day; stays when they are purged
    "tallies",
    metadata,
    Column("application", Text, primary_key=True),
    Column("version", Text, primary_key=True),  # of the vendor; empty where it doesn't tell
    Column("day", Date, primary_key=True),
    Column("what", Text, primary_key=True),
    Column("count", BigInteger, nullable=False),
)

verdicts = Table(  # results that users changed or deleted: each counts once
    "verdicts",
    metadata,
    Column("job_id", Uuid, ForeignKey("jobs.id"), primary_key=True),
    Column("what", Text, primary_key=True),
    Column("at", _moment, nullable=False, server_default=_now),
)

followed = Table(  # up to where the events were counted
    "followed",
    metadata,
    Column("name", Text, primary_key=True),
    Column("transaction", BigInteger, nullable=False),
    Column("event", BigInteger, nullable=False),
)

shadows = Table(  # what an application's vendor and one that is tried beside it made of the same study; stays
    "shadows",
    metadata,
    Column("job_id", Uuid, ForeignKey("jobs.id"), primary_key=True),
    Column("of", Uuid, ForeignKey("jobs.id"), nullable=False),
    Column("application", Text, nullable=False),
    Column("shadow", Text, nullable=False),
    Column("began_at", _moment, nullable=False, server_default=_now),
    Column("compared_at", _moment),
    Column("own_outcome", Text),
    Column("own_version", Text),
    Column("own_seconds", Float),
    Column("own_found", ARRAY(Text), nullable=False, server_default="{}"),
    Column("outcome", Text),
    Column("version", Text),
    Column("seconds", Float),
    Column("found", ARRAY(Text), nullable=False, server_default="{}"),
    Index("shadows_uncompared", "job_id", postgresql_where=text("compared_at IS NULL")),
    Index("shadows_by_time", "application", "shadow", text("began_at DESC")),
)

department_keys = Table(  # from which all pseudonyms of a department follow; encrypted
    "department_keys",
    metadata,
    Column("department", Text, primary_key=True),
    Column("key", LargeBinary, nullable=False),
    Column("created_at", _moment, nullable=False, server_default=_now),
)

job_keys = Table(  # with which a job's pseudonyms are sealed; encrypted, and gone when the job is purged
    "job_keys",
    metadata,
    Column("job_id", Uuid, ForeignKey("jobs.id"), primary_key=True),
    Column("key", LargeBinary, nullable=False),
)

pseudonyms = Table(  # what a vendor was sent, and what it stands for
    "pseudonyms",
    metadata,
    Column("job_id", Uuid, ForeignKey("jobs.id"), primary_key=True),
    Column("pseudonym", Text, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
)

audit_cursor = Table(  # up to where the audit collector has been told, and which replica tells it
    "audit_cursor",
    metadata,
    Column("name", Text, primary_key=True),
    Column("event", BigInteger, nullable=False),
    Column("act", BigInteger, nullable=False),
    Column("holder", Text),
    Column("held_until", _moment),
)

arrivals = Table(  # what was sent to us and lies in a bucket, a row for each instance
    "arrivals",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("at", _moment, nullable=False, server_default=_now),
    Column("sop_instance_uid", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("application", Text),
    Column("study_instance_uid", Text),
    Column("delivery", Uuid),  # none: the study isn't closed yet
    Column("job_id", Uuid),  # whose result it is
    Index("arrivals_of_studies", "application", "study_instance_uid"),
    Index(
        "arrivals_under_way",
        "application",
        "study_instance_uid",
        postgresql_where=text("delivery IS NULL AND application IS NOT NULL"),
    ),
    Index("arrivals_for_jobs", "job_id", postgresql_where=text("job_id IS NOT NULL")),
)
