"""`unisono orders settle`: what a person says reaches the engine as it was said, and what it refuses is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio.lowlevel
import pytest
from anyio.from_thread import start_blocking_portal
from typer.testing import CliRunner, Result

from accounts.registry import Registry
from engine.cli import app
from engine.control.server import Rejected, serve
from engine.ledger import upgrade
from engine.settle import Settled


class Office:
    """Takes a word, and keeps it."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []
        self.refuses = ""

    async def settle_order(
        self, order_id: str, word: str, venue_order_id: str, *, by: str, why: str, unasked: bool, rehearse: bool
    ) -> Settled:
        if self.refuses:
            raise Rejected(self.refuses)
        assert by, "the person behind it is named"
        self.said.append((order_id, word, venue_order_id, why, unasked, rehearse))
        now = "unknown" if rehearse else "not_placed"
        return Settled(
            account_id="ann", client_order_id=order_id, was="unknown", now=now, what=word, rehearsed=rehearse
        )


class Desk:
    def __init__(self, folder: Path) -> None:
        self.config, self.door = folder / "unisono.toml", folder / "door"
        self.url = f"sqlite:///{folder / 'unisono.sqlite'}"
        self.config.write_text(f'[database]\nurl = "{self.url}"\n[control]\nsocket = "{self.door}"\n', "utf-8")

    def run(self, *words: str) -> Result:
        env = {"UNISONO_CONFIG": str(self.config), "COLUMNS": "200"}
        return CliRunner().invoke(app, ["orders", *words], env=env)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def office(desk: Desk) -> Iterator[Office]:
    office: Any = Office()
    with start_blocking_portal("asyncio") as portal:
        serving = portal.start_task_soon(serve, office, str(desk.door))
        while not desk.door.exists() and not serving.done():
            portal.call(anyio.lowlevel.checkpoint)
        yield office
        serving.cancel()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--as", "not-placed"), ("o1", "not-placed", "", "looked", False, False)),
        (("--as", "placed=v9"), ("o1", "placed", "v9", "looked", False, False)),
        (("--as", "accepted", "--unasked"), ("o1", "accepted", "", "looked", True, False)),
        (("--as", "not-placed", "--dry-run"), ("o1", "not-placed", "", "looked", False, True)),
    ],
)
def test_what_was_said_reaches_the_engine(
    desk: Desk, office: Office, words: tuple[str, ...], said: tuple[Any, ...]
) -> None:
    told = desk.run("settle", "o1", *words, "--why", "looked")
    assert told.exit_code == 0
    assert office.said == [said]
    assert ("would be settled" if "--dry-run" in words else "unknown → not_placed") in told.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("--as", "not-placed"),
        ("--as", "placed", "--why", "looked"),
        ("--as", "accepted=v9", "--why", "looked"),
    ],
)
def test_what_was_said_badly_does_not(desk: Desk, office: Office, words: tuple[str, ...]) -> None:
    told = desk.run("settle", "o1", *words)
    assert told.exit_code == 3
    assert "Nothing was settled" in told.stderr
    assert office.said == []


def test_a_refusal_is_told_with_its_reason(desk: Desk, office: Office) -> None:
    office.refuses = "order o1 may still show at the venue for 12 s"
    told = desk.run("settle", "o1", "--as", "not-placed", "--why", "looked")
    assert told.exit_code == 3
    assert "for 12 s" in told.stderr


def test_without_more_words_orders_are_listed(desk: Desk) -> None:
    upgrade(desk.url)
    with Registry(desk.url) as registry:
        registry.upgrade()
    told = desk.run("--json")
    assert (told.exit_code, told.stdout) == (0, "[]\n")
