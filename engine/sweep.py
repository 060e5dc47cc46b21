"""Does. Looks at the venues for orders that carry an id of ours and that our ledger never claimed: orphans.

After each start every account is swept once: open orders, ended ones, and fills, of a day at least, and since our
record of it was last complete. A ledger that lived on finds none. One that was put back from a backup may: what was
sent after the backup it does not know. Therefore a restored database sends no orders until every account is swept,
back to the backup, and each orphan is accepted by a person. Where the venue's history does not reach back to the
backup, nobody can know, and a person has to accept that, too.
"""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import structlog

from engine import crash
from engine.core.facts import AccountFact, Fact, FillFact, OrderFact
from engine.core.limits import stamp
from engine.core.venue import Priority, VenueError
from engine.execute import Executor
from engine.ledger import Ledger, LedgerDown, gaps, restorations
from engine.ledger.restorations import Orphan
from engine.roster import Roster
from engine.sync import Sync
from engine.wire.http import Http, NoAnswer
from scheduler.clock import Clock

log = structlog.get_logger("sweep")

LOOK_BACK_MS = 24 * 3600 * 1000
_MARGIN_MS = 600_000  # clocks of venues differ, and their records lag
_EVERY_S = 1.0
_AT_ONCE = 2  # in the background
_AT_ONCE_PENDING = 8  # while orders wait for it


class NotAccepted(Exception):
    """Nothing was accepted; the sentence says why."""


class Sweeper:
    def __init__(
        self, *, clock: Clock, ledger: Ledger, sync: Sync, http: Http, roster: Roster, executor: Executor
    ) -> None:
        self._clock, self._ledger, self._sync = clock, ledger, sync
        self._http, self._roster, self._executor = http, roster, executor
        self._swept: set[str] = set()
        self._complete_to_ms: dict[str, int] = {}  # by account, as it was before this start
        self._pending: restorations.Restoration | None = None
        self.orphans: list[Orphan] = []
        self.unseen: dict[str, str] = {}  # by account: what its venue's history does not reach back to

    def load(self) -> None:
        """Before anything is read back: that moves the watermarks."""
        with self._ledger.read() as conn:
            self._complete_to_ms = gaps.watermarks(conn, gaps.HISTORY)
            self._pending = restorations.pending(conn)
            self.orphans = restorations.unaccepted(conn)

    @property
    def why_blocked(self) -> str:
        """Why no orders are sent on this database; "" when it was not restored, or is released."""
        if self._pending is None:
            return ""
        return f"the database was restored ({self._pending.source}) and is not released yet: unisono doctor says why"

    def unswept(self) -> list[str]:
        """Active accounts that were not looked at since the start."""
        return [a.account_id for a in self._roster.active() if a.account_id not in self._swept]

    async def run(self) -> None:
        room = anyio.CapacityLimiter(_AT_ONCE if self._pending is None else _AT_ONCE_PENDING)
        while True:
            async with anyio.create_task_group() as group:
                for account_id in self.unswept():
                    desk = self._sync.desk(account_id)
                    if desk is not None and desk.proven:
                        group.start_soon(self._sweep, account_id, room)
            if self._pending is not None and not (self.unswept() or self.orphans or self.unseen):
                await self._release("engine", "every account swept, no orphan")
            await self._clock.sleep(_EVERY_S)

    async def accept(self, by: str, why: str) -> int:
        """A person has looked at the orphans: they are no order of ours to be kept, and orders may go out again."""
        if unswept := self.unswept():
            raise NotAccepted(
                f"{len(unswept)} accounts are not swept yet ({', '.join(unswept[:5])}); nothing was accepted. "
                "Wait until they are proven, or pause them"
            )
        if self._pending is None and not self.orphans:
            raise NotAccepted("there are no orphans; nothing was changed")
        now_ms = self._clock.now_ms()
        count = await self._ledger.write(lambda conn: restorations.accept(conn, by, why, now_ms))
        self.orphans = []
        log.warning("orphans_accepted", by=by, why=why, orphans=count)
        if self._pending is not None:
            await self._release(by, f"{count} orphans accepted: {why}")
        return count

    async def _release(self, by: str, note: str) -> None:
        now_ms, blocked = self._clock.now_ms(), self.why_blocked
        crash.point("sweep-before-release")
        try:
            await self._ledger.write(lambda conn: restorations.release(conn, by, now_ms, note))
        except LedgerDown as error:
            log.warning("not_released", error=str(error))
            return
        crash.point("sweep-after-release")
        self._pending, self.unseen = None, {}
        if self._executor.blocked == blocked:
            self._executor.blocked = ""
        log.warning("restore_released", by=by, note=note)

    async def _sweep(self, account_id: str, room: anyio.CapacityLimiter) -> None:
        async with room:
            try:
                facts = await self._read(account_id)
                crash.point("sweep-after-read")
                orphans = self._orphans(account_id, facts)
                if orphans:
                    await self._ledger.write(lambda conn: restorations.note_orphans(conn, orphans))
                    with self._ledger.read() as conn:
                        self.orphans = restorations.unaccepted(conn)
            except (VenueError, NoAnswer, LedgerDown) as error:
                log.warning("not_swept", account=account_id, error=str(error))
                return
            except Exception:  # a mistake of ours: this account stays unswept, the others are looked at
                log.exception("not_swept", account=account_id)
                return
        self._swept.add(account_id)
        if orphans:
            still_open = {(o.account_id, o.venue_order_id) for o in self.orphans}
            left = [o.client_order_id for o in orphans if (o.account_id, o.venue_order_id) in still_open]
            if left:
                log.error("orphans", account=account_id, orders=left)
            else:
                log.info("orphans_accepted_before", account=account_id, orders=len(orphans))
            of_orphans = {o.venue_order_id for o in orphans}
            theirs = [f for f in facts if isinstance(f, OrderFact | FillFact) and f.venue_order_id in of_orphans]
            self._sync.fetched(account_id, theirs, self._clock.now_ms())

    async def _read(self, account_id: str) -> list[AccountFact]:
        """Complete reads only: one that fails leaves the account unswept."""
        origin, rest = self._roster.origin(account_id), self._roster.rest(account_id)
        await self._http.know_time(origin)
        now_ms, facts = self._http.venue_now_ms(origin.venue.name, origin.environment), list[Fact]()
        since_ms = self._since_ms(account_id, now_ms)
        for read in (*rest.fills(since_ms, now_ms), *rest.orders(since_ms, now_ms), *rest.open_orders()):
            async for page in self._http.walk(origin, read, priority=Priority.HISTORY):
                crash.point("sweep-between-pages")
                facts.extend(page.facts)
        return [f for f in facts if isinstance(f, OrderFact | FillFact)]

    def _since_ms(self, account_id: str, now_ms: int) -> int:
        """By the venue's clock: a wrong one of ours must not hide anything."""
        known_ms: int | None = self._complete_to_ms.get(account_id, now_ms)
        if self._pending is not None:
            known_ms = self._pending.since_ms
        since_ms = min(now_ms - LOOK_BACK_MS, (known_ms or 0) - _MARGIN_MS)
        oldest_ms = now_ms - self._roster.venue(account_id).capabilities.fills_history_ms
        if self._pending is not None and since_ms < oldest_ms:
            backup = (
                "nobody knows when the backup was made" if known_ms is None else f"the backup is of {stamp(known_ms)}"
            )
            self.unseen[account_id] = (
                f"{backup}, and the venue's history begins at {stamp(oldest_ms)}: "
                "orders that we sent in between and that have ended cannot be seen"
            )
            log.error("sweep_falls_short", account=account_id, since_ms=since_ms, history_from_ms=oldest_ms)
        return max(since_ms, oldest_ms)

    def _orphans(self, account_id: str, facts: Sequence[AccountFact]) -> list[Orphan]:
        owns = self._roster.venue(account_id).owns_order_id
        told = {
            f.venue_order_id: f
            for f in facts
            if isinstance(f, OrderFact | FillFact) and f.client_order_id and owns(f.client_order_id)
        }
        with self._ledger.read() as conn:
            claimed = restorations.claimed(conn, {f.client_order_id for f in told.values()})
        return [
            Orphan(
                account_id=account_id,
                venue_order_id=venue_order_id,
                client_order_id=fact.client_order_id,
                instrument=fact.instrument,
                found_at_ms=self._clock.now_ms(),
            )
            for venue_order_id, fact in told.items()
            if fact.client_order_id not in claimed
        ]
