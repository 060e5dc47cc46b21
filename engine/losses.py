"""Does. What accounts have lost since their venue's day began; who lost more than the mandate allows may only reduce.

The pause is an edit of the registry, with its reason: it survives a restart, and lasts until a person lifts it, by name
and with a reason. From then on the loss counts anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal

import msgspec
import structlog

from accounts.model import Trading
from engine.core.limits import plain
from engine.ledger import Ledger, questions
from engine.roster import Roster
from engine.sync import Sync
from engine.wire.http import Http

log = structlog.get_logger("losses")

_DAY_MS = 24 * 3_600_000


class Loss(msgspec.Struct, frozen=True):
    """By the venue's own valuations, what was paid in and out aside; below zero: a gain."""

    currency: str
    lost: Decimal
    now: Decimal  # what it is worth


class Losses:
    def __init__(
        self,
        *,
        ledger: Ledger,
        sync: Sync,
        http: Http,
        roster: Roster,
        at_par: Callable[[str, str], bool],
        pause: Callable[[str, str], Awaitable[None]],
        lifted: Callable[[int], Awaitable[Mapping[str, int]]],
    ) -> None:
        """`pause(account_id, why)` is durable on return. `lifted(since_ms)`: when a person last let each account trade
        again, by account."""
        self._ledger, self._sync, self._http, self._roster = ledger, sync, http, roster
        self._at_par, self._pause, self._ask_lifted = at_par, pause, lifted
        self._lifted: Mapping[str, int] = {}

    def of(self, account_id: str) -> Loss | None:
        """Since the day began, or since a person lifted a pause in it. None: nobody can say."""
        desk, account = self._sync.desk(account_id), self._roster.account(account_id)
        if desk is None or (now := desk.book.equity) is None:
            return None
        since_ms = max(self._day_began_ms(account.venue, account.environment), self._lifted.get(account_id, 0))
        with self._ledger.read() as connection:
            began = questions.day_start(connection, account_id, since_ms)
        if began is None or began.equity.currency != now.currency:
            return None
        if not all(self._at_par(paid, now.currency) for paid in began.paid_in):
            return None  # it was paid in another currency: what that was worth then is not known
        lost = began.equity.total + sum(began.paid_in.values(), Decimal(0)) - now.total
        return Loss(now.currency, lost, now.total)

    async def look(self) -> None:
        """Pause whoever has lost too much. What is not known pauses nobody: it is a denial of its own."""
        limited = {
            a.account_id: most
            for a in self._roster.active()
            if (mandate := self._roster.mandates.get(a.account_id)) is not None
            and (most := mandate.max_daily_loss) is not None
        }
        if not limited:
            return
        days = [self._day_began_ms(a.venue, a.environment) for a in map(self._roster.account, limited)]
        self._lifted = await self._ask_lifted(min(days))
        for account_id, most in limited.items():
            if self._roster.account(account_id).trading is not Trading.ACTIVE:
                continue
            loss = self.of(account_id)
            if loss is not None and loss.lost >= most:
                why = f"daily loss: {plain(loss.lost)} {loss.currency} lost, the mandate pauses it at {plain(most)}"
                log.error("daily_loss", account=account_id, lost=str(loss.lost), limit=str(most))
                await self._pause(account_id, why)

    def _day_began_ms(self, venue: str, environment: str) -> int:
        """By the venue's clock and the venue's midnight."""
        ahead_ms = self._roster.venues[venue].capabilities.utc_offset_ms
        now_ms = self._http.venue_now_ms(venue, environment)
        return (now_ms + ahead_ms) // _DAY_MS * _DAY_MS - ahead_ms
