"""Does. A new office in a folder: registry, key and configuration for the accounts of one simulated venue."""

from __future__ import annotations

import atexit
import functools
import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from accounts.model import Account, Group, Secret, Weight
from accounts.registry import Registry
from accounts.vault import Vault, create_key_file
from engine import ledger
from engine.core.register import compose
from engine.core.venue import Entry, Front, Venue
from engine.sim.server import stage_of

_MEMORY = Path("/dev/shm")  # noqa: S108  a disk that costs nothing
EVERYBODY, WEIGHTED = "everybody", "weighted"
_HOST = "127.0.0.1:1"  # nobody dials it


def folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="unisono-simulation-", dir=_MEMORY if _MEMORY.is_dir() else None))


def furnish(where: Path, venue: Venue, front: Front, settings: str) -> Path:
    """Everything that an engine needs to start there. Returns the configuration."""
    database = where / "unisono.sqlite"
    shutil.copyfile(_empty_database(), database)
    url = f"sqlite:///{database}"
    config = where / "unisono.toml"
    config.write_text(f'[database]\nurl = "{url}"\n{settings}')
    create_key_file(where / "vault.key")
    vault = Vault.from_file(where / "vault.key")
    place = next((p for p in venue.places if p.environment != "prod"), venue.places[0])
    stage, line = stage_of(venue.name), _line(front)
    urls = {kind: line[door] for kind, door in stage.doors.items() if not venue.endpoint(kind).optional}
    by, why = "simulation", "set up"
    with Registry(url) as registry:
        registry.set_canary(vault.canary(), by=by, why=why)
        names = list[str]()
        with registry.together():
            for entry in entries(venue.name, front):
                account = Account(
                    account_id=entry.name,
                    name=entry.name,
                    venue=venue.name,
                    site=place.site,
                    environment=place.environment,
                    venue_ref=entry.ref,
                )
                registry.add_account(
                    account,
                    compose(account, venue, urls=urls, channels=stage.channels),
                    vault.seal(entry.name, {field: Secret(text) for field, text in entry.credentials.items()}),
                    by=by,
                    why=why,
                )
                names.append(entry.name)
            equal = tuple(Weight(name, Decimal(1)) for name in names)
            registry.add_group(Group(group_id=EVERYBODY, name="everybody", weights=equal), by=by, why=why)
            registry.add_group(Group(group_id=WEIGHTED, name="weighted", weights=_weights(names)), by=by, why=why)
    return config


def entries(venue: str, front: Front) -> Sequence[Entry]:
    """Whom the venue lets in, with the credentials of this moment."""
    return stage_of(venue).entries(_line(front))


def _line(front: Front) -> dict[str, Any]:
    """The simulator's JSON line of a venue that no socket serves."""
    return {
        **{name: f"http://{_HOST}{path}" for name, path in front.rests.items()},
        **{name: f"ws://{_HOST}{path}" for name, path in front.paths.items()},
        **front.describe(),
    }


def _weights(names: Sequence[str]) -> tuple[Weight, ...]:
    """They sum to exactly 100."""
    share = Decimal(100) // len(names)
    weights = [100 - share * (len(names) - 1), *[share] * (len(names) - 1)]
    return tuple(Weight(name, weight) for name, weight in zip(names, weights, strict=True))


@functools.cache
def _empty_database() -> Path:
    """Its tables are made once in a process; every office begins with a copy."""
    where = folder()
    atexit.register(shutil.rmtree, where, ignore_errors=True)
    url = f"sqlite:///{where / 'empty.sqlite'}"
    ledger.upgrade(url)
    with Registry(url) as registry:
        registry.upgrade()
    with sqlite3.connect(where / "empty.sqlite") as whole:
        whole.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole.close()
    return where / "empty.sqlite"
