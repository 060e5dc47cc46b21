"""Fakes of what planning asks: accounts, a market and a store that behave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from accounts.model import Account, AccountState, Group, Mandate, Weight
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.limits import Recent, Reference, Rules
from engine.core.orders import OrderType
from engine.core.plans import Child, Plan, PlanState
from engine.core.venue import Capabilities, Dedupe, RateRule, Transport, Venue

D = Decimal
NOW_MS = 1_767_225_600_000  # 2026-01-01 00:00:00 UTC
BTC = "BTC/USDT"
SWAP = "BTC/USDT:USDT"

RULES = Rules(
    expiry_ms=30 * 60_000,
    max_drift_percent=D(2),
    price_collar_percent=D(10),
    max_price_age_ms=30_000,
    duplicate_window_ms=60_000,
    margin_percent=D(10),
    four_eyes_notional=D(0),
)


def _unused(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("planning asks a venue for nothing but its declarations")


VENUE = Venue(
    name="bourse",
    title="Bourse",
    places=(),
    endpoints=(),
    credential_fields=(),
    capabilities=Capabilities(
        order_types=frozenset({OrderType.MARKET, OrderType.LIMIT}),
        orders_over=Transport.STREAM,
        dedupe=Dedupe.OPEN_ONLY,
        lookup_by_client_id=True,
        request_expiry_ms=None,
        max_read_lag_ms=1000,
        fills_history_ms=86_400_000,
        idle_limit_s=30,
    ),
    rates=(),
    opens=RateRule(name="open", limit=3, window_s=1.0, scope="address"),
    converse=_unused,
    rest=_unused,
    sign=_unused,
    render_order_id=lambda number: f"u{number:032x}"[:32],
    owns_order_id=_unused,
    default_fee_rate=D("0.001"),
)

OTHER = msgspec.structs.replace(
    VENUE,
    name="other",
    title="Other",
    capabilities=msgspec.structs.replace(
        VENUE.capabilities, order_types=frozenset({*VENUE.capabilities.order_types, OrderType.STOP}), iceberg=True
    ),
)
SPOT_BTC = Instrument(
    name=BTC,
    venue="bourse",
    kind=InstrumentKind.SPOT,
    base="BTC",
    quote="USDT",
    settle="USDT",
    unit="BTC",
    multiplier=D(1),
    quantity_step=D("0.001"),
    min_quantity=D("0.002"),
    price_tick=D("0.1"),
)
SWAP_BTC = Instrument(
    name=SWAP,
    venue="bourse",
    kind=InstrumentKind.SWAP,
    base="BTC",
    quote="USDT",
    settle="USDT",
    unit="contract",
    multiplier=D("0.01"),
    quantity_step=D(1),
    min_quantity=D(1),
    max_limit_quantity=D(1000),
    max_market_quantity=D(500),
    price_tick=D("0.1"),
)


class FakeAccount:
    """An account in good order; each test spoils what it is about."""

    def __init__(self, account_id: str, **changes: Any) -> None:
        self.account = Account(
            account_id=account_id, name=account_id.upper(), venue="bourse", site="main", environment="demo"
        )
        self.state = AccountState.ACTIVE
        self.halted = self.credentials_refused = self.killed = ""
        self.live = self.proven = True
        self.phase = "live"
        self.last_heard_ms: int | None = NOW_MS - 1000
        self.gap_since_ms: int | None = None
        self.mandate: Mandate | None = None
        self.nav_value: Decimal | None = D(100_000)
        self.cash: dict[str, Decimal] | None = {"USDT": D(100_000)}
        self.positions: dict[str, dict[str, Decimal]] = {}
        self.recent: dict[str, list[Recent]] = {}
        self.sent_notional = D(0)
        self.sent_orders = 0
        self.lost: Decimal | None = D(0)
        for name, value in changes.items():
            if name in ("trading", "venue"):
                self.account = msgspec.structs.replace(self.account, **{name: value})
                continue
            assert hasattr(self, name), f"an account has no {name}"
            setattr(self, name, value)

    def lost_today(self, currency: str, now_ms: int) -> Decimal | None:
        return self.lost

    def day_notional(self, now_ms: int) -> Decimal:
        return self.sent_notional

    def orders_lately(self, now_ms: int) -> int:
        return self.sent_orders

    def nav(self, currency: str) -> Decimal | None:
        return self.nav_value

    def available(self, currency: str) -> Decimal | None:
        return None if self.cash is None else self.cash.get(currency, D(0))

    def held(self, instrument: Instrument) -> Mapping[str, Decimal]:
        return self.positions.get(instrument.name, {})

    def recent_orders(self, instrument: str) -> Sequence[Recent]:
        return self.recent.get(instrument, ())


class FakeAccounts:
    def __init__(self, *accounts: FakeAccount, weights: Mapping[str, str] | None = None) -> None:
        self.accounts = {account.account.account_id: account for account in accounts}
        parts = weights or dict.fromkeys(self.accounts, "1")
        self.groups = {
            "all": Group(group_id="all", name="All", weights=tuple(Weight(a, D(w)) for a, w in parts.items()))
        }

    def group(self, group_id: str) -> Group | None:
        return self.groups.get(group_id)

    def view(self, account_id: str) -> FakeAccount | None:
        return self.accounts.get(account_id)


class FakeMarket:
    def __init__(self, *, price: str = "50000", at_ms: int = NOW_MS) -> None:
        self.instruments = {i.name: i for i in (SPOT_BTC, SWAP_BTC)}
        self.references: dict[str, Reference | None] = {
            name: Reference(D(price), at_ms, "mark") for name in self.instruments
        }
        self.venues = {VENUE.name: VENUE, OTHER.name: OTHER}
        self.unread: set[str] = set()  # venues whose list of instruments is not there yet

    def venue(self, name: str) -> Venue:
        return self.venues[name]

    def knows(self, venue: str, environment: str) -> bool:
        return venue not in self.unread

    def instrument(self, venue: str, environment: str, name: str) -> Instrument | None:
        """The other venue lists nothing but the swap."""
        return None if venue == OTHER.name and name != SWAP else self.instruments.get(name)

    def reference(self, venue: str, environment: str, name: str) -> Reference | None:
        return self.references.get(name)

    def change(self, name: str, **fields: Any) -> None:
        self.instruments[name] = msgspec.structs.replace(self.instruments[name], **fields)

    def say(self, name: str, price: str, at_ms: int = NOW_MS) -> None:
        self.references[name] = Reference(D(price), at_ms, "mark")


class MemoryPlans:
    """Keeps plans as the bytes a ledger would keep, so that what comes back has been written and read."""

    def __init__(self) -> None:
        self.plans: dict[str, bytes] = {}
        self.children: dict[str, list[Child]] = {}

    async def load(self, plan_id: str) -> Plan | None:
        raw = self.plans.get(plan_id)
        return None if raw is None else msgspec.json.decode(raw, type=Plan)

    async def unfinished(self) -> Sequence[Plan]:
        wanted = (PlanState.DRAFT, PlanState.PREVIEWED, PlanState.APPROVED)
        plans = [msgspec.json.decode(raw, type=Plan) for raw in self.plans.values()]
        return [plan for plan in plans if plan.state in wanted]

    async def save(self, plan: Plan, was: PlanState | None) -> bool:
        stored = await self.load(plan.plan_id)
        if (None if stored is None else stored.state) is not was:
            return False
        self.plans[plan.plan_id] = msgspec.json.encode(plan)
        return True

    async def save_approved(self, plan: Plan, children: Sequence[Child]) -> bool:
        kept = await self.save(plan, PlanState.PREVIEWED)
        if kept:
            self.children[plan.plan_id] = list(children)
        return kept
