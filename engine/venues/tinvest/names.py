"""Decides. Instruments: T-Invest's listings as ours, and which one a row is about. Dossier §1.4, §4.6.

A row names an instrument by its uid; ticker and class code say what it is called where the uid is not listed. Only the
exchange's own boards have unified names: what trades elsewhere keeps T-Invest's spelling, TICKER_CLASS, and no plan
can name it.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from engine.core import spelling
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.orders import OrderType
from engine.core.venue import Catalogue
from engine.venues.tinvest.numbers import Money, Time, moment, number, optional

VENUE = "tinvest"
_SECURITIES = frozenset({"TQBR", "TQTF"})  # shares and funds in roubles
_BONDS = frozenset({"TQOB", "TQCB"})
_CURRENCIES, _FUTURES = "CETS", "SPBFUT"
_PERCENT = Decimal("0.01")


class ListedRow(msgspec.Struct, gc=False, rename="camel"):
    """One row of Shares, Etfs, Bonds, Currencies or Futures."""

    uid: str
    ticker: str
    class_code: str
    lot: int = 1
    currency: str | None = ""
    min_price_increment: Money | None = None
    min_price_increment_amount: Money | None = None  # of a future: what one step is worth
    nominal: Money | None = None  # of a bond
    expiration_date: Time = None  # of a future
    api_trade_available_flag: bool | None = None


class Ref(msgspec.Struct, frozen=True):
    """What stands in `venue_ref`."""

    uid: str
    class_code: str
    ticker: str
    lot: int  # pieces

    def __str__(self) -> str:
        return f"{self.uid}|{self.class_code}|{self.ticker}|{self.lot}"


def ref_of(instrument: Instrument) -> Ref:
    """ValueError where another dialect, or nobody, wrote it."""
    parts = instrument.venue_ref.split("|")
    if len(parts) != 4:
        raise ValueError(f"{instrument.name} has no reference of T-Invest")
    return Ref(parts[0], parts[1], parts[2], int(parts[3]))


def listed(row: ListedRow) -> Instrument | None:
    """The instrument of a listing; None for what has no unified name or no step."""
    tick = number(row.min_price_increment)
    name = name_on_board(row.class_code, row.ticker, _year(moment(row.expiration_date) or 0))
    if name is None or tick <= 0 or row.lot < 1:
        return None
    kind, unit, multiplier, quote = InstrumentKind.SPOT, "lot", Decimal(row.lot), spelling.currency(row.currency or "")
    base = name.partition("/")[0]
    tradable = bool(row.api_trade_available_flag)
    if row.class_code == _FUTURES:
        worth = optional(row.min_price_increment_amount)
        if worth is None:
            return None
        kind, unit, multiplier = InstrumentKind.FUTURE, "contract", worth / tick
    elif row.class_code in _BONDS:
        # Prices are per cent of the face: a bond is counted in hundredths of it, so that units times price is money.
        face = optional(row.nominal)
        if face is None or spelling.currency((row.nominal and row.nominal.currency) or "") != "RUB":
            return None
        multiplier, tradable = multiplier * face * _PERCENT, False  # accrued interest is paid beside the price
    if quote != "RUB":
        return None
    return Instrument(
        name=name,
        venue=VENUE,
        kind=kind,
        base=base,
        quote="RUB",
        settle="RUB",
        unit=unit,
        multiplier=multiplier,
        quantity_step=Decimal(1),
        min_quantity=Decimal(1),
        price_tick=tick,
        settled_daily=kind is InstrumentKind.FUTURE,
        market=spelling.MOEX,
        tradable=tradable,
        refuses=() if kind is InstrumentKind.SPOT else (OrderType.FOK,),
        status="live" if row.api_trade_available_flag else "not for the API",
        venue_ref=str(Ref(row.uid, row.class_code, row.ticker, row.lot)),
    )


def name_on_board(class_code: str, ticker: str, near_year: int) -> str | None:
    """The unified name of what trades under `ticker` on one of the exchange's boards."""
    if class_code in _SECURITIES or class_code in _BONDS:
        return spelling.security(ticker)
    if class_code == _CURRENCIES:
        return spelling.pair(ticker)
    return spelling.future(ticker, near_year) if class_code == _FUTURES else None


def symbol_for(name: str) -> str:
    """TICKER_CLASS for one of our names that is not listed yet: T-Invest says when there is none such."""
    base, _, rest = name.partition("/")
    if ":" in rest:
        month = rest.rpartition("-")[2]
        if len(month) == 4 and month.isdecimal() and 1 <= int(month[2:]) <= 12:
            return f"{base}{'FGHJKMNQUVXZ'[int(month[2:]) - 1]}{month[1]}_{_FUTURES}"
    if len(base) == 3 and base in ("CNY", "USD", "EUR", "HKD", "TRY", "BYN", "KZT", "AED"):
        return f"{base}RUB_{'TOD' if rest.endswith('TOD') else 'TOM'}_{_CURRENCIES}"
    return f"{base}_TQBR"


class Known(msgspec.Struct, frozen=True):
    """What a row is about. `instrument` is None for what is not listed."""

    name: str
    uid: str
    instrument: Instrument | None
    own_board: bool  # it has a unified name

    def lots(self, pieces: int) -> Decimal:
        """LookupError while the listings are not read: pieces taken for lots would be a lie that stays."""
        if self.instrument is not None:
            return Decimal(pieces) / ref_of(self.instrument).lot
        if self.own_board:
            raise LookupError(f"{self.name} is not listed: how many pieces make a lot is not known")
        return Decimal(pieces)


class Names:
    """Finds instruments by T-Invest's own names."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._by_uid: dict[str, Instrument] = {}
        self._seen = 0

    def known(self, uid: str | None, class_code: str | None, ticker: str | None, at_ms: int) -> Known:
        """ValueError for a row that names nothing."""
        found = self._listed(uid) if uid else None
        if found is not None:
            return Known(found.name, ref_of(found).uid, found, True)
        if not (uid or ticker):
            raise ValueError("a row that names no instrument")
        name = name_on_board(class_code or "", ticker or "", _year(at_ms)) if ticker else None
        if name is not None:
            by_name = self._catalogue.by_name(name)
            if by_name is not None and by_name.venue == VENUE and not uid:
                return Known(name, ref_of(by_name).uid, by_name, True)
            return Known(name, uid or "", None, True)
        spelt = f"{ticker}_{class_code}" if ticker and class_code else (ticker or uid or "")
        return Known(spelt, uid or "", None, False)

    def listed(self, name: str) -> Instrument | None:
        found = self._catalogue.by_name(name)
        return found if found is not None and found.venue == VENUE else None

    def _listed(self, uid: str) -> Instrument | None:
        found = self._by_uid.get(uid)
        if found is not None:
            return self._catalogue.by_name(found.name) or found
        every = self._catalogue.listed()
        if len(every) != self._seen:
            self._seen = len(every)
            self._by_uid = {ref_of(i).uid: i for i in every if i.venue == VENUE}
            return self._by_uid.get(uid)
        return None


def holding(known: Known, pieces: int) -> tuple[str, Decimal]:
    """What a holding of a security is called and counted as: units of the base, as fills are folded."""
    instrument = known.instrument
    if instrument is not None:
        return instrument.base, known.lots(pieces) * instrument.multiplier
    return (known.name.partition("/")[0] if known.own_board else known.name), Decimal(pieces)


def _year(at_ms: int) -> int:
    return 1970 + int(at_ms // 31_556_952_000)
