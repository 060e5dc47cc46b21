"""T-Invest's streams: openings, acknowledgements, quotas, pings, ends, and prices; our side against the other."""

from __future__ import annotations

import json

import pytest

from engine.core.facts import BalanceFact, EquityFact, FillFact, MarkFact, OrderFact
from engine.core.venue import Notice
from tests.venues.tinvest_talk import SBER, Desk, Floor, of

N = Notice


def last(desk: Desk) -> tuple[Notice, str, float]:
    said = [s for s in desk.said if s.notice not in (N.PONG, N.INFO)][-1]
    return said.notice, said.code, said.after_s


@pytest.mark.parametrize("kind", ["orders", "trades", "positions", "portfolio", "operations"])
@pytest.mark.parametrize("token_in", ["header", "subprotocol"])
@pytest.mark.parametrize("subprotocol", ["json", "json-proto"])
@pytest.mark.parametrize("echo", [True, False])
def test_every_stream_opens_in_every_way(kind: str, token_in: str, subprotocol: str, echo: bool) -> None:
    desk = Desk(Floor(echo=echo), token_in=token_in, subprotocol=subprotocol)
    desk.connect(kind, "tinvest-02")
    assert desk.notices == [N.READY]
    assert desk.wire.session.subprotocol == (subprotocol if echo else "")
    handshake = desk.talk.handshake(0)
    assert handshake.suffix.startswith("tinkoff.public.invest.api.contract.v1.")
    assert bool(handshake.headers) is (token_in == "header")


@pytest.mark.parametrize("auth_by", ["status", "close"])
@pytest.mark.parametrize("shape", ["status", "wrapped"])
def test_a_token_that_is_not_valid_halts_however_it_is_refused(auth_by: str, shape: str) -> None:
    floor = Floor(auth_by=auth_by, error_shape=shape)
    desk = Desk(floor)
    floor.front.tokens.clear()
    desk.connect()
    assert set(desk.notices) == {N.AUTH_REFUSED}


@pytest.mark.parametrize("shape", ["status", "wrapped"])
@pytest.mark.parametrize("place", ["message", "details", "reason"])
@pytest.mark.parametrize("codes", ["all", "documented"])
def test_too_many_streams_cool_down_wherever_the_code_stands(shape: str, place: str, codes: str) -> None:
    floor = Floor(error_shape=shape, vendor_code=place, close_codes=codes)
    for _ in range(2):
        desk = Desk(floor)
        desk.connect("positions")
        assert desk.notices == [N.READY]
        desk.wire.drop()  # it broke off: a ghost holds the place
    desk = Desk(floor)
    desk.connect("positions")
    assert set(desk.notices) == {N.RETRY}
    assert {s.after_s for s in desk.said} == {125.0}
    assert desk.wire.closed is not None
    assert desk.wire.closed[0] == 4008
    floor.pass_ms(125_000, 1_000)
    desk = Desk(floor)
    desk.connect("positions")
    assert desk.notices == [N.READY], "the ghosts are gone"


def test_one_login_has_places_of_its_own_and_each_method_too() -> None:
    floor = Floor(accounts=5)
    for account, kind in (("tinvest-01", "positions"), ("tinvest-02", "positions"), ("tinvest-03", "portfolio")):
        desk = Desk(floor, account)
        desk.connect(kind)
        assert desk.notices == [N.READY]
    other = Desk(floor, "tinvest-05")  # with another token
    other.connect("positions")
    assert other.notices == [N.READY]
    full = Desk(floor, "tinvest-04")
    full.connect("positions")
    assert full.notices[0] is N.RETRY


def test_an_unknown_account_is_told_by_itself_and_the_others_go_on() -> None:
    desk = Desk(Floor())
    desk.connect("positions", "2999999999")
    assert [(s.notice, s.ref) for s in desk.said] == [(N.AUTH_REFUSED, "2999999999"), (N.READY, "")]


@pytest.mark.parametrize("way", ["frame", "ack"])
def test_of_the_orders_streams_an_unknown_account_is_named_and_the_others_come_back(way: str) -> None:
    desk = Desk(Floor(unknown_account=way))
    desk.connect("orders", "2999999999")
    refused = [s for s in desk.said if s.notice is N.AUTH_REFUSED]
    assert {s.ref for s in refused} == {"2999999999"}
    assert N.RETRY in desk.notices
    assert N.READY not in desk.notices


@pytest.mark.parametrize("way", ["frame", "ack"])
@pytest.mark.parametrize("kind", ["orders", "positions"])
def test_the_only_account_of_a_connection_being_unknown_halts_it(way: str, kind: str) -> None:
    desk = Desk(Floor(unknown_account=way))
    desk.me = {**desk.me, "account_id": "2999999999"}
    desk.connect(kind)
    assert (N.AUTH_REFUSED, "") in [(s.notice, s.ref) for s in desk.said]


def test_facts_of_many_accounts_on_one_stream_name_theirs() -> None:
    floor = Floor()
    desk, other = Desk(floor), Desk(floor, "tinvest-02")
    desk.connect("orders", "tinvest-02")
    floor.quote()
    desk.ask(desk.place(1))
    other.ask(other.place(1))
    desk.settle()
    refs = [desk.me["account_id"], other.me["account_id"]]
    assert {f.account_ref for f in of(desk.facts, OrderFact)} == set(refs)
    assert {f.account_ref for f in of(desk.facts, FillFact)} == set(refs)


# ---- life


@pytest.mark.parametrize("kind", ["orders", "trades", "positions", "portfolio", "operations", "marketdata"])
def test_a_quiet_stream_pings_as_it_was_asked_to_and_a_mute_one_is_given_up(kind: str) -> None:
    floor = Floor()
    desk = Desk(floor)
    desk.connect(kind, channels=(f"info:{SBER}",) if kind == "marketdata" else ())
    for _ in range(60):
        desk.settle(1_000)
        assert desk.talk.tick(floor.now_ms) is None
    assert 10 <= len([s for s in desk.said if s.notice is N.PONG]) <= 12
    silent_ms = floor.now_ms + 15_000
    heard = desk.talk.tick(silent_ms)
    assert heard is not None
    assert [s.notice for s in heard.said] == [N.RETRY]
    assert desk.talk.tick(silent_ms + 1) is None, "said once"


@pytest.mark.parametrize(("out_of_range", "ends"), [("clamp", False), ("error", True)])
def test_a_ping_delay_out_of_range_is_never_asked_for(out_of_range: str, ends: bool) -> None:
    floor = Floor(out_of_range=out_of_range)
    desk = Desk(floor, ping_ms="10")
    desk.connect("positions")
    assert desk.notices == [N.READY]
    wire = floor.dial(
        "/ws/tinkoff.public.invest.api.contract.v1.OperationsStreamService/PositionsStream",
        authorization=f"Bearer {desk.me['token']}",
    )
    assert not isinstance(wire, int)
    wire.say({"accounts": [desk.me["account_id"]], "pingSettings": {"pingDelayMs": 10}})
    assert (wire.closed is not None) is ends


@pytest.mark.parametrize(
    ("code", "reason", "notice", "after_s"),
    [
        (4016, "", N.AUTH_REFUSED, 0.0),
        (4008, "", N.RETRY, 125.0),
        (4003, "", N.RETRY, 60.0),
        (4007, "", N.RETRY, 60.0),
        (4005, "", N.RETRY, 60.0),
        (1011, "80001", N.RETRY, 125.0),
        (1000, "80005 too old", N.RETRY, 0.0),
        (4014, "70001", N.RETRY, 0.0),
        (4005, "50004", N.AUTH_REFUSED, 0.0),
    ],
)
def test_a_close_means_what_its_code_says(code: int, reason: str, notice: Notice, after_s: float) -> None:
    desk = Desk(Floor())
    desk.connect()
    said = desk.talk.closed(code, reason)
    assert said is not None
    assert (said.notice, said.after_s) == (notice, after_s)


@pytest.mark.parametrize("code", [1000, 1001, 1006, 1012, 1013, 3000, 4004, 4013, 4014])
def test_an_ordinary_close_only_means_to_come_back(code: int) -> None:
    desk = Desk(Floor())
    desk.connect()
    assert desk.talk.closed(code, "") is None


@pytest.mark.parametrize(
    ("status", "notice"), [(401, N.AUTH_REFUSED), (403, N.AUTH_REFUSED), (429, N.RETRY), (503, None), (404, None)]
)
def test_a_refused_opening_means_what_its_status_says(status: int, notice: Notice | None) -> None:
    desk = Desk(Floor())
    desk.connect()
    said = desk.talk.refused(status, 0)
    assert (said.notice if said else None) is notice


def test_maintenance_and_old_age_end_a_stream_and_what_happened_meanwhile_is_in_history() -> None:
    floor = Floor(lifetime_ms=30_000)
    desk = Desk(floor)
    desk.connect()
    assert floor.front.command("notice", ["tinvest-01"], {}, floor.now_ms) == 1
    floor.carry()
    assert desk.wire.closed == (1012, "service restart")
    floor.quote()
    desk.ask(desk.place(1))
    assert desk.facts == []
    fills = desk.told(desk.rest.fills(0, floor.now_ms))
    assert {f.fill_id for f in fills} == floor.front.account("tinvest-01").fills.keys()
    desk.connect()
    desk.settle(31_000)
    assert desk.wire.closed is not None
    assert last(desk) == (N.RETRY, "80005", 0.0)


def test_a_token_that_was_ended_closes_its_streams_for_good_and_a_new_one_opens_them() -> None:
    floor = Floor()
    desk = Desk(floor)
    desk.connect()
    floor.front.command("new_key", ["tinvest-01"], {}, floor.now_ms)
    floor.carry()
    desk.listen()
    assert desk.notices == [N.READY, N.AUTH_REFUSED]
    floor.people = {a["name"]: a for a in floor.front.accounts()}
    again = Desk(floor)
    again.connect()
    assert again.notices == [N.READY]


def test_what_is_newer_than_this_dialect_is_let_pass() -> None:
    desk = Desk(Floor())
    desk.connect()
    heard = desk.talk.hear(b'{"somethingNew":{"a":1}}', 0)
    assert [s.notice for s in heard.said] == [N.INFO]
    heard = desk.talk.hear(b'{"subscription":{"status":"RESULT_SUBSCRIPTION_STATUS_OK","novelty":7},"extra":null}', 0)
    assert heard.said == []


def test_what_portfolio_and_operations_streams_tell() -> None:
    floor = Floor()
    worth, booked, fills = Desk(floor), Desk(floor), Desk(floor)
    worth.connect("portfolio")
    booked.connect("operations")
    fills.connect("trades")
    floor.quote()
    worth.ask(worth.place(1))
    for desk in (worth, booked, fills):
        desk.settle()
    equity = of(worth.facts, EquityFact)[-1]
    (stated,) = of(worth.told(worth.rest.statement()), EquityFact)
    assert (equity.total, equity.currency) == (stated.total, "RUB")
    assert booked.facts == []
    assert {f.fill_id for f in of(fills.facts, FillFact)} == floor.front.account("tinvest-01").fills.keys()
    assert of(fills.facts, FillFact)[0].quantity == 3, "pieces are lots again"
    assert of(fills.facts, FillFact)[0].instrument == SBER


@pytest.mark.parametrize("ack_first", [True, False])
def test_initial_positions_are_read_when_asked_for(ack_first: bool) -> None:
    desk = Desk(Floor(ack_first=ack_first), initial_positions="yes")
    desk.connect("positions")
    assert desk.notices == [N.READY]
    assert {b.currency for b in of(desk.facts, BalanceFact)} == {"RUB", "SBER"}


# ---- prices

ALL = tuple(f"{kind}:{SBER}" for kind in ("last-price", "orderbook", "trades", "candles", "info", "open-interest"))


@pytest.mark.parametrize("subprotocol", ["json", "json-proto"])
def test_all_six_subscriptions_are_acknowledged_and_prices_come_of_them(subprotocol: str) -> None:
    floor = Floor()
    desk = Desk(floor, subprotocol=subprotocol)
    desk.connect("marketdata", channels=ALL)
    assert desk.notices == [N.READY]
    floor.quote(lots="5")
    floor.house("SBER", "buy", "2", "300.10")
    desk.settle()
    marks = {(m.basis, m.price) for m in of(desk.facts, MarkFact)}
    assert {("bid", 299.9), ("ask", 300.1), ("last", 300.1)} <= {(b, float(p)) for b, p in marks}
    assert {(m.instrument, m.market, m.account_ref) for m in of(desk.facts, MarkFact)} == {(SBER, "MOEX", "")}
    assert "SBER/RUB: normal_trading" in [s.detail for s in desk.said]


def test_a_subscription_that_fails_is_told_and_the_others_go_on() -> None:
    floor = Floor()
    desk = Desk(floor)
    desk.connect("marketdata", channels=(f"last-price:{SBER}", "last-price:NOSUCH/RUB"))
    assert desk.notices == [N.REFUSED, N.READY]
    floor = Floor()
    desk = Desk(floor, book_depth="7")
    desk.connect("marketdata", channels=(f"orderbook:{SBER}", f"last-price:{SBER}"))
    assert desk.notices == [N.REFUSED, N.READY]


def test_instruments_that_are_not_listed_yet_are_named_by_ticker_and_class() -> None:
    floor = Floor()
    desk = Desk(floor)
    desk.catalogue.clear()
    channels = (f"last-price:{SBER}", "last-price:CNY/RUB", "last-price:SR/RUB:RUB-2612")
    desk.connect("marketdata", channels=channels)
    assert desk.notices == [N.READY]
    assert {m.instrument for m in of(desk.facts, MarkFact)} == {SBER, "CNY/RUB", "SR/RUB:RUB-2612"}


def test_too_many_requests_for_subscriptions_come_back_later() -> None:
    floor = Floor(requests_per_minute=1)
    desk = Desk(floor)
    desk.connect("marketdata", channels=ALL)
    assert (N.RETRY, "too_many_requests", 60.0) in [(s.notice, s.code, s.after_s) for s in desk.said]
    assert N.READY not in desk.notices


def test_a_market_stream_is_pinged_in_its_own_manner() -> None:
    desk = Desk(Floor())
    desk.connect("marketdata", channels=ALL)
    (ping,) = desk.talk.beat(desk.floor.now_ms)
    assert isinstance(ping, str)
    desk.wire.say(ping)
    (frame,) = desk.wire.frames
    assert json.loads(frame)["ping"]["pingRequestTime"] == json.loads(ping)["ping"]["time"]
    orders = Desk(Floor())
    orders.connect()
    assert orders.talk.beat(0) == ()


def test_an_empty_market_stream_is_closed() -> None:
    floor = Floor()
    desk = Desk(floor)
    desk.connect("marketdata", channels=("what-is-this:SBER/RUB",))
    desk.settle(121_000)
    assert desk.wire.closed is not None
    assert last(desk) == (N.RETRY, "80004", 0.0)


def test_orders_do_not_go_over_a_stream() -> None:
    desk = Desk(Floor())
    desk.connect()
    with pytest.raises(ValueError, match="HTTP"):
        desk.talk.say([desk.place(1)], "r1", 0)
