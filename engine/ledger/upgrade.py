"""Does. Brings a database to the schema of this program, through Alembic, from whatever release it was left at."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from engine.ledger.engines import writing

VERSION_TABLE = "ledger_version"
_MIGRATIONS = Path(__file__).with_name("migrations")


class SchemaTooNew(Exception):
    """The database was written by a newer program. Nothing was changed."""


def revisions() -> set[str]:
    """Every schema that this program can bring up to date, or knows already."""
    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def upgrade(url: str, *, to: str = "head") -> None:
    """Run what is missing, up to this revision. Raises SchemaTooNew where the database is ahead of this program."""
    config, known = _config(), revisions()
    scripts = ScriptDirectory.from_config(config)
    engine = writing(url, busy_timeout_s=30.0)
    try:
        with engine.connect() as connection:
            with connection.begin():
                context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
                found = set(context.get_current_heads())
            if not found <= known:
                newer = ", ".join(sorted(found - known))
                raise SchemaTooNew(f"the ledger has schema {newer}, which this version of unisono does not know")
            if found != set(scripts.get_heads()):
                with connection.begin():
                    config.attributes["connection"] = connection
                    command.upgrade(config, to)
    finally:
        engine.dispose()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config
