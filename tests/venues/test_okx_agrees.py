"""Our reads of OKX against its front, over more rows than a page holds: nothing is missed and nothing comes twice."""

from __future__ import annotations

from collections import Counter

import pytest

from accounts.model import Secret
from engine.core.facts import CashFact, Fact, FillFact, OrderFact
from engine.core.instruments import Instrument
from engine.core.venue import Call, Page, Read, Response
from engine.venues import venues
from tests.venues.okx_talk import Floor

OKX = venues()["okx"]
ETH = "ETH/USDT:USDT"
MANY = 250


class Nothing:
    """Walks name no instrument, so they need no catalogue."""

    def by_name(self, name: str) -> Instrument | None:
        return None


class Reader:
    """One account's reads, signed and answered; something may happen between two pages."""

    def __init__(self, floor: Floor) -> None:
        self.floor, self.rest, self.requests = floor, OKX.rest(Nothing(), ref="", options={}), 0
        self.credentials = {name: Secret(floor.keys["demo-01"][name]) for name in OKX.credential_fields}

    def page(self, read: Read) -> Page:
        signed = OKX.sign(read.request, self.credentials, "demo", self.floor.now_ms)
        headers = {name.lower(): value for name, value in signed.headers}
        call = Call(method=signed.method, target=signed.path, headers=headers, body=signed.body)
        response = self.floor.front.call(call, self.floor.now_ms)
        assert isinstance(response, Response)
        self.requests += 1
        return read.read(response)

    def walk(self, reads: object, meanwhile: bool = False) -> list[Fact]:
        found: list[Fact] = []
        assert isinstance(reads, list | tuple)
        for first in reads:
            read: Read | None = first
            while read is not None:
                page = self.page(read)
                found += page.facts
                read = page.next
                self.floor.now_ms += 1000  # stay inside the venue's limits
                if meanwhile:
                    self.floor.buy_elsewhere()
        return found


@pytest.fixture(params=[False, True], ids=["whole", "reversals split in two rows"])
def floor(request: pytest.FixtureRequest) -> Floor:
    made = Floor(split_reversals=request.param, limits=False)
    made.quote(size="100000")
    for number in range(MANY):
        made.now_ms += 500 if number % 7 else 0  # some share their millisecond
        side = ("buy", "sell")[number % 3 == 2]
        ask = {"instrument": ETH, "side": side, "quantity": ("0.01", "0.05")[number % 3 == 2]}
        assert made.front.place_elsewhere("demo-01", ask, made.now_ms)["sCode"] == "0"
    return made


@pytest.mark.parametrize("meanwhile", [False, True])
def test_every_fill_is_read_once_also_while_new_ones_come_in(floor: Floor, meanwhile: bool) -> None:
    truth = Counter((row["tradeId"], row["ordId"]) for row in floor.front.truth("fills", "demo-01"))
    total = sum(float(str(row["fillSz"])) for row in floor.front.truth("fills", "demo-01"))
    since = floor.now_ms - 3_600_000
    reader = Reader(floor)
    found = [f for f in reader.walk(reader.rest.fills(since, floor.now_ms), meanwhile) if isinstance(f, FillFact)]
    assert reader.requests >= 3
    assert len({f.fill_id for f in found}) == len(found) == len(truth)
    assert float(sum(f.quantity for f in found)) == pytest.approx(total)


def test_every_order_and_every_movement_of_cash_is_read_once(floor: Floor) -> None:
    since = floor.now_ms - 3_600_000
    reader = Reader(floor)
    orders = [o for o in reader.walk(reader.rest.orders(since, floor.now_ms)) if isinstance(o, OrderFact)]
    truth = {row["ordId"] for row in floor.front.truth("orders", "demo-01")}
    assert len(orders) == len(truth) == MANY
    assert {o.venue_order_id for o in orders} == truth
    cash = [c for c in reader.walk(reader.rest.cash(since, floor.now_ms)) if isinstance(c, CashFact)]
    assert len({c.cash_id for c in cash}) == len(cash)
    by_currency = {b["ccy"]: b["cashBal"] for b in floor.front.truth("balances", "demo-01")}
    assert str(sum(c.amount for c in cash if c.currency == "USDT").normalize()) == by_currency["USDT"]


def test_every_open_order_is_listed_once(floor: Floor) -> None:
    for _ in range(MANY):
        ask = {"instrument": ETH, "side": "buy", "quantity": "0.01", "price": "2000"}
        assert floor.front.place_elsewhere("demo-01", ask, floor.now_ms)["sCode"] == "0"
    reader = Reader(floor)
    found = [o for o in reader.walk(reader.rest.open_orders()) if isinstance(o, OrderFact)]
    assert len({o.venue_order_id for o in found}) == len(found) == MANY
