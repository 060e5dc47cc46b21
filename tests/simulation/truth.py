"""Decides. What must hold, by the venue's own truth: during a run and after it has settled."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec

from engine.core.facts import FillFact, OrderFact, OrderStatus
from engine.core.orders import OrderState
from engine.venues.okx.front import OkxFront
from engine.venues.okx.front_state import Customer, Fill, Order

_ENDED = {
    OrderState.FILLED: "filled",
    OrderState.CANCELLED: "canceled",
    OrderState.EXPIRED: "canceled",
}
_NEVER = (OrderState.REJECTED, OrderState.NOT_PLACED, OrderState.SKIPPED, OrderState.PLANNED)


class Verdict(msgspec.Struct):
    """What a run came to."""

    intents: int = 0
    fills: int = 0
    lost: list[str] = msgspec.field(default_factory=list)
    duplicated: list[str] = msgspec.field(default_factory=list)
    wrongly_final: list[str] = msgspec.field(default_factory=list)
    broken: list[str] = msgspec.field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not (self.lost or self.duplicated or self.wrongly_final or self.broken)

    def complaints(self) -> list[str]:
        return [
            *(f"lost: {x}" for x in self.lost),
            *(f"duplicated: {x}" for x in self.duplicated),
            *(f"wrongly final: {x}" for x in self.wrongly_final),
            *(f"broken: {x}" for x in self.broken),
        ]


class Witness:
    """Looks at every send and, now and then, at the database: what it saw once must stay so."""

    def __init__(self, database: str, front: OkxFront, verdict: Verdict) -> None:
        self._database, self._front, self.verdict = database, front, verdict
        self._conn: sqlite3.Connection | None = None
        self.sent: Counter[str] = Counter()
        self._watermarks: dict[str, int] = {}
        self._final: dict[str, str] = {}

    def close(self) -> None:
        if self._conn is not None:
            self._conn.close()

    def ask(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        if self._conn is None:
            self._conn = sqlite3.connect(f"file:{self._database}?mode=ro", uri=True, isolation_level=None)
        return self._conn.execute(statement, values).fetchall()

    def on_send(self, frame: str | bytes) -> None:
        text = frame if isinstance(frame, str) else frame.decode("utf-8", "replace")
        if '"clOrdId"' not in text and '"reqId"' not in text:
            return
        said = msgspec.json.decode(text)
        asks = said.get("args", [said]) if isinstance(said, dict) else said
        for ask in asks:
            if "ordType" in ask:
                self._placing(str(ask["clOrdId"]))
            elif "reqId" in ask and not self.ask("SELECT 1 FROM intent WHERE intent_id = ?", ask["reqId"]):
                self.verdict.broken.append(f"amendment {ask['reqId']} was sent without a durable intent")

    def _placing(self, client_order_id: str) -> None:
        self.sent[client_order_id] += 1
        if self.sent[client_order_id] > 1:
            self.verdict.duplicated.append(f"order {client_order_id} was sent {self.sent[client_order_id]} times")
        rows = self.ask(
            "SELECT c.state, c.claim_token, i.claim_token FROM intent i JOIN child c ON c.child_id = i.child_id "
            "WHERE i.intent_id = ? AND i.kind = 'place'",
            client_order_id,
        )
        if not rows:
            self.verdict.broken.append(f"order {client_order_id} was sent without a committed claim")
        elif rows[0][0] != "sending" or not rows[0][1] or rows[0][1] != rows[0][2]:
            self.verdict.broken.append(f"order {client_order_id} was sent under a claim that reads {rows[0]}")

    def look(self) -> None:
        """The database at this moment."""
        for (open_attempts,) in self.ask(
            "SELECT count(*) FROM child WHERE state IN ('planned','sending','unknown','working') "
            "GROUP BY plan_id, account_id, leg HAVING count(*) > 1"
        ):
            self.verdict.broken.append(f"{open_attempts} attempts of one child are open at once")
        for account_id, watermark_ms in self.ask("SELECT account_id, watermark_ms FROM cursor WHERE stream='history'"):
            if watermark_ms < self._watermarks.get(account_id, 0):
                self.verdict.broken.append(f"{account_id}: its watermark went back to {watermark_ms}")
            self._watermarks[account_id] = watermark_ms
        for client_order_id, account_id, state in self.ask(
            "SELECT client_order_id, account_id, state FROM child WHERE state IN "
            "('filled','cancelled','expired','rejected','not_placed','skipped')"
        ):
            before = self._final.get(client_order_id)
            if before == state:
                continue
            if before is not None:
                self.verdict.wrongly_final.append(f"{client_order_id} was {before} and became {state}")
            self._final[client_order_id] = state
            self._judge(account_id, client_order_id, OrderState(state))

    def _judge(self, account_id: str, client_order_id: str, state: OrderState) -> None:
        orders = orders_of(self._front, account_id, client_order_id)
        if state in _NEVER:
            if orders:
                self.verdict.wrongly_final.append(
                    f"{account_id} {client_order_id}: {state}, the venue has {_told(orders)}"
                )
        elif len(orders) != 1 or orders[0].state != _ENDED[state]:
            self.verdict.wrongly_final.append(f"{account_id} {client_order_id}: {state}, the venue has {_told(orders)}")

    # ---- after everything has settled

    def settle(self) -> None:
        """Compare everything that is stored with everything that happened."""
        verdict = self.verdict
        self.look()
        children = {
            str(row[0]): row
            for row in self.ask("SELECT client_order_id, account_id, state, filled, quantity, late FROM child")
        }
        verdict.intents += self.ask("SELECT count(*) FROM intent WHERE kind='place'")[0][0]
        intents = {str(row[0]) for row in self.ask("SELECT intent_id FROM intent WHERE kind='place'")}
        for customer in self._front.trading.customers.values():
            self._settle_fills(customer)
            at_venue: Counter[str] = Counter()
            for order in customer.orders.values():
                if order.cl_ord_id:
                    at_venue[order.cl_ord_id] += 1
                    if order.cl_ord_id not in intents:
                        verdict.broken.append(
                            f"{customer.name}: the venue has {order.cl_ord_id}, of which there is no intent"
                        )
            verdict.duplicated += [
                f"{customer.name} {c}: {n} orders at the venue" for c, n in at_venue.items() if n > 1
            ]
        self._settle_attempts()
        for client_order_id, (_, account_id, state, filled, _quantity, late) in children.items():
            orders = orders_of(self._front, account_id, client_order_id)
            told = OrderState(state)
            if told in (OrderState.SENDING, OrderState.UNKNOWN):
                verdict.broken.append(f"{account_id} {client_order_id} is still {state}; the venue has {_told(orders)}")
            elif told is OrderState.WORKING:
                if len(orders) != 1 or not orders[0].open:
                    verdict.broken.append(f"{account_id} {client_order_id} is working; the venue has {_told(orders)}")
            else:
                self._judge(account_id, client_order_id, told) if client_order_id not in self._final else None
            if late:
                verdict.wrongly_final.append(f"{account_id} {client_order_id} is marked late ({state})")
            if orders and Decimal(filled) != orders[0].filled:
                verdict.broken.append(
                    f"{account_id} {client_order_id}: filled {filled}, the venue says {orders[0].filled}"
                )

    def _settle_attempts(self) -> None:
        """Of all attempts of one child the venue has one at most: the others provably never arrived."""
        at_venue: Counter[tuple[str, str, int]] = Counter()
        for plan_id, account_id, leg, client_order_id in self.ask(
            "SELECT plan_id, account_id, leg, client_order_id FROM child"
        ):
            at_venue[plan_id, account_id, leg] += bool(orders_of(self._front, account_id, client_order_id))
        self.verdict.duplicated += [
            f"{account_id}: {n} attempts of leg {leg} of {plan_id} are at the venue"
            for (plan_id, account_id, leg), n in at_venue.items()
            if n > 1
        ]

    def sent_anew(self) -> int:
        """How many further attempts went out."""
        ((count,),) = self.ask("SELECT count(*) FROM child WHERE attempt > 1 AND sent_at_ms IS NOT NULL")
        return int(count)

    def _settle_fills(self, customer: Customer) -> None:
        verdict = self.verdict
        true = merged(customer.fills)
        verdict.fills += len(true)
        stored: dict[str, FillFact] = {}
        orders: dict[str, OrderFact] = {}
        for kind, body in self.ask(
            "SELECT kind, body FROM fact WHERE account_id=? AND kind IN ('fill','order') ORDER BY id", customer.name
        ):
            if kind == "order":
                order = msgspec.json.decode(body, type=OrderFact)
                known = orders.get(order.venue_order_id)
                if known is None or (
                    order.filled >= known.filled and (order.status.terminal or not known.status.terminal)
                ):
                    orders[order.venue_order_id] = order
                continue
            fill = msgspec.json.decode(body, type=FillFact)
            if fill.fill_id in stored:
                verdict.duplicated.append(f"{customer.name}: fill {fill.fill_id} is stored twice")
            stored[fill.fill_id] = fill
        for fill_id, (quantity, px) in true.items():
            known_fill = stored.get(fill_id)
            if known_fill is None:
                verdict.lost.append(f"{customer.name}: fill {fill_id} of {quantity} at {px}")
            elif known_fill.quantity != quantity or known_fill.price != px:
                verdict.broken.append(
                    f"{customer.name}: fill {fill_id} is {known_fill.quantity} at {known_fill.price}, "
                    f"not {quantity} at {px}"
                )
        for fill_id in stored.keys() - true.keys():
            verdict.duplicated.append(f"{customer.name}: fill {fill_id} never happened")
        sums: dict[str, Decimal] = {}
        for fill in stored.values():
            sums[fill.venue_order_id] = sums.get(fill.venue_order_id, Decimal(0)) + fill.quantity
        for ord_id, order in orders.items():
            if sums.get(ord_id, Decimal(0)) != order.filled:
                verdict.broken.append(
                    f"{customer.name} order {ord_id}: filled {order.filled}, its fills {sums.get(ord_id, 0)}"
                )
        for true_order in customer.orders.values():
            known = orders.get(str(true_order.ord_id))
            if known is None:
                if true_order.filled:
                    verdict.lost.append(
                        f"{customer.name}: order {true_order.ord_id} with {true_order.filled} filled was never seen"
                    )
            elif (known.status is OrderStatus.WORKING) is not true_order.open:
                verdict.broken.append(
                    f"{customer.name} order {true_order.ord_id}: {known.status}, the venue says {true_order.state}"
                )


def orders_of(front: OkxFront, account_id: str, client_order_id: str) -> list[Order]:
    return [o for o in front.trading.customers[account_id].orders.values() if o.cl_ord_id == client_order_id]


def merged(fills: Iterable[Fill]) -> dict[str, tuple[Decimal, Decimal]]:
    """By the identity that both channels tell: a match that was booked in two parts is one."""
    found: dict[str, tuple[Decimal, Decimal]] = {}
    for fill in fills:
        fill_id = f"{fill.listing.inst_id}:{fill.trade_id}:{fill.ord_id}"
        before = found.get(fill_id)
        found[fill_id] = (fill.quantity + (before[0] if before else Decimal(0)), fill.px)
    return found


def _told(orders: list[Order]) -> str:
    return ", ".join(f"{o.ord_id} {o.state} {o.filled}/{o.quantity}" for o in orders) or "nothing"
