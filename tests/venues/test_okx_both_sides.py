"""Our side of OKX against the other one, without sockets: neither may say what the other cannot read."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from accounts.model import Secret
from engine.core.facts import BalanceFact, EquityFact, Fact, FillFact, OrderFact, OrderStatus, PositionFact, Side
from engine.core.instruments import Instrument
from engine.core.orders import Accepted, Amend, Cancel, Command, OrderType, Outcome, Place, Refused, order_uuid
from engine.core.venue import Call, ErrorClass, Login, Notice, Page, Read, Request, Response, Said, VenueError
from engine.venues import venues
from tests.venues.okx_talk import PRIVATE, PUBLIC, SPOT, SWAP, Floor

OKX = venues()["okx"]
ETH, BTC = "ETH/USDT:USDT", "BTC/USDT"


class Catalogue(dict[str, Instrument]):
    def by_name(self, name: str) -> Instrument | None:
        return self.get(name)


class Desk:
    """One account of ours at the simulated venue, over its stream and its REST."""

    def __init__(self, floor: Floor, account: str = "demo-01") -> None:
        self.floor, self.catalogue = floor, Catalogue()
        self.credentials = {field: Secret(floor.keys[account][field]) for field in OKX.credential_fields}
        self.rest = OKX.rest(self.catalogue, ref="", options={})
        self.facts, self.said, self.outcomes = list[Fact](), list[Said](), list[Outcome]()
        self._asked = 0
        for read in self.rest.instruments():
            self.catalogue |= {i.name: i for page in self.walk(read) for i in page.instruments}

    def connect(self, kind: str, *channels: str) -> None:
        self.conversation = OKX.converse(
            kind=kind,
            channels=channels or OKX.endpoint(kind).channels,
            logins=[Login("", self.credentials)],
            environment="demo",
            catalogue=self.catalogue,
            options=OKX.options,
        )
        self.talk = self.floor.connect(PUBLIC if kind == "public" else PRIVATE)
        for frame in self.conversation.open(self.floor.now_ms):
            assert isinstance(frame, str)
            self.talk.say(frame)
        self.listen()

    def listen(self) -> None:
        while self.talk.frames:
            frames, self.talk.frames = self.talk.frames, []
            for frame in frames:
                heard = self.conversation.hear(frame.encode(), self.floor.now_ms)
                assert Notice.UNREADABLE not in [said.notice for said in heard.said], (frame, heard.said)
                self.facts += heard.facts
                self.said += heard.said
                self.outcomes += [outcome for reply in heard.replies for outcome in reply.outcomes]
                for answer in heard.frames:
                    assert isinstance(answer, str)
                    self.talk.say(answer)

    def ask(self, *commands: Command) -> list[Outcome]:
        self.outcomes, self._asked = [], self._asked + 1
        frame = self.conversation.say(commands, f"r{self._asked}", self.floor.now_ms)
        assert isinstance(frame, str)
        self.talk.say(frame)
        self.settle()
        return self.outcomes

    def settle(self) -> None:
        """Let what is aggregated be told."""
        self.floor.pass_ms(200)
        self.listen()

    def send(self, request: Request) -> Response:
        signed = OKX.sign(request, self.credentials, "demo", self.floor.now_ms)
        call = Call(
            method=signed.method,
            target=signed.path,
            headers={name.lower(): value for name, value in signed.headers},
            body=signed.body,
        )
        response = self.floor.front.call(call, self.floor.now_ms)
        assert response is not None
        self.floor.carry()
        return response

    def walk(self, read: Read | None) -> list[Page]:
        pages = list[Page]()
        while read is not None:
            pages.append(read.read(self.send(read.request)))
            read = pages[-1].next
        return pages

    def told(self, reads: Any) -> list[Fact]:
        return [fact for read in reads for page in self.walk(read) for fact in page.facts]

    def place(self, number: int, instrument: str = ETH, **changes: Any) -> Place:
        fields: dict[str, Any] = {
            "client_order_id": OKX.render_order_id(order_uuid("plan", "demo-01", 0, number).int),
            "instrument": self.catalogue[instrument],
            "side": Side.BUY,
            "order_type": OrderType.LIMIT,
            "quantity": Decimal(2),
            "price": Decimal(2501),
            "margin_mode": "cash" if instrument == BTC else "cross",
            "expires_at_ms": self.floor.now_ms + 10_000,
        }
        return Place(**{**fields, **changes})


@pytest.fixture
def floor() -> Floor:
    return Floor()


@pytest.fixture
def desk(floor: Floor) -> Desk:
    desk = Desk(floor)
    desk.connect("private")
    assert Notice.READY in [said.notice for said in desk.said]
    return desk


def of(facts: list[Fact], kind: type[Any]) -> list[Any]:
    return [fact for fact in facts if isinstance(fact, kind)]


def cancel(place: Place, venue_order_id: str = "") -> Cancel:
    return Cancel(client_order_id=place.client_order_id, venue_order_id=venue_order_id, instrument=place.instrument)


def test_an_order_is_accepted_filled_and_told_alike_by_stream_and_history(floor: Floor, desk: Desk) -> None:
    floor.quote(SWAP, ask="2501", size="1.5")
    since_ms = floor.now_ms
    (accepted,) = desk.ask(desk.place(1))
    assert isinstance(accepted, Accepted)
    floor.house(SWAP, "sell", "5", "2501")
    desk.settle()

    streamed = {f.fill_id: f for f in of(desk.facts, FillFact)}
    fetched = {f.fill_id: f for f in of(desk.told(desk.rest.fills(since_ms, floor.now_ms)), FillFact)}
    assert streamed.keys() == fetched.keys()
    assert len(streamed) == 2
    for fill_id, fill in streamed.items():
        assert msgspec.structs.replace(fetched[fill_id], history_id="") == fill
    assert sum(f.quantity for f in streamed.values()) == 2
    assert [f.liquidity for f in streamed.values()] == ["taker", "maker"]

    floor.pass_ms(5_000)  # history may stand a few seconds behind
    last = of(desk.facts, OrderFact)[-1]
    (fetched_order,) = of(desk.told(desk.rest.orders(since_ms, floor.now_ms)), OrderFact)
    assert last.status is OrderStatus.FILLED
    assert last == fetched_order

    booked = desk.told(desk.rest.cash(since_ms, floor.now_ms))
    assert {c.fill_id for c in booked if c.kind == "trade"} <= streamed.keys()  # type: ignore[union-attr]


def test_position_and_balances_end_up_as_the_statement_tells_them(floor: Floor, desk: Desk) -> None:
    floor.quote()
    desk.ask(desk.place(1))
    desk.ask(desk.place(2, BTC, order_type=OrderType.MARKET, price=None, quantity=Decimal("0.01")))
    floor.quote(SPOT, bid="60000", ask="60001", size="1")
    desk.ask(desk.place(3, BTC, order_type=OrderType.MARKET, price=None, quantity=Decimal("0.01")))
    statement = desk.told(desk.rest.statement())
    pushed = {(p.instrument, p.position_side): p.quantity for p in of(desk.facts, PositionFact)}
    assert pushed == {(p.instrument, p.position_side): p.quantity for p in of(statement, PositionFact)}
    assert pushed[ETH, "net"] == 2
    cash = {b.currency: b.cash for b in of(desk.facts, BalanceFact)}
    assert cash == {b.currency: b.cash for b in of(statement, BalanceFact)}
    assert len(of(statement, EquityFact)) == 1
    assert sum(f.quantity for f in of(desk.facts, FillFact) if f.instrument == BTC) == Decimal("0.01"), "sized in base"


def test_cancel_amend_and_their_refusals(floor: Floor, desk: Desk) -> None:
    resting = desk.place(1, price=Decimal(2400))
    (accepted,) = desk.ask(resting)
    assert isinstance(accepted, Accepted)
    assert [f.venue_order_id for f in of(desk.told(desk.rest.open_orders()), OrderFact)] == [accepted.venue_order_id]

    change = Amend(
        client_order_id=resting.client_order_id,
        venue_order_id=accepted.venue_order_id,
        instrument=resting.instrument,
        amend_id="amend1",
        new_quantity=Decimal(3),
        expires_at_ms=floor.now_ms + 10_000,
    )
    assert isinstance(desk.ask(change)[0], Accepted)
    amended = of(desk.facts, OrderFact)[-1]
    assert (amended.quantity, amended.amend_id, amended.amend_failed) == (3, "amend1", "")

    assert isinstance(desk.ask(cancel(resting, accepted.venue_order_id))[0], Accepted)
    ended = of(desk.facts, OrderFact)[-1]
    assert (ended.status, ended.reason) == (OrderStatus.CANCELLED, "1: by the user")
    (again,) = desk.ask(cancel(resting, accepted.venue_order_id))
    assert isinstance(again, Refused)
    assert again.target_gone
    assert desk.told(desk.rest.open_orders()) == []


def test_a_batch_tells_each_of_its_orders_apart(floor: Floor, desk: Desk) -> None:
    good, off_the_lot = desk.place(1, price=Decimal(2400)), desk.place(2, quantity=Decimal("0.0001"))
    accepted, refused = desk.ask(good, off_the_lot)
    assert isinstance(accepted, Accepted)
    assert isinstance(refused, Refused)
    assert [type(o) for o in desk.ask(cancel(good), cancel(off_the_lot))] == [Accepted, Refused]


def test_an_order_past_its_deadline_is_refused_and_provably_not_there(floor: Floor, desk: Desk) -> None:
    late = desk.place(1, expires_at_ms=floor.now_ms - 1)
    (refused,) = desk.ask(late)
    assert isinstance(refused, Refused)
    read = desk.rest.order(late.instrument, late.client_order_id, "")
    with pytest.raises(VenueError) as raised:
        desk.walk(read)
    assert raised.value.error_class is ErrorClass.NOT_FOUND


def test_the_same_orders_go_over_http(floor: Floor, desk: Desk) -> None:
    order = desk.place(1, price=Decimal(2400))
    commands: list[Command] = [order]
    (accepted,) = desk.rest.read_outcomes(commands, desk.send(desk.rest.orders_request(commands)))
    assert isinstance(accepted, Accepted)
    (found,) = desk.told([desk.rest.order(order.instrument, order.client_order_id, "")])
    assert isinstance(found, OrderFact)
    assert found.venue_order_id == accepted.venue_order_id
    assert OKX.owns_order_id(found.client_order_id)
    commands = [cancel(order), cancel(desk.place(2))]
    outcomes = desk.rest.read_outcomes(commands, desk.send(desk.rest.orders_request(commands)))
    assert [type(o) for o in outcomes] == [Accepted, Refused]


def test_who_the_key_belongs_to_and_what_time_it_is(floor: Floor, desk: Desk) -> None:
    (page,) = desk.walk(desk.rest.identity())
    assert page.identity is not None
    assert page.identity.venue_ref
    assert page.identity.may_trade
    assert not page.identity.may_withdraw
    (page,) = desk.walk(desk.rest.server_time())
    assert page.server_time_ms is not None
    assert abs(page.server_time_ms - floor.now_ms) < 1000


def test_every_price_of_the_shared_feed_is_read(floor: Floor) -> None:
    desk = Desk(floor)
    desk.connect("public", f"mark-price:{ETH}", f"tickers:{BTC}", "instruments:SWAP")
    assert Notice.READY in [said.notice for said in desk.said]
    floor.quote()
    floor.quote(SPOT, bid="60000", ask="60001")
    desk.settle()
    assert {fact.instrument for fact in desk.facts} == {ETH, BTC}
    assert {fact.instrument for fact in desk.told(desk.rest.marks())} >= {ETH, BTC}


def test_the_notice_of_a_close_is_heard(floor: Floor, desk: Desk) -> None:
    floor.front.command("notice", ["demo-01"], {"seconds": "60"}, floor.now_ms)
    floor.carry()
    desk.listen()
    assert desk.said[-1].notice is Notice.CLOSING_SOON


def test_a_wrong_key_is_refused_for_good(floor: Floor) -> None:
    desk = Desk(floor)
    desk.credentials = {**desk.credentials, "secret": Secret("not this one")}
    desk.connect("private")
    assert [said.notice for said in desk.said] == [Notice.AUTH_REFUSED]
