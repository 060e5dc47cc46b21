"""The engine as a process: who may start it, how it says that it is ready, how it stops, what outlives it."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.cli import demo_office
from engine.core.orders import OrderState
from engine.ledger import kills, reader
from tests.acceptance.office import NO_BUDGETS, Office, cli, office, until

ACCOUNTS = 2


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """An office whose engine does not run; each test starts it."""
    with office(tmp_path_factory.mktemp("c"), ACCOUNTS, more=NO_BUDGETS) as one:
        yield one


def test_a_second_engine_on_one_database_is_refused_and_the_first_goes_on(closed: Office) -> None:
    with closed.engine():
        second = closed.cli("run")
        assert second.returncode == 75, second.stderr
        assert f"pid {closed.running.pid}" in second.stderr
        assert closed.control.alive(), "the first one's door was not taken away"
        until(lambda: closed.all_proven(ACCOUNTS))
        door = demo_office.socket(closed.folder)
        assert stat.S_IMODE(door.stat().st_mode) == 0o600


def test_a_key_that_others_may_read_or_that_is_not_the_right_one_is_refused(closed: Office) -> None:
    key = closed.folder / "vault.key"
    right = key.read_bytes()
    key.chmod(0o644)
    try:
        open_to_all = closed.cli("run")
        key.chmod(0o600)
        key.write_bytes(right[::-1].strip() + b"\n" if right.strip()[::-1] != right.strip() else right)
        wrong = closed.cli("run")
        key.unlink()
        missing = closed.cli("run")
    finally:
        key.write_bytes(right)
        key.chmod(0o600)
    for refusal in (open_to_all, wrong, missing):
        assert refusal.returncode == 64, refusal.stderr
        assert "nothing was sent" in refusal.stderr
        assert "Traceback" not in refusal.stderr
    assert "600" in open_to_all.stderr


def test_everything_wrong_with_a_configuration_is_told_at_once(tmp_path: Path) -> None:
    config = tmp_path / "unisono.toml"
    config.write_text('[pulse]\nbeat_s = "often"\nbeet_s = 3\n[log]\nlevel = "loud"\n[nonsense]\n')
    told = cli("run", config=config)
    assert told.returncode == 78
    for key in ("pulse.beat_s", "pulse.beet_s", "log.level", "nonsense"):
        assert key in told.stderr
    assert cli("run", config=tmp_path / "nowhere.toml").returncode == 78


def test_systemd_is_told_when_it_is_ready_that_it_makes_progress_and_that_it_stops(closed: Office) -> None:
    address = closed.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(address))
        ear.settimeout(20.0)
        command = [sys.executable, "-m", "engine.cli", "run", "--config", str(closed.config)]
        environment = {**os.environ, "NOTIFY_SOCKET": str(address)}
        with (closed.folder / "engine.log").open("ab") as log:
            running = subprocess.Popen(command, env=environment, stderr=log)
        try:
            assert ear.recv(4096).startswith(b"READY=1\n")
            assert ear.recv(4096).startswith(b"WATCHDOG=1\n")
            running.send_signal(signal.SIGTERM)
            began_s = time.monotonic()
            while not ear.recv(4096).startswith(b"STOPPING=1\n"):
                pass
            assert running.wait(30) == 0
            assert time.monotonic() - began_s < 30
        finally:
            running.kill()
            running.wait()
            address.unlink()


def test_the_kill_switch_stops_cancels_outlives_the_engine_and_is_lifted(closed: Office) -> None:
    with closed.engine():
        until(lambda: closed.all_proven(ACCOUNTS))
        ours = closed.approved(["demo-01"])
        closed.execute(ours)
        closed.elsewhere("demo-02", type="limit", price="50000")
        until(lambda: closed.child(ours).state is OrderState.WORKING)
        waiting = closed.approved(["demo-02"])

        thrown = closed.cli("kill", "on", "--why", "a wrong price", "--json")
        assert thrown.returncode == 0, thrown.stdout
        for account in ("demo-01", "demo-02"):
            assert {o["state"] for o in closed.orders(account)} == {"canceled"}, "ours and those of others"
        until(lambda: closed.child(ours).state is OrderState.CANCELLED)
        assert "kill_switch" in closed.denials("demo-01")
        closed.execute(waiting)
        assert closed.child(waiting).state is not OrderState.WORKING
        assert "kill all" in closed.findings()
        closed.running.send_signal(signal.SIGKILL)
    with reader(closed.url) as conn:
        assert [k.scope for k in kills.switched_on(conn)] == ["all"]
    with closed.engine():
        until(lambda: closed.all_proven(ACCOUNTS))
        assert "kill_switch" in closed.denials("demo-02")
        assert closed.cli("kill", "status").returncode == 1
        assert closed.cli("kill", "off", "--why", "price corrected").returncode == 0
        assert not closed.denials("demo-02")
    assert closed.child(waiting).state is OrderState.SKIPPED
    assert not [o for o in closed.orders("demo-02") if o["clOrdId"] == closed.child(waiting).client_order_id]
