"""Jobs, their events, deliveries and instances; the results on slides; the audit."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE audit (
            id BIGINT GENERATED ALWAYS AS IDENTITY,
            at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
            who TEXT NOT NULL,
            what TEXT NOT NULL,
            job_id UUID,
            detail JSONB DEFAULT '{}' NOT NULL,
            PRIMARY KEY (id)
        )
        """
    )
    op.execute(
        """
        CREATE TABLE jobs (
            id UUID NOT NULL,
            department TEXT NOT NULL,
            application TEXT NOT NULL,
            adapter TEXT NOT NULL,
            origin TEXT NOT NULL,
            state TEXT NOT NULL,
            held_in TEXT,
            attempt INTEGER DEFAULT '0' NOT NULL,
            next_at TIMESTAMP WITH TIME ZONE,
            priority SMALLINT DEFAULT '0' NOT NULL,
            created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
            updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
            fence BIGINT DEFAULT '0' NOT NULL,
            lease_holder INTEGER,
            leased_until TIMESTAMP WITH TIME ZONE,
            at_vendor BOOLEAN DEFAULT 'false' NOT NULL,
            study_instance_uid TEXT,
            accession_number TEXT,
            patient_id BYTEA,
            slide_id TEXT,
            server TEXT,
            callback_url TEXT,
            callback_token BYTEA,
            input JSONB,
            context JSONB,
            cancellation_tokens TEXT[] DEFAULT '{}' NOT NULL,
            join_key TEXT,
            caller TEXT,
            idempotency_key TEXT,
            request_digest TEXT,
            slide_width INTEGER,
            slide_height INTEGER,
            archive TEXT,
            submit_began BOOLEAN DEFAULT 'false' NOT NULL,
            ticket JSONB,
            result_by TIMESTAMP WITH TIME ZONE,
            result BYTEA,
            promised INTEGER,
            sent INTEGER,
            acknowledged INTEGER,
            received INTEGER,
            stored INTEGER,
            error_kind TEXT,
            error_message TEXT,
            error_advice TEXT,
            PRIMARY KEY (id),
            CONSTRAINT jobs_state_is_known CHECK (state IN (
                'received','locating','submitting','analysing','delivering',
                'done','failed','cancelled','held'))
        )
        """
    )
    op.execute(
        """
        CREATE INDEX jobs_at_vendor ON jobs (adapter) WHERE at_vendor
        """
    )
    op.execute(
        """
        CREATE INDEX jobs_by_application ON jobs (application, created_at DESC, id DESC)
        """
    )
    op.execute(
        """
        CREATE INDEX jobs_alive ON jobs (application, state)
        WHERE state NOT IN ('done', 'failed', 'cancelled')
        """
    )
    op.execute(
        """
        CREATE INDEX jobs_by_state ON jobs (state, created_at DESC, id DESC)
        """
    )
    op.execute(
        """
        CREATE INDEX jobs_by_study ON jobs (study_instance_uid)
        """
    )
    op.execute(
        """
        CREATE INDEX jobs_cancellable ON jobs USING gin (cancellation_tokens)
        WHERE state NOT IN ('done', 'failed', 'cancelled')
        """
    )
    op.execute(
        """
        CREATE INDEX jobs_due ON jobs (priority DESC, created_at) WHERE next_at IS NOT NULL
        """
    )
    op.execute(
        """
        CREATE UNIQUE INDEX jobs_idempotent ON jobs (caller, idempotency_key)
        WHERE idempotency_key IS NOT NULL
        """
    )
    op.execute(
        """
        CREATE UNIQUE INDEX jobs_joined ON jobs (join_key) WHERE state NOT IN ('done', 'failed', 'cancelled')
        """
    )
    op.execute(
        """
        CREATE INDEX jobs_leased ON jobs (lease_holder) WHERE lease_holder IS NOT NULL
        """
    )
    op.execute(
        """
        CREATE INDEX jobs_listed ON jobs (created_at DESC, id DESC)
        """
    )
    op.execute(
        """
        CREATE INDEX jobs_next ON jobs (next_at) WHERE next_at IS NOT NULL
        """
    )
    op.execute(
        """
        CREATE TABLE slide_results (
            server TEXT NOT NULL,
            application TEXT NOT NULL,
            slide_id TEXT NOT NULL,
            result_id BIGINT,
            version_id TEXT,
            job_id UUID,
            job_created_at TIMESTAMP WITH TIME ZONE,
            rank BIGINT,
            creating_until TIMESTAMP WITH TIME ZONE,
            taken BOOLEAN DEFAULT 'false' NOT NULL,
            replaced TEXT[] DEFAULT '{}' NOT NULL,
            PRIMARY KEY (server, application, slide_id)
        )
        """
    )
    op.execute(
        """
        CREATE TABLE seals (
            id BIGINT GENERATED ALWAYS AS IDENTITY,
            at TIMESTAMP WITH TIME ZONE NOT NULL,
            last_event_id BIGINT NOT NULL,
            heads JSONB NOT NULL,
            previous_hash TEXT NOT NULL,
            hash TEXT NOT NULL,
            PRIMARY KEY (id)
        )
        """
    )
    op.execute(
        """
        CREATE TABLE deliveries (
            job_id UUID NOT NULL,
            destination TEXT NOT NULL,
            state TEXT DEFAULT 'pending' NOT NULL,
            attempts INTEGER DEFAULT '0' NOT NULL,
            next_at TIMESTAMP WITH TIME ZONE,
            reference TEXT,
            stored INTEGER,
            last_error TEXT,
            updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
            PRIMARY KEY (job_id, destination),
            FOREIGN KEY(job_id) REFERENCES jobs (id)
        )
        """
    )
    op.execute(
        """
        CREATE TABLE instances (
            job_id UUID NOT NULL,
            sop_instance_uid TEXT NOT NULL,
            series_instance_uid TEXT NOT NULL,
            sop_class_uid TEXT,
            width INTEGER,
            bytes BIGINT,
            blake3 TEXT,
            sent BOOLEAN DEFAULT 'false' NOT NULL,
            acknowledged BOOLEAN DEFAULT 'false' NOT NULL,
            PRIMARY KEY (job_id, sop_instance_uid),
            FOREIGN KEY(job_id) REFERENCES jobs (id)
        )
        """
    )
    op.execute(
        """
        CREATE TABLE delivered (
            sop_instance_uid TEXT NOT NULL,
            job_id UUID NOT NULL,
            PRIMARY KEY (sop_instance_uid),
            FOREIGN KEY(job_id) REFERENCES jobs (id)
        )
        """
    )
    op.execute(
        """
        CREATE TABLE job_events (
            id BIGINT GENERATED ALWAYS AS IDENTITY,
            job_id UUID NOT NULL,
            at TIMESTAMP WITH TIME ZONE NOT NULL,
            state TEXT NOT NULL,
            what TEXT NOT NULL,
            detail JSONB NOT NULL,
            previous_hash TEXT NOT NULL,
            hash TEXT NOT NULL,
            transaction BIGINT DEFAULT pg_current_xact_id()::text::bigint NOT NULL,
            PRIMARY KEY (id),
            FOREIGN KEY(job_id) REFERENCES jobs (id)
        )
        """
    )
    op.execute(
        """
        CREATE INDEX job_events_followed ON job_events (transaction, id)
        """
    )
    op.execute(
        """
        CREATE INDEX job_events_by_job ON job_events (job_id, id)
        """
    )
    op.execute(
        """
        CREATE TABLE passes (
            job_id UUID NOT NULL,
            adapter TEXT NOT NULL,
            application TEXT NOT NULL,
            slide_id TEXT NOT NULL,
            token BYTEA,
            token_sha256 TEXT,
            opened_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
            reopened_until TIMESTAMP WITH TIME ZONE,
            calls BIGINT DEFAULT '0' NOT NULL,
            read_at TIMESTAMP WITH TIME ZONE,
            results JSONB DEFAULT '{}' NOT NULL,
            stored_at TIMESTAMP WITH TIME ZONE,
            shown BYTEA,
            noted INTEGER DEFAULT '0' NOT NULL,
            tiles BIGINT DEFAULT '0' NOT NULL,
            tile_bytes BIGINT DEFAULT '0' NOT NULL,
            PRIMARY KEY (job_id),
            FOREIGN KEY(job_id) REFERENCES jobs (id)
        )
        """
    )
    op.execute(
        """
        CREATE INDEX passes_by_slide ON passes (application, slide_id)
        """
    )
    op.execute(
        """
        CREATE UNIQUE INDEX passes_by_token ON passes (token_sha256)
        """
    )
    op.execute(
        """
        CREATE TABLE vendor_calls (
            id BIGINT GENERATED ALWAYS AS IDENTITY,
            job_id UUID NOT NULL,
            at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
            what TEXT NOT NULL,
            bytes BIGINT,
            outcome TEXT,
            PRIMARY KEY (id),
            FOREIGN KEY(job_id) REFERENCES jobs (id)
        )
        """
    )
    op.execute(
        """
        CREATE INDEX vendor_calls_by_job ON vendor_calls (job_id, id)
        """
    )
