"""Does. An office on loopback: a simulated venue, a new registry of its accounts, an engine; each a process of its own.

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
from engine.venues import venues

START_LIMIT_S = 60.0
SIMULATED = {"rest": "rest", "private": "ws_private", "public": "ws_public", "business": "ws_business"}


class NotStarted(Exception):
    """A process did not come up; its log says why."""


class SimulatedVenue:
    """The simulator's control door: faults, the market, and the venue's own truth."""

    def __init__(self, doors: Mapping[str, Any], pid: int) -> None:
        self.doors, self.pid = doors, pid
        self._http = httpx.Client(base_url=doors["control"], timeout=10.0)

    @property
    def names(self) -> list[str]:
        return [account["name"] for account in self.doors["accounts"]]

    def close(self) -> None:
        self._http.close()

    def get(self, path: str) -> Any:
        return self._http.get(path).raise_for_status().json()

    def post(self, path: str, body: Any) -> Any:
        return self._http.post(path, json=body).raise_for_status().json()


@contextmanager
def simulator(folder: Path, accounts: int, seed: int, *options: str) -> Iterator[SimulatedVenue]:
    """`unisono sim` until the block ends. Raises NotStarted."""
    command = [sys.executable, "-m", "engine.cli", "sim", "--venue", "okx", "--json"]
    command += ["--accounts", str(accounts), "--seed", str(seed), *options]
    log = folder / "simulator.log"
    with log.open("ab") as stderr, process(command, stdout=subprocess.PIPE, stderr=stderr) as running:
        assert running.stdout is not None
        line = running.stdout.readline()
        if not line:
            raise NotStarted(f"the simulator did not start; see {log}")
        venue = SimulatedVenue(json.loads(line)["okx"], running.pid)
        try:
            yield venue
        finally:
            venue.close()


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
    folder: Path, doors: Mapping[str, Any], channels: Mapping[str, tuple[str, ...]], *, url: str = "", more: str = ""
) -> Path:
    """A new configuration, key and registry for the simulator's accounts, in one group. Returns the configuration.

    `channels` replaces what a kind of connection subscribes to; `more` is added to the configuration.
    """
    config = folder / "unisono.toml"
    url = url or f"sqlite:///{folder / 'unisono.sqlite'}"
    config.write_text(f'[database]\nurl = "{url}"\n[log]\nform = "json"\n{more}')
    create_key_file(folder / "vault.key")
    vault, venue = Vault.from_file(folder / "vault.key"), venues()["okx"]
    ledger.upgrade(url)
    urls = {kind: doors[door] for kind, door in SIMULATED.items() if kind != "business"}
    by, why = "demo", "a demo office"
    with Registry(url) as registry:
        registry.upgrade()
        registry.set_canary(vault.canary(), by=by, why=why)
        with registry.together():
            for told in doors["accounts"]:
                name = told["name"]
                account = Account(account_id=name, name=name, venue="okx", site="global", environment="demo")
                registry.add_account(
                    account,
                    compose(account, venue, urls=urls, channels=channels),
                    vault.seal(name, {field: Secret(told[field]) for field in venue.credential_fields}),
                    by=by,
                    why=why,
                )
            weights = tuple(Weight(told["name"], Decimal(1)) for told in doors["accounts"])
            registry.add_group(Group(group_id="everybody", name="All demo accounts", weights=weights), by=by, why=why)
    return config
