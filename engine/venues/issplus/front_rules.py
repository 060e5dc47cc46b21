"""Holds. What the ISS+ front goes by: what it lists, and a switch for everything that is unconfirmed. Dossier §9."""

from __future__ import annotations

import random
from decimal import Decimal

import msgspec

D = Decimal


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    marketplace: str
    board: str
    secid: str
    caption: str
    engine: str
    market: str
    path: str  # what it moves with
    start: Decimal
    tick: Decimal
    digits: int
    lot: int  # pieces in a lot
    depth: int = 1000  # lots per level
    step_price: Decimal | None = None  # of a future
    ends: str = ""

    @property
    def ticker(self) -> str:
        return f"{self.marketplace}.{self.board}.{self.secid}"


def _share(secid: str, caption: str, start: str, tick: str, digits: int, lot: int, board: str = "TQBR") -> Listing:
    return Listing(
        marketplace="MXSE",
        board=board,
        secid=secid,
        caption=caption,
        engine="stock",
        market="shares",
        path=secid,
        start=D(start),
        tick=D(tick),
        digits=digits,
        lot=lot,
    )


def _future(secid: str, caption: str, path: str, start: str, tick: str, digits: int, step_price: str) -> Listing:
    return Listing(
        marketplace="FORTS",
        board="RFUD",
        secid=secid,
        caption=caption,
        engine="futures",
        market="forts",
        path=path,
        start=D(start),
        tick=D(tick),
        digits=digits,
        lot=1,
        step_price=D(step_price),
        ends="2026-12-17",
    )


LISTINGS = (
    _share("SBER", "Sberbank", "300", "0.01", 2, 1),
    _share("GAZP", "GAZPROM", "130", "0.01", 2, 10),
    _share("LKOH", "LUKOIL", "7000", "0.5", 1, 1),
    _share("TMOS", "T-Capital fund", "6.5", "0.01", 2, 1, board="TQTF"),
    Listing(
        marketplace="MXCX",
        board="CETS",
        secid="CNYRUB_TOM",
        caption="CNY/RUB tomorrow",
        engine="currency",
        market="selt",
        path="CNY",
        start=D("11.5"),
        tick=D("0.001"),
        digits=4,
        lot=1000,
    ),
    Listing(
        marketplace="MXCX",
        board="CETS",
        secid="USD000UTSTOM",
        caption="USD/RUB tomorrow",
        engine="currency",
        market="selt",
        path="USD",
        start=D("80"),
        tick=D("0.0025"),
        digits=4,
        lot=1000,
    ),
    _future("SRZ6", "SBRF-12.26", "SBER", "30000", "1", 0, "1"),
    _future("CRZ6", "CNY-12.26", "CNY", "11.5", "0.001", 3, "1"),
)


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers, and the way the unconfirmed goes."""

    limits: bool = True
    requests_per_s: int = 10  # over HTTP, by address
    push_ms: int = 200  # changes are told so often
    echo_subprotocol: bool = True
    crlf_closes: bool = True
    close_refused_login: bool = True
    structure: bool = True  # the catalogue in CONNECTED
    connected_headers: bool = False
    # Where an error's code stands: in the header "message", another "header", the "body", or "plain": in words only.
    error_place: str = "message"
    receipt_last: bool = False  # after the first message, not before it
    seq_step: int = 1
    global_numbers: bool = False
    timestamps: str = "ms"  # "s", "us", "none"
    reply_properties: bool = False
    bare_numbers: bool = False  # no pairs
    # What an UNSUBSCRIBE is answered with: "none", "receipt", "closed"; `late_message`: and one more message comes.
    unsubscribe_answer: str = "none"
    late_message: bool = False
    removal_whole_rows: bool = False  # or only the key
    # "plain", "text", "trailing_lf", "split", "coalesce", "length", "spaced", "no_nul"
    framing: str = "plain"
    heartbeat_ms: int = 0
    guest_delay_ms: int = 900_000  # over HTTP
    demo_delay_ms: int = 0  # over the stream
    guests_denied: tuple[str, ...] = ()  # destinations that guests may not have
    page_rows: int = 500
    boards_paged: bool = False  # the list of a board, too
    entitled: bool = True  # false: everybody gets a page to log in on, as a success
    news_ms: int = 60_000


def drawn(chance: random.Random, *, limits: bool) -> Rules:
    """What is unconfirmed is one way or the other."""
    return Rules(
        limits=limits,
        echo_subprotocol=chance.random() < 0.5,
        close_refused_login=chance.random() < 0.5,
        structure=chance.random() < 0.8,
        connected_headers=chance.random() < 0.5,
        error_place=chance.choice(("message", "header", "body", "plain")),
        receipt_last=chance.random() < 0.5,
        seq_step=chance.choice((1, 1, 3)),
        global_numbers=chance.random() < 0.3,
        timestamps=chance.choice(("ms", "s", "us")),
        reply_properties=chance.random() < 0.5,
        bare_numbers=chance.random() < 0.2,
        unsubscribe_answer=chance.choice(("none", "receipt", "closed")),
        late_message=chance.random() < 0.5,
        framing=chance.choice(("plain", "text", "trailing_lf", "split", "coalesce", "length", "spaced")),
        heartbeat_ms=chance.choice((0, 10_000)),
        page_rows=chance.choice((7, 500)),
        boards_paged=chance.random() < 0.5,
    )


TEXTS = {
    "gateway.exception": "Unexpected failure in the access server",
    "gateway.timeout": "Operation takes too long",
    "gateway.transport": "No connection to the message broker",
    "gateway.access-denied": "Access denied",
    "gateway.invalidrequest": "Resource is unknown or parameters are wrong",
    "gateway.notimplemented": "Not implemented yet",
    "gateway.not-connected": "Authentication required",
}


class Turned(Exception):
    """The server turns something down, with its code."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)
