"""Does. Opens, works off and proves gaps: history is read to its proven end, then the account may trade again.

A connection that went down opens a gap. Once it is live again (its streamed facts held back), history is read from
`watermark - overlap`, applied, then what was held, then the stream. Only a complete read moves the watermark, in
the transaction that marks the gap. An account that was never seen before is opened from the venue's statement.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

import anyio
import anyio.lowlevel
import msgspec
import structlog

from engine import crash
from engine.children import Children
from engine.config import Backfill as Settings
from engine.core.conservation import differences
from engine.core.facts import AccountFact, BalanceFact, FillFact, OrderFact, PositionFact
from engine.core.instruments import InstrumentKind
from engine.core.venue import ErrorClass, Priority, VenueError
from engine.history import History, NotProven, Reading
from engine.ledger import Ledger, LedgerDown, LedgerFull, Source, books, gaps
from engine.links import Link, Links
from engine.roster import Roster
from engine.sync import Desk, Sync
from engine.wire.http import Http, NoAnswer
from scheduler.clock import Clock

log = structlog.get_logger("backfill")

_RETRY_S = (1.0, 2.0, 5.0, 15.0, 30.0)
_AT_A_TIME = 200  # facts, a share of the smallest queue; then the ledger is asked for room, and others may run
_VERIFY_PAUSE_S = 1.0  # before the second look; before the third, longer than the venue's reads may lag
_VERIFY_ROUNDS = 3
_INSTRUMENTS_LIMIT_S = 15.0
_SOONER = 0.85  # of its interval: this turn itself comes every few seconds, and then history is still to be read
_CATCH_UP_S = 30.0  # so long after it was held back, a connection may still have to tell what it had to tell then
_DAY_MS = 86_400_000
_NIGHT_SPREAD_MS = 3_600_000  # not all accounts at once
_SUSPICIOUS_MS = 5_000  # a streamed position that differs from the folded one for so long is no race of channels


class _LostAgain(Exception):
    """The connection went down while history was read: `live` will begin anew."""


class _Work(msgspec.Struct):
    account_id: str
    attempts: int = 0
    again: bool = False  # asked for once more while it ran
    whole_day: bool = False  # the nightly one


class Backfill:
    def __init__(
        self,
        *,
        clock: Clock,
        ledger: Ledger,
        sync: Sync,
        links: Links,
        http: Http,
        roster: Roster,
        children: Children,
        settings: Settings,
        rng: random.Random,
        remember: Callable[[str, str], Awaitable[None]],
    ) -> None:
        """`remember(account_id, venue_ref)` keeps who the venue says it is; ValueError: another account is the same."""
        self._remember = remember
        self._clock, self._ledger, self._sync, self._links = clock, ledger, sync, links
        self._http, self._roster, self._children = http, roster, children
        self._settings, self._rng = settings, rng
        self._history = History(http=http, roster=roster)
        self._gaps: dict[str, gaps.Gap] = {}  # the open one of each account
        self._work: dict[str, _Work] = {}
        self._due_s: dict[str, tuple[float, float]] = {}  # each account's next cross-check, and at which interval
        self._days: dict[str, int] = {}  # until when each account's whole day was read, by the venue's time
        self._turns: dict[str, float] = {}  # when in the night each account has its turn, as a fraction of its spread
        self._losses: dict[str, int] = {}  # how often each account's connection was lost
        self._room = anyio.CapacityLimiter(settings.at_once)
        self._group: anyio.abc.TaskGroup | None = None

    async def run(self) -> None:
        with self._ledger.read() as conn:
            self._days = gaps.watermarks(conn, gaps.WHOLE_DAY)
        async with anyio.create_task_group() as self._group:
            for account_id in list(self._work):
                self._group.start_soon(self._prove_until_done, self._work[account_id])
            await anyio.sleep_forever()

    # ---- signals

    def down(self, account_id: str, connection_key: str, last_heard_ms: int | None, reason: str) -> None:
        """A connection that carries this account's facts is gone: what happens from now on may be missed."""
        self._sync.hold(account_id, f"gap: {reason}")
        self._losses[account_id] = self._losses.get(account_id, 0) + 1
        known = self._gaps.get(account_id)
        if known is not None:  # one gap per account at a time; its start is the earlier loss, and it lasts on
            if known.closed_at_ms is not None:
                self._note(msgspec.structs.replace(known, state=gaps.GapState.OPEN, closed_at_ms=None))
            return
        now_ms = self._clock.now_ms()
        gap = gaps.Gap(
            gap_id=gaps.new_id(now_ms, self._rng),
            account_id=account_id,
            connection_key=connection_key,
            since_ms=last_heard_ms or now_ms,
            opened_at_ms=now_ms,
            reason=reason,
        )
        self._note(gap)

    def live(self, account_id: str) -> None:
        """Connected and subscribed again: read back what was missed."""
        desk = self._sync.desk(account_id)
        gap = self._gaps.get(account_id)
        if desk is not None and gap is not None and gap.closed_at_ms is None:
            self._note(msgspec.structs.replace(gap, closed_at_ms=self._clock.now_ms()))
        self._start(account_id)

    def forget(self, account_id: str) -> None:
        """The account was paused or closed: its gap stays in the ledger, open, until it comes back."""
        self._work.pop(account_id, None)
        self._gaps.pop(account_id, None)
        self._due_s.pop(account_id, None)

    def _note(self, gap: gaps.Gap) -> None:
        """The account's gap as it is now, here and in the ledger."""
        self._gaps[gap.account_id] = gap
        try:
            self._ledger.post(lambda conn: gaps.save(conn, gap))
        except LedgerFull:  # it is kept when it is proven; after a restart the watermark tells as much
            log.error("gap_not_written", account=gap.account_id, state=gap.state)

    def check_now(self, account_id: str) -> None:
        """Read history again although nothing is known to be missing."""
        self._start(account_id)

    def was_away(self, account_id: str) -> None:
        """No engine listened to it for a while: the gap that was open then, or one from its watermark on.

        A new account has neither.
        """
        if account_id in self._gaps:
            return
        with self._ledger.read() as conn:
            watermark_ms = gaps.watermark(conn, account_id, gaps.HISTORY)
            unproven = gaps.find(conn, account_id, states=[gaps.GapState.OPEN, gaps.GapState.BACKFILLED])
        if unproven:
            self._gaps[account_id] = unproven[0]
        if unproven or watermark_ms is not None:
            self.down(account_id, "", watermark_ms, "not connected: no engine ran, or the account was paused")

    def open_gaps(self) -> list[gaps.Gap]:
        return list(self._gaps.values())

    def gap_of(self, account_id: str) -> gaps.Gap | None:
        return self._gaps.get(account_id)

    def gap_since(self, account_id: str) -> int | None:
        gap = self._gaps.get(account_id)
        return None if gap is None else gap.since_ms

    def _start(self, account_id: str, *, whole_day: bool = False) -> None:
        if account_id in self._work:
            self._work[account_id].again = True
            return
        work = self._work[account_id] = _Work(account_id, whole_day=whole_day)
        if self._group is not None:
            self._group.start_soon(self._prove_until_done, work)

    # ---- silent loss

    async def crosscheck(self) -> int:
        """Accounts whose turn has come are read back although their streams look healthy."""
        now_s, started = self._clock.monotonic_s(), 0
        busy = {c.account_id for c in self._children.open()}
        for desk in self._sync.desks():
            account_id = desk.account_id
            if not desk.proven or account_id in self._work:
                continue
            self._look_for_silence(desk)
            every_s = self._settings.crosscheck_s if account_id in busy else self._settings.idle_crosscheck_s
            due_s, at_every_s = self._due_s.get(account_id, (math.inf, 0.0))
            if at_every_s != every_s:  # new, or its orders came or went: not all accounts of a plan at once
                due_s = min(due_s, now_s + _SOONER * every_s * self._rng.random())
            if now_s >= due_s or desk.lost or desk.book.mismatched_for_ms(self._clock.now_ms()) > _SUSPICIOUS_MS:
                due_s = now_s + every_s * (_SOONER - 0.1 * self._rng.random())
                self._start(account_id)
                started += 1
            elif self._night_is_due(desk):
                self._start(account_id, whole_day=True)
                started += 1
            self._due_s[account_id] = due_s, every_s
        return started

    def _night_is_due(self, desk: Desk) -> bool:
        """Has a night begun since its whole day was read, and is it its turn? After a downtime: as soon as possible."""
        now_ms = self._history.now_ms(desk.account_id)
        turn_ms = _NIGHT_SPREAD_MS * self._turns.setdefault(desk.account_id, self._rng.random())
        after_ms = self._settings.night_hour * 3_600_000 + turn_ms
        began_ms = (now_ms - after_ms) // _DAY_MS * _DAY_MS + after_ms
        read_ms = max(self._days.get(desk.account_id, 0), desk.book.opened_at_ms or now_ms)
        return read_ms < began_ms

    # ---- the work

    async def _prove_until_done(self, work: _Work) -> None:
        account_id = work.account_id
        while self._work.get(account_id) is work:
            work.again = False
            try:
                async with self._room:
                    await self._prove(account_id)
                    if work.whole_day:
                        await self._read_whole_day(account_id)
            except _LostAgain:
                log.info("lost_again", account=account_id, next="it is read back once the connection lives")
            except Exception as error:
                # Also a mistake of ours: whatever it is, it must not stop the other accounts.
                if not isinstance(error, VenueError | NoAnswer | NotProven | LedgerDown):
                    log.exception("backfill_failed", account=account_id)
                if isinstance(error, VenueError) and error.error_class is ErrorClass.AUTH:
                    if work.again:  # connected anew meanwhile, maybe with another key
                        continue
                    # No hot loop with a refused key: new credentials open the connection anew, and that reads again.
                    self._roster.halted[account_id] = f"{error.code} {error.message}"
                    self._sync.hold(account_id, f"credentials refused: {error.code} {error.message}")
                    log.error("credentials_refused", account=account_id, code=error.code, reason=error.message)
                    break
                delay_s = _RETRY_S[min(work.attempts, len(_RETRY_S) - 1)]
                work.attempts += 1
                log.warning("not_proven", account=account_id, error=str(error), retry_in_s=delay_s)
                desk = self._sync.desk(account_id)
                if desk is None:
                    break
                if isinstance(error, NotProven) and desk.proven:  # a cross-check: nobody trades on a doubtful book
                    self.down(account_id, "", self._clock.now_ms(), str(error))
                desk.why = str(error) or type(error).__name__
                await self._clock.sleep(delay_s)
                continue
            if not work.again:
                break
        if self._work.get(account_id) is work:
            del self._work[account_id]

    async def _prove(self, account_id: str) -> None:
        desk = self._sync.desk(account_id)
        if desk is None or account_id not in self._roster.accounts or not self._is_live(account_id):
            return
        losses = self._losses.get(account_id, 0)
        # Watermarks and windows are times of the venue: our own clock may be set meanwhile, in either direction.
        await self._http.know_time(self._roster.origin(account_id))
        started_ms = self._history.now_ms(account_id)
        await self._instruments(account_id)
        await self._identify(account_id)
        if desk.lost:
            await self._rebuild(desk)
        capabilities = self._roster.venue(account_id).capabilities
        overlap_ms = self._overlap_ms(account_id)
        with self._ledger.read() as conn:
            watermark_ms = gaps.watermark(conn, account_id, gaps.HISTORY)
        if watermark_ms is not None and started_ms - watermark_ms + overlap_ms > capabilities.fills_history_ms:
            await self._unprovable(account_id, watermark_ms)
            watermark_ms = None
        if watermark_ms is None:
            await self._open_account(desk)
            watermark_ms = started_ms
        since_ms = watermark_ms - overlap_ms
        reading = await self._history.since(desk, since_ms)
        crash.point("backfill-after-read")
        self._not_lost_since(desk, losses)
        was_proven = desk.proven
        news = await self._take_in(desk, losses, reading.facts)
        while desk.held is not None and not self._sync.release(account_id, _AT_A_TIME):
            await self._room_for_more(desk, losses)
        if (gap := self._gaps.get(account_id)) is not None:
            self._note(msgspec.structs.replace(gap, state=gaps.GapState.BACKFILLED))
        crash.point("backfill-after-apply")
        await self._verify(desk)
        if desk.lost:
            raise NotProven("facts came faster than they could be kept; history is read again")
        self._not_lost_since(desk, losses)
        await self._settle(desk, started_ms - capabilities.max_read_lag_ms, reading, len(news))
        self._not_lost_since(desk, losses)
        if not desk.proven:
            desk.proven, desk.proven_at_ms, desk.why = True, self._clock.now_ms(), ""
        if was_proven:
            self._look_for_silent_loss(account_id, news, started_ms - capabilities.max_read_lag_ms)

    async def _read_whole_day(self, account_id: str) -> None:
        """Everything of a day against what is recorded: what was lost in silence and is older than the overlap."""
        desk = self._sync.desk(account_id)
        if desk is None or not desk.proven:
            return
        losses, now_ms = self._losses.get(account_id, 0), self._history.now_ms(account_id)
        kept_ms = self._roster.venue(account_id).capabilities.fills_history_ms
        since_ms = max(now_ms - min(_DAY_MS, kept_ms), desk.book.opened_at_ms or 0)
        reading = await self._history.ended_since(account_id, since_ms)
        await self._ledger.write(lambda conn: None)  # everything heard before is in
        with self._ledger.read() as conn:
            missing = gaps.unrecorded(conn, account_id, [f for f in reading.facts if f.at_ms > since_ms])
        lost = [f for f in missing if not isinstance(f, OrderFact)]
        if lost:
            log.error("lost_in_silence", account=account_id, facts=len(lost), first=lost[0].key, next="taken in now")
        await self._take_in(desk, losses, missing)
        if desk.lost:  # older than the book remembers: it is made anew, with them
            raise NotProven(f"{len(lost)} facts of the day were missing")
        if not lost:
            desk.unheard.clear()  # orders told once more, in other words than the stream's: it is not mute for that
        read_ms = now_ms - self._roster.venue(account_id).capabilities.max_read_lag_ms
        await self._ledger.write(
            lambda conn: gaps.move_watermark(conn, account_id, gaps.WHOLE_DAY, read_ms, self._clock.now_ms())
        )
        self._days[account_id] = now_ms
        log.info("whole_day_read", account=account_id, facts=len(reading.facts), missing=len(missing))

    async def _take_in(self, desk: Desk, losses: int, facts: Sequence[AccountFact]) -> list[AccountFact]:
        """Those that were news. A history longer than the ledger's queue goes in bit by bit."""
        news = list[AccountFact]()
        for start in range(0, len(facts), _AT_A_TIME):
            if start:
                await self._room_for_more(desk, losses)
            some = facts[start : start + _AT_A_TIME]
            news += self._sync.fetched(desk.account_id, some, self._clock.now_ms())
        return news

    async def _room_for_more(self, desk: Desk, losses: int) -> None:
        await anyio.lowlevel.checkpoint()
        if self._sync.full:
            await self._sync.room()
        self._not_lost_since(desk, losses)

    def _is_live(self, account_id: str) -> bool:
        """Nothing is proven of an account whose stream does not tell what happens from now on."""
        link = self._link(account_id)
        return link is not None and link.live

    def _link(self, account_id: str) -> Link | None:
        """The connection that tells its facts."""
        return self._links.of_listener(account_id, self._roster.fact_kind(account_id))

    def _not_lost_since(self, desk: Desk, losses: int) -> None:
        """Neither its connection nor, by a pause, its desk."""
        if self._losses.get(desk.account_id, 0) != losses or self._sync.desk(desk.account_id) is not desk:
            raise _LostAgain

    def _overlap_ms(self, account_id: str) -> int:
        """History is read from so long before what is known: by the venue, and never less than its reads may lag."""
        name = self._roster.venue(account_id).name
        overlap_s = self._roster.settings(name).overlap_s or self._settings.overlap_s
        return max(round(overlap_s * 1000), self._roster.venue(account_id).capabilities.max_read_lag_ms)

    def _look_for_silence(self, desk: Desk) -> None:
        """What history told first, and the stream still has not told long after."""
        if not desk.unheard:
            return
        now_ms, link = self._clock.now_ms(), self._link(desk.account_id)
        if link is not None and link.held_back_within(_CATCH_UP_S):  # it is we who do not listen
            desk.unheard = dict.fromkeys(desk.unheard, now_ms)
            return
        lag_ms = self._roster.venue(desk.account_id).capabilities.max_read_lag_ms
        # Also when our clock was set back: a connection too many is better than an hour of silence.
        overdue = [occasion for occasion, told_ms in desk.unheard.items() if abs(now_ms - told_ms) > lag_ms]
        if overdue:
            desk.unheard.clear()
            self._is_mute(desk.account_id, f"the stream never told of {', '.join(overdue[:3])}")

    def _look_for_silent_loss(self, account_id: str, news: list[AccountFact], before_ms: int) -> None:
        """The stream should have told these long ago: it is mute, however healthy its pongs are."""
        link = self._link(account_id)
        if link is not None and link.held_back_within(_CATCH_UP_S):
            return  # `unheard` knows them
        missed = [f for f in news if isinstance(f, OrderFact | FillFact) and f.at_ms < before_ms]
        if missed:
            self._is_mute(account_id, f"history told {len(missed)} facts that the stream did not")

    def _is_mute(self, account_id: str, why: str) -> None:
        link = self._link(account_id)
        if link is not None:
            log.warning("silent_loss", account=account_id, connection=link.connection.connection_key, why=why)
            self._links.mark_mute(link.connection.connection_key, why)

    async def _rebuild(self, desk: Desk) -> None:
        """The book may lack what the ledger has, or the other way round: fold the ledger anew."""
        self._sync.hold(desk.account_id, "its book is made anew from the ledger")
        await self._ledger.write(lambda conn: None)  # everything posted before is in
        with self._ledger.read() as conn:
            desk.book = books.load(conn, desk.account_id, self._roster.catalogue(desk.account_id).by_name)
        desk.lost = False

    async def _open_account(self, desk: Desk) -> None:
        """First sight: the venue's statement is the opening of the book.

        A position that is stated tells up to when. What is not stated is flat, as of some moment that the venue's reads
        may lag behind: it counts as flat that long ago, and what was traded since then and is not stated is waited for.
        """
        account_id = desk.account_id
        lag_ms = self._roster.venue(account_id).capabilities.max_read_lag_ms
        for round_number in range(_VERIFY_ROUNDS):
            if round_number:
                await self._clock.sleep(lag_ms / 1000)
            asked_ms = self._history.now_ms(account_id)
            facts = await self._history.statement(account_id)
            positions = [f for f in facts if isinstance(f, PositionFact)]
            unsure = await self._traded_since(desk, asked_ms - 2 * lag_ms)
            unsure -= {(f.instrument, f.position_side) for f in positions}
            if not unsure:
                break
        else:
            names = ", ".join(sorted(instrument for instrument, _ in unsure))
            raise NotProven(f"{names}: traded while the account is opened, and not stated")
        balances = [f for f in facts if isinstance(f, BalanceFact)]
        desk.book.open_with(positions, balances, asked_ms - lag_ms)
        self._sync.fetched(account_id, facts, self._clock.now_ms(), source=Source.STATEMENT)
        crash.point("open-before-keep")
        await books.keep(self._ledger, desk.book)
        log.info("account_opened", account=account_id, positions=len(positions), currencies=len(balances))

    async def _traded_since(self, desk: Desk, since_ms: int) -> set[tuple[str, str]]:
        """Positions that history or the held stream tell of a trade in."""
        account_id = desk.account_id
        reading = await self._history.moved_since(account_id, since_ms)
        catalogue = self._roster.catalogue(account_id)
        traded = set[tuple[str, str]]()
        for fact in (*reading.facts, *(fact for facts, _, _ in desk.held or () for fact in facts)):
            if isinstance(fact, FillFact):
                instrument, at_ms = catalogue.by_name(fact.instrument), fact.traded_at_ms
                if instrument is not None and instrument.kind is InstrumentKind.SPOT:
                    continue  # it makes balances, and each of them tells up to when
            elif isinstance(fact, PositionFact):
                at_ms = fact.updated_at_ms
            else:
                continue
            if at_ms >= since_ms:
                traded.add((fact.instrument, fact.position_side))
        return traded

    async def _identify(self, account_id: str) -> None:
        """Whose key it is and what it may do: asked each time, for both can change while nobody listens."""
        page = await self._http.read(
            self._roster.origin(account_id), self._roster.rest(account_id).identity(), priority=Priority.STATEMENT
        )
        identity = page.identity
        assert identity is not None, "an identity read says who it is"
        account = self._roster.account(account_id)
        if account.venue_ref and identity.venue_ref != account.venue_ref:
            raise VenueError(
                ErrorClass.AUTH,
                "other-account",
                f"the key belongs to {identity.venue_ref}, the registry says {account.venue_ref}: keys are swapped",
            )
        if identity.may_withdraw:
            raise VenueError(
                ErrorClass.AUTH,
                "may-withdraw",
                "this key may withdraw money: make one that may only read and trade",
            )
        if identity != self._roster.identities.get(account_id):
            self._roster.identities[account_id] = identity
            if not identity.may_trade:
                log.warning("key_cannot_trade", account=account_id)
            if identity.address_bound is False:
                log.warning("key_not_bound_to_address", account=account_id)
        if not account.venue_ref:
            try:
                await self._remember(account_id, identity.venue_ref)
            except ValueError as error:
                raise VenueError(ErrorClass.AUTH, "same-login", str(error)) from None

    async def _instruments(self, account_id: str) -> None:
        """Nothing can be valued or looked up before the venue's instruments are read."""
        account = self._roster.account(account_id)
        catalogue = self._sync.catalogue(account.venue, account.environment)
        deadline_s = self._clock.monotonic_s() + _INSTRUMENTS_LIMIT_S
        while not catalogue.whole:
            if self._clock.monotonic_s() >= deadline_s:
                raise NotProven("the venue's instruments are not read yet")
            await self._clock.sleep(0.1)

    async def _verify(self, desk: Desk) -> None:
        """The folded book against the venue's statement; a difference must survive a pause to count."""
        account_id, venue = desk.account_id, self._roster.venue(desk.account_id)
        lag_s, found = venue.capabilities.max_read_lag_ms / 1000, list[str]()
        for round_number in range(_VERIFY_ROUNDS):
            if round_number:
                await self._clock.sleep(_VERIFY_PAUSE_S if round_number == 1 else lag_s + _VERIFY_PAUSE_S)
                since_ms = self._history.now_ms(account_id) - self._overlap_ms(account_id)
                reading = await self._history.moved_since(account_id, since_ms)
                self._sync.fetched(account_id, reading.facts, self._clock.now_ms())
            asked_ms = self._history.now_ms(account_id)
            facts = await self._history.statement(account_id)
            # What a complete statement leaves out is flat: a position closed while nobody listened is stated no more.
            facts += desk.book.absent_from(cast("list[AccountFact]", facts), asked_ms)
            self._sync.fetched(account_id, facts, self._clock.now_ms(), source=Source.STATEMENT)
            found = differences(desk.book, facts, venue=venue.name, cash_history=venue.capabilities.cash_history)
            if not found:
                return
        raise NotProven("the book differs from the venue's statement: " + "; ".join(found[:5]))

    async def _settle(self, desk: Desk, watermark_ms: int, reading: Reading, found: int) -> None:
        """Watermark and gap in one transaction, after every fact that was read."""
        account_id, now_ms = desk.account_id, self._clock.now_ms()
        gap = self._gaps.pop(account_id, None)
        fills = sum(1 for f in reading.facts if isinstance(f, FillFact))
        proven = None
        if gap is not None:
            proven = msgspec.structs.replace(
                gap,
                state=gaps.GapState.PROVEN,
                closed_at_ms=gap.closed_at_ms or now_ms,
                proven_at_ms=now_ms,
                facts_found=found,
                fills_found=fills,
                pages_read=reading.pages,
            )
        desk.book.prune(watermark_ms - 2 * self._overlap_ms(account_id))
        crash.point("backfill-before-settle")
        try:
            await self._ledger.write(
                lambda conn: gaps.settle(conn, account_id, gaps.HISTORY, watermark_ms, now_ms, proven)
            )
        except LedgerDown:
            if gap is not None:
                self._gaps[account_id] = gap
            raise
        crash.point("backfill-after-settle")
        books.post(self._ledger, desk.book)
        log.info("proven", account=account_id, gap=gap.gap_id if gap else None, news=found, pages=reading.pages)

    async def _unprovable(self, account_id: str, watermark_ms: int) -> None:
        """Older than the venue's history: what can be known is read, the hole is a break for a person."""
        gap = self._gaps.pop(account_id, None)
        now_ms = self._clock.now_ms()
        hole = gap or gaps.Gap(
            gap_id=gaps.new_id(now_ms, self._rng),
            account_id=account_id,
            connection_key="",
            since_ms=watermark_ms,
            opened_at_ms=now_ms,
            reason="not connected for longer than the venue keeps its history",
        )
        hole = msgspec.structs.replace(
            hole,
            state=gaps.GapState.UNPROVABLE,
            closed_at_ms=now_ms,
            note="fills older than the venue's history cannot be read; compare with the broker's own report",
        )
        log.error("gap_unprovable", account=account_id, since_ms=watermark_ms)
        await self._ledger.write(lambda conn: gaps.save(conn, hole))
