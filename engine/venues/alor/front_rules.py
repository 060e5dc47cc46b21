"""Holds. What the ALOR front goes by: listings, limits, switches for the unconfirmed, and the texts of refusals.

Numbers are from the ALOR dossier (§2.1 lives of tokens, §4.7 limits, §5.2 history); what nobody published is invented.
"""

from __future__ import annotations

import random
from decimal import Decimal

import msgspec

D = Decimal
DAY_MS = 86_400_000


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """One instrument. `lot` is units in a lot; `worth` is roubles for one unit at a price of one."""

    symbol: str
    short: str
    kind: str  # paper, pair, future
    board: str
    market: str
    base: str  # what a lot is of
    name: str  # in our spelling: for judges, who must not ask the dialect
    lot: Decimal = D(1)
    step: Decimal
    worth: Decimal = D(1)
    ends: str = "9999-12-31"
    face: Decimal = D(1)
    path: str
    start: Decimal
    depth: Decimal

    @property
    def future(self) -> bool:
        return self.kind == "future"

    def value(self, lots: Decimal, price: Decimal) -> Decimal:
        return lots * self.lot * self.worth * price


def _paper(symbol: str, lot: int, step: str, start: str, depth: int) -> Listing:
    return Listing(
        symbol=symbol,
        short=symbol,
        kind="paper",
        board="TQBR",
        market="FOND",
        base=symbol,
        name=f"{symbol}/RUB",
        lot=D(lot),
        step=D(step),
        path=symbol,
        start=D(start),
        depth=D(depth),
    )


def _future(symbol: str, name: str, step: str, worth: str, face: int, path: str, start: str) -> Listing:
    return Listing(
        symbol=symbol,
        short=symbol,
        kind="future",
        board="RFUD",
        market="FORTS",
        base=name.partition("/")[0],
        name=name,
        step=D(step),
        worth=D(worth),
        ends="2026-12-17",
        face=D(face),
        path=path,
        start=D(start),
        depth=D(200),
    )


LISTINGS = (
    _paper("SBER", 10, "0.01", "300", 500),
    _paper("GAZP", 10, "0.01", "130", 1000),
    _paper("LKOH", 1, "0.5", "7000", 200),
    Listing(
        symbol="CNYRUB_TOM",
        short="CNYRUB_TOM",
        kind="pair",
        board="CETS",
        market="CURR",
        base="CNY",
        name="CNY/RUB",
        lot=D(1000),
        step=D("0.0005"),
        path="CNY",
        start=D("11.5"),
        depth=D(300),
    ),
    _future("SRZ6", "SR/RUB:RUB-2612", "1", "1", 100, "SBER", "30000"),
    _future("CRZ6", "CR/RUB:RUB-2612", "0.001", "1000", 1000, "CNY", "11.5"),
    _future("SiZ6", "SI/RUB:RUB-2612", "1", "1", 1000, "USD", "80000"),
)


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """Every number and switch of the venue. What the dossier calls unconfirmed is a switch here."""

    limits: bool = True
    token_life_s: int = 1800
    connections: int = 10
    connections_of: str = "login"  # or "address": whose connections are counted
    subscriptions: int = 5000
    orders_per_s: int = 20
    reads_per_s: int = 20
    refreshes_per_s: int = 3  # "several a second" are too many (§2.2)
    opens_per_s: int = 5
    page_rows: int = 1000
    portfolios_per_login: int = 2
    rollover_hour: int = 21  # in UTC: midnight in Moscow
    commission_rate: Decimal = D("0.0005")
    margin_rate: Decimal = D("0.15")
    # Switches (§9, by their number there).
    plain_refused: bool = False  # 1: a WebSocket without TLS is refused with 406; ours have none on loopback
    refresh_502: float = 0.0  # 2: so often the token service fails
    frame_before_close: bool = False  # 4: a command before the authorisation is answered before the close
    long_guid_closes: bool = False  # 6
    unknown_opcode_closes: bool = False  # 7
    expired_resets: bool = False  # 8: no 401, no close: the line breaks
    acknowledge: str = "mixed"  # 14: "before", "after" its events, or either by chance
    trade_first: bool = False  # 14: the trade before the order's own event
    snapshot_first: bool = False  # 15: before the acknowledgement
    nameless_401: bool = False  # 17
    close_after_401: bool = False  # 17
    failed_trigger: str = "canceled"  # 21: or "filled", without an order
    from_inclusive: bool = True  # 22
    reqid_repeat: str = "same"  # 23: or "old", a 400 that holds the old answer
    shuffled: bool = False  # 26: keys in any order
    numeric_ids: bool = False  # 26
    delete_as_json: bool = False  # 24: described as plain text; a client of others expects an object
    ping_answered: bool = True  # 29
    amend_to_total: bool = False  # §10.18
    keep_comment: bool = True  # §10.12: an update without a comment keeps the old one
    reject_by_event: bool = False  # §3.7: money is looked at after the acknowledgement
    empty_404: bool = False  # §5.1: a list with nothing in it
    pair_rows: bool = False  # currency that is held: a row of the pair, or a row of money
    history_delay_ms: int = 0  # §10.10: so long after the session's end its trades are nowhere


def drawn(chance: random.Random, *, limits: bool) -> Rules:
    """What is unconfirmed is one way or the other, where a client lives with either without being told."""

    def either() -> bool:
        return chance.random() < 0.5

    return Rules(
        limits=limits,
        frame_before_close=either(),
        expired_resets=either(),
        acknowledge=chance.choice(("mixed", "before", "after")),
        trade_first=either(),
        snapshot_first=either(),
        failed_trigger=chance.choice(("canceled", "filled")),
        from_inclusive=either(),
        reqid_repeat=chance.choice(("same", "old")),
        shuffled=either(),
        numeric_ids=either(),
        keep_comment=either(),
        reject_by_event=either(),
        pair_rows=either(),
        delete_as_json=either(),
        portfolios_per_login=1,  # so that a key that is taken away is one account's
    )


class Turned(Exception):
    """The venue turns something down."""

    def __init__(self, status: int, text: str, code: str = "") -> None:
        super().__init__(f"{status} {text}")
        self.status, self.text, self.code = status, text, code


BAD_TOKEN = "Invalid JWT token!"  # noqa: S105
REPEATED = "Request with such Guid was already handled"
NO_MONEY = "Нехватка средств по лимитам клиента."
NOT_FOUND = "Order to cancel not found"
UNREADABLE = "Provided json can't be properly deserialised, perhaps you made a mistake or forgot some field."
