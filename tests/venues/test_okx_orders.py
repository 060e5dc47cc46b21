"""Orders at OKX: what is sent, and what an answer proves."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from engine.core.facts import Side
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.orders import Accepted, Amend, Cancel, Command, OrderType, Outcome, Place, Refused, Unknown
from engine.core.venue import Conversation, Response
from engine.venues import venues
from engine.venues.okx.errors import MEANINGS
from tests.venues.samples import NOW_MS, NoInstruments, converse, wire

OKX = venues()["okx"]
REST = OKX.rest(NoInstruments(), ref="", options={})

SWAP = Instrument(
    name="ETH/USDT:USDT",
    venue="okx",
    kind=InstrumentKind.SWAP,
    base="ETH",
    quote="USDT",
    settle="USDT",
    unit="contract",
    multiplier=Decimal("0.1"),
    quantity_step=Decimal("0.01"),
    min_quantity=Decimal("0.01"),
    price_tick=Decimal("0.01"),
    venue_ref="SWAP|ETH-USDT-SWAP|20880",
)
SPOT = msgspec.structs.replace(
    SWAP, name="DOGE/USDT", kind=InstrumentKind.SPOT, venue_ref="SPOT|DOGE-USDT|10077", multiplier=Decimal(1)
)


def place(number: int = 1, **changes: Any) -> Place:
    fields: dict[str, Any] = {
        "client_order_id": f"{number:032x}",
        "instrument": SWAP,
        "side": Side.BUY,
        "order_type": OrderType.LIMIT,
        "quantity": Decimal("1.50"),
        "price": Decimal("3100.5"),
        "expires_at_ms": NOW_MS + 10_000,
    }
    return Place(**{**fields, **changes})


def amend(number: int = 1) -> Amend:
    return Amend(
        client_order_id=f"{number:032x}",
        venue_order_id=f"70{number}",
        instrument=SWAP,
        amend_id=f"am{number}",
        new_quantity=Decimal("1E+1"),
        expires_at_ms=NOW_MS + 10_000,
    )


def cancel(number: int = 1) -> Cancel:
    return Cancel(client_order_id=f"{number:032x}", venue_order_id=f"70{number}", instrument=SWAP)


def private() -> Conversation:
    conversation = converse(OKX, "private", [])
    conversation.open(NOW_MS)
    return conversation


def answered(commands: list[Command], answer: dict[str, Any]) -> tuple[Outcome, ...]:
    conversation = private()
    sent = json.loads(conversation.say(commands, "r1", NOW_MS))
    (reply,) = conversation.hear(wire({"id": "r1", "op": sent["op"], **answer}), NOW_MS).replies
    assert reply.request_id == "r1"
    return reply.outcomes


def row(number: int, code: str = "0", **changes: str) -> dict[str, str]:
    return {"ordId": f"70{number}", "clOrdId": f"{number:032x}", "sCode": code, "sMsg": "", **changes}


# ---- What is sent


@pytest.mark.parametrize(
    ("commands", "op", "path"),
    [
        ([place()], "order", "order"),
        ([place(1), place(2)], "batch-orders", "batch-orders"),
        ([amend()], "amend-order", "amend-order"),
        ([amend(1), amend(2)], "batch-amend-orders", "amend-batch-orders"),
        ([cancel()], "cancel-order", "cancel-order"),
        ([cancel(1), cancel(2)], "batch-cancel-orders", "cancel-batch-orders"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_the_same_commands_over_both_ways(commands: list[Command], op: str, path: str) -> None:
    said = json.loads(private().say(commands, "r1", NOW_MS))
    request = REST.orders_request(commands)
    posted = json.loads(request.body)
    assert (said["id"], said["op"]) == ("r1", op)
    assert (request.method, request.path) == ("POST", f"/api/v5/trade/{path}")
    assert isinstance(posted, list) is (len(commands) > 1)
    for over_stream, over_http in zip(said["args"], posted if isinstance(posted, list) else [posted], strict=True):
        assert over_stream.pop("instIdCode") == 20880
        assert over_http.pop("instId") == "ETH-USDT-SWAP"
        assert over_stream == over_http


def test_the_earliest_deadline_of_a_batch_holds_for_all_and_cancels_have_none() -> None:
    batch = [place(1), place(2, expires_at_ms=NOW_MS + 4_000)]
    assert json.loads(private().say(batch, "r1", NOW_MS))["expTime"] == str(NOW_MS + 4_000)
    assert REST.orders_request(batch).headers == (("expTime", str(NOW_MS + 4_000)),)
    assert "expTime" not in json.loads(private().say([cancel()], "r1", NOW_MS))
    assert REST.orders_request([cancel()]).headers == ()


def test_numbers_go_out_without_exponents_and_as_they_were_told() -> None:
    assert json.loads(private().say([amend()], "r1", NOW_MS))["args"][0]["newSz"] == "10"
    assert json.loads(private().say([place()], "r2", NOW_MS))["args"][0]["sz"] == "1.50"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, {"tdMode": "cross", "ordType": "limit", "px": "3100.5"}),
        ({"margin_mode": "isolated"}, {"tdMode": "isolated"}),
        ({"order_type": OrderType.POST_ONLY}, {"ordType": "post_only"}),
        ({"order_type": OrderType.IOC}, {"ordType": "ioc"}),
        ({"order_type": OrderType.FOK}, {"ordType": "fok"}),
        ({"order_type": OrderType.MARKET, "price": None}, {"ordType": "market", "px": None, "tgtCcy": None}),
        ({"reduce_only": True}, {"reduceOnly": True, "posSide": None}),
        ({"position_side": "long"}, {"posSide": "long", "reduceOnly": None}),
        ({"position_side": "short", "reduce_only": True}, {"posSide": "short", "reduceOnly": None}),
        ({"instrument": SPOT, "margin_mode": "cash", "reduce_only": True}, {"tdMode": "cash", "reduceOnly": None}),
        (
            {"instrument": SPOT, "margin_mode": "cash", "order_type": OrderType.MARKET, "price": None},
            {"tgtCcy": "base_ccy", "sz": "1.50"},
        ),
        ({"instrument": SPOT, "margin_mode": "cash"}, {"tgtCcy": None}),
    ],
    ids=str,
)
def test_how_an_order_is_put(changes: dict[str, Any], told: dict[str, Any]) -> None:
    arg = json.loads(private().say([place(**changes)], "r1", NOW_MS))["args"][0]
    assert {name: arg.get(name) for name in told} == told


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"instrument": msgspec.structs.replace(SWAP, venue_ref="SWAP|ETH-USDT-SWAP|")}, "instIdCode"),
        ({"price": None}, "needs a price"),
        ({"order_type": OrderType.MARKET}, "takes no price"),
        ({"reduce_only": True, "position_side": "long"}, "opens a long"),
        ({"reduce_only": True, "position_side": "short", "side": Side.SELL}, "opens a short"),
        (
            {"instrument": SPOT, "margin_mode": "isolated", "order_type": OrderType.MARKET, "price": None},
            "quote currency",
        ),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_an_order_that_would_mean_something_else_is_not_put_at_all(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        private().say([place(**changes)], "r1", NOW_MS)


@pytest.mark.parametrize(
    "commands",
    [[], [place(n) for n in range(21)], [place(), cancel()]],
    ids=["nothing", "too many", "of two kinds"],
)
def test_a_batch_that_the_venue_has_no_words_for(commands: list[Command]) -> None:
    with pytest.raises(ValueError, match="batch"):
        private().say(commands, "r1", NOW_MS)
    with pytest.raises(ValueError, match="batch"):
        REST.orders_request(commands)


@pytest.mark.parametrize("request_id", ["", "r-1", "r 1", "ж1", "a" * 33])
def test_a_request_id_that_the_venue_would_refuse(request_id: str) -> None:
    with pytest.raises(ValueError, match="request id"):
        private().say([place()], request_id, NOW_MS)


@pytest.mark.parametrize(
    ("commands", "rules", "units"),
    [
        ([place()], ("place", "orders-all"), 1),
        ([place(1), place(2), place(3)], ("place-batch", "orders-all"), 3),
        ([amend()], ("amend", "orders-all"), 1),
        ([cancel(1), cancel(2)], ("cancel-batch",), 2),
    ],
    ids=lambda v: str(v[0]) if isinstance(v, tuple) else "",
)
def test_a_batch_counts_each_of_its_orders_against_declared_rules(
    commands: list[Command], rules: tuple[str, ...], units: int
) -> None:
    request = REST.orders_request(commands)
    assert (request.rules, request.units, request.rule_key) == (rules, units, "ETH/USDT:USDT")
    assert set(rules) <= {rule.name for rule in OKX.rates}


# ---- What an answer proves


@pytest.mark.parametrize(
    ("command", "code", "expected"),
    [
        (place(), "51008", Refused),
        (place(), "50036", Refused),
        (place(), "50061", Refused),
        (place(), "50013", Refused),
        (place(), "50102", Refused),
        (place(), "50101", Refused),
        (place(), "51400", Refused),
        (place(), "58888", Refused),
        (place(), "51016", Unknown),
        (place(), "50071", Unknown),
        (place(), "51065", Unknown),
        (place(), "50042", Unknown),
        (place(), "50004", Unknown),
        (place(), "51149", Unknown),
        (place(), "51054", Unknown),
        (place(), "50026", Unknown),
        (place(), "", Unknown),
        (place(), "7", Unknown),
        (place(), "61234", Unknown),
        (cancel(), "51412", Unknown),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_one_orders_own_code_proves(command: Command, code: str, expected: type[Outcome]) -> None:
    (outcome,) = answered([command], {"code": "1", "msg": "", "data": [row(1, code)]})
    assert type(outcome) is expected
    assert not getattr(outcome, "target_gone", False)


@pytest.mark.parametrize("code", ["51400", "51401", "51402", "51405", "51410", "51503", "51509", "51510", "51603"])
@pytest.mark.parametrize("command", [cancel(), amend()], ids=["cancel", "amend"])
def test_a_target_that_is_gone(command: Command, code: str) -> None:
    (outcome,) = answered([command], {"code": "1", "data": [row(1, code)]})
    assert isinstance(outcome, Refused)
    assert outcome.target_gone


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("60011", Refused),
        ("60012", Refused),
        ("60013", Refused),
        ("60014", Refused),
        ("50011", Refused),
        ("50004", Unknown),
        ("0", Unknown),
        ("1", Unknown),
        ("2", Unknown),
        ("59999", Unknown),
        ("", Unknown),
    ],
)
def test_what_a_code_for_the_whole_request_proves(code: str, expected: type[Outcome]) -> None:
    outcomes = answered([place(1), place(2)], {"code": code, "msg": "", "data": []})
    assert [type(outcome) for outcome in outcomes] == [expected, expected]


def test_rows_are_matched_by_their_ids_not_by_their_place() -> None:
    answer = {"code": "2", "data": [row(2, "51008", ordId=""), row(1)]}
    accepted, refused = answered([place(1), place(2)], answer)
    assert accepted == Accepted("701")
    assert isinstance(refused, Refused)


def test_rows_without_ids_are_matched_by_their_place_when_all_are_there() -> None:
    nameless = {"clOrdId": "", "ordId": ""}
    batch: list[Command] = [place(1), place(2)]
    both = [row(1, "51008", **nameless), row(2, "51121", **nameless)]
    assert [o.code for o in answered(batch, {"code": "1", "data": both}) if isinstance(o, Refused)] == [
        "51008",
        "51121",
    ]
    assert [type(o) for o in answered(batch, {"code": "1", "data": both[:1]})] == [Unknown, Unknown]


def test_an_answer_about_somebody_else_proves_nothing() -> None:
    assert [type(o) for o in answered([place(1)], {"code": "0", "data": [row(9)]})] == [Unknown]


def test_two_answers_about_one_order_prove_nothing() -> None:
    assert [type(o) for o in answered([place(1)], {"code": "2", "data": [row(1), row(1, "51008")]})] == [Unknown]


def test_accepted_without_an_order_id_is_to_be_asked_about() -> None:
    assert [type(o) for o in answered([place(1)], {"code": "0", "data": [row(1, ordId="")]})] == [Unknown]


def test_an_answer_counts_once() -> None:
    conversation = private()
    conversation.say([place()], "r1", NOW_MS)
    answer = wire({"id": "r1", "op": "order", "code": "0", "data": [row(1)]})
    assert len(conversation.hear(answer, NOW_MS).replies) == 1
    assert not conversation.hear(answer, NOW_MS).replies


def test_every_known_code_ends_in_an_outcome_for_every_kind_of_command() -> None:
    for code in MEANINGS:
        for command in (place(), amend(), cancel()):
            for answer in ({"code": "1", "data": [row(1, code)]}, {"code": code, "data": []}):
                (outcome,) = answered([command], answer)
                assert isinstance(outcome, Refused | Unknown)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, {"code": "0", "data": [row(1)]}, Accepted),
        (200, {"code": "1", "data": [row(1, "51008", ordId="")]}, Refused),
        (429, {"code": 50011, "msg": "Requests too frequent."}, Refused),
        (429, "<html>slow down</html>", Refused),
        (429, {"code": "", "msg": ""}, Refused),
        (401, {"code": "50113", "msg": "Invalid Sign", "data": []}, Refused),
        (400, {"code": "70000", "msg": "?", "data": []}, Unknown),
        (403, "<html>no</html>", Unknown),
        (500, {"code": "51149", "msg": "timed out", "data": []}, Unknown),
        (500, {"code": "50026", "msg": "system error", "data": []}, Unknown),
        (503, {"code": "50001", "msg": "unavailable", "data": []}, Unknown),
        (502, "<html>Bad Gateway</html>", Unknown),
        (200, "", Unknown),
        (200, "[]", Unknown),
        (200, '{"code":"0","data":[{"sCode":0}]}', Unknown),
    ],
    ids=str,
)
def test_what_an_answer_over_http_proves(status: int, body: Any, expected: type[Outcome]) -> None:
    (outcome,) = REST.read_outcomes([place(1)], Response(status=status, body=wire(body)))
    assert type(outcome) is expected
