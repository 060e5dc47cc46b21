"""Does. The kill switch: stops sends at once, cancels what is at work, and says so only when it is shown.

Scopes: "all", "venue:<name>", "account:<id>". The switch is a row in the ledger, so it survives a restart.
"""

from __future__ import annotations

import anyio
import msgspec
import structlog

from engine import crash
from engine.children import Children
from engine.core.orders import Cancel, CancelState, Command, OrderState
from engine.core.venue import Priority, VenueError
from engine.ledger import Ledger, kills
from engine.roster import Roster
from engine.sync import Sync
from engine.wire.http import Http, NoAnswer
from scheduler.clock import Clock

log = structlog.get_logger("kill")
replace = msgspec.structs.replace

_SWEEP_S = 0.1
_AGAIN_S = 2.0
_AT_ONCE = 16


class KillAccount(msgspec.Struct, frozen=True):
    """One account under a kill switch: `shown` when the venue itself listed no working order since it was thrown."""

    account_id: str
    scope: str
    shown: bool
    working: int
    note: str = ""


class KillSwitch:
    def __init__(
        self, *, clock: Clock, ledger: Ledger, sync: Sync, http: Http, roster: Roster, children: Children
    ) -> None:
        self._clock, self._ledger, self._sync = clock, ledger, sync
        self._http, self._roster, self._children = http, roster, children
        self._on: dict[str, kills.Kill] = {}
        self._accounts: dict[str, KillAccount] = {}
        self._asking: set[str] = set()
        self._look_again_s = 0.0

    def load(self) -> None:
        with self._ledger.read() as conn:
            self._on = {k.scope: k for k in kills.switched_on(conn)}

    def scope_of(self, account_id: str) -> str:
        """The scope that stops this account, or ""."""
        if not self._on:
            return ""
        venue = self._roster.account(account_id).venue
        return next((s for s in ("all", f"venue:{venue}", f"account:{account_id}") if s in self._on), "")

    def reason(self, account_id: str) -> str:
        """Which switch stops this account, who threw it and why; "" when none does. On the hot path of a fan-out."""
        if not self._on:
            return ""
        kill = self._on.get(self.scope_of(account_id))
        return "" if kill is None else f"{kill.scope}, by {kill.by}: {kill.why}"

    async def on(self, scope: str, by: str, why: str) -> None:
        """From this instant on nothing new is sent in the scope; cancelling begins at once."""
        kill = kills.Kill(scope=scope, by=by, why=why, at_ms=self._clock.now_ms())
        self._on[scope] = kill  # first in memory: a slow disk must not let one more order out
        self._accounts.clear()  # what was shown before says nothing of now
        self._look_again_s = self._clock.monotonic_s()
        log.warning("kill_on", scope=scope, by=by, why=why)
        for child in self._children.open():  # what proves absent is not sent anew, also once the switch is off
            if child.state is not OrderState.WORKING and self.scope_of(child.account_id):
                self._children.change(replace(child, cancel_state=CancelState.REQUESTED), event="cancel_requested")
        await self._children.flush()
        crash.point("kill-before-record")
        await self._ledger.write(lambda conn: kills.switch_on(conn, kill), first=True)
        crash.point("kill-after-record")

    async def off(self, scope: str, by: str, why: str) -> None:
        now_ms = self._clock.now_ms()
        await self._ledger.write(lambda conn: kills.switch_off(conn, scope, by, why, now_ms))
        crash.point("kill-lifted")
        self._on.pop(scope, None)
        for account_id in [a for a, k in self._accounts.items() if k.scope == scope]:
            del self._accounts[account_id]
        log.warning("kill_off", scope=scope, by=by, why=why)

    def switches(self) -> list[kills.Kill]:
        return list(self._on.values())

    def accounts(self) -> list[KillAccount]:
        """Every account under a switch; one not asked yet is not shown."""
        return [
            self._accounts.get(a.account_id) or KillAccount(a.account_id, scope, False, 0, "not asked yet")
            for a in self._roster.active()
            if (scope := self.scope_of(a.account_id))
        ]

    async def run(self) -> None:
        """While a switch is on: cancel and look again until the venue shows no working order anywhere in scope."""
        room = anyio.CapacityLimiter(_AT_ONCE)
        async with anyio.create_task_group() as group:
            while True:
                now_s = self._clock.monotonic_s()
                if now_s >= self._look_again_s:
                    self._look_again_s = now_s + _AGAIN_S
                    for account in self.accounts():  # who is slow to answer holds up nobody
                        if (not account.shown or self._at_work(account)) and account.account_id not in self._asking:
                            self._asking.add(account.account_id)
                            group.start_soon(self._clear, account.account_id, self._on[account.scope], room)
                await self._clock.sleep(_SWEEP_S)

    async def _clear(self, account_id: str, kill: kills.Kill, room: anyio.CapacityLimiter) -> None:
        try:
            async with room:
                unknown = self._unknown(account_id)  # now as well: one that reaches the venue after its list was made
                working = await self._cancel_all(account_id)
            note = (
                ""
                if not working
                else "not yet shown as done; one of an instrument unknown here: in the broker's own page"
            )
            if unknown := max(unknown, self._unknown(account_id)):
                note = f"{unknown} orders whose outcome is unknown"
            clear = KillAccount(account_id, kill.scope, not working and not unknown, working + unknown, note)
        except Exception as error:  # also a mistake of ours: it must not keep the others from being cleared
            if not isinstance(error, VenueError | NoAnswer):
                log.exception("kill_failed", account=account_id)
            clear = KillAccount(account_id, kill.scope, False, 0, f"the venue could not be asked: {error}")
        finally:
            self._asking.discard(account_id)
        if self._on.get(self.scope_of(account_id)) is kill:  # still this one: not lifted and thrown again meanwhile
            self._accounts[account_id] = clear

    def _at_work(self, account: KillAccount) -> bool:
        """An order placed elsewhere after the account was shown clear."""
        desk = self._sync.desk(account.account_id)
        return desk is not None and bool(desk.book.open_orders())

    def _unknown(self, account_id: str) -> int:
        return sum(1 for c in self._children.open(account_id) if c.state is not OrderState.WORKING)

    async def _cancel_all(self, account_id: str) -> int:
        """Cancel every order the venue lists, ours or not, over HTTP: it works without a connection too.

        Returns how many it listed, also those that cannot be named to it: who has not gone is not shown as gone.
        """
        origin, rest = self._roster.origin(account_id), self._roster.rest(account_id)
        commands: list[Command] = []
        nameless = 0
        for read in rest.open_orders():
            async for page in self._http.walk(origin, read, priority=Priority.RISK):
                self._sync.fetched(account_id, page.facts, self._clock.now_ms())
                for fact in page.facts:
                    instrument = self._roster.catalogue(account_id).by_name(getattr(fact, "instrument", ""))
                    if instrument is None:  # the venue's instruments may not be read yet
                        log.error("cancel_impossible", account=account_id, fact=fact.key)
                        nameless += 1
                        continue
                    commands.append(
                        Cancel(
                            client_order_id="",
                            venue_order_id=getattr(fact, "venue_order_id", ""),
                            instrument=instrument,
                        )
                    )
        batch = self._roster.venue(account_id).capabilities.max_batch
        for start in range(0, len(commands), batch):
            some = commands[start : start + batch]
            crash.point("kill-before-cancel")
            await self._http.send(origin, rest.orders_request(some), priority=Priority.RISK)
            crash.point("kill-after-cancel")
        return len(commands) + nameless
