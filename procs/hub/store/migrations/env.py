"""Alembic runs this: on the connection, and in the transaction, that procs/hub/store/migrate.py hands over."""

from alembic import context

from procs.hub.store.models import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite can alter next to nothing
)
context.run_migrations()
