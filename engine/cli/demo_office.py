"""Does. An office on loopback: simulated venues, a new registry of their accounts, an engine; processes of their own.

For the demo, and for whoever else wants a whole office in a folder (acceptance tests, benches).
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx

from accounts.model import Account, Group, Secret, Weight
from accounts.registry import Registry
from accounts.vault import Vault, create_key_file
from engine import ledger
from engine.control.client import Control
from engine.core.register import compose
from engine.sim.server import stage_of
from engine.venues import venues

START_LIMIT_S = 60.0
_ENVIRONMENT = "demo"
_BY, _WHY = "demo", "a demo office"


class NotStarted(Exception):
    """A process did not come up; its log says why."""


class SimulatedVenue:
    """One venue of the simulator: its control door (faults, the market, the venue's own truth) and its addresses."""

    def __init__(self, name: str, doors: Mapping[str, Any], pid: int) -> None:
        self.name, self.doors, self.pid = name, doors, pid
        self.stage = stage_of(name)
        self._http = httpx.Client(base_url=doors["control"], timeout=10.0)

    @property
    def names(self) -> list[str]:
        return [entry.name for entry in self.stage.entries(self.doors)]

    @property
    def price(self) -> Decimal:
        """What the instrument of its stage costs there now."""
        told = self.post("/market", {"instrument": self.stage.instrument})
        return Decimal(str(told["price"]))

    def close(self) -> None:
        self._http.close()

    def get(self, path: str) -> Any:
        return self._http.get(path).raise_for_status().json()

    def post(self, path: str, body: Any) -> Any:
        return self._http.post(path, json=body).raise_for_status().json()


@contextmanager
def simulators(
    folder: Path, accounts: int, seed: int, *options: str, names: Sequence[str] = ()
) -> Iterator[dict[str, SimulatedVenue]]:
    """`unisono sim` until the block ends: these venues, or all that can be played. Raises NotStarted."""
    command = [sys.executable, "-m", "engine.cli", "sim", "--json"]
    command += ["--accounts", str(accounts), "--seed", str(seed), *options]
    command += [word for name in names for word in ("--venue", name)]
    log = folder / "simulator.log"
    with log.open("ab") as stderr, process(command, stdout=subprocess.PIPE, stderr=stderr) as running:
        assert running.stdout is not None
        line = running.stdout.readline()
        if not line:
            raise NotStarted(f"the simulator did not start; see {log}")
        found = {name: SimulatedVenue(name, doors, running.pid) for name, doors in json.loads(line).items()}
        try:
            yield found
        finally:
            for venue in found.values():
                venue.close()


@contextmanager
def simulator(folder: Path, accounts: int, seed: int, *options: str, venue: str) -> Iterator[SimulatedVenue]:
    """One venue only."""
    with simulators(folder, accounts, seed, *options, names=[venue]) as found:
        yield found[venue]


@contextmanager
def engine(folder: Path, config: Path) -> Iterator[tuple[Control, subprocess.Popen[bytes]]]:
    """`unisono run` until the block ends, once it answers. Raises NotStarted."""
    command = [sys.executable, "-m", "engine.cli", "run", "--config", str(config)]
    log = folder / "engine.log"
    with log.open("ab") as stderr, process(command, stderr=stderr) as running, Control(socket(folder)) as control:
        deadline_s = time.monotonic() + START_LIMIT_S
        while not control.alive():
            if running.poll() is not None or time.monotonic() > deadline_s:
                raise NotStarted(f"the engine did not start; see {log}")
            time.sleep(0.05)
        yield control, running


@contextmanager
def process(command: Sequence[str], **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with this block: asked first, killed when it does not listen."""
    running = subprocess.Popen(command, start_new_session=True, **streams)  # noqa: S603  our own program
    try:
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        try:
            running.wait(timeout=30)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
        if running.stdout is not None:
            running.stdout.close()


def socket(folder: Path) -> Path:
    return folder / "unisono.sock"


def fresh_folder(folder: Path) -> None:
    """Empty, and marked as ours: a folder that is not is never touched (FileExistsError)."""
    mark = folder / "demo-office"
    if folder.exists():
        if not mark.exists() and any(folder.iterdir()):
            raise FileExistsError(f"{folder} holds something else than a demo; nothing was touched")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    mark.touch()


def register(
    folder: Path,
    doors: Mapping[str, Mapping[str, Any]],
    channels: Mapping[str, Mapping[str, tuple[str, ...]]] | None = None,
    *,
    url: str = "",
    more: str = "",
) -> Path:
    """A new configuration, key and registry for the accounts of these simulated venues. Returns the configuration.

    `doors` are the simulator's JSON line by venue; `channels` replaces what the kinds of a venue's connections
    subscribe to (none: its stage's); `more` is added to the configuration. All accounts are in the group `everybody`,
    and those of each broker in a group of its name; logins at feeds are in none.
    """
    config = folder / "unisono.toml"
    url = url or f"sqlite:///{folder / 'unisono.sqlite'}"
    config.write_text(f'[database]\nurl = "{url}"\n[log]\nform = "json"\n{more}')
    create_key_file(folder / "vault.key")
    vault = Vault.from_file(folder / "vault.key")
    ledger.upgrade(url)
    with Registry(url) as registry:
        registry.upgrade()
        registry.set_canary(vault.canary(), by=_BY, why=_WHY)
        with registry.together():
            members = {
                name: _enter(registry, vault, name, line, (channels or {}).get(name)) for name, line in doors.items()
            }
            traders = {name: ids for name, ids in members.items() if venues()[name].capabilities.trades}
            _group(registry, "everybody", "All demo accounts", [i for ids in traders.values() for i in ids])
            for name, ids in traders.items():
                _group(registry, name, f"Those at {venues()[name].title}", ids)
    return config


def _enter(
    registry: Registry,
    vault: Vault,
    name: str,
    line: Mapping[str, Any],
    channels: Mapping[str, tuple[str, ...]] | None,
) -> list[str]:
    """Every login of one simulated venue; their account ids."""
    venue, stage = venues()[name], stage_of(name)
    urls = {
        kind: line[door] for kind, door in stage.doors.items() if door in line and not venue.endpoint(kind).optional
    }
    site = next(p.site for p in venue.places if p.environment == _ENVIRONMENT)
    entries = stage.entries(line)
    for entry in entries:
        account = Account(
            account_id=entry.name,
            name=entry.name,
            venue=name,
            site=site,
            environment=_ENVIRONMENT,
            venue_ref=entry.ref,
        )
        registry.add_account(
            account,
            compose(account, venue, urls=urls, channels=stage.channels if channels is None else channels),
            vault.seal(account.account_id, {field: Secret(text) for field, text in entry.credentials.items()}),
            by=_BY,
            why=_WHY,
        )
    return [entry.name for entry in entries]


def _group(registry: Registry, group_id: str, name: str, members: Sequence[str]) -> None:
    weights = tuple(Weight(account_id, Decimal(1)) for account_id in members)
    registry.add_group(Group(group_id=group_id, name=name, weights=weights), by=_BY, why=_WHY)
