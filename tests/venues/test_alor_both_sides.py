"""Our side of ALOR against the other one, without sockets: neither may say what the other cannot read."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pytest

from engine.core.facts import (
    REPLACED,
    BalanceFact,
    EquityFact,
    FillFact,
    MarkFact,
    OrderFact,
    OrderStatus,
    PositionFact,
    Side,
)
from engine.core.orders import Accepted, OrderType, Refused, Unknown
from engine.core.venue import ErrorClass, Notice, VenueError
from engine.venues.alor.front_rules import Rules, drawn
from tests.venues.alor_talk import ALOR, FUTURE, SBER, YUAN, Desk, Floor, amend, cancel, of

SWITCHES: list[dict[str, Any]] = [
    {},
    {"acknowledge": "after"},
    {"acknowledge": "mixed"},
    {"trade_first": True},
    {"snapshot_first": True},
    {"shuffled": True, "numeric_ids": True},
    {"amend_to_total": True},
    {"keep_comment": False},
    {"pair_rows": True},
    {"from_inclusive": False},
    {"frame_before_close": True, "expired_resets": True, "failed_trigger": "filled"},
]


class Room:
    """A desk with both connections of one account."""

    def __init__(self, floor: Floor, *accounts: str, **options: str) -> None:
        self.floor, self.desk = floor, Desk(floor, **options)
        self.orders = self.desk.orders(*accounts)
        self.ear = self.desk.facts(*accounts)
        assert self.orders.notices() == [Notice.READY]
        assert Notice.READY in self.ear.notices()

    def ask(self, command: Any) -> Any:
        (outcome,) = self.desk.ask(self.orders, command)
        self.ear.listen()
        return outcome

    def hear(self) -> None:
        self.orders.listen()
        self.ear.listen()

    def order_facts(self) -> list[OrderFact]:
        return of(self.ear.facts, OrderFact)


@pytest.fixture(params=SWITCHES, ids=lambda s: ", ".join(s) or "as it comes")
def floor(request: pytest.FixtureRequest) -> Floor:
    return Floor(**request.param)


@pytest.fixture
def plain() -> Floor:
    return Floor()


def options_of(floor: Floor) -> dict[str, str]:
    return {"amend_quantity": "total" if floor.rules.amend_to_total else "remainder"}


def states(facts: list[OrderFact]) -> list[tuple[str, OrderStatus, int, str]]:
    return [(f.venue_order_id, f.status, int(f.filled), f.venue_action) for f in facts]


def test_an_order_is_accepted_filled_and_told_alike_by_stream_and_history(floor: Floor) -> None:
    room = Room(floor)
    floor.house("SBER", "sell", "1", "300.5")
    since_ms = floor.now_ms
    place = room.desk.place()
    accepted = room.ask(place)
    assert isinstance(accepted, Accepted)
    floor.house("SBER", "sell", "2", "301")
    room.hear()

    streamed = {f.fill_id: f for f in of(room.ear.facts, FillFact)}
    fetched = {f.fill_id: f for f in of(room.desk.told(room.desk.rest.fills(since_ms, floor.now_ms)), FillFact)}
    assert streamed.keys() == fetched.keys() == floor.front.account("alor-01").fills.keys()
    assert [(f.quantity, f.price, f.instrument) for f in streamed.values()] == [
        (Decimal(1), Decimal("300.5"), SBER),
        (Decimal(2), Decimal(301), SBER),
    ]
    for fill_id, fill in streamed.items():
        assert fill.client_order_id == place.client_order_id
        assert fill.venue_order_id == accepted.venue_order_id
        assert fill.account_ref == "MOEX:D10001"
        assert fetched[fill_id].fee == fill.fee < 0
    last = max(room.order_facts(), key=lambda f: f.filled)
    assert (last.status, last.filled, last.client_order_id) == (OrderStatus.FILLED, 3, place.client_order_id)
    (listed,) = of(room.desk.told(room.desk.rest.orders(since_ms, floor.now_ms)), OrderFact)
    assert (listed.status, listed.filled) == (OrderStatus.FILLED, 3)


def test_what_is_held_is_told_alike_by_stream_and_statement(floor: Floor) -> None:
    floor.quote("SBER")
    floor.quote("CNYRUB_TOM", "11.4", "11.6")
    floor.quote("SRZ6", "29990", "30010")
    room = Room(floor)
    room.ask(room.desk.place(1, quantity=Decimal(4)))
    room.ask(room.desk.place(2, YUAN, price=Decimal("11.6"), quantity=Decimal(2)))
    room.ask(room.desk.place(3, FUTURE, side=Side.SELL, price=Decimal(29990), quantity=Decimal(5)))
    room.hear()
    truth = floor.front.account("alor-01")
    for facts in (room.ear.facts, room.desk.told(room.desk.rest.statement())):
        balances = {f.currency: f.cash for f in of(facts, BalanceFact)}
        positions = {f.instrument: f.quantity for f in of(facts, PositionFact)}
        assert balances == truth.cash
        assert positions == truth.positions == {FUTURE: Decimal(-5)}
        assert of(facts, EquityFact)[-1].currency == "RUB"
    assert truth.cash["CNY"] == 2000


def test_a_cancelled_order_ends_once_and_is_gone_the_second_time(floor: Floor) -> None:
    room = Room(floor)
    place = room.desk.place()
    accepted = room.ask(place)
    assert room.ask(cancel(place, accepted.venue_order_id)) == accepted
    assert states(room.order_facts())[-1] == (accepted.venue_order_id, OrderStatus.CANCELLED, 0, "")
    again = room.ask(cancel(place, accepted.venue_order_id))
    assert isinstance(again, Refused)
    assert again.target_gone


def test_a_chain_of_amendments_is_one_order_whose_end_is_told_once(floor: Floor) -> None:
    """Acceptance (g): three numbers, one order."""
    room = Room(floor, **options_of(floor))
    place = room.desk.place(price=Decimal(299), quantity=Decimal(5))
    first = room.ask(place)
    second = room.ask(amend(place, first.venue_order_id, new_price=Decimal("299.5")))
    third = room.ask(amend(place, second.venue_order_id, new_quantity=Decimal(4)))
    ids = [o.venue_order_id for o in (first, second, third)]
    assert len(set(ids)) == 3
    ended = [f for f in room.order_facts() if f.status.terminal]
    assert [(f.venue_order_id, f.venue_action) for f in ended] == [(ids[0], "replaced"), (ids[1], "replaced")]
    (latest,) = [f for f in room.order_facts() if f.venue_order_id == ids[2]]
    assert (latest.status, latest.quantity, latest.client_order_id) == (OrderStatus.WORKING, 4, place.client_order_id)

    room.ask(cancel(place, ids[2]))
    assert states(room.order_facts())[-1] == (ids[2], OrderStatus.CANCELLED, 0, "")
    listed = of(room.desk.told(room.desk.rest.orders(0, floor.now_ms)), OrderFact)
    assert {f.venue_order_id: f.venue_action for f in listed} == {ids[0]: "replaced", ids[1]: "replaced", ids[2]: ""}


def test_an_amendment_of_a_partly_filled_order_leaves_what_was_meant_to_be_left(floor: Floor) -> None:
    room = Room(floor, **options_of(floor))
    floor.house("SBER", "sell", "2", "300")
    place = room.desk.place(price=Decimal(300), quantity=Decimal(5))
    first = room.ask(place)
    second = room.ask(amend(place, first.venue_order_id, filled=2, new_quantity=Decimal(6)))
    (new,) = [f for f in room.order_facts() if f.venue_order_id == second.venue_order_id]
    assert new.quantity - new.filled == 4
    old = [f for f in room.order_facts() if f.venue_order_id == first.venue_order_id][-1]
    assert (old.filled, old.venue_action) == (2, "replaced")


def test_an_amendment_that_is_refused_leaves_the_orders_end_an_end(plain: Floor) -> None:
    room = Room(plain)
    place = room.desk.place(price=Decimal(299))
    first = room.ask(place)
    plain.faults.begin("amend_fails", None, plain.now_ms)
    refused = room.ask(amend(place, first.venue_order_id, new_price=Decimal(298)))
    assert isinstance(refused, Refused)
    assert refused.target_gone
    room.ask(cancel(place, first.venue_order_id))
    assert states(room.order_facts())[-1] == (first.venue_order_id, OrderStatus.CANCELLED, 0, "")


def test_a_look_up_tells_an_order_apart_from_those_it_replaced(plain: Floor) -> None:
    room = Room(plain)
    place = room.desk.place(price=Decimal(299))
    first = room.ask(place)
    second = room.ask(amend(place, first.venue_order_id, new_price=Decimal(298)))
    found = room.desk.told([room.desk.rest.order(place.instrument, place.client_order_id, first.venue_order_id)])
    assert {(f.venue_order_id, f.status, f.venue_action) for f in of(found, OrderFact)} == {
        (first.venue_order_id, OrderStatus.CANCELLED, "replaced"),
        (second.venue_order_id, OrderStatus.WORKING, ""),
    }
    # Another engine, or this one after a restart, knows nothing of what was asked for: the chain tells it.
    stranger = Desk(plain)
    stranger.tokens = room.desk.tokens
    listed = of(stranger.told(stranger.rest.orders(0, plain.now_ms)), OrderFact)
    assert {f.venue_order_id: f.venue_action for f in listed}[first.venue_order_id] == "replaced"


@pytest.mark.parametrize(
    ("kind", "price", "status", "filled"),
    [
        (OrderType.MARKET, None, OrderStatus.FILLED, 3),
        (OrderType.IOC, Decimal(301), OrderStatus.CANCELLED, 2),
        (OrderType.FOK, Decimal(301), OrderStatus.CANCELLED, 0),
        (OrderType.POST_ONLY, Decimal(301), OrderStatus.CANCELLED, 0),
        (OrderType.POST_ONLY, Decimal(300), OrderStatus.WORKING, 0),
        (OrderType.LIMIT, Decimal(301), OrderStatus.WORKING, 2),
    ],
)
def test_each_kind_of_order_ends_as_it_should(
    plain: Floor, kind: OrderType, price: Decimal | None, status: OrderStatus, filled: int
) -> None:
    room = Room(plain)
    plain.house("SBER", "sell", "2", "301")
    plain.house("SBER", "sell", "9", "302")
    accepted = room.ask(room.desk.place(order_type=kind, price=price))
    last = [f for f in room.order_facts() if f.venue_order_id == accepted.venue_order_id][-1]
    assert (last.status, last.filled) == (status, filled)


def test_a_partly_filled_order_is_cancelled_with_what_it_got(floor: Floor) -> None:
    """Acceptance (h)."""
    room = Room(floor)
    floor.house("SBER", "sell", "1", "301")
    place = room.desk.place()
    accepted = room.ask(place)
    room.ask(cancel(place, accepted.venue_order_id))
    assert states(room.order_facts())[-1] == (accepted.venue_order_id, OrderStatus.CANCELLED, 1, "")


def test_an_iceberg_shows_a_part_and_lasts_for_the_day(plain: Floor) -> None:
    room = Room(plain)
    room.ask(room.desk.place(price=Decimal(290), quantity=Decimal(10), visible_quantity=Decimal(2)))
    (row,) = plain.front.truth("orders", "alor-01")
    assert row["iceberg"]["visibleQuantityBatch"] == 2  # type: ignore[index]
    assert row["timeInForce"] == "oneday"


@pytest.mark.parametrize("shape", ["newer", "older"])
def test_both_shapes_of_an_order_are_understood(plain: Floor, shape: str) -> None:
    room = Room(plain, order_shape=shape, stop_limit_opcode="stoplimit" if shape == "older" else "stopLimit")
    assert isinstance(room.ask(room.desk.place()), Accepted)
    stop = room.desk.place(2, order_type=OrderType.STOP_LIMIT, trigger_price=Decimal(310), price=Decimal(311))
    assert isinstance(room.ask(stop), Accepted)


# ---- Stop orders


def test_a_stop_is_triggered_and_its_order_carries_the_comment_on(floor: Floor) -> None:
    room = Room(floor)
    floor.quote("SBER", "299", "301")
    place = room.desk.place(order_type=OrderType.STOP, price=None, trigger_price=Decimal(305), quantity=Decimal(1))
    accepted = room.ask(place)
    assert accepted.venue_order_id.startswith("stop:")
    floor.mark("SBER", "304.99")
    room.hear()
    assert [f.status for f in room.order_facts()] == [OrderStatus.WORKING]
    floor.mark("SBER", "305")
    room.hear()
    stop = [f for f in room.order_facts() if f.venue_order_id == accepted.venue_order_id][-1]
    spawned = [f for f in room.order_facts() if not f.venue_order_id.startswith("stop:")]
    assert (stop.status, stop.venue_action) == (OrderStatus.CANCELLED, "replaced")
    assert "triggered" in stop.reason
    assert spawned[-1].status is OrderStatus.FILLED
    assert {f.client_order_id for f in spawned} == {place.client_order_id}
    found = room.desk.told([room.desk.rest.order(place.instrument, place.client_order_id, accepted.venue_order_id)])
    assert [f.status for f in of(found, OrderFact)] == [OrderStatus.FILLED]


def test_a_stop_of_a_seller_waits_for_the_price_to_fall_and_may_be_changed_and_cancelled(floor: Floor) -> None:
    room = Room(floor, **options_of(floor))
    place = room.desk.place(
        order_type=OrderType.STOP_LIMIT, side=Side.SELL, trigger_price=Decimal(290), price=Decimal(289)
    )
    first = room.ask(place)
    second = room.ask(amend(place, first.venue_order_id, new_price=Decimal(288)))
    assert second.venue_order_id.startswith("stop:")
    assert second != first
    floor.mark("SBER", "291")
    room.hear()
    found = room.desk.told([room.desk.rest.order(place.instrument, place.client_order_id, "")])
    assert [(f.venue_order_id, f.venue_action) for f in of(found, OrderFact)] == [
        (first.venue_order_id, "replaced"),
        (second.venue_order_id, ""),
    ]
    assert isinstance(room.ask(cancel(place, second.venue_order_id)), Accepted)
    assert states(room.order_facts())[-1] == (second.venue_order_id, OrderStatus.CANCELLED, 0, "")
    floor.mark("SBER", "280")
    room.hear()
    assert all(f.venue_order_id.startswith("stop:") for f in room.order_facts())


@pytest.mark.parametrize("ended", ["canceled", "filled"])
def test_a_stop_whose_order_is_refused_has_ended_with_the_reason(ended: str) -> None:
    floor = Floor(failed_trigger=ended)
    room = Room(floor)
    floor.quote()
    place = room.desk.place(
        order_type=OrderType.STOP, side=Side.SELL, price=None, trigger_price=Decimal(290), quantity=Decimal(9000)
    )
    accepted = room.ask(place)
    floor.mark("SBER", "290")
    room.hear()
    last = room.order_facts()[-1]
    assert (last.venue_order_id, last.status, last.venue_action) == (
        accepted.venue_order_id,
        OrderStatus.CANCELLED,
        "",
    )
    assert "Нехватка" in last.reason


def test_a_stop_waits_until_its_condition_has_held_long_enough(plain: Floor) -> None:
    room = Room(plain, protecting_seconds="15")
    plain.quote()
    room.ask(room.desk.place(order_type=OrderType.STOP, price=None, trigger_price=Decimal(305)))
    plain.mark("SBER", "306")
    plain.pass_ms(14_000)
    plain.mark("SBER", "304")
    plain.mark("SBER", "306")
    plain.pass_ms(14_900)
    room.hear()
    assert [f.status for f in room.order_facts()] == [OrderStatus.WORKING]
    plain.pass_ms(100)
    room.hear()
    assert room.order_facts()[1].venue_action == "replaced"


# ---- Refusals and unknown outcomes


def test_an_order_without_money_is_refused_or_rejected(plain: Floor) -> None:
    room = Room(plain)
    refused = room.ask(room.desk.place(quantity=Decimal(100_000)))
    assert isinstance(refused, Refused)
    assert "not enough funds" in refused.reason
    assert not refused.again

    floor = Floor(reject_by_event=True)
    room = Room(floor)
    accepted = room.ask(room.desk.place(quantity=Decimal(100_000)))
    assert isinstance(accepted, Accepted)
    floor.pass_ms(10)
    room.hear()
    assert states(room.order_facts()) == [(accepted.venue_order_id, OrderStatus.REJECTED, 0, "")]


def test_a_price_off_its_step_and_a_foreign_portfolio_are_refused(plain: Floor) -> None:
    room = Room(plain)
    assert isinstance(room.ask(room.desk.place(price=Decimal("300.005"))), Refused)
    with pytest.raises(ValueError, match="not on this connection"):
        room.ask(room.desk.place(2, account_ref="MOEX:D77777"))


@pytest.mark.parametrize("kind", ["drop_ack", "drop_request", "late"])
@pytest.mark.parametrize("what", ["place", "amend", "cancel"])
def test_an_order_without_an_answer_is_found_by_its_comment_or_proven_absent(
    plain: Floor, kind: str, what: str
) -> None:
    """Acceptance (b): the outcome is settled with exactly one order, whatever got lost."""
    room = Room(plain)
    place = room.desk.place(price=Decimal(299))
    number = "" if what == "place" else room.ask(place).venue_order_id
    command = {
        "place": place,
        "amend": amend(place, number or "0", new_price=Decimal(298)),
        "cancel": cancel(place, number or "0"),
    }[what]
    plain.faults.begin(kind, None, plain.now_ms, times=1, by_ms=500)
    assert room.desk.ask(room.orders, command) == []
    plain.pass_ms(2000)
    reads = [room.desk.rest.order(place.instrument, place.client_order_id, number)]
    done = kind != "drop_request"
    if what == "place" and not done:
        with pytest.raises(VenueError) as raised:
            room.desk.told(reads)
        assert raised.value.error_class is ErrorClass.NOT_FOUND
        return
    facts = of(room.desk.told(reads), OrderFact)
    at_work = [f for f in facts if f.status is OrderStatus.WORKING]
    assert len(at_work) == (0 if what == "cancel" and done else 1)
    assert len([f for f in facts if not f.venue_action]) == 1
    if what == "amend":
        assert at_work[0].price == (298 if done else 299)


def test_a_repeated_identifier_leaves_the_outcome_unknown_and_ends_the_connection(plain: Floor) -> None:
    """Acceptance (c): ours never repeat one; whoever did before us on this connection makes it so."""
    room = Room(plain)
    room.orders.talk.session.guids.add("r1")
    outcome = room.ask(room.desk.place())
    assert isinstance(outcome, Unknown)
    assert room.orders.notices()[-1] is Notice.RETRY
    assert room.orders.talk.closed == (1008, "repeated guid")
    assert not plain.front.account("alor-01").orders
    again = room.desk.orders()
    assert again.notices() == [Notice.READY]


def test_a_request_id_is_never_used_twice_on_a_connection(plain: Floor) -> None:
    room = Room(plain)
    room.orders.conversation.say([room.desk.place()], "r9", plain.now_ms)
    with pytest.raises(ValueError, match="request id"):
        room.orders.conversation.say([room.desk.place(2)], "r9", plain.now_ms)


# ---- Tokens


def minutes(count: float) -> int:
    return round(count * 60_000)


def test_a_connection_outlives_its_first_token_by_authorising_anew(plain: Floor) -> None:
    """Acceptance (a), with renewal."""
    room = Room(plain, "alor-01", "alor-02")
    plain.pass_ms(minutes(24))
    room.desk.renew("alor-01")
    logins = [room.desk.login(a) for a in ("alor-01", "alor-02")]
    room.orders.tell(room.orders.conversation.renew(logins, plain.now_ms))
    assert room.orders.notices() == [Notice.READY]
    assert list(room.ear.conversation.renew(logins, plain.now_ms)) == []
    plain.pass_ms(minutes(7))
    assert isinstance(room.ask(room.desk.place(price=Decimal(299))), Accepted)
    assert len(room.order_facts()) == 1, "what was subscribed to with the old token is told on"


@pytest.mark.parametrize("resets", [False, True])
def test_an_expired_token_ends_the_connection_at_the_next_command_which_is_not_carried_out(resets: bool) -> None:
    """Acceptance (a), without renewal."""
    floor = Floor(expired_resets=resets)
    room = Room(floor)
    floor.pass_ms(minutes(31))
    assert room.orders.talk.closed is None, "nothing happens while nothing is said"
    outcomes = room.desk.ask(room.orders, room.desk.place())
    assert room.orders.talk.closed == ((1006, "") if resets else (1008, "token"))
    if resets:
        assert outcomes == []
    else:
        assert isinstance(outcomes[0], Refused)
        assert outcomes[0].again
        assert room.orders.notices()[-1] is Notice.AUTH_REFUSED
    assert not floor.front.account("alor-01").orders
    with pytest.raises(VenueError) as raised:
        room.desk.told(room.desk.rest.open_orders())
    assert raised.value.error_class is ErrorClass.TOKEN
    room.desk.renew("alor-01")
    assert room.desk.orders().notices() == [Notice.READY]


def test_a_token_that_is_not_taken_is_said_so(plain: Floor) -> None:
    desk = Desk(plain)
    desk.tokens[plain.keys["alor-01"]["refresh_token"]] = "of the other circuit"
    orders, ear = desk.orders(), desk.facts()
    assert [(s.notice, s.code, s.ref) for s in orders.said] == [(Notice.AUTH_REFUSED, "401", "")]
    assert orders.talk.closed is not None
    assert next((s.notice, s.code, s.ref) for s in ear.said) == (Notice.AUTH_REFUSED, "401", "MOEX:D10001")


@pytest.mark.parametrize("nameless", [False, True])
def test_one_accounts_bad_token_does_not_stop_the_others_on_the_connection(nameless: bool) -> None:
    floor = Floor(accounts=4, nameless_401=nameless)
    desk = Desk(floor)
    desk.tokens[floor.keys["alor-03"]["refresh_token"]] = "revoked"
    ear = desk.facts("alor-01", "alor-03", "alor-02")
    assert [(s.notice, s.ref) for s in ear.said] == [
        (Notice.AUTH_REFUSED, "MOEX:D10003"),
        (Notice.READY, ""),
    ]
    floor.front.place_elsewhere("alor-02", {"instrument": SBER, "side": "buy", "price": "299"}, floor.now_ms)
    floor.carry()
    ear.listen()
    assert [f.account_ref for f in of(ear.facts, OrderFact)] == ["MOEX:D10002"]


def test_a_nameless_refusal_before_a_close_is_the_only_accounts_own() -> None:
    floor = Floor(nameless_401=True, close_after_401=True)
    desk = Desk(floor)
    desk.tokens[floor.keys["alor-01"]["refresh_token"]] = "revoked"
    alone = desk.facts(channels=("orders", "trades"))
    said = alone.conversation.closed(1008, "token")
    assert said is not None
    assert said.notice is Notice.AUTH_REFUSED


def test_two_logins_share_a_connection_and_each_trade_finds_its_account(plain: Floor) -> None:
    """Acceptance (e)."""
    floor = Floor(accounts=4)
    desk = Desk(floor)
    ear = desk.facts("alor-01", "alor-04")
    floor.quote()
    for account in ("alor-01", "alor-04"):
        floor.front.place_elsewhere(account, {"instrument": SBER, "side": "buy", "quantity": 1}, floor.now_ms)
    floor.carry()
    ear.listen()
    told = {f.account_ref: f.fill_id for f in of(ear.facts, FillFact)}
    assert told == {
        "MOEX:D10001": next(iter(floor.front.account("alor-01").fills)),
        "MOEX:D10004": next(iter(floor.front.account("alor-04").fills)),
    }


def test_one_connection_takes_the_orders_of_all_portfolios_of_a_login(plain: Floor) -> None:
    room = Room(plain, "alor-01", "alor-02")
    for account in ("alor-01", "alor-02"):
        place = room.desk.place(account_ref=room.desk.ref(account), price=Decimal(299))
        assert isinstance(room.ask(place), Accepted)
        assert len(plain.front.account(account).orders) == 1


def test_a_portfolio_that_the_token_may_not_see_is_refused_for_good(plain: Floor) -> None:
    desk = Desk(plain)
    stranger = ALOR.rest(desk.catalogue, ref="MOEX:D77777", options=desk.options)
    with pytest.raises(VenueError) as raised:
        desk.walk(stranger.identity())
    assert raised.value.error_class is ErrorClass.AUTH
    (page,) = desk.walk(desk.rest.identity())
    assert page.identity is not None
    assert page.identity.venue_ref == "MOEX:D10001"


def test_a_revoked_refresh_token_is_a_matter_for_a_person(plain: Floor) -> None:
    desk = Desk(plain)
    plain.front.command("kill_key", ["alor-01"], {}, plain.now_ms)
    with pytest.raises(VenueError) as raised:
        desk.grant("alor-01")
    assert raised.value.error_class is ErrorClass.AUTH


# ---- What was missed


def trade_days(floor: Floor, days: int, each: int = 2) -> None:
    for _ in range(days):
        for _ in range(each):
            floor.pass_ms(500)
            floor.front.place_elsewhere("alor-01", {"instrument": SBER, "side": "buy", "quantity": 1}, floor.now_ms)
        floor.pass_ms(86_400_000)
    floor.carry()


@pytest.mark.parametrize("inclusive", [True, False])
@pytest.mark.parametrize("each", [1, 3])
def test_an_outage_over_several_sessions_loses_no_trade(inclusive: bool, each: int) -> None:
    """Acceptance (d): what the current session tells and what history tells are together everything."""
    floor = Floor(from_inclusive=inclusive)
    floor.quote(size="10000")
    desk, since_ms = Desk(floor), floor.now_ms
    trade_days(floor, 3, each)
    floor.front.place_elsewhere("alor-01", {"instrument": SBER, "side": "sell", "quantity": 1}, floor.now_ms)
    desk.renew("alor-01")
    fills = of(desk.told(desk.rest.fills(since_ms, floor.now_ms)), FillFact)
    assert {f.fill_id for f in fills} == floor.front.account("alor-01").fills.keys()
    assert len(fills) == 3 * each + 1


def test_a_day_order_ends_with_its_session_and_a_future_order_may_outlive_it() -> None:
    floor = Floor()
    room = Room(floor, time_in_force="goodtillcancelled")
    share = room.ask(room.desk.place(1, price=Decimal(299)))
    future = room.ask(room.desk.place(2, FUTURE, price=Decimal(29_000), quantity=Decimal(1)))
    floor.pass_ms(86_400_000)
    room.hear()
    last = {f.venue_order_id: f.status for f in room.order_facts()}
    assert last == {share.venue_order_id: OrderStatus.CANCELLED, future.venue_order_id: OrderStatus.WORKING}
    room.desk.renew("alor-01")
    assert [f.venue_order_id for f in of(room.desk.told(room.desk.rest.open_orders()), OrderFact)] == [
        future.venue_order_id
    ]
    with pytest.raises(VenueError) as raised:
        room.desk.told([room.desk.rest.order(room.desk.catalogue.found[SBER], room.desk.place(1).client_order_id, "")])
    assert raised.value.error_class is ErrorClass.NOT_FOUND


def test_a_stream_that_tells_nothing_is_found_out_by_reading(plain: Floor) -> None:
    """Acceptance (i): nothing was heard, and everything is read."""
    room = Room(plain)
    room.desk.ask(room.orders, room.desk.place(price=Decimal(299)))
    room.ear.talk.frames.clear()  # the connection lives, and tells nothing
    room.hear()
    assert room.order_facts() == []
    assert len(room.desk.told(room.desk.rest.open_orders())) == 1


def test_a_list_that_is_answered_with_404_is_empty_only_when_told_so() -> None:
    floor = Floor(empty_404=True)
    careful, told = Desk(floor), Desk(floor, empty_lists="404")
    told.tokens = careful.tokens
    with pytest.raises(VenueError) as raised:
        careful.told([careful.rest.order(careful.catalogue.found[SBER], careful.place().client_order_id, "")])
    assert raised.value.error_class is ErrorClass.REFUSED, "else an order would seem proven absent"
    assert told.told(told.rest.open_orders()) == []


def test_trades_between_two_sessions_are_read_once_they_are_published() -> None:
    floor = Floor(history_delay_ms=600_000)
    floor.quote()
    desk, since_ms = Desk(floor), floor.now_ms
    floor.front.place_elsewhere("alor-01", {"instrument": SBER, "side": "buy", "quantity": 1}, floor.now_ms)
    until_ms = floor.front.trading.session_began_ms + 86_400_000
    floor.pass_ms(until_ms - floor.now_ms + 1000)
    desk.renew("alor-01")
    assert of(desk.told(desk.rest.fills(since_ms, floor.now_ms)), FillFact) == []
    floor.pass_ms(600_000)
    assert len(of(desk.told(desk.rest.fills(since_ms, floor.now_ms)), FillFact)) == 1


# ---- Orders over HTTP


@pytest.mark.parametrize(("repeat", "as_json"), [("same", False), ("old", True)])
def test_orders_go_out_over_http_as_well_and_the_same_request_is_carried_out_once(repeat: str, as_json: bool) -> None:
    floor = Floor(reqid_repeat=repeat, delete_as_json=as_json)
    desk = Desk(floor)
    place = desk.place(price=Decimal(299))
    request = desk.rest.orders_request([place])
    (first,) = desk.rest.read_outcomes([place], desk.send(request))
    (again,) = desk.rest.read_outcomes([place], desk.send(request))
    assert isinstance(first, Accepted)
    assert again == first
    assert len(floor.front.account("alor-01").orders) == 1
    changed = amend(place, first.venue_order_id, new_price=Decimal(298))
    (second,) = desk.rest.read_outcomes([changed], desk.send(desk.rest.orders_request([changed])))
    assert isinstance(second, Accepted)
    gone = cancel(place, second.venue_order_id)
    for expected in (Accepted, Refused):
        (outcome,) = desk.rest.read_outcomes([gone], desk.send(desk.rest.orders_request([gone])))
        assert isinstance(outcome, expected)
    stop = desk.place(2, order_type=OrderType.STOP, price=None, trigger_price=Decimal(310))
    (stopped,) = desk.rest.read_outcomes([stop], desk.send(desk.rest.orders_request([stop])))
    gone = cancel(stop, stopped.venue_order_id)
    (outcome,) = desk.rest.read_outcomes([gone], desk.send(desk.rest.orders_request([gone])))
    assert outcome == stopped


def test_an_order_that_is_changed_over_http_is_replaced_and_not_ended() -> None:
    desk = Desk(Floor())
    ear = desk.facts()
    place = desk.place(price=Decimal(299))
    (first,) = desk.rest.read_outcomes([place], desk.send(desk.rest.orders_request([place])))
    assert isinstance(first, Accepted)
    for new_price, action in ((Decimal(0), ""), (Decimal(298), REPLACED)):
        changed = amend(place, first.venue_order_id, new_price=new_price)
        desk.rest.read_outcomes([changed], desk.send(desk.rest.orders_request([changed])))
        ear.listen()
        ended = [f for f in of(ear.facts, OrderFact) if f.status is OrderStatus.CANCELLED]
        assert [f.venue_action for f in ended] == ([action] if action else [])


# ---- Prices


def test_prices_of_every_channel_are_marks_of_the_exchange(plain: Floor) -> None:
    desk = Desk(plain)
    plain.quote()
    ear = desk.facts(channels=("quotes:SBER/RUB", "orderbook:SBER/RUB", "bars:SBER/RUB@60", "instruments:SBER/RUB"))
    assert Notice.READY in ear.notices()
    plain.mark("SBER", "305")
    plain.pass_ms(1000)
    ear.listen()
    marks = of(ear.facts, MarkFact)
    assert {(m.basis, m.instrument, m.market) for m in marks} == {
        (basis, SBER, "MOEX") for basis in ("last", "bid", "ask")
    }
    assert {m.price for m in marks if m.basis == "bid"} == {Decimal(299)}
    assert Decimal(305) in {m.price for m in marks if m.basis == "last"}
    assert all(abs(m.at_ms - plain.now_ms) <= 120_000 for m in marks)
    (read,) = Desk(plain, quoted="SBER/RUB,CNY/RUB").rest.marks()
    assert {m.instrument for m in of(desk.told([read]), MarkFact)} == {SBER, YUAN}


def test_candles_are_walked_to_the_end() -> None:
    floor = Floor(page_rows=3)
    since_ms = floor.now_ms
    for minute in range(8):
        floor.mark("SBER", str(300 + minute))
        floor.pass_ms(60_000)
    desk = Desk(floor)
    pages = [p for read in desk.rest.candles(SBER, 60, since_ms, floor.now_ms) for p in desk.walk(read)]
    candles = [c for p in pages for c in p.candles]
    assert [int(c.close) for c in candles] == list(range(300, 308))
    assert all(c.finished for c in candles)
    assert len(pages) == 3


def test_the_venues_time_is_right_to_a_second(plain: Floor) -> None:
    (page,) = Desk(plain).walk(Desk(plain).rest.server_time())
    assert page.server_time_ms is not None
    assert abs(page.server_time_ms - plain.now_ms) <= 1500


# ---- Whatever the switches


@pytest.mark.parametrize("seed", range(12))
def test_a_life_at_a_venue_drawn_by_chance_ends_with_the_same_books(seed: int) -> None:
    rules = drawn(random.Random(seed), limits=False)
    floor = Floor(**{f: getattr(rules, f) for f in Rules.__struct_fields__})
    room = Room(floor, "alor-01", "alor-02")
    chance = random.Random(f"life {seed}")
    floor.quote(size="1000")
    opened = {a: dict(floor.front.account(a).cash) for a in ("alor-01", "alor-02")}
    living: list[tuple[Any, str]] = []
    for n in range(25):
        account = chance.choice(("alor-01", "alor-02"))
        doing = chance.random()
        if doing < 0.6 or not living:
            instrument, price = chance.choice(((SBER, 299 + chance.randrange(4)), (FUTURE, 30_000)))
            place = room.desk.place(n, instrument, price=Decimal(price), account_ref=room.desk.ref(account))
            outcome = room.ask(place)
            if isinstance(outcome, Accepted):
                living.append((place, outcome.venue_order_id))
        elif doing < 0.8:
            place, number = living.pop(chance.randrange(len(living)))
            room.ask(cancel(place, number))
        else:
            place, number = living.pop(chance.randrange(len(living)))
            outcome = room.ask(amend(place, number, new_price=place.price + 1))
            if isinstance(outcome, Accepted):
                living.append((place, outcome.venue_order_id))
    room.hear()
    for account in ("alor-01", "alor-02"):
        ref, truth = room.desk.ref(account), floor.front.account(account)
        fills = {f.fill_id: f for f in of(room.ear.facts, FillFact) if f.account_ref == ref}
        assert fills.keys() == truth.fills.keys()
        cash = opened[account]
        for fill in fills.values():
            if fill.instrument == SBER:
                cash["SBER"] += fill.side.sign * fill.quantity * 10
                cash["RUB"] -= fill.side.sign * fill.quantity * 10 * fill.price - (fill.fee or 0)
        assert cash == truth.cash
        latest: dict[str, OrderFact] = {}
        for fact in room.order_facts():
            if fact.account_ref == ref:
                latest[fact.venue_order_id] = fact
        at_work = {i for i, f in latest.items() if f.status is OrderStatus.WORKING}
        assert at_work == {i for i, o in truth.orders.items() if o.status is OrderStatus.WORKING}
        plain_ends = {f.client_order_id for f in latest.values() if f.status.terminal and not f.venue_action}
        working = {latest[i].client_order_id for i in at_work}
        assert not plain_ends & working, "what is at work has not ended"
