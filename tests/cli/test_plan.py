"""`unisono plan …` as a person types it: against a control door on a Unix socket and a ledger on the disk."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import anyio
import pytest
from anyio.from_thread import start_blocking_portal
from typer.testing import CliRunner, Result

from engine.cli.plan import app
from engine.config import Ledger as LedgerSettings
from engine.control.server import Rejected, serve
from engine.core.drafts import PlanRefused, read_draft
from engine.core.plans import Child, Plan, PlanState
from engine.ledger import Ledger, plans
from engine.plan import Planner
from tests.fakes import FakeClock
from tests.plan_world import NOW_MS, RULES, SWAP, VENUE, FakeAccount, FakeAccounts, FakeMarket

SENT = {
    "state": "executing",
    "total": 3,
    "sent": 3,
    "acknowledged": 3,
    "working": 0,
    "filled": 3,
    "refused": 0,
    "unknown": 0,
    "skipped": 0,
    "ended": 3,
    "settled": True,
    "quantity": "30",
    "filled_quantity": "30",
    "first_sent_ms": NOW_MS,
    "last_sent_ms": NOW_MS + 7,
}


class LedgerPlans:
    """The store that planning writes to, in a real ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def load(self, plan_id: str) -> Plan | None:
        with self._ledger.read() as conn:
            return plans.load_plan(conn, plan_id)

    async def unfinished(self) -> Sequence[Plan]:
        raise AssertionError("nobody sweeps here")

    async def save(self, plan: Plan, was: PlanState | None) -> bool:
        return await self._ledger.write(lambda conn: plans.save_plan(conn, plan, was, NOW_MS))

    async def save_approved(self, plan: Plan, children: Sequence[Child]) -> bool:
        return await self._ledger.write(lambda conn: plans.save_approved(conn, plan, children, NOW_MS))


class Office:
    """An engine's plan verbs: planning is real, sending only tells what it was asked."""

    def __init__(self, url: str) -> None:
        self.accounts = FakeAccounts(*(FakeAccount(f"a{n}") for n in range(3)))
        self.ledger = Ledger.open(url, LedgerSettings(), FakeClock(NOW_MS))
        self.asked: list[Any] = []
        self.told: dict[str, Any] = SENT
        self._planner = Planner(
            accounts=self.accounts,
            market=FakeMarket(),
            store=LedgerPlans(self.ledger),
            venues={VENUE.name: VENUE},
            rules=RULES,
            clock=FakeClock(NOW_MS),
            rng=Random(1),
        )

    async def draft_plan(self, body: dict[str, Any]) -> Any:
        return await _or_rejected(self._planner.draft, lambda: read_draft(body))

    async def preview_plan(self, plan_id: str) -> Any:
        return await _or_rejected(self._planner.preview, lambda: plan_id)

    async def approve_plan(self, plan_id: str, by: str) -> Any:
        return (await _or_rejected(lambda one: self._planner.approve(one, by), lambda: plan_id))[0]

    async def discard_plan(self, plan_id: str, by: str) -> Any:
        return await _or_rejected(lambda one: self._planner.discard(one, by), lambda: plan_id)

    async def execute_plan(self, plan_id: str, by: str) -> Any:
        self.asked.append(("execute", plan_id, by))
        return {**self.told, "acknowledged": 0, "filled": 0, "settled": False}

    async def watch_plan(self, plan_id: str) -> AsyncIterator[Any]:
        yield {**self.told, "settled": False}
        yield self.told

    async def cancel_plan(self, plan_id: str, by: str) -> Any:
        self.asked.append(("cancel", plan_id, by))
        return {"asked": 2}

    async def amend_plan(self, plan_id: str, *, price: Any, factor: Any, by: str) -> Any:
        self.asked.append(("amend", plan_id, price, factor, by))
        return {"asked": 2}


async def _or_rejected(verb: Any, argument: Any) -> Any:
    try:
        return await verb(argument())
    except PlanRefused as refused:
        raise Rejected(str(refused), "refused") from None


class Desk:
    """A person at a terminal that is none: commands in, exit codes and text out."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.config = folder, folder / "unisono.toml"
        self.url = f"sqlite:///{folder / 'unisono.sqlite'}"
        self.config.write_text(
            f'[database]\nurl = "{self.url}"\n[control]\nsocket = "{folder / "door"}"\n', encoding="utf-8"
        )

    def run(self, *words: str, user: str = "ann") -> Result:
        env = {"USER": user, "SUDO_USER": "", "UNISONO_CONFIG": str(self.config), "TERM": "dumb"}
        return CliRunner().invoke(app, list(words), env=env)

    def json(self, *words: str, code: int = 0, user: str = "ann") -> Any:
        told = self.run(*words, "--json", user=user)
        assert told.exit_code == code, told.output
        return json.loads(told.stdout)

    def drafted(self) -> str:
        plan = self.json("new", "-g", "all", "-i", SWAP, "-m", "equal", "-s", "buy", "-q", "30", "-t", "market")
        return str(plan["plan_id"])

    def approved(self) -> str:
        plan_id = self.drafted()
        self.json("preview", plan_id)
        self.json("approve", plan_id, "--yes")
        return plan_id


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def office(desk: Desk) -> Iterator[Office]:
    office, door = Office(desk.url), desk.folder / "door"
    with start_blocking_portal("asyncio") as portal:
        serving = portal.start_task_soon(serve, office, str(door))
        while not door.exists() and not serving.done():
            portal.call(anyio.lowlevel.checkpoint)
        yield office
        serving.cancel()
    office.ledger.close()


def test_a_plan_goes_from_draft_to_sent(desk: Desk, office: Office) -> None:
    plan_id = desk.drafted()
    shown = desk.json("preview", plan_id)
    assert [row["quantity"] for row in shown["preview"]["rows"]] == ["10", "10", "10"]
    approved = desk.json("approve", plan_id, "--yes", user="bob")
    assert approved["approval"]["by"] == "bob"
    assert desk.json("execute", plan_id, "--yes", user="bob") == SENT
    assert office.asked == [("execute", plan_id, "bob")]
    kept = desk.json("show", plan_id)
    assert kept["plan"] == approved
    assert [child["account_id"] for child in kept["children"]] == ["a0", "a1", "a2"]


def test_the_grid_is_for_people_too(desk: Desk, office: Office) -> None:
    office.accounts.accounts["a1"].live = False
    office.accounts.accounts["a1"].phase = "down"
    told = desk.run("preview", desk.drafted())
    assert told.exit_code == 1
    for words in ("2 of 3", "10 contract stay with nobody", "account_not_live", "Nothing was sent"):
        assert words in told.stdout


@pytest.mark.parametrize(
    ("outcome", "code", "says"),
    [
        ({}, 0, "3 filled"),
        ({"filled": 2, "refused": 1, "filled_quantity": "20"}, 1, "1 refused"),
        ({"sent": 2, "filled": 2, "skipped": 1}, 1, "1 skipped"),
        ({"acknowledged": 1, "filled": 1, "refused": 1, "unknown": 1}, 2, "1 unknown"),
    ],
)
def test_the_exit_code_says_how_it_went(desk: Desk, office: Office, outcome: Any, code: int, says: str) -> None:
    office.told = {**SENT, **outcome}
    told = desk.run("execute", desk.approved(), "--yes")
    assert told.exit_code == code, told.output
    assert says in told.stdout


def test_what_the_engine_refuses_ends_with_one_and_its_reason(desk: Desk, office: Office) -> None:
    told = desk.run("approve", desk.drafted(), "--yes")
    assert told.exit_code == 1
    assert "is draft and cannot become approved" in told.stderr


@pytest.mark.parametrize("verb", ["approve", "execute", "cancel"])
def test_without_a_yes_nothing_is_asked_of_the_engine(desk: Desk, office: Office, verb: str) -> None:
    told = desk.run(verb, "P1")
    assert told.exit_code == 3
    assert "--yes" in told.stderr
    assert office.asked == []


def test_orders_at_work_are_cancelled_and_amended(desk: Desk, office: Office) -> None:
    assert desk.json("cancel", "P1", "--yes") == {"asked": 2}
    assert desk.json("amend", "P1", "--price", "49900.10", "--yes") == {"asked": 2}
    assert desk.json("amend", "P1", "--factor", "0.5", "--yes") == {"asked": 2}
    cancel, price, factor = office.asked
    assert cancel == ("cancel", "P1", "ann")
    assert [str(number) for number in price[2:4]] == ["49900.10", "None"]
    assert [str(number) for number in factor[2:4]] == ["None", "0.5"]


def test_a_discarded_plan_leaves_the_list_and_is_kept(desk: Desk, office: Office) -> None:
    kept, given_up = desk.drafted(), desk.drafted()
    assert desk.json("discard", given_up)["note"] == "discarded by ann"
    assert [plan["plan_id"] for plan in desk.json("list")] == [kept]
    assert {plan["plan_id"] for plan in desk.json("list", "--all")} == {kept, given_up}
    assert given_up in desk.run("list", "--all").stdout


def test_units_name_their_accounts_themselves(desk: Desk, office: Office) -> None:
    plan = desk.json("new", "-i", SWAP, "-m", "units", "-s", "sell", "--units", "a0=5, a2=2.5", "-t", "market")
    assert plan["accounts"] == ["a0", "a2"]
    assert plan["legs"][0]["units"] == {"a0": "5", "a2": "2.5"}


def test_a_plan_file_is_drafted_whole(desk: Desk, office: Office) -> None:
    file = desk.folder / "plan.toml"
    file.write_text(
        f"""
        title = "From a file"
        groups = ["all"]
        expires_minutes = 5
        [[legs]]
        instrument = "{SWAP}"
        method = "nav_percent"
        side = "buy"
        percent = 0.5
        price = 50000.1
        """,
        encoding="utf-8",
    )
    plan = desk.json("new", "--file", str(file))
    assert (plan["title"], plan["created_by"]) == ("From a file", "ann")
    assert plan["expires_at_ms"] == NOW_MS + 300_000
    assert (plan["legs"][0]["percent"], plan["legs"][0]["price"]) == ("0.5", "50000.1")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["new", "-g", "all", "-i", SWAP], "needs --instrument and --method"),
        (["new", "-g", "all", "-i", SWAP, "-m", "equal", "-q", "many"], "is no number"),
        (["new", "-g", "all", "-i", SWAP, "-m", "equal", "-q", "NaN"], "is no number"),
        (["new", "-i", SWAP, "-m", "units", "--units", "a0"], "is not ACCOUNT=QUANTITY"),
        (["new", "-i", SWAP, "-m", "units", "--units", "a0=1,a0=2"], "a0 is given twice"),
        (["new", "--file", "absent.toml"], "cannot be read"),
        (["new", "--file", "absent.toml", "-g", "all"], "not from both"),
        (["amend", "P1", "--yes"], "needs --price or --factor"),
    ],
)
def test_a_bad_call_is_said_before_the_engine_is_asked(desk: Desk, words: list[str], says: str) -> None:
    told = desk.run(*words)  # there is no engine: asking it would say so
    assert told.exit_code == 3, told.output
    assert says in " ".join(told.stderr.replace("│", " ").split())


def test_a_draft_that_is_refused_leaves_nothing_behind(desk: Desk, office: Office) -> None:
    for words, says in (
        (["-g", "all", "-m", "equal", "-s", "buy"], "method equal needs quantity"),
        (["-g", "none", "-m", "equal", "-s", "buy", "-q", "1"], "there is no group none"),
    ):
        told = desk.run("new", "-i", SWAP, "-t", "market", *words)
        assert told.exit_code == 1
        assert says in told.stderr
    assert desk.json("list", "--all") == []
    told = desk.run("show", "P0")
    assert told.exit_code == 3
    assert "there is no plan P0" in told.stderr


def test_without_an_engine_reads_work_and_verbs_say_so(desk: Desk) -> None:
    Ledger.open(desk.url, LedgerSettings(), FakeClock(NOW_MS)).close()
    assert desk.json("list") == []
    told = desk.run("preview", "P1")
    assert told.exit_code == 3
    assert "no engine answers" in told.stderr
