"""Does. Runs migrations on the connection that it is handed; Alembic loads this file by its path."""

from __future__ import annotations

from alembic import context

from accounts.database import VERSION_TABLE
from accounts.tables import Row, is_ours

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Row.metadata,
    version_table=VERSION_TABLE,
    include_name=is_ours,
    render_as_batch=True,  # SQLite alters a table by copying it
    transactional_ddl=False,  # the caller's transaction holds all of it
)
context.run_migrations()
