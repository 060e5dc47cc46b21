"""Does. Runs the ledger's migrations on the connection that `engine.ledger.upgrade` opened."""

from __future__ import annotations

from alembic import context

from engine.ledger.tables import metadata
from engine.ledger.upgrade import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
