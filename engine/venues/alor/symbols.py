"""Decides. ALOR's spelling of an instrument -> ours, and a listed security in our words. ALOR dossier §5.3, §6.2.

Names follow from the symbol alone (of a future also from the year), so that a push is named without looking anything
up. Futures come in two spellings, SRM6 and SBRF-6.26: both mean one name. What we cannot name keeps ALOR's spelling:
its facts are kept, and nobody here can trade it by accident.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache

import msgspec

from engine.core import spelling
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.venue import Catalogue
from engine.venues.alor.numbers import ZERO, number

EXCHANGES = ("MOEX", "SPBX", "UNITED")
UNNAMED = "[N/A]"  # what the server writes for an instrument that it cannot name (§4.5)

_BONDS = frozenset({"TQOB", "TQCB", "TQIR", "TQOD", "TQOY", "TQRD"})
_PAPERS = frozenset({"TQBR", "TQTF", "TQIF", "TQPI", "SPBX"})
_PAIRS = frozenset({"CETS"})
_FUTURES = frozenset({"RFUD", "SPBFUT"})
_LONG = re.compile(r"([A-Za-z0-9]{1,6})-([0-9]{1,2})\.([0-9]{2})")
_SPELT_OUT = re.compile(r"[!-~]{1,40}")

# The long spelling of a future names its asset, the short one has two letters for it.
_SHORT = {
    "SBRF": "SR", "SBPR": "SP", "GAZR": "GZ", "LKOH": "LK", "ROSN": "RN", "GMKN": "GK", "VTBR": "VB", "NLMK": "NM",
    "MGNT": "MN", "MTSI": "MT", "ALRS": "AL", "TATN": "TT", "TATP": "TP", "SNGR": "SN", "SNGP": "SG", "NOTK": "NK",
    "AFLT": "AF", "CHMF": "CH", "MOEX": "ME", "MAGN": "MG", "YDEX": "YD", "Si": "SI", "Eu": "EU", "ED": "ED",
    "CNY": "CR", "RTS": "RI", "RTSM": "RM", "MIX": "MX", "MXI": "MM", "BR": "BR", "NG": "NG", "GOLD": "GD",
    "SILV": "SV", "PLT": "PT", "PLD": "PD", "UCNY": "UC", "RUON": "RR", "RGBI": "RB",
}  # fmt: skip


@lru_cache(maxsize=16_384)
def name_of(symbol: str, year: int, exchange: str = spelling.MOEX) -> str:
    """`year`: about when it was said; a future ended the year before at the earliest.

    ValueError for what cannot be a symbol at all.
    """
    if symbol == UNNAMED:
        return symbol
    if not _SPELT_OUT.fullmatch(symbol) or set(symbol) & set("/:|"):
        raise ValueError(f"no symbol of ALOR: {symbol[:64]!r}")
    if exchange == "SPBX":
        return spelling.security(symbol, "USD")
    pair = spelling.pair(symbol)
    if pair is not None:
        return pair
    long = _LONG.fullmatch(symbol)
    if long is not None:
        code, month = _SHORT.get(long[1]), int(long[2])
        return symbol if code is None or not 1 <= month <= 12 else f"{code}/RUB:RUB-{long[3]}{month:02d}"
    if "-" in symbol or "." in symbol:
        return symbol  # an option, or a calendar spread
    return spelling.future(symbol, year) or spelling.security(symbol)


def is_future(name: str) -> bool:
    return ":RUB-" in name


class Ref(msgspec.Struct, frozen=True):
    """`Instrument.venue_ref` taken apart."""

    exchange: str
    symbol: str
    board: str


@lru_cache(maxsize=16_384)
def ref_of(venue_ref: str) -> Ref:
    exchange, symbol, board = venue_ref.split("|")
    return Ref(exchange, symbol, board)


def asked_for(name: str, catalogue: Catalogue) -> Ref:
    """Where prices of an instrument are had; one that is not listed yet is asked for as a security."""
    instrument = catalogue.by_name(name)
    if instrument is not None:
        return ref_of(instrument.venue_ref)
    return Ref(spelling.MOEX, name.partition("/")[0], "")


def is_bond(board: str) -> bool:
    """Its price is in per cent of the face value."""
    return board in _BONDS


def split_account(ref: str) -> tuple[str, str]:
    """`MOEX:D10001` -> exchange and portfolio. ValueError for anything else."""
    exchange, _, portfolio = ref.partition(":")
    if exchange not in EXCHANGES or not portfolio:
        raise ValueError(f"an account is named exchange:portfolio, as MOEX:D10001, not {ref!r}")
    return exchange, portfolio


class SecurityRow(msgspec.Struct, gc=False):
    """The fields of a listed security that we use (format Simple)."""

    symbol: str
    exchange: str
    board: str
    minstep: Decimal
    lotsize: Decimal = Decimal(1)
    pricestep: Decimal = ZERO
    currency: str | None = None
    primary_board: str | None = None
    tradingStatus: int | None = None
    cancellation: str | None = None  # when it ends


# What the trading status says of the moment, not of the instrument (§4.5): it may be traded at another one.
_PHASES = {
    17: "live",
    18: "closed",
    118: "opening",
    103: "closing",
    2: "break",
    102: "closing auction",
    106: "large-lot auction",
    107: "discrete auction",
    119: "opening auction",
    120: "closing-price auction",
}


def phase(status: int | None) -> str:
    return "live" if status is None else _PHASES.get(status, str(status))


def instrument_of(row: SecurityRow) -> Instrument:
    """Raises ValueError for a row that we cannot express without guessing its units."""
    ends = (row.cancellation or "")[:4]
    name = name_of(row.symbol, int(ends) if ends.isdecimal() else 0, row.exchange)
    board, lot, step = row.board, number(row.lotsize), number(row.minstep)
    if is_future(name) and not ends.isdecimal():
        raise ValueError(f"{row.symbol} does not say when it ends")
    if lot <= 0 or step <= 0:
        raise ValueError(f"{row.symbol}: lots of {lot}, steps of {step}")
    if row.primary_board not in (None, "", board):
        raise ValueError(f"{row.symbol} on {board}, which is not its own board")
    base, _, quote = name.partition("/")
    future = is_future(name)
    known = _FUTURES if future else _PAIRS if spelling.pair(row.symbol) else _PAPERS | _BONDS
    if board not in known:
        raise ValueError(f"{row.symbol} on {board}, which we do not know")
    if future:
        quote = "RUB"
        # The money that one step of the price is worth, over the step: what a contract counts for (§5.3).
        multiplier = number(row.pricestep) / step
        if multiplier <= 0:
            raise ValueError(f"{row.symbol}: a step of the price is worth {row.pricestep}")
    else:
        multiplier = lot
        if row.currency and spelling.currency(row.currency) != quote.partition("_")[0]:
            raise ValueError(f"{row.symbol} is paid in {row.currency}")
        quote = quote.partition("_")[0]
    return Instrument(
        name=name,
        venue="alor",
        kind=InstrumentKind.FUTURE if future else InstrumentKind.SPOT,
        base=base,
        quote=quote,
        settle=quote,
        unit="contract" if future else "lot",
        multiplier=multiplier,
        settled_daily=future,
        quantity_step=Decimal(1),
        min_quantity=Decimal(1),
        price_tick=step,
        market=spelling.MOEX if row.exchange == spelling.MOEX else "",
        # A bond is paid with its accrued interest, which no fill tells for certain.
        tradable=not is_bond(board),
        status=phase(row.tradingStatus),
        venue_ref=f"{row.exchange}|{row.symbol}|{board}",
    )
