"""Holds. What the T-Invest front goes by: listings, limits, and a switch for everything the dossier leaves open."""

from __future__ import annotations

import random
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType

import msgspec

D = Decimal
MINUTE_MS = 60_000
DAY_MS = 86_400_000


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """One instrument. `worth` is roubles for one point of the price of one piece."""

    ticker: str
    class_code: str
    uid: str
    figi: str
    lot: int = 1
    tick: Decimal
    start: Decimal
    depth: Decimal  # lots per price level
    path: str
    kind: str = "share"  # share, bond, currency, futures
    base: str  # what is held: the ticker, or the currency
    name: str  # ours
    worth: Decimal = D(1)
    nominal: Decimal = D(0)
    accrued: Decimal = D(0)  # interest of one bond that a buyer pays beside the price
    expires: str = ""

    @property
    def future(self) -> bool:
        return self.kind == "futures"

    def value(self, lots: Decimal, price: Decimal) -> Decimal:
        return lots * self.lot * price * self.worth


LISTINGS = (
    Listing(
        ticker="SBER",
        class_code="TQBR",
        uid="e6123145-0000-4000-8000-000000000001",
        figi="FIGI00SBER01",
        lot=10,
        tick=D("0.01"),
        start=D(300),
        depth=D(500),
        path="SBER",
        base="SBER",
        name="SBER/RUB",
    ),
    Listing(
        ticker="GAZP",
        class_code="TQBR",
        uid="962e2a95-0000-4000-8000-000000000002",
        figi="FIGI00GAZP02",
        lot=10,
        tick=D("0.01"),
        start=D(130),
        depth=D(500),
        path="GAZP",
        base="GAZP",
        name="GAZP/RUB",
    ),
    Listing(
        ticker="LKOH",
        class_code="TQBR",
        uid="02cfdf61-0000-4000-8000-000000000003",
        figi="FIGI00LKOH03",
        lot=1,
        tick=D("0.5"),
        start=D(7000),
        depth=D(300),
        path="LKOH",
        base="LKOH",
        name="LKOH/RUB",
    ),
    Listing(
        ticker="CNYRUB_TOM",
        class_code="CETS",
        uid="4587ab1d-0000-4000-8000-000000000004",
        figi="FIGI00CNYRUB",
        lot=1000,
        tick=D("0.001"),
        start=D("11.5"),
        depth=D(200),
        path="CNY",
        kind="currency",
        base="CNY",
        name="CNY/RUB",
    ),
    Listing(
        ticker="SU26238RMFS4",
        class_code="TQOB",
        uid="f0c9eda4-0000-4000-8000-000000000005",
        figi="FIGI00SU2623",
        tick=D("0.001"),
        start=D("58.5"),
        depth=D(500),
        path="SU26238",
        kind="bond",
        base="SU26238RMFS4",
        name="SU26238RMFS4/RUB",
        worth=D(10),
        nominal=D(1000),
        accrued=D("12.34"),
    ),
    Listing(
        ticker="SRZ6",
        class_code="SPBFUT",
        uid="53b67587-0000-4000-8000-000000000006",
        figi="FUTSR1226000",
        tick=D(1),
        start=D(30000),
        depth=D(100),
        path="SBER",
        kind="futures",
        base="SBRF",
        name="SR/RUB:RUB-2612",
        expires="2026-12-17T00:00:00Z",
    ),
    Listing(
        ticker="CRZ6",
        class_code="SPBFUT",
        uid="0d53d29a-0000-4000-8000-000000000007",
        figi="FUTCNY122600",
        tick=D("0.001"),
        start=D("11.5"),
        depth=D(200),
        path="CNY",
        kind="futures",
        base="CNY",
        name="CR/RUB:RUB-2612",
        worth=D(1000),
        expires="2026-12-17T00:00:00Z",
    ),
)


PER_MINUTE = MappingProxyType(
    {
        "instruments": 200,
        "users": 100,
        "operations": 200,
        "market": 600,
        "orders": 100,
        "cancel": 100,
        "get-orders": 200,
        "post-order": 300,
        "post-order-async": 450,
        "stop-orders": 50,
    }
)


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """Windows, quotas and lags, and how the venue is in what nobody outside knows."""

    limits: bool = True
    # ---- limits: dossier §2.6, §6.3
    per_minute: Mapping[str, int] = PER_MINUTE
    per_address_s: int = 50
    market_streams: int = 16
    order_streams: int = 10  # of each method
    operation_streams: int = 2
    ghost_ms: int = 120_000  # so long a stream that broke off holds its place
    ping_ms: int = 120_000  # unless told otherwise
    empty_market_ms: int = 120_000  # then a stream without subscriptions is closed
    lifetime_ms: int = 0  # then any stream is closed; 0: never
    requests_per_minute: int = 100  # of subscriptions on one market stream
    key_kept_ms: int = 30 * DAY_MS
    sandbox: bool = False
    # ---- lags: dossier §7.1, §9.8
    number_lag_ms: int = 80
    positions_lag_ms: int = 100
    portfolio_lag_ms: int = 1000
    operations_lag_ms: int = 1000
    orders_forgotten_ms: int = 36 * 3_600_000  # then GetOrderState knows an order no more
    commission: Decimal = D("0.0005")
    # ---- unconfirmed: dossier §11
    echo: bool = True  # the subprotocol that was chosen is said
    auth_by: str = "status"  # or "close"
    unknown_account: str = "frame"  # of the orders' streams; or "ack"
    vendor_code: str = "message"  # where it stands in an error frame: message, details, reason
    error_shape: str = "status"  # or "wrapped" in {"error": …}
    close_codes: str = "all"  # or "documented": the others are 1011
    trades: str = "new"  # in an order's event: "new", "all" or "none"
    partial_end: str = "cancelled"  # or "partiallyfill", with a time of completion
    ack_first: bool = True  # before the initial positions
    zero_rows: bool = True  # a position that was closed is told as 0
    out_of_range: str = "clamp"  # a ping delay; or "error"
    header_prefix: str = "both"  # of the limits' headers: bare, gateway or both
    description: str = "text"  # of an error over HTTP; or "number"
    duplicates: str = "30057"  # a key that was used: or "state"
    same_trade_numbers: bool = True  # operations number trades as the orders service does
    stable_operation_ids: bool = True
    page_border: str = "whole"  # "twice": its last row comes again; "lost": a row is missing
    replaced_key_in_stream: bool = True
    lookup_by_key: bool = True
    defaults: str = "emit"  # or "drop", "null": empty lists are null


def drawn(chance: random.Random, *, limits: bool) -> Rules:
    """What is unconfirmed is one way or the other."""
    either = chance.choice
    return Rules(
        limits=limits,
        echo=chance.random() < 0.5,
        auth_by=either(("status", "close")),
        unknown_account=either(("frame", "ack")),
        vendor_code=either(("message", "details", "reason")),
        error_shape=either(("status", "wrapped")),
        close_codes=either(("all", "documented")),
        trades=either(("new", "all")),
        partial_end=either(("cancelled", "partiallyfill")),
        ack_first=chance.random() < 0.5,
        zero_rows=chance.random() < 0.5,
        header_prefix=either(("bare", "gateway", "both")),
        description=either(("text", "number")),
        duplicates=either(("30057", "state")),
        same_trade_numbers=chance.random() < 0.5,
        stable_operation_ids=chance.random() < 0.5,
        page_border=either(("whole", "twice")),
        replaced_key_in_stream=chance.random() < 0.5,
        lookup_by_key=chance.random() < 0.5,
        defaults=either(("emit", "drop", "null")),
    )


class Turned(Exception):
    """The venue says no. `grpc` and `code` as in its errors (§6.2)."""

    def __init__(self, code: str, message: str = "", grpc: int = 0) -> None:
        super().__init__(code)
        self.code, self.message = code, message or TEXTS.get(code, "the request was refused")
        self.grpc = grpc or _grpc(code)


TEXTS = {
    "12001": "the method is not implemented",
    "30001": "a bound of the period is missing",
    "30015": "the quantity of lots is missing",
    "30016": "the quantity of lots is not valid",
    "30017": "the price is not valid",
    "30018": "the price is missing",
    "30019": "the direction is missing",
    "30026": "the kind of order is not valid",
    "30028": "the order id is no UUID",
    "30029": "the idempotency key is missing",
    "30042": "not enough assets for a margin trade",
    "30034": "not enough balance",
    "30052": "the instrument is not tradable through the API",
    "30055": "the order id is too long",
    "30057": "a duplicate of an order: its report was not found",
    "30059": "the order cannot be cancelled",
    "30060": "the stop order cannot be cancelled",
    "30069": "the limit is too large",
    "30078": "the price does not fit the step",
    "30099": "the price is outside the limits of the session",
    "40002": "insufficient privileges",
    "40003": "the authentication token is missing or not valid",
    "40004": "operations are not allowed on this account",
    "50002": "the instrument was not found",
    "50004": "the account was not found",
    "50005": "the order was not found",
    "50006": "the stop order was not found",
    "70001": "internal error",
    "70002": "unknown internal error",
    "80001": "the limit of open streams is exceeded",
    "80002": "the limit of requests is exceeded",
    "80004": "the stream has no subscriptions",
    "80005": "the stream lived too long",
}
_HTTP = {3: 400, 4: 504, 5: 404, 7: 403, 8: 429, 9: 400, 12: 501, 13: 500, 14: 503, 16: 401}


def http_status(grpc: int) -> int:
    return _HTTP.get(grpc, 500)


def _grpc(code: str) -> int:
    match code[:2]:
        case "40":
            return 16 if code == "40003" else 7
        case "50":
            return 5
        case "70":
            return 13
        case "80":
            return 8
        case "12":
            return 12
        case _:
            return 3
