"""Holds. The registry's schema, version by version; `Registry.upgrade()` runs them, there is no alembic.ini."""
