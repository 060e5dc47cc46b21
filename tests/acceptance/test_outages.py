"""While the database cannot be written no order leaves, the operator is told, and nothing that was heard is lost."""

from __future__ import annotations

import resource
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager

import pytest

from engine.core.orders import OrderState
from engine.ledger import questions, reader
from tests.acceptance.office import NO_BUDGETS, Office, office, refused, until


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    more = NO_BUDGETS + "[ledger]\nbusy_timeout_s = 0.3\n[plans]\nduplicate_window_s = 0.001\n"
    with office(tmp_path_factory.mktemp("d"), 2, more=more) as one, one.engine():
        until(lambda: one.all_proven(2), 40.0)
        yield one


@contextmanager
def locked(desk: Office) -> Iterator[None]:
    """Another program holds the database's write lock."""
    with closing(sqlite3.connect(desk.folder / "unisono.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def disk_full(desk: Office) -> Iterator[None]:
    """No file of the engine may grow any more, its log included."""
    limits = resource.prlimit(desk.running.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(desk.running.pid, resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.prlimit(desk.running.pid, resource.RLIMIT_FSIZE, limits)


@contextmanager
def read_only(desk: Office) -> Iterator[None]:
    """What a file system does that was remounted after an error: handles that are open already write no more.

    Not the side file that SQLite maps into memory: the kernel ends who writes there (SIGBUS), and whether somebody does
    before the file can be written again is a matter of chance. That end is a kill -9 like any other.
    """
    files = [str(file) for file in desk.folder.glob("unisono.sqlite*") if not file.name.endswith("-shm")]
    if subprocess.run(["chattr", "+i", *files], capture_output=True).returncode:
        subprocess.run(["chattr", "-i", *files], capture_output=True)
        pytest.skip("only root, and on some file systems only, can make a file immutable")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", *files], check=True)


@pytest.mark.parametrize("outage", [locked, disk_full, read_only])
def test_an_outage_of_the_database_sends_nothing_and_loses_nothing(
    desk: Office, outage: Callable[[Office], AbstractContextManager[None]]
) -> None:
    plan_id = desk.approved(["demo-01"])
    with outage(desk):
        elsewhere = desk.elsewhere("demo-02", type="market")
        until(lambda: "ledger" in desk.findings(), 10.0)
        no = refused(lambda: desk.execute(plan_id))
        assert "Nothing was sent" in str(no)
        checked = desk.cli("doctor")
        assert checked.returncode == 1
        assert "No order is sent" in " ".join(checked.stdout.split())
        assert desk.child(plan_id).client_order_id not in [o["clOrdId"] for o in desk.orders("demo-01")]
    until(lambda: "ledger" not in desk.findings(), 10.0)

    def booked() -> bool:
        with reader(desk.url) as conn:
            return elsewhere in [row.fill.venue_order_id for row in questions.fills(conn, "demo-02")]

    until(booked)
    desk.execute(plan_id)
    until(lambda: desk.child(plan_id).state is OrderState.WORKING)
    assert desk.control.get("/status")["proven"] == 2
