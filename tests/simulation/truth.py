"""Decides. What must hold, by the venue's own truth: during a run and after it has settled."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from engine.core.facts import FillFact, OrderFact, OrderStatus
from engine.core.orders import Amend, Command, OrderState, Place
from engine.core.truth import TrueOrder, Truth
from engine.core.venue import Front
from engine.ledger.backup import chains

_ENDED = {
    OrderState.FILLED: {OrderStatus.FILLED},
    OrderState.CANCELLED: {OrderStatus.CANCELLED, OrderStatus.EXPIRED},
    OrderState.EXPIRED: {OrderStatus.CANCELLED, OrderStatus.EXPIRED},
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

    def __init__(self, database: str, front: Front, names: Sequence[str], verdict: Verdict) -> None:
        self._database, self._front, self._names, self.verdict = database, front, names, verdict
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

    def on_send(self, commands: Sequence[Command]) -> None:
        for command in commands:
            match command:
                case Place(client_order_id=client_order_id):
                    self._placing(client_order_id)
                case Amend(amend_id=amend_id):
                    if not self.ask("SELECT 1 FROM intent WHERE intent_id = ?", amend_id):
                        self.verdict.broken.append(f"amendment {amend_id} was sent without a durable intent")

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
        orders: dict[str, _Orders] = {}
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
            if account_id not in orders:
                orders[account_id] = _by_client_id(self._front.account(account_id))
            self._judge(account_id, client_order_id, OrderState(state), orders[account_id].get(client_order_id, []))

    def _judge(self, account_id: str, client_order_id: str, state: OrderState, orders: list[TrueOrder]) -> None:
        if state in _NEVER:
            if orders:
                self.verdict.wrongly_final.append(
                    f"{account_id} {client_order_id}: {state}, the venue has {_told(orders)}"
                )
        elif len(orders) != 1 or orders[0].status not in _ENDED[state]:
            self.verdict.wrongly_final.append(f"{account_id} {client_order_id}: {state}, the venue has {_told(orders)}")

    # ---- after everything has settled

    def settle(self) -> None:
        """Compare everything that is stored with everything that happened."""
        verdict = self.verdict
        self.look()
        assert self._conn is not None, "it has looked"
        verdict.broken += chains(self._conn)
        children = {
            str(row[0]): row
            for row in self.ask("SELECT client_order_id, account_id, state, filled, quantity, late FROM child")
        }
        verdict.intents += self.ask("SELECT count(*) FROM intent WHERE kind='place'")[0][0]
        intents = {str(row[0]) for row in self.ask("SELECT intent_id FROM intent WHERE kind='place'")}
        orders: dict[str, _Orders] = {}
        for account_id in self._names:
            truth = self._front.account(account_id)
            self._settle_fills(account_id, truth)
            orders[account_id] = _by_client_id(truth)
            for client_order_id, several in orders[account_id].items():
                if client_order_id not in intents:
                    verdict.broken.append(f"{account_id}: the venue has {client_order_id}, of which there is no intent")
                if len(several) > 1:
                    verdict.duplicated.append(f"{account_id} {client_order_id}: {len(several)} orders at the venue")
        self._settle_attempts(orders)
        for client_order_id, (_, account_id, state, filled, _quantity, late) in children.items():
            its = orders[account_id].get(client_order_id, [])
            told = OrderState(state)
            if told in (OrderState.SENDING, OrderState.UNKNOWN):
                verdict.broken.append(f"{account_id} {client_order_id} is still {state}; the venue has {_told(its)}")
            elif told is OrderState.WORKING:
                if len(its) != 1 or its[0].status.terminal:
                    verdict.broken.append(f"{account_id} {client_order_id} is working; the venue has {_told(its)}")
            elif client_order_id not in self._final:
                self._judge(account_id, client_order_id, told, its)
            if late:
                verdict.wrongly_final.append(f"{account_id} {client_order_id} is marked late ({state})")
            if its and Decimal(filled) != (true := its[0].filled + its[0].filled_before):
                verdict.broken.append(f"{account_id} {client_order_id}: filled {filled}, the venue says {true}")

    def _settle_attempts(self, orders: Mapping[str, _Orders]) -> None:
        """Of all attempts of one child the venue has one at most: the others provably never arrived."""
        at_venue: Counter[tuple[str, str, int]] = Counter()
        for plan_id, account_id, leg, client_order_id in self.ask(
            "SELECT plan_id, account_id, leg, client_order_id FROM child"
        ):
            at_venue[plan_id, account_id, leg] += client_order_id in orders[account_id]
        self.verdict.duplicated += [
            f"{account_id}: {n} attempts of leg {leg} of {plan_id} are at the venue"
            for (plan_id, account_id, leg), n in at_venue.items()
            if n > 1
        ]

    def sent_anew(self) -> int:
        """How many further attempts went out."""
        ((count,),) = self.ask("SELECT count(*) FROM child WHERE attempt > 1 AND sent_at_ms IS NOT NULL")
        return int(count)

    def _settle_fills(self, account_id: str, truth: Truth) -> None:
        verdict = self.verdict
        verdict.fills += len(truth.fills)
        stored: dict[str, FillFact] = {}
        orders: dict[str, OrderFact] = {}
        for kind, body in self.ask(
            "SELECT kind, body FROM fact WHERE account_id=? AND kind IN ('fill','order') ORDER BY id", account_id
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
                verdict.duplicated.append(f"{account_id}: fill {fill.fill_id} is stored twice")
            stored[fill.fill_id] = fill
        for fill_id, true in truth.fills.items():
            known_fill = stored.get(fill_id)
            if known_fill is None:
                verdict.lost.append(f"{account_id}: fill {fill_id} of {true.quantity} at {true.price}")
            elif known_fill.quantity != true.quantity or known_fill.price != true.price:
                verdict.broken.append(
                    f"{account_id}: fill {fill_id} is {known_fill.quantity} at {known_fill.price}, "
                    f"not {true.quantity} at {true.price}"
                )
        verdict.duplicated += [f"{account_id}: fill {f} never happened" for f in stored.keys() - truth.fills.keys()]
        sums: dict[str, Decimal] = {}
        for fill in stored.values():
            sums[fill.venue_order_id] = sums.get(fill.venue_order_id, Decimal(0)) + fill.quantity
        for ord_id, order in orders.items():
            if sums.get(ord_id, Decimal(0)) != order.filled:
                verdict.broken.append(
                    f"{account_id} order {ord_id}: filled {order.filled}, its fills {sums.get(ord_id, 0)}"
                )
        for order_id, true_order in truth.orders.items():
            known = orders.get(order_id)
            if known is None:
                if true_order.filled:
                    verdict.lost.append(
                        f"{account_id}: order {order_id} with {true_order.filled} filled was never seen"
                    )
            elif known.status.terminal is not true_order.status.terminal:
                verdict.broken.append(f"{account_id} order {order_id}: {known.status}, the venue: {true_order.status}")


_Orders = dict[str, list[TrueOrder]]


def _by_client_id(truth: Truth) -> _Orders:
    """Orders with an id of ours; each should be alone."""
    found: _Orders = {}
    for order in truth.orders.values():
        if order.client_order_id:
            found.setdefault(order.client_order_id, []).append(order)
    return found


def _told(orders: Iterable[TrueOrder]) -> str:
    return ", ".join(f"{o.venue_order_id} {o.status} {o.filled}" for o in orders) or "nothing"
