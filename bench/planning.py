"""Does. Planning alone, without an engine: a preview over three venues, a split over very many accounts, a rebalance.

The floor of the preview is the making of its rows, that of the split one division for each account.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec

from accounts.model import Account, AccountState, Group, Mandate, Model, ModelLine, Weight
from bench.figures import Samples
from bench.measures import Tell
from engine.core.allocation import Party, allocate
from engine.core.facts import Side
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.limits import Recent, Reference, Rules
from engine.core.models import drifts, subject
from engine.core.orders import OrderType
from engine.core.plans import Leg, Method, Plan, PreviewRow
from engine.core.preview import preview
from engine.core.venue import Venue
from engine.venues import venues

D = Decimal
NOW_MS = 1_767_225_600_000
VENUES = ("first", "second", "third")
SWAP = Instrument(
    name="BTC/USDT:USDT",
    venue="first",
    kind=InstrumentKind.SWAP,
    base="BTC",
    quote="USDT",
    settle="USDT",
    unit="contract",
    multiplier=D("0.01"),
    quantity_step=D("0.01"),
    min_quantity=D("0.01"),
    price_tick=D("0.1"),
)
RULES = Rules(
    expiry_ms=1_800_000,
    max_drift_percent=D(2),
    price_collar_percent=D(10),
    max_price_age_ms=30_000,
    duplicate_window_ms=60_000,
    margin_percent=D(10),
    four_eyes_notional=D(0),
)


class _Member:
    """An account in good order with a mandate."""

    state, halted, credentials_refused, killed = AccountState.ACTIVE, "", "", ""
    live, phase, proven = True, "live", True
    last_heard_ms: int | None = NOW_MS
    gap_since_ms: int | None = None

    def __init__(self, number: int) -> None:
        account_id = f"a{number:05}"
        venue = VENUES[number % len(VENUES)]
        self.account = Account(account_id=account_id, name=account_id, venue=venue, site="", environment="demo")
        self.mandate: Mandate | None = Mandate(
            account_id=account_id, max_order_notional=D(10**6), max_plan_notional=D(10**7), max_day_notional=D(10**8)
        )
        self._nav, self._held = D(100_000 + number), {"net": D(number % 50)}

    def nav(self, currency: str) -> Decimal | None:
        return self._nav

    def available(self, currency: str) -> Decimal | None:
        return self._nav

    def held(self, instrument: Instrument) -> Mapping[str, Decimal]:
        return self._held

    def recent_orders(self, instrument: str) -> Sequence[Recent]:
        return ()

    def day_notional(self, now_ms: int) -> Decimal:
        return D(0)

    def orders_lately(self, now_ms: int) -> int:
        return 0

    def lost_today(self, currency: str, now_ms: int) -> Decimal | None:
        return D(0)


class _Members:
    def __init__(self, count: int) -> None:
        self.members = {m.account.account_id: m for m in map(_Member, range(count))}
        weights = tuple(Weight(account_id, D(1)) for account_id in self.members)
        self._all = Group(group_id="all", name="all", weights=weights)

    def group(self, group_id: str) -> Group | None:
        return self._all

    def view(self, account_id: str) -> _Member | None:
        return self.members.get(account_id)


class _Market:
    def __init__(self) -> None:
        self._venue = next(iter(venues().values()))

    def venue(self, name: str) -> Venue:
        return self._venue

    def knows(self, venue: str, environment: str) -> bool:
        return True

    def instrument(self, venue: str, environment: str, name: str) -> Instrument | None:
        return SWAP

    def reference(self, venue: str, environment: str, name: str) -> Reference | None:
        return Reference(D(50_000), NOW_MS, "mark")


def previews(accounts: int, runs: int, tell: Tell) -> Samples:
    """Milliseconds of a preview of one leg for so many accounts at three venues."""
    members, market, found = _Members(accounts), _Market(), Samples()
    leg = Leg(instrument=SWAP.name, method=Method.NAV, side=Side.BUY, quantity=D(accounts), order_type=OrderType.MARKET)
    plan = Plan(
        plan_id="P",
        title="",
        groups=("all",),
        legs=(leg,),
        created_at_ms=NOW_MS,
        created_by="bench",
        expires_at_ms=NOW_MS + 1,
        max_drift_percent=D(2),
        rotation_seed=1,
    )
    for _ in range(runs):
        began = time.perf_counter()
        shown = preview(plan, members, market, RULES, NOW_MS)
        found.engine.append((time.perf_counter() - began) * 1000)
        assert all(row.takes_part for row in shown.rows), "every account takes part"
        fields = [msgspec.structs.asdict(row) for row in shown.rows]
        began = time.perf_counter()
        made = [PreviewRow(**values) for values in fields]
        found.floor.append((time.perf_counter() - began) * 1000)
        assert len(made) == accounts, "a row for each"
        tell()
    return found


def splits(accounts: int, runs: int, tell: Tell) -> tuple[Samples, dict[str, float]]:
    """Milliseconds of one split by net asset value over so many accounts; and of each other way, once."""
    found = Samples()
    parties = [
        Party(
            account_id=f"a{n:05}",
            step=D("0.01"),
            minimum=D("0.01"),
            weight=D(n + 1),
            nav=D(100_000 + n),
            available=D(50_000 + n),
            held=D(n % 97),
            unit_value=D("271.34"),
        )
        for n in range(accounts)
    ]
    navs = [100_000 + n for n in range(accounts)]
    by_nav = Leg(instrument="X", method=Method.NAV, side=Side.BUY, quantity=D(10 * accounts))
    for _ in range(runs):
        began = time.perf_counter()
        allocate(by_nav, parties)
        found.engine.append((time.perf_counter() - began) * 1000)
        began = time.perf_counter()
        whole = sum(navs)
        shares = [divmod(1000 * accounts * nav, whole) for nav in navs]
        found.floor.append((time.perf_counter() - began) * 1000)
        assert len(shares) == accounts, "a share for each"
        tell()
    each = dict[str, float]()
    for method in (Method.EQUAL, Method.LEVEL, Method.AVAILABLE, Method.RATIO):
        began = time.perf_counter()
        allocate(msgspec.structs.replace(by_nav, method=method), parties)
        each[f"{method.value}_ms"] = (time.perf_counter() - began) * 1000
    target = Leg(instrument="X", method=Method.TARGET, percent=D(1), band=D("0.1"))
    began = time.perf_counter()
    allocate(target, parties)
    each["target_ms"] = (time.perf_counter() - began) * 1000
    return found, each


def rebalance(accounts: int) -> float:
    """Milliseconds in which so many accounts are held against a model of ten lines."""
    members, market = _Members(accounts), _Market()
    lines = tuple(ModelLine(instrument=f"X{n}", weight=D(9), band=D(1)) for n in range(10))
    model = Model(model_id="m", name="m", cash=D(10), lines=lines)
    began = time.perf_counter()
    for account_id in members.members:
        drifts(model, subject(model, account_id, members.view(account_id), market, "USDT"))
    return (time.perf_counter() - began) * 1000
