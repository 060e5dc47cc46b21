"""`unisono plan …` as a person types it: against a control door on a Unix socket and a ledger on the disk."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import anyio
import msgspec
import pytest
from anyio.from_thread import start_blocking_portal
from typer.testing import CliRunner, Result

from accounts.model import Mandate, Model, ModelLine
from accounts.registry import Registry
from engine.cli.plan import app
from engine.cli.rebalance import app as rebalancing
from engine.config import Ledger as LedgerSettings
from engine.control.server import Rejected, serve
from engine.core.drafts import PlanRefused, read_draft
from engine.core.orders import OrderState
from engine.core.plans import Child, Plan, PlanState
from engine.ledger import Ledger, plans
from engine.plan import Planner
from tests.fakes import FakeClock
from tests.plan_world import BTC, NOW_MS, RULES, SWAP, VENUE, FakeAccount, FakeAccounts, FakeMarket

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

    async def override_plan(self, plan_id: str, code: str, account_id: str, *, by: str, why: str, minutes: int) -> Any:
        async def override(one: str) -> Plan:
            return await self._planner.override(one, code, account_id, by=by, why=why, minutes=minutes)

        return await _or_rejected(override, lambda: plan_id)

    async def rebalance(self, model: Any, groups: list[str], accounts: list[str], *, currency: str, by: str) -> Any:
        found = self._planner.rebalance(msgspec.convert(model, Model, strict=False), groups, accounts, currency)
        if not by:
            return found
        plan = await _or_rejected(lambda one: self._planner.propose(one, by), lambda: found)
        return msgspec.structs.replace(found, plan_id=plan.plan_id)

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


def test_a_denial_is_overridden_with_a_reason_or_not_at_all(desk: Desk, office: Office) -> None:
    office.accounts.accounts["a0"].mandate = Mandate(account_id="a0", max_order_notional=Decimal(100))
    plan_id = desk.drafted()
    desk.json("preview", plan_id, code=1)
    assert "says why" in desk.run("override", plan_id, "order_notional").output
    kept = desk.run("override", plan_id, "buying_power", "--why", "x")
    assert kept.exit_code == 1
    assert "not for anybody to set aside" in " ".join(kept.output.split())
    told = desk.json("override", plan_id, "order_notional", "-a", "a0", "--why", "letter", "--minutes", "5", user="bob")
    assert [(o["code"], o["by"], o["why"]) for o in told["overrides"]] == [("order_notional", "bob", "letter")]
    assert all(not row["denials"] for row in told["preview"]["rows"])


def test_policies_and_stops_are_drafted_as_they_were_typed(desk: Desk, office: Office) -> None:
    plan = desk.json(
        "new", "-g", "all", "-i", SWAP, "-m", "risk", "-s", "buy", "-p", "1", "--stop-price", "48000",
        "-t", "stop_limit", "--trigger", "51000", "--price", "51100", "--cannot", "reduce", "--below-minimum", "raise",
        "--cap", "5000", "--queue", "10",
    )  # fmt: skip
    [leg] = plan["legs"]
    assert (leg["stop_price"], leg["trigger_price"], leg["price"]) == ("48000", "51000", "51100")
    assert (plan["cannot"], plan["below_minimum"], plan["cap_notional"], plan["offline"]) == (
        "reduce",
        "raise",
        "5000",
        "queue",
    )
    shown = desk.run("show", plan["plan_id"])
    assert "1 % of each account's net asset value at risk to 48000" in " ".join(shown.stdout.split())


def ended(office: Office, plan_id: str, filled: str) -> None:
    """The plan as it is once the venue is done with it: each order was sent, and got so much."""
    with office.ledger.read() as conn:
        plan, orders = plans.load_plan(conn, plan_id), plans.load_children(conn, [plan_id])
    assert plan is not None

    def write(conn: Any) -> None:
        for n, child in enumerate(orders):
            done = msgspec.structs.replace(
                child,
                state=OrderState.CANCELLED,
                filled=Decimal(filled),
                avg_price=Decimal(50_000 + n),
                sent_at_ms=NOW_MS + n,
                acknowledged_at_ms=NOW_MS + n + 5,
                filled_at_ms=NOW_MS + n + 9,
            )
            plans.record_changes(conn, [plans.Change(child, done)])
        plans.save_plan(conn, msgspec.structs.replace(plan, state=PlanState.DONE_WITH_SHORTFALL), plan.state, NOW_MS)

    anyio.run(office.ledger.write, write)


def test_a_plan_tells_how_fair_it_was_and_what_is_left_becomes_a_plan(
    desk: Desk, office: Office, tmp_path: Path
) -> None:
    plan_id = desk.approved()
    assert "is not settled" in " ".join(desk.run("complete", plan_id).output.split())
    ended(office, plan_id, "4")
    told = desk.json("show", plan_id, "--html", str(tmp_path / "plan.html"))
    [leg] = told["fairness"]
    assert (leg["orders"], leg["sent_skew_ms"], leg["average"]) == (3, 2, "50001")
    assert "Fairness" in desk.run("show", plan_id).stdout
    page = (tmp_path / "plan.html").read_text(encoding="utf-8")
    assert plan_id in page
    assert "Sent within 2 ms" in page
    made = desk.json("complete", plan_id)
    assert (made["title"], made["legs"][0]["units"]) == (f"Completes {plan_id}", {"a0": "6", "a1": "6", "a2": "6"})


def test_a_rebalance_is_shown_and_proposed(desk: Desk, office: Office) -> None:
    with Registry(desk.url) as registry:
        registry.upgrade()
        line = ModelLine(instrument=BTC, weight=Decimal(50), band=Decimal(5))
        registry.set_model(Model(model_id="half", name="Half", cash=Decimal(50), lines=(line,)), by="ann", why="a test")
    office.accounts.accounts["a0"].positions = {BTC: {"net": Decimal(1)}}
    words = ["half", "-g", "all", "--config", str(desk.config)]
    shown = CliRunner().invoke(rebalancing, ["preview", *words])
    assert shown.exit_code == 1, shown.output
    assert "buy 1" in shown.stdout
    assert "a0" not in shown.stdout, "it is where it should be"
    told = CliRunner().invoke(rebalancing, ["propose", *words, "--json"])
    plan = desk.json("show", json.loads(told.stdout)["plan_id"])["plan"]
    assert [(leg["side"], leg["units"]) for leg in plan["legs"]] == [("buy", {"a1": "1.000", "a2": "1.000"})]
