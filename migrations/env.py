"""Run by alembic; the connection comes from `gateway.jobs.schema`."""

from alembic import context

from gateway.jobs.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
