"""Our side of T-Invest against the other one, without sockets: neither may say what the other cannot read."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pytest

from engine.core.book import Book
from engine.core.facts import (
    REPLACED,
    BalanceFact,
    CashFact,
    EquityFact,
    FillFact,
    OrderFact,
    OrderStatus,
    PositionFact,
    Side,
)
from engine.core.instruments import InstrumentKind
from engine.core.orders import Accepted, OrderType, Refused, Unknown
from engine.core.venue import ErrorClass, Notice, VenueError
from engine.venues.tinvest.front_rules import drawn
from tests.venues.tinvest_talk import BOND, CNY, SBER, SR, START_MS, VENUE, Desk, Floor, of

D = Decimal


def fields_of(rules: Any) -> dict[str, Any]:
    return {name: getattr(rules, name) for name in rules.__struct_fields__}


every_venue = pytest.mark.parametrize("seed", range(12))
"""Each a venue in which what nobody knows is one way or the other."""


def either(seed: int, **more: Any) -> Floor:
    return Floor(**{**fields_of(drawn(random.Random(seed), limits=True)), **more})


def options_of(seed: int) -> dict[str, str]:
    chance = random.Random(f"options {seed}")
    return {
        "token_in": chance.choice(("header", "subprotocol")),
        "subprotocol": chance.choice(("json", "json-proto")),
        "placing": chance.choice(("sync", "async")),
        "operation_trade_ids": "differ",
        "initial_positions": chance.choice(("yes", "no")),
    }


@every_venue
def test_an_order_is_accepted_filled_and_told_alike_by_stream_and_history(seed: int) -> None:
    floor = either(seed)
    desk = Desk(floor, **options_of(seed))
    desk.connect()
    assert desk.notices == [Notice.READY]
    floor.quote(lots="2")
    order = desk.place(1)
    assert isinstance(desk.ask(order), Accepted)
    floor.house("SBER", "sell", "5", "300.10")
    desk.settle()

    orders = of(desk.facts, OrderFact)
    assert len({o.venue_order_id for o in orders}) == 1, "one order never looks like two"
    assert (orders[-1].status, orders[-1].filled, orders[-1].client_order_id) == (
        OrderStatus.FILLED,
        3,
        order.client_order_id,
    )
    assert {o.account_ref for o in orders} == {desk.me["account_id"]}
    streamed = {f.fill_id: f for f in of(desk.facts, FillFact)}
    fetched = {f.fill_id: f for f in of(desk.told(desk.rest.fills(START_MS, floor.now_ms)), FillFact)}
    true = floor.front.account("tinvest-01").fills
    assert streamed.keys() == fetched.keys() == true.keys()
    for fill_id, fill in fetched.items():
        one = streamed[fill_id]
        assert (fill.quantity, fill.price, fill.side, fill.venue_order_id, fill.client_order_id, fill.traded_at_ms) == (
            one.quantity,
            one.price,
            one.side,
            one.venue_order_id,
            one.client_order_id,
            one.traded_at_ms,
        )
    (listed,) = of(desk.told(desk.rest.orders(START_MS, floor.now_ms)), OrderFact)
    assert listed.key == orders[-1].key


@every_venue
def test_a_part_that_was_cancelled_has_ended_however_it_is_told(seed: int) -> None:
    floor = either(seed)
    desk = Desk(floor, **options_of(seed))
    desk.connect()
    floor.quote(lots="1")
    order = desk.place(1)
    desk.ask(order)
    number = of(desk.facts, OrderFact)[-1].venue_order_id
    assert isinstance(desk.ask(desk.cancel(order, number)), Accepted)
    last = of(desk.facts, OrderFact)[-1]
    assert (last.status, last.filled, last.quantity) == (OrderStatus.CANCELLED, 1, 3)
    assert last.reason == "cancelled by client"
    (asked,) = desk.told([desk.rest.order(order.instrument, order.client_order_id, number)])
    assert (asked.status, asked.filled) == (OrderStatus.CANCELLED, 1)
    again = desk.ask(desk.cancel(order, number))
    assert isinstance(again, Refused)
    assert again.target_gone


@every_venue
def test_orders_are_found_by_our_id_in_one_way_or_the_other_and_absence_is_proven(seed: int) -> None:
    floor = either(seed)
    desk = Desk(floor, **options_of(seed))
    order = desk.place(1, price=D("290"))
    desk.ask(order)
    (found,) = desk.told([desk.rest.order(order.instrument, order.client_order_id, "")])
    assert found.client_order_id == order.client_order_id
    (at_work,) = desk.told(desk.rest.open_orders())
    assert at_work.venue_order_id == found.venue_order_id
    with pytest.raises(VenueError) as raised:
        desk.told([desk.rest.order(order.instrument, desk.place(2).client_order_id, "")])
    assert raised.value.error_class is ErrorClass.NOT_FOUND


def test_an_order_without_a_number_yet_is_not_told_but_asked_for_again() -> None:
    floor = Floor()
    desk = Desk(floor, placing="async")
    desk.connect()
    order = desk.place(1, price=D("290"))
    response = desk.lost(order)
    assert response is not None
    assert desk.rest.read_outcomes([order], response) == (Accepted(order.client_order_id),)
    desk.listen()
    assert desk.facts == [], "its first word has an id of the venue's own"
    assert desk.told(desk.rest.open_orders()) == []
    with pytest.raises(VenueError) as raised:
        desk.told([desk.rest.order(order.instrument, order.client_order_id, "")])
    assert raised.value.error_class is ErrorClass.RETRYABLE_READ
    desk.settle()
    assert len(desk.told([desk.rest.order(order.instrument, order.client_order_id, "")])) == 1
    assert isinstance(desk.ask(desk.cancel(order, order.client_order_id)), Accepted), "by our id, having no other"


@every_venue
def test_a_replacement_is_a_new_order_and_the_old_one_is_cancelled(seed: int) -> None:
    floor = either(seed)
    desk = Desk(floor, **options_of(seed))
    desk.connect()
    floor.quote(lots="1")
    order = desk.place(1)
    desk.ask(order)
    number = of(desk.facts, OrderFact)[-1].venue_order_id
    replaced = desk.ask(desk.amend(order, number, new_price=D("299.00"), filled=D(1)))
    assert isinstance(replaced, Accepted)
    assert replaced.venue_order_id != number
    latest = {o.venue_order_id: o for o in of(desk.facts, OrderFact)}
    assert (latest[number].status, latest[number].filled) == (OrderStatus.CANCELLED, 1)
    new = latest[replaced.venue_order_id]
    assert (new.status, new.quantity, new.price) == (OrderStatus.WORKING, 2, D("299.00"))


def test_a_replacement_that_fails_may_have_cancelled_the_old_order_so_it_is_asked_about() -> None:
    floor = Floor()
    desk = Desk(floor)
    order = desk.place(1, price=D("290"))
    accepted = desk.ask(order)
    assert isinstance(accepted, Accepted)
    floor.faults.begin("amend_fails", None, floor.now_ms)
    failed = desk.ask(desk.amend(order, accepted.venue_order_id, new_price=D("291")))
    assert isinstance(failed, Refused)
    assert failed.target_gone
    (asked,) = desk.told([desk.rest.order(order.instrument, order.client_order_id, accepted.venue_order_id)])
    assert asked.status is OrderStatus.CANCELLED


@pytest.mark.parametrize(
    ("kind", "what", "executed"),
    [
        ("drop_ack", "", True),
        ("drop_ack", "70002", True),
        ("drop_ack", "504", True),
        ("drop_request", "70001", False),
        ("late", "70002", True),
        ("html_502", "", False),
    ],
)
def test_what_gives_no_plain_answer_is_unknown_and_is_found_out(kind: str, what: str, executed: bool) -> None:
    floor = Floor()
    desk = Desk(floor)
    order = desk.place(1, price=D("290"))
    floor.faults.begin(kind, None, floor.now_ms, what=what, times=1)
    response = desk.lost(order)
    if response is not None:
        (outcome,) = desk.rest.read_outcomes([order], response)
        assert isinstance(outcome, Unknown)
    else:
        assert what == ""
    desk.settle(3_000)
    if executed:
        (found,) = desk.told([desk.rest.order(order.instrument, order.client_order_id, "")])
        assert found.status is OrderStatus.WORKING
    else:
        with pytest.raises(VenueError, match="not_found"):
            desk.told([desk.rest.order(order.instrument, order.client_order_id, "")])


def test_a_key_that_was_used_is_never_taken_for_a_refusal() -> None:
    floor = Floor(duplicates="30057")
    desk = Desk(floor)
    order = desk.place(1, price=D("290"))
    accepted = desk.ask(order)
    assert isinstance(desk.ask(order), Unknown)
    floor = Floor(duplicates="state")
    desk = Desk(floor)
    accepted = desk.ask(order)
    assert desk.ask(order) == accepted, "the state of the order that exists"
    assert len(floor.front.account("tinvest-01").orders) == 1


@pytest.mark.parametrize("trades", ["new", "all"])
def test_fills_of_an_order_are_told_one_by_one_or_all_anew_and_count_once(trades: str) -> None:
    floor = Floor(trades=trades)
    desk = Desk(floor)
    desk.connect()
    floor.quote(lots="1")
    desk.ask(desk.place(1))
    floor.house("SBER", "sell", "1", "300.10")
    floor.house("SBER", "sell", "1", "300.10")
    desk.settle()
    assert len({f.fill_id for f in of(desk.facts, FillFact)}) == 3
    assert len(of(desk.facts, FillFact)) == (3 if trades == "new" else 6)
    assert all(f.quantity == 1 for f in of(desk.facts, FillFact))


def test_refusals_of_broker_and_exchange_are_told_as_what_they_are() -> None:
    floor = Floor()
    desk = Desk(floor)
    desk.connect()
    floor.quote()
    too_dear = desk.ask(desk.place(1, quantity=D(500_000)))
    assert isinstance(too_dear, Refused)
    assert (too_dear.code, too_dear.again) == ("30042", False)
    off_step = desk.ask(desk.place(2, price=D("300.105")))
    assert isinstance(off_step, Refused)
    assert off_step.code == "30078"
    floor.faults.begin("refuse", None, floor.now_ms, code="exchange", times=1)
    refused = desk.ask(desk.place(3))
    assert isinstance(refused, Refused)
    assert refused.reason == "rejected by the exchange"
    assert [o.status for o in of(desk.facts, OrderFact)] == [OrderStatus.REJECTED]
    assert of(desk.facts, OrderFact)[0].reason == "rejected by exchange"
    floor.faults.begin("rate_429", None, floor.now_ms, times=1)
    too_fast = desk.ask(desk.place(4))
    assert isinstance(too_fast, Refused)
    assert too_fast.again


@pytest.mark.parametrize(
    ("kind", "status", "filled"),
    [(OrderType.IOC, OrderStatus.CANCELLED, 2), (OrderType.FOK, OrderStatus.CANCELLED, 0), (OrderType.MARKET, None, 3)],
)
def test_orders_that_do_not_rest(kind: OrderType, status: OrderStatus | None, filled: int) -> None:
    floor = Floor()
    desk = Desk(floor)
    desk.connect()
    floor.quote(lots="2")
    if kind is OrderType.MARKET:
        floor.house("SBER", "sell", "9", "300.50")
    price = None if kind is OrderType.MARKET else D("300.10")
    assert isinstance(desk.ask(desk.place(1, order_type=kind, price=price)), Accepted)
    last = of(desk.facts, OrderFact)[-1]
    assert (last.status, last.filled) == (status or OrderStatus.FILLED, filled)


def test_a_stop_order_waits_is_triggered_and_leads_to_the_order_it_made() -> None:
    floor = Floor()
    desk = Desk(floor)
    desk.connect()
    floor.quote(lots="50")
    stop = desk.place(1, side=Side.SELL, order_type=OrderType.STOP, price=None, trigger_price=D("295"), quantity=D(2))
    accepted = desk.ask(stop)
    assert isinstance(accepted, Accepted)
    assert accepted.venue_order_id.startswith("stop:")
    (waiting,) = desk.told(desk.rest.open_orders())
    assert (waiting.status, waiting.order_type, waiting.venue_order_id) == (
        OrderStatus.WORKING,
        "stop",
        accepted.venue_order_id,
    )
    floor.mark("SBER", "294")
    desk.settle()
    ended, made = desk.told([desk.rest.order(stop.instrument, stop.client_order_id, accepted.venue_order_id)])
    assert (ended.status, ended.venue_action) == (OrderStatus.CANCELLED, REPLACED)
    assert (ended.reason, ended.replaced_by) == (f"triggered: order {made.venue_order_id}", made.venue_order_id)
    assert (made.status, made.filled, made.client_order_id) == (OrderStatus.FILLED, 2, stop.client_order_id)


def test_a_stop_limit_order_is_cancelled_and_a_lost_one_is_never_proven_absent() -> None:
    floor = Floor()
    desk = Desk(floor)
    stop = desk.place(1, order_type=OrderType.STOP_LIMIT, price=D("305"), trigger_price=D("304"))
    accepted = desk.ask(stop)
    assert isinstance(accepted, Accepted)
    assert isinstance(desk.ask(desk.cancel(stop, accepted.venue_order_id)), Accepted)
    (ended,) = desk.told([desk.rest.order(stop.instrument, stop.client_order_id, accepted.venue_order_id)])
    assert (ended.status, ended.client_order_id) == (OrderStatus.CANCELLED, stop.client_order_id)
    again = desk.ask(desk.cancel(stop, accepted.venue_order_id))
    assert isinstance(again, Refused)
    assert again.target_gone

    lost = desk.place(2, order_type=OrderType.STOP_LIMIT, price=D("305"), trigger_price=D("304"))
    floor.faults.begin("drop_ack", None, floor.now_ms, times=1)
    desk.lost(lost)
    with pytest.raises(VenueError) as raised:
        desk.told([desk.rest.order(lost.instrument, lost.client_order_id, "")])
    assert raised.value.error_class is ErrorClass.REFUSED


# ---- holdings and history


@every_venue
def test_the_book_that_is_folded_is_the_one_that_the_venue_states(seed: int) -> None:
    floor = either(seed)
    desk = Desk(floor, **options_of(seed))
    book = Book("tinvest-01", desk.catalogue.by_name)
    desk.settle(5_000)
    stated = desk.told(desk.rest.statement())
    book.open_with(of(stated, PositionFact), of(stated, BalanceFact), floor.now_ms)
    desk.settle(5_000)
    desk.connect()
    floor.quote(lots="2")
    floor.quote("CNYRUB_TOM", "11.499", "11.501")
    floor.quote("SRZ6", "29990", "30010")
    desk.ask(desk.place(1))
    desk.ask(desk.place(2, CNY, quantity=D(2), price=D("11.501")))
    desk.ask(desk.place(3, SR, quantity=D(4), price=D("30010")))
    desk.ask(desk.place(4, SR, side=Side.SELL, quantity=D(1), order_type=OrderType.MARKET, price=None))
    floor.front.command("funding", ["tinvest-01"], {"instrument": SR}, floor.now_ms)
    desk.settle(3_000)
    for fact in [
        *desk.facts,
        *desk.told(desk.rest.fills(START_MS, floor.now_ms)),
        *desk.told(desk.rest.cash(START_MS, floor.now_ms)),
    ]:
        book.fold(fact)
    stated = desk.told(desk.rest.statement())
    assert {f.instrument: f.quantity for f in of(stated, PositionFact)} == {SR: D(3)}
    assert book.quantities() == {(SR, "net"): D(3)}
    truth = floor.front.account("tinvest-01").cash
    assert book.cash == {b.currency: b.cash for b in of(stated, BalanceFact)} == truth
    assert len(of(stated, EquityFact)) == 1


def test_a_bond_is_counted_in_hundredths_of_its_face_and_its_interest_is_booked() -> None:
    floor = Floor()
    desk = Desk(floor)
    bond = desk.catalogue[BOND]
    assert not bond.tradable
    assert bond.notional(D(1), D("58.5")) == D(585)
    book = Book("tinvest-01", desk.catalogue.by_name)
    desk.settle(5_000)
    stated = desk.told(desk.rest.statement())
    book.open_with([], of(stated, BalanceFact), floor.now_ms)
    desk.settle(1_000)
    floor.quote("SU26238RMFS4", "58.4", "58.5")
    floor.front.place_elsewhere("tinvest-01", {"instrument": BOND, "side": "buy", "quantity": 7}, floor.now_ms)
    desk.settle(3_000)
    for fact in [
        *desk.told(desk.rest.fills(START_MS, floor.now_ms)),
        *desk.told(desk.rest.cash(START_MS, floor.now_ms)),
    ]:
        book.fold(fact)
    stated = desk.told(desk.rest.statement())
    assert book.cash == {b.currency: b.cash for b in of(stated, BalanceFact)}
    assert book.cash["SU26238RMFS4"] == 70


@every_venue
def test_positions_are_pushed_as_the_statement_tells_them(seed: int) -> None:
    floor = either(seed)
    desk = Desk(floor, **options_of(seed))
    desk.connect("positions")
    assert desk.notices == [Notice.READY]
    floor.quote("SRZ6", "29990", "30010")
    floor.quote()
    desk.ask(desk.place(1, SR, quantity=D(2), price=D("30010")))
    desk.ask(desk.place(2, quantity=D(1)))
    desk.ask(desk.place(3, price=D("295")))  # rests and blocks money
    desk.settle()
    latest = {b.currency: b for b in of(desk.facts, BalanceFact)}
    stated = {b.currency: b for b in of(desk.told(desk.rest.statement()), BalanceFact)}
    assert (latest["RUB"].cash, latest["RUB"].available) == (stated["RUB"].cash, stated["RUB"].available)
    assert latest["RUB"].cash - (latest["RUB"].available or 0) == 3 * 10 * 295
    assert latest["SBER"].cash == stated["SBER"].cash
    assert of(desk.facts, PositionFact)[-1].quantity == 2


def test_history_of_earlier_days_is_asked_of_the_orders_behind_the_operations() -> None:
    floor = Floor(same_trade_numbers=False)
    desk = Desk(floor)
    floor.quote(lots="50")
    order = desk.place(1)
    desk.ask(order)
    since_ms = START_MS - 1000
    floor.pass_ms(20 * 3_600_000, 600_000)
    floor.quote(lots="50")
    desk.ask(desk.place(2))
    told = desk.told(desk.rest.fills(since_ms, floor.now_ms))
    assert {f.fill_id for f in of(told, FillFact)} == floor.front.account("tinvest-01").fills.keys()
    assert {f.client_order_id for f in of(told, FillFact)} >= {order.client_order_id}
    assert order.client_order_id in [o.client_order_id for o in of(told, OrderFact)], "the order comes with them"


@pytest.mark.parametrize("same", [True, False])
def test_what_the_orders_service_has_forgotten_is_known_by_its_number_only_where_numbers_agree(same: bool) -> None:
    floor = Floor(same_trade_numbers=same)
    floor.quote(lots="50")
    floor.front.place_elsewhere("tinvest-01", {"instrument": SBER, "side": "buy", "quantity": 3}, floor.now_ms)
    floor.pass_ms(40 * 3_600_000, 3_600_000)
    careful, trusting = Desk(floor), Desk(floor, operation_trade_ids="same")
    with pytest.raises(VenueError) as raised:
        careful.told(careful.rest.fills(START_MS, floor.now_ms))
    assert raised.value.code == "trade numbers"
    fills = trusting.told(trusting.rest.fills(START_MS, floor.now_ms))
    assert ({f.fill_id for f in fills} == floor.front.account("tinvest-01").fills.keys()) is same


@pytest.mark.parametrize("border", ["whole", "twice", "lost"])
def test_a_walk_goes_over_all_its_pages_to_the_end(border: str) -> None:
    floor = Floor(page_border=border)
    desk = Desk(floor)
    for n in range(1_050):
        floor.front.transfer("tinvest-01", "RUB", D(n + 1), floor.now_ms)
        floor.now_ms += 1
    floor.pass_ms(5_000)
    told = of(desk.told(desk.rest.cash(START_MS, floor.now_ms)), CashFact)
    keys = {c.key for c in told}
    assert len(keys) == (1_051 if border != "lost" else 1_050)
    if border == "lost":  # another window has its borders elsewhere: the next read finds what this one lost
        later = of(desk.told(desk.rest.cash(START_MS + 500, floor.now_ms + 5)), CashFact)
        later += of(desk.told(desk.rest.cash(START_MS, floor.now_ms)), CashFact)
        assert keys <= {c.key for c in later}
    assert all(c.kind == "transfer" for c in told)


def test_securities_that_are_moved_in_or_out_are_movements_of_the_paper() -> None:
    floor = Floor()
    desk = Desk(floor)
    book = Book("tinvest-01", desk.catalogue.by_name)
    desk.settle(5_000)
    book.open_with([], of(desk.told(desk.rest.statement()), BalanceFact), floor.now_ms)
    desk.settle(1_000)
    floor.front.transfer("tinvest-01", "SBER", D("70.9"), floor.now_ms)
    floor.front.transfer("tinvest-01", "SBER", D(-30), floor.now_ms)
    floor.front.transfer("tinvest-01", "SU26238RMFS4", D(50), floor.now_ms)
    desk.settle()
    for fact in desk.told(desk.rest.cash(START_MS, floor.now_ms)):
        book.fold(fact)
    assert book.cash == floor.front.account("tinvest-01").cash
    assert book.cash["SU26238RMFS4"] == 50


def test_alike_movements_are_told_apart_and_keep_their_keys_when_ids_change() -> None:
    floor = Floor(stable_operation_ids=False)
    desk = Desk(floor)
    for _ in range(3):
        floor.front.transfer("tinvest-01", "RUB", D(100), floor.now_ms)
    desk.settle()
    first = {c.key for c in desk.told(desk.rest.cash(START_MS, floor.now_ms)) if c.amount == 100}
    floor.pass_ms(600_000, 10_000)
    again = {c.key for c in desk.told(desk.rest.cash(START_MS, floor.now_ms)) if c.amount == 100}
    assert len(first) == 3
    assert first == again


def test_a_commission_is_a_movement_of_its_own_and_no_part_of_the_fill() -> None:
    floor = Floor()
    desk = Desk(floor)
    floor.quote()
    desk.ask(desk.place(1))
    (fill,) = of(desk.told(desk.rest.fills(START_MS, floor.now_ms)), FillFact)
    assert fill.fee is None
    (fee,) = [c for c in desk.told(desk.rest.cash(START_MS, floor.now_ms)) if c.kind == "commission"]
    assert (fee.amount, fee.instrument, fee.fill_id) == (D("-4.50"), SBER, "")


def test_who_the_token_belongs_to_and_what_time_it_is() -> None:
    floor = Floor(accounts=6)
    desk = Desk(floor)
    (page,) = desk.walk(desk.rest.identity())
    assert page.identity is not None
    assert (page.identity.venue_ref, page.identity.may_trade) == (desk.me["account_id"], True)
    floor.front.trading.customers["tinvest-01"].access = "READ_ONLY"
    (page,) = desk.walk(desk.rest.identity())
    assert page.identity is not None
    assert not page.identity.may_trade
    refused = desk.ask(desk.place(1))
    assert isinstance(refused, Refused)
    assert refused.code == "40002"
    (page,) = desk.walk(desk.rest.server_time())
    assert page.server_time_ms == floor.now_ms // 1000 * 1000
    desk.rest = VENUE.rest(desk.catalogue, ref="2000000005", options=desk.options)  # of another login
    with pytest.raises(VenueError) as raised:
        desk.walk(desk.rest.identity())
    assert raised.value.error_class is ErrorClass.AUTH


def test_marks_are_read_of_all_that_is_listed() -> None:
    desk = Desk(Floor())
    marks = desk.told(desk.rest.marks())
    assert {m.instrument for m in marks} == set(desk.catalogue)
    assert {m.market for m in marks} == {"MOEX"}


def test_fill_or_kill_is_refused_in_derivatives_alone_and_known_beforehand() -> None:
    desk = Desk(Floor())
    assert {i.name for i in desk.catalogue.values() if OrderType.FOK in i.refuses} == {
        i.name for i in desk.catalogue.values() if i.kind is InstrumentKind.FUTURE
    }
    assert OrderType.FOK in desk.catalogue[SR].refuses
    with pytest.raises(ValueError, match="no fok orders in SR/RUB"):
        desk.rest.orders_request([desk.place(1, SR, order_type=OrderType.FOK)])
