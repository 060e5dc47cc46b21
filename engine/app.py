"""Does. The one place where objects meet: configuration -> everything open, one task group, an orderly stop.

Order of a start: own the database, open ledger and vault, remember what may be out there, then connect; READY is
said after recovery. Order of a stop: no new claims, answers on their way up to ten seconds, everything written.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import msgspec
import structlog

from accounts.database import SchemaOld
from accounts.model import Account, Connection, Listener, Trading
from accounts.registry import Conflict, LiveRow, Registry
from accounts.vault import Vault, VaultError
from engine import ledger as ledgers
from engine.abort import Aborter
from engine.align import Aligner
from engine.backfill import Backfill
from engine.children import Children
from engine.config import Config
from engine.control.office import ControlOffice
from engine.control.server import serve
from engine.core.facts import MarkFact
from engine.core.instruments import Instrument
from engine.core.plans import Child, Denial, Plan
from engine.core.runs import RunKind
from engine.core.venue import Heard, Login, Notice, Priority, Reply, Rest, Said, Venue, VenueError
from engine.execute import Executor
from engine.flatten import Flattener
from engine.foreign import Foreign
from engine.further import Further
from engine.kill import KillSwitch
from engine.latecomers import Latecomers
from engine.ledger import Ledger, LedgerFull, Writer, books, quarantine
from engine.ledger import instruments as listings
from engine.links import Links, LinkView, Phase
from engine.losses import Losses
from engine.notify import Notifier
from engine.plan import Planner, recheck, recheck_attempt, rules_of
from engine.reconcile import Reconciler
from engine.resolve import CLOCK_TOLERANCE_MS, Resolver
from engine.roster import Roster
from engine.rounds import Place, PriceRounds
from engine.settle import Settler
from engine.sides import Sides
from engine.sweep import Sweeper
from engine.sync import Sync
from engine.views import LedgerPlans, LiveAccounts, LiveMarket
from engine.wire.http import Http, NoAnswer, Origin, Transport
from engine.wire.rate import Budgets
from engine.wire.raw import ALWAYS_SECRET, Raw
from engine.wire.stream import Dial, dialler
from engine.worth import Worths
from scheduler.clock import Clock
from scheduler.heartbeat import Heartbeat
from scheduler.timetable import Entry

log = structlog.get_logger("engine")

_STOP_LIMIT_S = 10.0
_INSTRUMENTS_EVERY_S = 3600.0
_GARBAGE_EVERY_S = 600.0
_INSTRUMENTS_RETRY_S = 1.0
_FIRST_COMPARISON_S = 3.0
_ENGINE = "engine"  # in whose name it edits the registry


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine has of the machine it runs on. A simulation brings its own: no sockets, threads or real time."""

    dial: Dial | None = None  # None: real WebSockets
    transport: Transport | None = None  # None: real HTTP
    heartbeat: Callable[[Clock, Sequence[Entry]], Heartbeat] = Heartbeat
    writer: type[Writer] = Writer
    aside: Callable[..., Awaitable[Any]] = anyio.to_thread.run_sync  # runs what blocks
    door: Callable[[ControlOffice, str], Coroutine[Any, Any, None]] = serve


class Engine:
    """Everything that runs, for one database. `run` returns when `stop` was called and all is written."""

    def __init__(
        self,
        config: Config,
        *,
        venues: dict[str, Venue],
        clock: Clock,
        rng: random.Random,
        notifier: Notifier,
        surroundings: Surroundings | None = None,
    ) -> None:
        around = self._around = surroundings or Surroundings()
        self._config, self._clock, self._rng, self._notifier = config, clock, rng, notifier
        self._stopping = anyio.Event()
        self.ready = anyio.Event()
        self.lost = ""  # why it stopped by itself
        self._known_changes = -1
        self._live_rows: dict[str, LiveRow] = {}
        self._started_ms = clock.now_ms()
        self.unreadable = 0
        self._rounds = PriceRounds(
            clock=clock,
            read=self._read_marks,
            every_s=config.plans.max_price_age_s * 2 / 3,
            start_soon=self._start_soon,
        )
        self._beat_at_s = clock.monotonic_s()
        self._group: anyio.abc.TaskGroup | None = None

        self.vault = Vault.from_file(config.vault.key_file)
        self.registry = Registry(config.database.url)
        with suppress(SchemaOld):  # upgraded below, once the database is ours
            self.registry.check()
        canary = self.registry.canary()
        if canary is None:
            raise VaultError("This registry has no vault key yet. Make both with: unisono init.")
        self.vault.check(canary)
        self.ownership = ledgers.own(config.database.url)
        self.registry.upgrade()
        self.ledger = Ledger.open(config.database.url, config.ledger, clock, writer=around.writer)
        self.sync = Sync(self.ledger, hold_limit=config.backfill.hold_limit)
        self.roster = Roster(venues, config.venues, self.sync.catalogue, self._open_credentials)
        percents = {
            rule: self.roster.settings(venue.name).budget_percent
            for venue in venues.values()
            for rule in (*venue.rates, venue.opens)
        }
        self.budgets = Budgets(clock, percents)
        ca_bundles = {name: s.ca_bundle for name, s in config.venues.items() if s.ca_bundle}
        self.raw = self._keep_raw()
        self.http = Http(
            clock,
            self.budgets,
            rng,
            timeout_s=config.http.timeout_s,
            max_connections=config.http.max_connections,
            read_attempts=config.http.read_attempts,
            ca_bundles=ca_bundles,
            transport=around.transport,
            overhear=self.raw.exchange if self.raw is not None else None,
        )
        self.links = Links(
            clock=clock,
            hearer=self,
            venues=venues,
            dial=around.dial or dialler(open_timeout_s=config.pulse.open_timeout_s, ca_bundles=ca_bundles),
            pulse=config.pulse,
            budgets=self.budgets,
            login=self._login,
            login_of=self.roster.login_of,
            token_refused=self._token_refused,
            catalogue=self.sync.catalogue,
            options={name: self.roster.options(name) for name in venues},
            venue_now_ms=self.http.venue_now_ms,
            rng=rng,
            overheard=self.raw.socket if self.raw is not None else None,
        )
        self._refused: dict[str, set[str]] = {}  # account_id -> kinds of its connections that ended as refused
        self.rules = rules_of(config.plans)
        self.children = Children(
            clock=clock,
            ledger=self.ledger,
            sync=self.sync,
            recent_ms=self.rules.duplicate_window_ms,
            replaces=self.roster.replaces,
            key_of=self.roster.amend_key,
        )
        self.executor = Executor(
            clock=clock,
            ledger=self.ledger,
            children=self.children,
            links=self.links,
            http=self.http,
            budgets=self.budgets,
            roster=self.roster,
            send_timeout_s=config.plans.send_timeout_s,
            request_expiry_s=config.plans.request_expiry_s,
            rng=rng,
            recheck=self._recheck,
            stopped=lambda account_id, closes_for: self.kill.reason(account_id, closes_for),
        )
        self.kill = KillSwitch(
            clock=clock,
            ledger=self.ledger,
            sync=self.sync,
            http=self.http,
            roster=self.roster,
            children=self.children,
            flattener=Flattener(
                clock=clock,
                ledger=self.ledger,
                http=self.http,
                roster=self.roster,
                sync=self.sync,
                children=self.children,
                executor=self.executor,
                at_par=config.plans.at_par,
                rng=rng,
            ),
            reconcile=lambda account_ids: self.reconciler.run(self.sides.subjects(account_ids), RunKind.KILL),
        )
        self.aborter = Aborter(clock=clock, ledger=self.ledger, children=self.children, executor=self.executor)
        self.latecomers = Latecomers(clock=clock, children=self.children, executor=self.executor)
        self.further = Further(
            clock=clock,
            children=self.children,
            executor=self.executor,
            roster=self.roster,
            recheck=self._recheck_attempt,
            fresh_marks=self._fresh_marks,
        )
        self.resolver = Resolver(
            clock=clock,
            children=self.children,
            executor=self.executor,
            http=self.http,
            roster=self.roster,
            sync=self.sync,
            send_timeout_s=config.plans.send_timeout_s,
            after=self.further.after,
        )
        self.backfill = Backfill(
            clock=clock,
            ledger=self.ledger,
            sync=self.sync,
            links=self.links,
            http=self.http,
            roster=self.roster,
            children=self.children,
            settings=config.backfill,
            rng=rng,
            remember=self._remember_identity,
        )
        self.foreign = Foreign(
            clock=clock, ledger=self.ledger, sync=self.sync, roster=self.roster, children=self.children
        )
        self.worths = Worths(
            clock=clock,
            roster=self.roster,
            sync=self.sync,
            at_par=frozenset(config.plans.at_par),
            max_price_age_ms=self.rules.max_price_age_ms,
        )
        self.losses = Losses(
            ledger=self.ledger,
            sync=self.sync,
            http=self.http,
            roster=self.roster,
            at_par=self.worths.at_par,
            pause=self._only_reduce,
            lifted=self._lifted,
        )
        self.accounts = LiveAccounts(
            roster=self.roster,
            sync=self.sync,
            links=self.links,
            kill=self.kill,
            children=self.children,
            gap_since=self.backfill.gap_since,
            worths=self.worths,
            losses=self.losses,
        )
        self.market = LiveMarket(roster=self.roster, sync=self.sync, worths=self.worths)
        self.planner = Planner(
            accounts=self.accounts,
            market=self.market,
            store=LedgerPlans(ledger=self.ledger, children=self.children, clock=clock),
            venues=venues,
            rules=self.rules,
            clock=clock,
            rng=rng,
        )
        self.sides = Sides(
            clock=clock,
            ledger=self.ledger,
            sync=self.sync,
            links=self.links,
            http=self.http,
            roster=self.roster,
            children=self.children,
            backfill=self.backfill,
        )
        self.reconciler = Reconciler(self.sides, clock, config.reconcile)
        self.sweeper = Sweeper(
            clock=clock,
            ledger=self.ledger,
            sync=self.sync,
            http=self.http,
            roster=self.roster,
            executor=self.executor,
        )
        self.heartbeat = around.heartbeat(clock, self._timetable())
        self.office = ControlOffice(
            clock=clock,
            ledger=self.ledger,
            roster=self.roster,
            sync=self.sync,
            links=self.links,
            planner=self.planner,
            children=self.children,
            executor=self.executor,
            backfill=self.backfill,
            reconciler=self.reconciler,
            subjects=self.sides.subjects,
            start_soon=self._start_soon,
            kill=self.kill,
            sweeper=self.sweeper,
            settler=Settler(clock=clock, children=self.children, roster=self.roster, asked=self.resolver),
            fresh_marks=self._fresh_marks,
            worths=self.worths,
            foreign=self.foreign,
            aligner=Aligner(
                clock=clock,
                ledger=self.ledger,
                accounts=self.accounts,
                market=self.market,
                worths=self.worths,
                planner=self.planner,
            ),
            vitals=self._vitals,
            clocks=self._clocks_apart,
            escalated=lambda: self.resolver.escalated,
        )

    # ---- life

    async def run(self) -> None:
        """Until `stop`; raises what makes going on impossible."""
        gc.set_threshold(20_000, 20, 20)  # most of what is made here dies without its help
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                self._known_changes, _ = self._fill_roster()
                with self.ledger.read() as conn:
                    for place, known in listings.load(conn).items():
                        self.sync.catalogue(*place).add(known)
                for account in self.roster.active():
                    self._enter(account)
                    self.backfill.was_away(account.account_id)
                unknown = await self._recover(group)
                self.foreign.load()
                group.start_soon(self.heartbeat.run)
                group.start_soon(self.links.run)
                group.start_soon(self.resolver.run)
                group.start_soon(self.further.run)
                group.start_soon(self.aborter.run)
                group.start_soon(self.latecomers.run)
                group.start_soon(self.backfill.run)
                group.start_soon(self.kill.run)
                group.start_soon(self.sweeper.run)
                group.start_soon(self._keep_instruments)
                with anyio.move_on_after(_FIRST_COMPARISON_S):
                    await self._compare_clocks()  # logins are signed with the venue's time
                await self.links.set_wanted(self.registry.wanted())
                group.start_soon(self._around.door, self.office, self._config.control.socket)
                self.executor.blocked = self.sweeper.why_blocked
                self.ready.set()
                self._notifier.ready(self._status_line())
                log.info("ready", accounts=len(self.roster.active()), unknown_orders=unknown)
                await self._stopping.wait()
                await self._wind_down()
                group.cancel_scope.cancel()
        finally:
            await self._close()

    def stop(self) -> None:
        """No new claims from now on; `run` returns when everything is written."""
        self.executor.blocked = "the engine is stopping"
        self._stopping.set()

    def _start_soon(self, work: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
        assert self._group is not None, "runs"
        self._group.start_soon(work, *arguments)

    async def _recover(self, group: anyio.abc.TaskGroup) -> int:
        self.executor.blocked = "the engine is recovering"
        self.kill.load()
        self.sweeper.load()
        group.start_soon(self.executor.run)
        group.start_soon(self.children.run)
        return await self.children.recover()

    async def _wind_down(self) -> None:
        self._notifier.stopping()
        log.info("stopping", open_orders=len(self.children.open()))
        with anyio.move_on_after(_STOP_LIMIT_S):
            while self.executor.on_their_way():
                await self._clock.sleep(0.05)

    async def _close(self) -> None:
        with anyio.CancelScope(shield=True):
            await self.http.__aexit__(None, None, None)
            if self.ledger.health().ok:
                for desk in self.sync.desks():
                    if not desk.lost:
                        books.post(self.ledger, desk.book)
            left = await self._around.aside(self.ledger.close, _STOP_LIMIT_S)
            if left:
                log.error("not_written", facts_and_jobs=left, next="history tells the facts again at the next start")
            if self.raw is not None:
                await self._around.aside(self.raw.close)
            self.registry.dispose()
            self.ownership.release()
            log.info("stopped")

    def _keep_raw(self) -> Raw | None:
        """What was heard and said goes into files, while the configuration says so."""
        kept = self._config.raw
        if not kept.keep:
            return None
        raw = Raw(
            Path(kept.folder),
            self._clock,
            {name: (*venue.secret_names, *ALWAYS_SECRET) for name, venue in self.roster.venues.items()},
            max_mb=kept.max_mb,
            max_days=kept.max_days,
            queue_mb=kept.queue_mb,
            hush=lambda: self.children.fanning_out,
        )
        raw.start()
        return raw

    def _timetable(self) -> list[Entry]:
        """What runs when."""
        pulse = self._config.pulse
        return [
            Entry(name="pulse", every_s=pulse.beat_s, deadline_s=pulse.beat_s, run=self._beat),
            Entry(name="silence", every_s=1.0, deadline_s=5.0, run=self.links.watch_silence),
            Entry(name="registry", every_s=0.5, deadline_s=10.0, run=self._follow_registry),
            Entry(name="tokens", every_s=5.0, deadline_s=30.0, run=self._renew_tokens),
            Entry(name="crosscheck", every_s=5.0, deadline_s=30.0, run=self.backfill.crosscheck),
            Entry(name="live rows", every_s=1.0, deadline_s=10.0, run=self._save_live),
            Entry(name="marks", every_s=5.0, deadline_s=30.0, run=self._keep_marks),
            Entry(name="clock", every_s=60.0, deadline_s=30.0, run=self._compare_clocks),
            Entry(name="instruments", every_s=_INSTRUMENTS_EVERY_S, deadline_s=300.0, run=self._read_instruments),
            Entry(name="losses", every_s=5.0, deadline_s=30.0, run=self.losses.look),
            Entry(name="plans", every_s=5.0, deadline_s=30.0, run=self._expire_plans),
            Entry(name="garbage", every_s=_GARBAGE_EVERY_S, deadline_s=30.0, run=self.set_garbage_aside),
            Entry(name="watchdog", every_s=5.0, deadline_s=10.0, run=self._feed_watchdog),
        ]

    # ---- who is here

    def _open_credentials(self, account_id: str) -> Any:
        return self.vault.open(account_id, self.registry.sealed(account_id))

    async def _login(self, connection: Connection) -> Login:
        """Who the connection's account is at its venue. Raises VenueError or NoAnswer."""
        account_id = connection.listener_id
        token = await self.http.token(self.roster.origin(account_id))
        return self.roster.login(account_id, token)

    def _token_refused(self, connection: Connection) -> None:
        self.http.tokens.refused(self.roster.login_of(connection.listener_id))

    async def _renew_tokens(self) -> None:
        """Access tokens that end soon are renewed, and the open connections told, while the old ones still do."""
        due: dict[str, list[str]] = {}
        for account in (*self.roster.active(), *self.roster.feeds()):
            if self.roster.venues[account.venue].grant is None or account.account_id in self.roster.halted:
                continue
            with suppress(VenueError):  # its credentials cannot be opened: told where it connects
                issuer = self.http.issuer(self.roster.origin(account.account_id))
                if issuer is not None and self.http.tokens.due(issuer):
                    due.setdefault(issuer.login, []).append(account.account_id)
        for account_ids in due.values():
            try:
                token = await self.http.token(self.roster.origin(account_ids[0]))
            except (VenueError, NoAnswer) as error:
                log.warning("token_not_renewed", account=account_ids[0], error=str(error))
                continue
            self.links.renew({account_id: self.roster.login(account_id, token) for account_id in account_ids})

    def _fill_roster(self) -> tuple[int, set[str]]:
        """The roster as the registry is now; the change it stands at, and the accounts that differ from before."""
        counter = self.registry.change_counter()
        changed = self.roster.fill(
            self.registry.accounts(),
            self.registry.connections(),
            self.registry.groups(),
            self.registry.mandates_in_force(),
        )
        return counter, changed

    async def _remember_identity(self, account_id: str, venue_ref: str) -> None:
        def remember() -> None:
            try:
                self.registry.set_venue_ref(account_id, venue_ref, by=_ENGINE, why="the venue told it")
            except Conflict as error:
                raise ValueError(str(error)) from None

        await self._around.aside(remember)

    async def _only_reduce(self, account_id: str, why: str) -> None:
        await self._around.aside(lambda: self.registry.set_trading(account_id, Trading.REDUCING, by=_ENGINE, why=why))

    async def _lifted(self, since_ms: int) -> dict[str, int]:
        """When a person last let each account trade freely again."""
        changes = await self._around.aside(lambda: self.registry.changes(limit=10_000, since_ms=since_ms))
        return {
            c.subject_id: c.at_ms
            for c in reversed(changes)
            if (c.kind, c.action) == ("account", "trading")
            and c.by != _ENGINE
            and c.after is not None
            and c.after.get("trading") == Trading.ACTIVE.value
        }

    def _enter(self, account: Account) -> None:
        account_id = account.account_id
        with self.ledger.read() as conn:
            book = books.load(conn, account_id, self.roster.catalogue(account_id).by_name)
        self.sync.enter(account_id, book)

    async def _follow_registry(self) -> None:
        """Every recorded change of the registry takes effect here, within a beat of this entry."""
        known = self._known_changes
        if await self._around.aside(self.registry.change_counter) == known:
            return
        changes = [c for c in self.registry.changes(limit=10_000) if c.change_id > known]
        if any(c.kind == "vault" for c in changes):  # the keys were sealed anew
            self.vault = Vault.from_file(self._config.vault.key_file)
        counter, changed = self._fill_roster()
        active = {a.account_id for a in self.roster.active()}
        here = {desk.account_id for desk in self.sync.desks()}
        for account_id in here - active:
            self.backfill.forget(account_id)
            self.sync.leave(account_id)
        for account_id in active - here:
            self._enter(self.roster.account(account_id))
            self.backfill.was_away(account_id)
        before = {v.connection.connection_key: v.connection for v in self.links.views()}
        await self.links.set_wanted(self.registry.wanted())
        rekeyed = {c.subject_id for c in changes if c.kind == "credentials"} & active
        for connection in self.roster.connections:
            # New keys, same address: only these connections are opened anew.
            if connection.listener_id in rekeyed and before.get(connection.connection_key) == connection:
                await self.links.reopen(connection.connection_key)
        self._known_changes = counter  # last: what failed half-way is followed again at the next beat
        log.info("registry_followed", changes=len(changes), accounts=sorted(changed))

    # ---- what connections tell (engine.links.Hearer); the first is the hot path

    @property
    def full(self) -> bool:
        return self.sync.full

    async def room(self) -> None:
        await self.sync.room()

    def on_heard(self, connection: Connection, heard: Heard, received_at_ms: int) -> None:
        if heard.facts:
            if type(heard.facts[0]) is MarkFact:  # a frame holds prices or what is about an account, never both
                self.sync.marks.take(connection.venue, connection.environment, heard.facts, received_at_ms)
            elif connection.listener is Listener.ACCOUNT:
                self.sync.hear(connection.listener_id, heard.facts, received_at_ms, connection.connection_key)
        if heard.instruments:
            self._listed((connection.venue, connection.environment), heard.instruments)

    def on_reply(self, connection: Connection, reply: Reply) -> None:
        self.executor.on_reply(connection, reply)

    def on_live(self, connection: Connection, was_down_since_ms: int | None) -> None:
        refused = self._refused.get(connection.listener_id)
        if refused is not None:  # it was another account's key, with whom it shared the connection then
            refused.discard(connection.kind)
            if not refused:
                del self._refused[connection.listener_id]
                self.roster.halted.pop(connection.listener_id, None)
        if self._carries_facts(connection):
            self.backfill.live(connection.listener_id)
        elif not self.roster.venues[connection.venue].capabilities.trades:
            # What a feed did not tell while it was away: its state now, over HTTP.
            self._start_soon(self._read_marks, (connection.venue, connection.environment))

    def on_down(self, connection: Connection, last_heard_ms: int, reason: str) -> None:
        if self._stopping.is_set():
            reason = "the engine was stopped"
        self.executor.on_down(connection.connection_key, reason)
        if self._carries_facts(connection) and self.sync.desk(connection.listener_id) is not None:
            self.backfill.down(connection.listener_id, connection.connection_key, last_heard_ms, reason)

    def on_unreadable(self, connection: Connection, frame: bytes, reason: str) -> None:
        self.unreadable += 1
        now_ms = self._clock.now_ms()
        account_id = connection.listener_id if connection.listener is Listener.ACCOUNT else ""
        log.warning("unreadable", connection=connection.connection_key, reason=reason, size=len(frame))
        self.ledger.post(
            lambda conn: quarantine.put(conn, connection.connection_key, account_id, now_ms, reason, frame)
        )

    def on_halted(self, connection: Connection, code: str, reason: str) -> None:
        if connection.listener is Listener.ACCOUNT:
            self._refused.setdefault(connection.listener_id, set()).add(connection.kind)
            self.roster.halted[connection.listener_id] = f"{code} {reason}".strip()
            self.sync.hold(connection.listener_id, f"credentials refused: {code} {reason}")

    def on_said(self, connection: Connection, said: Said) -> None:
        levels = {Notice.INFO: log.debug, Notice.REFUSED: log.warning, Notice.CHANNEL_LOST: log.warning}
        levels.get(said.notice, log.info)(
            "said", connection=connection.connection_key, notice=said.notice.value, code=said.code, detail=said.detail
        )

    def _carries_facts(self, connection: Connection) -> bool:
        if connection.listener is not Listener.ACCOUNT:
            return False
        return self.roster.venues[connection.venue].endpoint(connection.kind).carries_facts

    # ---- what is common to all accounts of a venue

    async def _ask_place(self, place: Place, what: str, ask: Callable[[Origin, Rest], Awaitable[None]]) -> bool:
        """Under each address of the place until one answers; did one?"""
        for origin in self.roster.places().get(place, []):
            try:
                await ask(origin, self.roster.rest_at(*place))
                return True
            except (VenueError, NoAnswer) as error:
                log.warning(
                    "not_asked", what=what, venue=place[0], environment=place[1], at=origin.base_url, error=str(error)
                )
        return False

    async def _keep_instruments(self) -> None:
        """Nothing can be read back before the instruments are here; a first account may come at any time."""
        while True:
            missing = [p for p in self.roster.places() if not self.sync.catalogue(*p).whole]
            if missing:
                await self._read_instruments(missing)
            await self._clock.sleep(_INSTRUMENTS_RETRY_S)

    async def _read_instruments(self, places: Sequence[Place] = ()) -> None:
        for place in places or self.roster.places():
            found: list[Instrument] = []

            async def ask(origin: Origin, rest: Rest, found: list[Instrument] = found) -> None:
                found.clear()  # another address was half-way
                for read in rest.instruments():
                    async for page in self.http.walk(origin, read, priority=Priority.STATEMENT):
                        found.extend(page.instruments)

            read = await self._ask_place(place, "instruments", ask)
            self.sync.catalogue(*place).whole |= read
            names = {one.name for one in found}
            if read:  # the whole list: what is not in it any more cannot be traded any more
                found += [
                    msgspec.structs.replace(known, tradable=False, status="not listed any more")
                    for known in self.sync.catalogue(*place).listed()
                    if known.name not in names and known.tradable
                ]
            self._listed(place, found)

    def _listed(self, place: Place, instruments: Sequence[Instrument]) -> None:
        """New and changed instruments are kept; a change is an event that people can look up."""
        new, changes = self.sync.catalogue(*place).add(instruments)
        if not new and not changes:
            return
        for before, after in changes:
            log.warning("instrument_changed", instrument=after.name, before=repr(before), after=repr(after))
        now_ms = self._clock.now_ms()
        with suppress(LedgerFull):  # they are in memory; the next list tells what is not in the table
            self.ledger.post(lambda conn: listings.save(conn, place, new, changes, now_ms))

    async def _fresh_marks(self, plan: Plan) -> None:
        """Before sizing or a last look: prices that are old are asked for over HTTP."""
        groups = {*plan.groups, *(g for leg in plan.legs for g in leg.groups)}
        named = {*plan.accounts, *(a for leg in plan.legs for a in leg.accounts)}
        members = self.roster.members(sorted(groups), sorted(named))
        limit_ms, names = self.rules.max_price_age_ms // 2, {leg.instrument for leg in plan.legs}
        old = []
        for place in sorted({(a.venue, a.environment) for a in map(self.roster.account, members)}):
            listed = [name for name in names if self.sync.catalogue(*place).by_name(name) is not None]
            marks = [self.worths.mark(*place, name) for name in listed]
            if not all(m is not None and abs(self._clock.now_ms() - m.as_of_ms) < limit_ms for m in marks):
                old.append(place)
        await self._rounds.now(old)

    async def _read_marks(self, place: Place) -> None:
        async def ask(origin: Origin, rest: Rest) -> None:
            for read in rest.marks():
                async for page in self.http.walk(origin, read, priority=Priority.RESOLVE):
                    self.sync.marks.take(*place, page.facts, self._clock.now_ms())

        await self._ask_place(place, "marks", ask)

    async def _keep_marks(self) -> None:
        """What is held may be in no stream: each place is asked for all its prices before the last ones are too old."""
        self._rounds.begin(self.roster.places())

    async def _compare_clocks(self) -> None:
        async def ask(origin: Origin, rest: Rest) -> None:
            await self.http.compare_clocks(origin)

        for place in self.roster.places():
            await self._ask_place(place, "time", ask)

    # ---- small duties

    async def set_garbage_aside(self) -> None:
        """Look through everything for garbage now, while nothing is sent, and not again at what is left.

        By itself Python looks when it likes, a fifth of a second for a thousand links, in the midst of a fan-out.
        """
        if not self.executor.on_their_way():
            gc.unfreeze()
            gc.collect()
            gc.freeze()

    async def _beat(self) -> None:
        beat = await self.links.beat()
        self._beat_at_s = self._clock.monotonic_s()
        log.debug("beat", live=beat.live, pinged=beat.pinged, reopening=beat.reopening, mute=beat.mute)

    def _recheck(self, plan: Plan) -> Any:
        if plan.closes_for:  # the switch has just looked, and asks for nothing that would open
            return {}
        health = self.ledger.health()
        return recheck(
            plan,
            self.accounts,
            self.market,
            self.rules,
            self._clock.now_ms(),
            ledger_down="" if health.ok else health.trouble,
        )

    def _recheck_attempt(self, plan: Plan, child: Child) -> Sequence[Denial]:
        if plan.closes_for:
            return ()
        health = self.ledger.health()
        return recheck_attempt(
            plan,
            child,
            self.accounts,
            self.market,
            self.rules,
            self._clock.now_ms(),
            ledger_down="" if health.ok else health.trouble,
        )

    async def _expire_plans(self) -> None:
        self.children.forget_old()
        if self.ledger.health().ok:
            await self.planner.expire_due()

    async def _save_live(self) -> None:
        """The connection register's live state, written when something changed that people look at."""
        rows = {row.connection_key: row for row in map(_live_row, self.links.views())}
        changed = [row for key, row in rows.items() if self._live_rows.get(key) != row]
        if changed and self.ledger.health().ok:
            self._live_rows = rows
            self.ledger.post(lambda conn: Registry.save_live(conn, changed))

    async def _feed_watchdog(self) -> None:
        """Proof of progress: the loop ran this entry, the pulse came in time, and the writer commits."""
        if not await self._around.aside(self.ownership.still_mine):
            log.error("database_lost", next="another engine may own it now: this one stops and sends nothing more")
            self.lost = "the database server dropped this engine: another one may own the database now"
            self.stop()
            return
        health = self.ledger.health()
        since_beat_s = self._clock.monotonic_s() - self._beat_at_s
        if since_beat_s > 2 * self._config.pulse.beat_s:
            log.error("no_progress", since_beat_s=since_beat_s)
            return
        if not self.ledger.alive:
            log.error("no_progress", writer="its thread is gone")
            return
        if health.ok and health.oldest_wait_s > 30:
            log.error("no_progress", writer_waits_s=health.oldest_wait_s)
            return
        self._notifier.alive(self._status_line())

    def _status_line(self) -> str:
        live = sum(1 for v in self.links.views() if v.phase is Phase.LIVE)
        proven = sum(1 for d in self.sync.desks() if d.proven)
        unknown = len(self.children.unknown())
        return f"{live} links live, {proven} of {len(self.sync.desks())} accounts proven, {unknown} orders unknown"

    def _clocks_apart(self) -> list[tuple[str, int]]:
        """Places whose clock and ours differ too much for proofs, and by how many milliseconds."""
        now_ms = self._clock.now_ms()
        apart = [(place, self.http.venue_now_ms(*place) - now_ms) for place in self.roster.places()]
        return [
            (f"{venue} {environment}", ms)
            for (venue, environment), ms in apart
            if abs(ms) > CLOCK_TOLERANCE_MS + self.roster.venues[venue].capabilities.clock_resolution_ms
        ]

    def _vitals(self) -> dict[str, Any]:
        return {
            "uptime_s": (self._clock.now_ms() - self._started_ms) // 1000,
            "blocked": self.executor.blocked,
            "unreadable": self.unreadable,
            "raw_not_kept": self.raw.not_kept if self.raw is not None else 0,
            "timetable": self.heartbeat.paces,
        }


def _live_row(view: LinkView) -> LiveRow:
    """A link as the connection register shows it; the time of the last frame to the second, or rows never rest."""
    heard_ms = view.last_heard_at_ms
    return LiveRow(
        connection_key=view.connection.connection_key,
        phase=view.phase.value,
        opened_at_ms=view.opened_at_ms,
        last_heard_at_ms=None if heard_ms is None else heard_ms // 1000 * 1000,
        last_pong_at_ms=view.last_pong_at_ms,
        attempts=view.attempts,
        last_error=view.last_error,
    )
