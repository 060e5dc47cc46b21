"""Decides. OKX's spelling of an instrument <-> ours, and an instrument row in our words. OKX dossier §7.

The two spellings are a bijection on the symbol alone, so that a push is named without looking anything up:
a quote of USD means settled in the base currency (inverse), any other quote settles in itself. A symbol of a shape
that we do not know keeps OKX's spelling: its facts are kept, and nobody here can trade it by accident.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache

import msgspec

from engine.core.instruments import Instrument, InstrumentKind
from engine.venues.okx.numbers import number, optional

_WORD = r"[^-/:|\s]+"
_SYMBOL = re.compile(rf"({_WORD})-({_WORD})(?:-(SWAP|[0-9]{{6}}(?:-[0-9.]+-[CP])?))?")
_NAME = re.compile(rf"({_WORD})/({_WORD})(?::({_WORD})(?:-([0-9]{{6}}(?:-[0-9.]+-[CP])?))?)?")


@lru_cache(maxsize=16_384)
def name_of(symbol: str) -> str:
    """`BTC-USDT-SWAP` -> `BTC/USDT:USDT`. ValueError for what cannot be a symbol at all."""
    if not symbol or not symbol.isprintable() or set(symbol) & set("/:| "):
        raise ValueError(f"no symbol of OKX: {symbol!r}")
    match = _SYMBOL.fullmatch(symbol)
    if match is None:
        return symbol
    base, quote, term = match.groups()
    if term is None:
        return f"{base}/{quote}"
    settle = _settle(base, quote)
    return f"{base}/{quote}:{settle}" if term == "SWAP" else f"{base}/{quote}:{settle}-{term}"


@lru_cache(maxsize=16_384)
def symbol_of(name: str) -> str:
    """`BTC/USDT:USDT` -> `BTC-USDT-SWAP`. ValueError for a name that OKX could not have."""
    match = _NAME.fullmatch(name)
    if match is None:
        if name_of(name) != name:
            raise ValueError(f"a symbol of OKX where our name of it belongs: {name!r}")
        return name
    base, quote, settle, term = match.groups()
    if settle is None:
        return f"{base}-{quote}"
    if settle != _settle(base, quote):
        raise ValueError(f"OKX settles {base}/{quote} in {_settle(base, quote)}, not in {settle}")
    return f"{base}-{quote}-{term or 'SWAP'}"


def _settle(base: str, quote: str) -> str:
    return base if quote == "USD" else quote


class InstrumentRow(msgspec.Struct, gc=False):
    """The fields of an instrument that we use; the same object over REST and in the `instruments` channel."""

    instType: str
    instId: str
    lotSz: str
    minSz: str
    tickSz: str
    state: str
    instIdCode: int | None = None
    settleCcy: str = ""
    ctVal: str = ""
    ctMult: str = ""
    ctValCcy: str = ""
    ctType: str = ""
    maxLmtSz: str = ""
    maxMktSz: str = ""


_KINDS = {
    "SPOT": InstrumentKind.SPOT,
    "SWAP": InstrumentKind.SWAP,
    "FUTURES": InstrumentKind.FUTURE,
    "OPTION": InstrumentKind.OPTION,
}
_ONE = Decimal(1)


def instrument_of(row: InstrumentRow) -> Instrument:
    """Raises ValueError or KeyError for a row that we cannot express without guessing its units."""
    match = _SYMBOL.fullmatch(row.instId)
    if match is None:
        raise ValueError(f"unknown shape of a symbol: {row.instId!r}")
    base, quote = match[1], match[2]
    kind = _KINDS[row.instType]
    spot, inverse = kind is InstrumentKind.SPOT, row.ctType == "inverse"
    if not spot and (row.ctType not in ("linear", "inverse") or row.ctValCcy != (quote if inverse else base)):
        raise ValueError(f"{row.instId}: a {row.ctType or 'nameless'} contract valued in {row.ctValCcy or 'nothing'}")
    return Instrument(
        name=name_of(row.instId),
        venue="okx",
        kind=kind,
        base=base,
        quote=quote,
        settle=quote if spot else row.settleCcy or _settle(base, quote),
        unit=base if spot else "contract",
        multiplier=_ONE if spot else number(row.ctVal) * (number(row.ctMult) if row.ctMult else _ONE),
        inverse=inverse and not spot,
        quantity_step=number(row.lotSz),
        min_quantity=number(row.minSz),
        max_limit_quantity=optional(row.maxLmtSz),
        # In which unit a spot maxMktSz is counted the dossier leaves open; a wrong limit is worse than none.
        max_market_quantity=None if spot else optional(row.maxMktSz),
        price_tick=number(row.tickSz),
        # Orders over the stream need the numeric code (§5.2): without one nothing can be sent.
        tradable=row.state == "live" and row.instIdCode is not None,
        status=row.state,
        venue_ref=f"{row.instType}|{row.instId}|{'' if row.instIdCode is None else row.instIdCode}",
    )


class Ref(msgspec.Struct, frozen=True, gc=False):
    """`Instrument.venue_ref` taken apart."""

    inst_type: str
    symbol: str
    code: int | None


@lru_cache(maxsize=16_384)
def ref_of(venue_ref: str) -> Ref:
    inst_type, symbol, code = venue_ref.split("|")
    return Ref(inst_type, symbol, int(code) if code else None)
