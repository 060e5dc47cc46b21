"""One connection with OKX: what must follow what before it passes for live, and what ends it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from engine.core.facts import BalanceFact, FillFact, OrderFact, PositionFact
from engine.core.venue import Conversation, Heard, Notice
from engine.venues import venues
from engine.venues.okx.errors import MEANINGS
from tests.venues.samples import NOW_MS, Sample, converse, samples_of, wire

OKX = venues()["okx"]
LOGIN = {"event": "login", "code": "0", "msg": "", "connId": "c1"}
PRIVATE = [("orders", "ANY"), ("positions", "ANY"), ("balance_and_position", ""), ("account", "")]


def hear(conversation: Conversation, frame: Any) -> Heard:
    return conversation.hear(wire(frame), NOW_MS)


def notices(heard: Heard) -> list[Notice]:
    return [said.notice for said in heard.said]


def opened(kind: str = "private", channels: list[str] | None = None, **options: str) -> Conversation:
    conversation = converse(OKX, kind, channels, **options)
    conversation.open(NOW_MS)
    return conversation


def logged_in(channels: list[str] | None = None, **options: str) -> Conversation:
    conversation = opened("private", channels, **options)
    hear(conversation, LOGIN)
    return conversation


def ack(number: int, channel: str, inst_type: str = "", **arg: str) -> dict[str, Any]:
    narrowed = {"instType": inst_type} if inst_type else {}
    return {"id": f"s{number}", "event": "subscribe", "arg": {"channel": channel, **narrowed, **arg}}


# ---- Log in, then subscribe, then be ready


def test_nothing_is_subscribed_before_the_login_is_answered() -> None:
    conversation = converse(OKX, "private")
    (frame,) = conversation.open(NOW_MS)
    assert json.loads(frame)["op"] == "login"
    sent = [json.loads(frame) for frame in hear(conversation, LOGIN).frames]
    assert [request["op"] for request in sent] == ["subscribe"] * 4
    assert len({request["id"] for request in sent}) == 4
    assert all(len(request["args"]) == 1 for request in sent)


def test_ready_comes_once_with_the_last_acknowledgement_in_whatever_order() -> None:
    conversation = logged_in()
    told = [
        notices(hear(conversation, ack(number, channel, inst_type)))
        for number, (channel, inst_type) in reversed(list(enumerate(PRIVATE, start=1)))
    ]
    assert told == [[], [], [], [Notice.READY]]
    assert notices(hear(conversation, ack(1, "orders", "ANY"))) == [Notice.INFO]


def test_an_acknowledgement_of_something_else_makes_nothing_ready() -> None:
    conversation = logged_in(["orders"])
    for strange in (ack(2, "orders", "ANY"), ack(1, "orders", "SWAP"), ack(1, "positions", "ANY"), ack(1, "orders")):
        assert notices(hear(conversation, strange)) == [Notice.INFO]
    assert notices(hear(conversation, ack(1, "orders", "ANY"))) == [Notice.READY]


def test_a_private_connection_without_channels_is_ready_for_orders_after_the_login() -> None:
    conversation = opened(channels=[])
    assert notices(hear(conversation, LOGIN)) == [Notice.READY]


def test_a_second_login_event_subscribes_nothing_again() -> None:
    conversation = logged_in()
    again = hear(conversation, LOGIN)
    assert not again.frames
    assert notices(again) == [Notice.INFO]


def test_a_public_connection_subscribes_at_once_in_our_spelling_of_instruments() -> None:
    conversation = converse(OKX, "public", ["mark-price:BTC/USDT:USDT", "tickers:DOGE/USDT", "instruments:SWAP"])
    args = [json.loads(frame)["args"][0] for frame in conversation.open(NOW_MS)]
    assert args == [
        {"channel": "mark-price", "instId": "BTC-USDT-SWAP"},
        {"channel": "tickers", "instId": "DOGE-USDT"},
        {"channel": "instruments", "instType": "SWAP"},
    ]


def test_a_public_connection_without_channels_never_passes_for_ready() -> None:
    conversation = converse(OKX, "public", [])
    assert conversation.open(NOW_MS) == ()
    for frame in (LOGIN, ack(1, "tickers", instId="BTC-USDT"), "pong"):
        assert Notice.READY not in notices(hear(conversation, frame))


def test_a_public_connection_of_which_everything_was_refused_never_passes_for_ready() -> None:
    conversation = opened("public", ["tickers:NOSUCH/USDT"])
    refusal = {"id": "s1", "event": "error", "code": "60018", "msg": "Wrong URL or channel"}
    assert notices(hear(conversation, refusal)) == [Notice.REFUSED]


@pytest.mark.parametrize(
    ("channel", "arg"),
    [
        ("orders:SWAP", {"channel": "orders", "instType": "SWAP"}),
        ("account:USDT", {"channel": "account", "ccy": "USDT", "extraParams": '{"updateInterval": "0"}'}),
        ("fills", {"channel": "fills"}),
        ("fills:ETH/USDT:USDT", {"channel": "fills", "instId": "ETH-USDT-SWAP"}),
        ("liquidation-warning", {"channel": "liquidation-warning", "instType": "ANY"}),
        ("tickers:no/such:thing", {"channel": "tickers", "instId": "no/such:thing"}),
    ],
)
def test_how_a_channel_is_written(channel: str, arg: dict[str, str]) -> None:
    frames = hear(opened(channels=[channel]), LOGIN).frames
    assert json.loads(frames[0])["args"] == [arg]


def test_a_channel_named_twice_is_asked_for_once() -> None:
    assert len(hear(opened(channels=["orders", "orders:ANY"]), LOGIN).frames) == 1


def test_the_update_interval_is_an_option() -> None:
    frames = hear(opened(channels=["positions"], update_interval_ms="2000"), LOGIN).frames
    assert json.loads(frames[0])["args"][0]["extraParams"] == '{"updateInterval": "2000"}'


# ---- Refusals


@pytest.mark.parametrize(
    ("code", "notice"),
    [
        ("60004", Notice.RETRY),
        ("60005", Notice.AUTH_REFUSED),
        ("60006", Notice.RETRY),
        ("60007", Notice.AUTH_REFUSED),
        ("60009", Notice.AUTH_REFUSED),
        ("60014", Notice.RETRY),
        ("60023", Notice.RETRY),
        ("60024", Notice.AUTH_REFUSED),
        ("60032", Notice.AUTH_REFUSED),
        ("63999", Notice.RETRY),
        ("69999", Notice.RETRY),
    ],
)
def test_what_a_refused_login_means(code: str, notice: Notice) -> None:
    heard = hear(opened(), {"event": "error", "code": code, "msg": "x"})
    assert [(said.notice, said.code) for said in heard.said] == [(notice, code)]


def test_the_generic_login_failure_may_be_told_to_be_passing() -> None:
    conversation = opened(generic_login_failure="retry")
    assert notices(hear(conversation, {"event": "error", "code": "60009", "msg": "x"})) == [Notice.RETRY]


def test_a_code_that_is_a_number_is_the_same_code() -> None:
    assert notices(hear(opened(), {"event": "error", "code": 60024, "msg": "x"})) == [Notice.AUTH_REFUSED]


@pytest.mark.parametrize("channel", ["orders", "positions", "account", "balance_and_position"])
def test_without_an_essential_channel_a_connection_is_never_ready(channel: str) -> None:
    conversation = logged_in()
    seen = list[Notice]()
    for number, (name, inst_type) in enumerate(PRIVATE, start=1):
        refusal = {"id": f"s{number}", "event": "error", "code": "60018", "msg": "no"}
        seen += notices(hear(conversation, refusal if name == channel else ack(number, name, inst_type)))
    assert seen == [Notice.REFUSED, Notice.RETRY]


@pytest.mark.parametrize("code", ["60014", "63999", "64007"])
def test_a_subscription_that_may_work_later_closes_and_comes_back(code: str) -> None:
    assert notices(hear(logged_in(), {"id": "s1", "event": "error", "code": code, "msg": "x"})) == [Notice.RETRY]


def test_an_essential_channel_lost_before_everything_was_there_keeps_it_from_ready() -> None:
    conversation = logged_in(["orders", "account"])
    hear(conversation, ack(1, "orders", "ANY"))
    lost = {"event": "channel-conn-count-error", "channel": "orders", "connCount": "30"}
    assert notices(hear(conversation, lost)) == [Notice.CHANNEL_LOST]
    assert notices(hear(conversation, ack(2, "account"))) == []


def test_an_error_without_an_id_takes_only_what_its_text_names_alone() -> None:
    conversation = logged_in(["orders", "fills:BTC/USDT", "fills:ETH/USDT"])
    vague = {"event": "error", "code": "60018", "msg": "Wrong URL or channel:fills"}
    assert notices(hear(conversation, vague)) == [Notice.REFUSED]
    hear(conversation, ack(1, "orders", "ANY"))
    hear(conversation, ack(3, "fills", instId="ETH-USDT"))
    named = {**vague, "msg": "Wrong URL or channel:fills, instId:BTC-USDT doesn't exist"}
    assert notices(hear(conversation, named)) == [Notice.REFUSED, Notice.READY]


def test_every_error_code_is_said_without_raising() -> None:
    for code in MEANINGS:
        for conversation in (opened(), logged_in()):
            said = hear(conversation, {"event": "error", "id": "s1", "code": code, "msg": "x"}).said
            assert said[0].code == code


# ---- Closing


@pytest.mark.parametrize(
    ("code", "notice"),
    [
        (1009, Notice.REFUSED),
        (4001, Notice.AUTH_REFUSED),
        (4002, Notice.REFUSED),
        (4003, Notice.REFUSED),
        (4004, Notice.INFO),
        (4005, Notice.INFO),
        (4007, Notice.RETRY),
        (4008, Notice.REFUSED),
        (4009, Notice.REFUSED),
    ],
)
def test_what_a_close_frame_means(code: int, notice: Notice) -> None:
    said = logged_in().closed(code, "reason of theirs")
    assert said is not None
    assert (said.notice, said.code) == (notice, str(code))
    assert "reason of theirs" in said.detail


@pytest.mark.parametrize("code", [1000, 1006, 1011, 4006])
def test_a_close_that_only_means_come_back(code: int) -> None:
    assert logged_in().closed(code, "") is None


def test_the_close_after_a_refused_login_does_not_make_a_wrong_clock_a_wrong_key() -> None:
    conversation = opened()
    hear(conversation, {"event": "error", "code": "60006", "msg": "Timestamp request expired"})
    assert conversation.closed(4001, "Login failed") is None


def test_the_beat_is_the_text_ping() -> None:
    assert logged_in().beat(NOW_MS) == ("ping",)


# ---- Absence


def sample(name: str) -> Sample:
    return next(s for s in samples_of("okx") if s["name"] == name)


def positions(*rows: dict[str, Any], **top: Any) -> dict[str, Any]:
    return {"arg": {"channel": "positions", "instType": "ANY"}, **top, "data": list(rows)}


def position(symbol: str, size: str = "1", at_ms: int = NOW_MS) -> dict[str, Any]:
    template = sample("positions: a whole snapshot")["frame"]["data"][0]
    return {**template, "instId": symbol, "posId": symbol, "pos": size, "uTime": str(at_ms)}


def held(heard: Heard) -> dict[str, str]:
    return {fact.instrument: str(fact.quantity) for fact in heard.facts if isinstance(fact, PositionFact)}


BTC, ETH, SOL = "BTC-USDT-SWAP", "ETH-USDT-SWAP", "SOL-USDT-SWAP"


def test_what_a_whole_snapshot_leaves_out_is_flat() -> None:
    conversation = logged_in()
    hear(conversation, positions(position(BTC), position(ETH), eventType="snapshot", curPage=1, lastPage=True))
    later = hear(conversation, positions(position(BTC), eventType="snapshot", curPage=1, lastPage=True))
    assert held(later) == {"BTC/USDT:USDT": "1", "ETH/USDT:USDT": "0"}
    flat = next(f for f in later.facts if isinstance(f, PositionFact) and not f.quantity)
    assert flat.updated_at_ms == NOW_MS + 1, "any later word of the venue's own still counts"
    again = hear(conversation, positions(position(BTC), eventType="snapshot", curPage=1, lastPage=True))
    assert held(again) == {"BTC/USDT:USDT": "1"}, "told once"


def test_pages_make_one_snapshot() -> None:
    conversation = logged_in()
    hear(conversation, positions(*map(position, (BTC, ETH, SOL)), eventType="snapshot", curPage=1, lastPage=True))
    first = hear(conversation, positions(position(BTC), eventType="snapshot", curPage=1, lastPage=False))
    assert held(first) == {"BTC/USDT:USDT": "1"}
    last = hear(conversation, positions(position(ETH), eventType="snapshot", curPage=2, lastPage=True))
    assert held(last) == {"ETH/USDT:USDT": "1", "SOL/USDT:USDT": "0"}


@pytest.mark.parametrize(
    "frames",
    [
        [positions(position(BTC), eventType="event_update")],
        [positions(position(BTC))],
        [positions(position(BTC), eventType="snapshot", curPage=2, lastPage=True)],
        [positions(position(BTC), eventType="snapshot", curPage=1, lastPage=False)],
        [positions(position(BTC), {"bent": 1}, eventType="snapshot", curPage=1, lastPage=True)],
        [
            positions(position(BTC), eventType="snapshot", curPage=1, lastPage=False),
            positions(eventType="snapshot", curPage=3, lastPage=True),
        ],
        [
            positions({"bent": 1}, eventType="snapshot", curPage=1, lastPage=False),
            positions(position(BTC), eventType="snapshot", curPage=2, lastPage=True),
        ],
    ],
    ids=["changes", "no pages", "second page alone", "not the last", "unreadable row", "page missing", "bent page"],
)
def test_what_is_no_whole_snapshot_makes_nothing_flat(frames: list[dict[str, Any]]) -> None:
    conversation = logged_in()
    hear(conversation, positions(position(BTC), position(ETH), eventType="snapshot", curPage=1, lastPage=True))
    for frame in frames:
        assert "ETH/USDT:USDT" not in held(hear(conversation, frame))


def test_a_position_opened_between_two_pages_is_not_flat() -> None:
    conversation = logged_in()
    hear(conversation, positions(position(BTC), eventType="snapshot", curPage=1, lastPage=False))
    hear(conversation, positions(position(ETH), eventType="event_update"))
    assert held(hear(conversation, positions(eventType="snapshot", curPage=2, lastPage=True))) == {}


def test_a_currency_that_a_whole_snapshot_leaves_out_is_empty() -> None:
    conversation = logged_in()
    whole = sample("account: snapshot")["frame"]
    hear(conversation, whole)
    without = {**whole, "data": [{**whole["data"][0], "details": whole["data"][0]["details"][:1]}]}
    cash = {f.currency: f.cash for f in hear(conversation, without).facts if isinstance(f, BalanceFact)}
    assert cash["BTC"] == 0
    assert cash["USDT"] != 0


# ---- Pushes


def test_one_unreadable_row_costs_the_readable_ones_nothing() -> None:
    frame = sample("order partly filled: the order and its fill")["frame"]
    good = frame["data"][0]
    bent = [{**good, "sz": ""}, {**good, "state": "levitating"}, 5, {**good, "fillPx": "x"}]
    for broken in bent:
        heard = hear(logged_in(), {**frame, "data": [good, broken, good]})
        assert sum(isinstance(fact, FillFact) for fact in heard.facts) == 2
        assert notices(heard) == [Notice.UNREADABLE]


def test_an_order_whose_fill_cannot_be_read_is_told_and_its_fill_is_not() -> None:
    frame = sample("order partly filled: the order and its fill")["frame"]
    heard = hear(logged_in(), {**frame, "data": [{**frame["data"][0], "fillTime": ""}]})
    assert [type(fact) for fact in heard.facts] == [OrderFact]
    assert notices(heard) == [Notice.UNREADABLE]


def test_the_way_a_frame_is_spaced_changes_nothing() -> None:
    frame = sample("order partly filled: the order and its fill")["frame"]
    tight, loose = wire(frame), json.dumps(frame, indent=1).encode()
    turned = json.dumps(dict(reversed(frame.items()))).encode()
    facts = [logged_in().hear(raw, NOW_MS).facts for raw in (tight, loose, turned)]
    assert facts[0] == facts[1] == facts[2]


def test_a_fill_has_one_identity_streamed_and_fetched() -> None:
    streamed = sample("order partly filled: the order and its fill")["facts"][1]
    pushed = sample("fills, where the tier allows them; merged trades are left to `orders`")["facts"][0]
    fetched = sample("fills: streamed and fetched are the same fill")["facts"][0]
    booked = sample("cash: trade, funding, transfer, liquidation, and what has no name here")["facts"][0]
    assert streamed["fill_id"] == pushed["fill_id"] == fetched["fill_id"] == booked["fill_id"]


def test_the_answer_to_an_amendment_is_no_repetition_of_the_order() -> None:
    before, after = sample("order live")["facts"][0], sample("amendment failed")["facts"][0]
    facts = [msgspec.convert(raw, OrderFact, strict=False) for raw in (before, after)]
    assert facts[0].updated_at_ms == facts[1].updated_at_ms
    assert facts[0].key != facts[1].key


def test_a_nul_never_gets_further() -> None:
    frame = sample("order live")["frame"]
    heard = hear(logged_in(), {**frame, "data": [{**frame["data"][0], "clOrdId": "a\x00b"}]})
    assert not heard.facts
    assert notices(heard) == [Notice.UNREADABLE]


def test_a_channel_that_is_asked_for_but_not_translated_is_let_pass() -> None:
    conversation = opened("business")
    hear(conversation, LOGIN)
    heard = hear(conversation, {"arg": {"channel": "orders-algo", "instType": "ANY"}, "data": [{"algoId": "1"}]})
    assert (list(heard.facts), list(heard.said), heard.channel) == ([], [], "orders-algo")
