"""Holds. What the OKX front goes by: products, limits, windows, switches for the unconfirmed, and error texts.

Numbers are from the OKX dossier (§2.4 request limits, §5.5 order rates, §6.3 history windows, §7 products).
"""

from __future__ import annotations

import random
from decimal import Decimal

import msgspec

D = Decimal
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """One product. `multiplier` is base units (linear) or USD (inverse) in one contract; 1 for spot."""

    inst_id: str
    code: int  # instIdCode, what the WebSocket calls the product
    inst_type: str
    base: str
    quote: str
    settle: str = ""
    multiplier: Decimal = D(1)
    inverse: bool = False
    tick: Decimal
    lot: Decimal
    smallest: Decimal
    max_limit: Decimal
    max_market: Decimal
    lever: int = 1  # the highest
    start: Decimal  # price at the start of a simulation
    depth: Decimal  # simulated liquidity per price level

    @property
    def spot(self) -> bool:
        return self.inst_type == "SPOT"

    @property
    def family(self) -> str:
        return f"{self.base}-{self.quote}"

    @property
    def contract(self) -> str:
        """ctType."""
        return "" if self.spot else "inverse" if self.inverse else "linear"

    @property
    def fill_currency(self) -> str:
        """Where a derivative's gains, fees and margin are."""
        return self.settle or self.quote

    def value(self, quantity: Decimal, price: Decimal) -> Decimal:
        """What `quantity` is worth at `price`, in quote units (spot, linear) or in coins (inverse)."""
        units = quantity * self.multiplier
        return units / price if self.inverse else units * price

    def gain(self, quantity: Decimal, entry: Decimal, price: Decimal) -> Decimal:
        """Result of a signed `quantity` from `entry` to `price`, in the settle currency (dossier §7)."""
        units = quantity * self.multiplier
        return units * (1 / entry - 1 / price) if self.inverse else units * (price - entry)


LISTINGS = (
    Listing(
        inst_id="BTC-USDT",
        code=1001,
        inst_type="SPOT",
        base="BTC",
        quote="USDT",
        tick=D("0.1"),
        lot=D("0.00000001"),
        smallest=D("0.00001"),
        max_limit=D(9999),
        max_market=D(1_000_000),
        start=D(60000),
        depth=D(5),
    ),
    Listing(
        inst_id="ETH-USDT",
        code=1002,
        inst_type="SPOT",
        base="ETH",
        quote="USDT",
        tick=D("0.01"),
        lot=D("0.000001"),
        smallest=D("0.0001"),
        max_limit=D(99999),
        max_market=D(1_000_000),
        start=D(2500),
        depth=D(100),
    ),
    Listing(
        inst_id="BTC-USDT-SWAP",
        code=10458,
        inst_type="SWAP",
        base="BTC",
        quote="USDT",
        settle="USDT",
        multiplier=D("0.01"),
        tick=D("0.1"),
        lot=D("0.01"),
        smallest=D("0.01"),
        max_limit=D(100000),
        max_market=D(35000),
        lever=100,
        start=D(60000),
        depth=D(1000),
    ),
    Listing(
        inst_id="ETH-USDT-SWAP",
        code=10459,
        inst_type="SWAP",
        base="ETH",
        quote="USDT",
        settle="USDT",
        multiplier=D("0.1"),
        tick=D("0.01"),
        lot=D("0.01"),
        smallest=D("0.01"),
        max_limit=D(100000),
        max_market=D(35000),
        lever=100,
        start=D(2500),
        depth=D(5000),
    ),
    Listing(
        inst_id="BTC-USD-SWAP",
        code=10460,
        inst_type="SWAP",
        base="BTC",
        quote="USD",
        settle="BTC",
        multiplier=D(100),
        inverse=True,
        tick=D("0.1"),
        lot=D(1),
        smallest=D(1),
        max_limit=D(30000),
        max_market=D(30000),
        lever=100,
        start=D(60000),
        depth=D(5000),
    ),
)


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """Every number and switch of the venue. What the dossier calls unconfirmed is a switch here."""

    limits: bool = True  # request, connection and order rates are enforced
    signature_window_ms: int = 30_000
    idle_close_ms: int = 30_000
    connects_per_s: int = 3
    connect_refusal: int = 429
    session_requests_per_hour: int = 480
    channel_connections: int = 30
    order_rate: int = 60  # single operations of one kind on one product in 2 s
    batch_rate: int = 300  # orders in batches, the same way
    account_rate: int = 1000  # new and amended orders of an account in 2 s
    pending_per_product: int = 500
    pending_per_account: int = 4000
    regular_push_ms: int = 5000
    aggregation_ms: int = 50
    ticker_ms: int = 100
    mark_idle_ms: int = 10_000
    snapshot_rows: int = 20  # rows on one page of a snapshot
    page_rows: int = 100
    unfilled_cancel_kept_ms: int = 2 * HOUR_MS
    history_ms: int = 7 * DAY_MS
    archive_ms: int = 90 * DAY_MS
    fills_ms: int = 3 * DAY_MS
    maker_rate: Decimal = D("0.0002")
    taker_rate: Decimal = D("0.0005")
    spot_maker_rate: Decimal = D("0.0008")
    spot_taker_rate: Decimal = D("0.001")
    default_lever: int = 5
    demo: bool = True  # a demo environment: REST requests must say x-simulated-trading: 1
    vip: bool = False  # may subscribe to `fills`
    close_after_failed_login: bool = True
    acknowledge: str = "mixed"  # the reply to an order comes "before" or "after" its pushes, or either by chance
    post_only_live_first: bool = False  # §3.8: `live` and then `canceled`, or only `canceled`
    market_final_zero_fill: bool = True  # §3.1: a market order's last frame may show fillSz "0"
    split_reversals: bool = False  # §15.13: one match that turns a position round gives two fill rows
    echo_extra_params: bool = False  # §2.5: does an acknowledgement repeat extraParams?


def drawn(chance: random.Random, *, limits: bool) -> Rules:
    """What is unconfirmed is one way or the other."""
    return Rules(
        limits=limits,
        acknowledge=chance.choice(("mixed", "before", "after")),
        post_only_live_first=chance.random() < 0.5,
        market_final_zero_fill=chance.random() < 0.5,
        split_reversals=chance.random() < 0.5,
        snapshot_rows=chance.choice((3, 20)),
    )


TEXTS = {
    "50004": "API endpoint request timeout. It does not indicate success or failure of the order.",
    "50011": "Requests too frequent.",
    "50013": "Systems are busy. Please try again later.",
    "50014": "Parameter {0} can not be empty.",
    "50036": "The expTime can't be earlier than the current system time.",
    "50037": "Order expired.",
    "50061": "You've reached the maximum order rate limit for this account.",
    "50101": "APIKey does not match current environment.",
    "50102": "Timestamp request expired.",
    "50103": "Request header OK-ACCESS-KEY can't be empty.",
    "50104": "Request header OK-ACCESS-PASSPHRASE can't be empty.",
    "50105": "Request header OK-ACCESS-PASSPHRASE incorrect.",
    "50106": "Request header OK-ACCESS-SIGN can't be empty.",
    "50107": "Request header OK-ACCESS-TIMESTAMP can't be empty.",
    "50111": "Invalid OK-ACCESS-KEY.",
    "50112": "Invalid OK-ACCESS-TIMESTAMP.",
    "50113": "Invalid Sign.",
    "50119": "API key doesn't exist.",
    "51000": "Parameter {0} error.",
    "51001": "Instrument ID, Instrument ID code, or Spread ID doesn't exist.",
    "51006": "Order price is not within the price limit (max buy price: {0}, min sell price: {1}).",
    "51008": "Order failed. Insufficient {0} balance in account.",
    "51016": "Client order ID already exists.",
    "51020": "Your order should meet or exceed the minimum order amount.",
    "51025": "Order count exceeds the limit.",
    "51101": "Order amount exceeds the maximum limit order amount.",
    "51111": "Maximum {0} orders can be placed in bulk.",
    "51121": "Order quantity must be a multiple of the lot size.",
    "51150": "The precision of the number of trades or the price exceeds the limit.",
    "51169": "Order failed because you don't have any positions in this direction to reduce or close.",
    "51174": "The number of pending orders reached the upper limit of {0} orders.",
    "51202": "Market order amount exceeds the maximum amount.",
    "51400": "Cancellation failed as the order has been filled, canceled or does not exist.",
    "51503": "Order modification failed as the order has been filled, canceled or does not exist.",
    "51511": "Modification failed: a post-only order may not take.",
    "51512": "Modification failed: the same order is more than once in this batch.",
    "51603": "Order does not exist.",
    "60004": "Invalid timestamp",
    "60005": "Invalid apiKey",
    "60006": "Timestamp request expired",
    "60007": "Invalid sign",
    "60009": "Login failed.",
    "60011": "Please log in",
    "60012": "Invalid request: {0}",
    "60013": "Invalid args",
    "60014": "Requests too frequent.",
    "60018": "Wrong URL or {0} doesn't exist. Please use the correct URL, channel and parameters.",
    "60019": "Invalid op: {0}",
    "60024": "Wrong passphrase",
    "60027": "Parameter {0} can not be empty.",
    "60028": "The current operation is not supported by this URL. Please use the correct URL for it.",
    "60031": "The WebSocket endpoint does not allow multiple or repeated logins.",
    "60032": "API key doesn't exist",
    "63999": "Internal system error",
    "64001": "This channel has been migrated to the '/business' URL. Please subscribe using the new URL.",
    "64002": "This channel is not supported by the '/business' URL. Please use '/private' or '/public' URL.",
    "64003": "Your trading fee tier does not meet the requirement to access this channel.",
    "64008": "The connection will soon be closed for a service upgrade. Please reconnect.",
}


def told(code: str, *details: object) -> str:
    """The venue's sentence for an error."""
    return TEXTS.get(code, "Operation failed.").format(*details)


class Turned(Exception):
    """The venue turns something down, with its code."""

    def __init__(self, code: str, *details: object) -> None:
        self.code, self.text = code, told(code, *details)
        super().__init__(f"{code} {self.text}")
