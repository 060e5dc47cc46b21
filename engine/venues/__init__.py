"""Dialects: pure, strangers to each other. A venue is a folder here whose `__init__` holds `VENUE`."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from engine.core.venue import Venue


@cache
def venues() -> dict[str, Venue]:
    """Every venue by its name, found by walking the folders."""
    found = (importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__) if m.ispkg)
    return {module.VENUE.name: module.VENUE for module in found}
