"""Does. What accounts are worth now, in any currency, by the live marks; and every price there is, with its age."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from engine.core.instruments import Instrument, InstrumentKind
from engine.core.marks import Mark
from engine.core.standing import Standing, standings
from engine.core.valuation import AccountWorth, Price, Rates, Stated, value
from engine.roster import Roster
from engine.sync import Sync
from scheduler.clock import Clock

_RATES_KEPT_MS = 500  # a preview asks for a thousand accounts in one go


class Worths:
    def __init__(
        self, *, clock: Clock, roster: Roster, sync: Sync, at_par: frozenset[str], max_price_age_ms: int
    ) -> None:
        self._clock, self._roster, self._sync = clock, roster, sync
        self._at_par, self._max_age_ms = at_par, max_price_age_ms
        self._rates: dict[tuple[str, str], tuple[int, Rates]] = {}

    # ---- prices

    def mark(self, venue: str, environment: str, name: str) -> Mark | None:
        """The price to value and to check with: the venue's own while it is fresh, else the youngest of its market."""
        instrument = self._sync.catalogue(venue, environment).by_name(name)
        return self._sync.marks.latest(
            venue,
            environment,
            name,
            market="" if instrument is None else instrument.market,
            fresh_since_ms=self._clock.now_ms() - self._max_age_ms,
        )

    def prices(self, instrument: str = "") -> list[Price]:
        now_ms = self._clock.now_ms()
        return [
            Price(
                instrument=mark.instrument,
                environment=environment,
                price=mark.price,
                basis=mark.basis,
                source=mark.source,
                market=mark.market,
                as_of_ms=mark.as_of_ms,
                age_s=round((now_ms - mark.as_of_ms) / 1000, 3),
                stale=now_ms - mark.as_of_ms > self._max_age_ms,
            )
            for environment, mark in self._sync.marks.everything()
            if instrument in ("", mark.instrument)
        ]

    # ---- accounts

    def of(self, account_id: str, currency: str) -> AccountWorth | None:
        """None: the account has no book here. Raises UnknownAccount."""
        account, desk = self._roster.account(account_id), self._sync.desk(account_id)
        if desk is None:
            return None
        venue, environment = account.venue, account.environment
        cash = desk.book.cash
        if not self._roster.venue(account_id).capabilities.cash_history:  # what is moved there shows in statements only
            cash |= {currency: stated.cash for currency, stated in desk.book.stated_balances.items()}
        valuation = value(
            account_id,
            cash=cash,
            positions=desk.book.positions(),
            rates=self._rates_of(environment, currency),
            instrument_of=self._sync.catalogue(venue, environment).by_name,
            mark_of=lambda instrument: self.mark(venue, environment, instrument.name),
            at_ms=self._clock.now_ms(),
            max_age_ms=self._max_age_ms,
        )
        equity = desk.book.equity
        stated = None
        if equity is not None:
            stated = Stated(currency=equity.currency, total=equity.total, at_ms=equity.updated_at_ms)
        return AccountWorth(valuation=valuation, stated=stated)

    def standings(self, account_id: str) -> list[Standing]:
        """What the account holds, with prices and their age. Raises UnknownAccount."""
        account, desk = self._roster.account(account_id), self._sync.desk(account_id)
        if desk is None:
            return []
        venue, environment = account.venue, account.environment
        return standings(
            desk.book,
            self._sync.catalogue(venue, environment).listed(),
            lambda instrument: self.mark(venue, environment, instrument.name),
        )

    def nav(self, account_id: str, currency: str) -> Decimal | None:
        """By our marks where everything has a fresh price; else as the venue states it, in this currency or one that
        counts one to one with it. None: nobody can say."""
        worth = self.of(account_id, currency)
        if worth is None:
            return None
        if worth.valuation.whole and not worth.valuation.stale and worth.valuation.parts:
            return worth.valuation.total
        stated = worth.stated
        if stated is None:
            return None
        return stated.total if self.at_par(stated.currency, currency) else None

    def at_par(self, one: str, other: str) -> bool:
        """Do these currencies count one to one?"""
        return one == other or {one, other} <= self._at_par

    def _rates_of(self, environment: str, currency: str) -> Rates:
        key, now_ms = (environment, currency), self._clock.now_ms()
        known = self._rates.get(key)
        if known is None or abs(now_ms - known[0]) > _RATES_KEPT_MS:
            known = self._rates[key] = (now_ms, Rates(currency, self._pairs(environment), self._at_par))
        return known[1]

    def _pairs(self, environment: str) -> Sequence[tuple[Instrument, Mark]]:
        found: list[tuple[Instrument, Mark]] = []
        for venue, place, catalogue in self._sync.catalogues():
            if place != environment:
                continue
            for instrument in catalogue.listed():
                if instrument.kind is InstrumentKind.SPOT:
                    mark = self.mark(venue, environment, instrument.name)
                    if mark is not None:
                        found.append((instrument, mark))
        return found
