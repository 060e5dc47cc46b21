"""Disks and clocks that fail under a running engine: the truth in the end, an honest word meanwhile, nothing twice."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from engine.cli import demo_office
from engine.control.client import Control, ControlError
from engine.core.orders import OrderState
from engine.ledger import gaps, questions, reader
from tests.acceptance.office import NO_BUDGETS, Office, office, refused, until
from tests.postgres import restartable

QUICK = (
    "[ledger]\nbusy_timeout_s = 0.3\n"
    "[plans]\nrequest_expiry_s = 2.0\nsend_timeout_s = 1.0\nduplicate_window_s = 0.001\nattempts = 1\n"
    "[backfill]\noverlap_s = 30.0\ncrosscheck_s = 2.0\n"
)
HOUR_MS = 3_600_000
_DROP_FROM_BOUNDING_SET, _MAY_IGNORE_MODES = 24, (1, 2)  # prctl; CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH


def bound_by_modes() -> None:
    """In the child, before it becomes the engine: file modes count for it, also where the tests run as root."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None)
        for capability in _MAY_IGNORE_MODES:
            libc.prctl(_DROP_FROM_BOUNDING_SET, capability, 0, 0, 0)


@contextmanager
def running(o: Office, *command: str) -> Iterator[None]:
    """Another command than `unisono run` is the engine."""
    words = [sys.executable, "-m", *command]
    with (
        (o.folder / "engine.log").open("ab") as log,
        demo_office.process(words, stderr=log) as o.running,
        Control(demo_office.socket(o.folder)) as o.control,
    ):
        until(o.control.alive, 20.0)
        yield


def database(o: Office) -> Path:
    return Path(o.url.removeprefix("sqlite:///"))


def booked(o: Office, account: str, order: str) -> bool:
    with reader(o.url) as conn:
        return order in [row.fill.venue_order_id for row in questions.fills(conn, account)]


def at_venue(o: Office) -> Counter[str]:
    return Counter(order["clOrdId"] for order in o.venue.get("/truth/orders") if order["clOrdId"])


# ---- a file that may only be read


def test_a_database_that_may_only_be_read_is_refused_at_the_start_in_words(tmp_path: Path) -> None:
    with office(tmp_path / "o", 1, more=NO_BUDGETS + QUICK) as o:
        database(o).chmod(0o400)
        command = [sys.executable, "-m", "engine.cli", "run", "--config", str(o.config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, preexec_fn=bound_by_modes)
        assert done.returncode == 3, done.stderr
        told = " ".join(done.stderr.split())
        assert "cannot be written" in told
        assert "nothing was sent" in told
        assert "Traceback" not in told


# ---- a torn write-ahead log


def test_a_torn_log_costs_records_and_never_a_second_order(tmp_path: Path) -> None:
    """What was cut off is lost to us; what we sent without knowing it any more is found at the venue and named."""
    rng, approved = random.Random(20261122), list[str]()
    with office(tmp_path / "o", 3, more=NO_BUDGETS + QUICK) as o:
        log = database(o).with_name(database(o).name + "-wal")
        for _ in range(2):
            with o.engine():
                until(lambda: o.all_proven(3), 40.0)
                until(lambda: o.control.get("/status")["unknown_orders"] == 0, 40.0)
                before = o.approved(["demo-01", "demo-02", "demo-03"])
                after = o.approved(["demo-01", "demo-02"], price="57100")
                approved += [before, after]
                o.execute(before)
                o.execute(after)
                o.running.send_signal(signal.SIGKILL)
                o.running.wait(10)
            with log.open("r+b") as torn:
                torn.truncate(rng.randrange(log.stat().st_size))
        sent = at_venue(o)
        assert len(sent) == 2 * 5
        with o.engine():
            until(lambda: o.all_proven(3), 40.0)
            until(lambda: o.control.get("/status")["unknown_orders"] == 0, 40.0)
            time.sleep(2.5)  # each account is swept once, soon after it is proven
            for plan_id in approved:
                with suppress(ControlError):  # gone, or at work already; or it is done, and every share was skipped
                    o.execute(plan_id)
            findings = [f"{f['subject']}: {f['what']}" for f in o.control.get("/findings")]
            known = {c.client_order_id: c for plan_id in approved for c in o.children(plan_id)}
            assert at_venue(o) == sent, "not one order more"
            for client_order_id in sent:
                child = known.get(client_order_id)
                told = any(client_order_id in sentence for sentence in findings)
                assert told or (child is not None and child.state is OrderState.WORKING), (child, findings)
            assert len(known) < len(sent) or findings, "something was really lost"


# ---- a database server that goes away


@pytest.mark.postgres
def test_a_database_server_that_is_stopped_ends_the_engine_and_loses_nothing(tmp_path: Path) -> None:
    with (
        restartable() as server,
        office(
            tmp_path / "o",
            2,
            url=f"{server.root}/postgres".replace("postgresql:", "postgresql+psycopg:"),
            more=NO_BUDGETS + QUICK,
        ) as o,
    ):
        with o.engine():
            until(lambda: o.all_proven(2), 40.0)
            plan_id = o.approved(["demo-01"])
            server.stop()
            elsewhere = o.elsewhere("demo-02", type="market")
            assert "Nothing was sent" in str(refused(lambda: o.execute(plan_id)))
            assert o.running.wait(30) == 3, "the service manager starts it again"
        assert not at_venue(o)
        server.start()
        with o.engine():
            until(lambda: o.all_proven(2), 40.0)
            until(lambda: booked(o, "demo-02", elsewhere))
            o.execute(plan_id)
            until(lambda: o.child(plan_id).state is OrderState.WORKING)
            assert max(at_venue(o).values()) == 1


# ---- a clock that is set


@pytest.mark.timeout(60)
@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_is_set_while_orders_are_on_their_way_sends_nothing_twice_and_skips_no_history(
    tmp_path: Path, hours: int
) -> None:
    offset = tmp_path / "offset"
    put(offset, 0)
    with (
        office(tmp_path / "o", 4, more=NO_BUDGETS + QUICK) as o,
        running(o, "tests.acceptance.shifted", str(o.config), str(offset)),
    ):
        until(lambda: o.all_proven(4), 40.0)
        before = watermarks(o)
        o.fault("drop_ack", "demo-01", times=1)
        o.fault("drop_request", "demo-02", times=1)
        plan_id = o.approved(["demo-01", "demo-02", "demo-03"])
        o.execute(plan_id)
        put(offset, hours * HOUR_MS)
        o.fault("cut", "demo-04", seconds=0.2)
        missed = o.elsewhere("demo-04", type="market")
        until(lambda: {states(o, plan_id)[a] for a in ("demo-01", "demo-03")} == {OrderState.WORKING})
        until(lambda: booked(o, "demo-04", missed))
        assert o.findings()["okx demo"].startswith("our clock"), "and while it is wrong, nothing is proven absent"
        until(lambda: states(o, plan_id)["demo-02"] is OrderState.UNKNOWN)
        # Wrong as it is: what is asked and told goes by the venue's clock, in order, and its watermarks do.
        ahead_ms = o.venue.post("/clock", {"shift_ms": 0})["now_ms"]
        assert all(before[a] <= ms <= ahead_ms for a, ms in watermarks(o).items())
        put(offset, 0)
        until(lambda: o.all_proven(4) and "okx demo" not in o.findings())
        assert set(at_venue(o).values()) == {1}


@pytest.mark.timeout(60)
def test_a_venue_whose_clock_moves_away_refuses_us_once_and_is_followed(tmp_path: Path) -> None:
    with office(tmp_path / "o", 1, more=NO_BUDGETS + QUICK) as o, o.engine():
        until(lambda: o.all_proven(1), 40.0)
        o.venue.post("/clock", {"shift_ms": HOUR_MS})
        missed = o.elsewhere("demo-01", type="market")
        o.control.post("/backfill", {})
        until(lambda: booked(o, "demo-01", missed))
        until(lambda: o.all_proven(1))
        o.execute(o.approved(["demo-01"]))
        until(lambda: len(at_venue(o)) == 1)


def put(offset: Path, off_ms: int) -> None:
    """Whoever reads meanwhile sees the one or the other."""
    draft = offset.with_suffix(".new")
    draft.write_text(str(off_ms))
    draft.replace(offset)


def watermarks(o: Office) -> dict[str, int]:
    with reader(o.url) as conn:
        return gaps.watermarks(conn, gaps.HISTORY)


def states(o: Office, plan_id: str) -> dict[str, OrderState]:
    return {child.account_id: child.state for child in o.children(plan_id)}
