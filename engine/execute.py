"""Does. Carries an approved plan out: intents first, then every child at once, then what became of each.

One durable commit claims all children of a plan; only then does the first byte leave. Placing is never repeated: an
order whose outcome is not known is asked about (`engine/resolve.py`). A child's failure never touches its siblings.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal

import anyio
import msgspec
import structlog

from accounts.model import Connection
from engine import crash
from engine.children import Children, Progress
from engine.core.amending import approved_quantities, behind, wanted
from engine.core.instruments import Instrument
from engine.core.orders import (
    TERMINAL,
    Accepted,
    Amend,
    Cancel,
    CancelState,
    Command,
    OrderEvent,
    OrderState,
    Outcome,
    Place,
    Refused,
    Unknown,
    advance,
)
from engine.core.plans import Amendment, Child, Denial, Plan, PlanState
from engine.core.venue import Conversation, Frame, Priority, RateRule, Reply, VenueError
from engine.core.waves import waiting
from engine.ledger import Ledger, LedgerDown, LedgerFull
from engine.ledger import plans as store
from engine.links import Link, Links, NotSent
from engine.roster import Roster
from engine.wire import rate
from engine.wire.http import Http, NoAnswer
from engine.wire.rate import Budgets
from scheduler.clock import Clock

log = structlog.get_logger("execute")
replace = msgspec.structs.replace

_YIELD_EVERY = 500  # about ten milliseconds; answers that are read before the last frame is out hold that one up
_SWEEP_S = 0.1
_HTTP_AT_ONCE = 16
_LATE_ANSWER_S = 60.0  # so long an answer that missed its time-out is still taken for what it is


class _Waiting(msgspec.Struct):
    """A request on its way: what it asked, for which children, and until when an answer is expected."""

    commands: tuple[Command, ...]
    client_order_ids: tuple[str, ...]
    connection_key: str
    due_s: float
    timed_out: bool = False


class _Ahead(msgspec.Struct):
    """A frame that is made and not yet sent; good for this conversation only."""

    conversation: Conversation
    commands: tuple[Command, ...]
    request_id: str
    frame: Frame


class NotExecuted(Exception):
    """The plan was not carried out; nothing was sent."""


class Executor:
    def __init__(
        self,
        *,
        clock: Clock,
        ledger: Ledger,
        children: Children,
        links: Links,
        http: Http,
        budgets: Budgets,
        roster: Roster,
        send_timeout_s: float,
        request_expiry_s: float,
        rng: random.Random,
        recheck: Callable[[Plan], Mapping[tuple[str, int], Sequence[Denial]]],
        stopped: Callable[[str, str], str],
    ) -> None:
        """`recheck` is the last look before the claim: by (account, leg), why a child must not be sent after all.

        `stopped` is asked at each send: why this account may send nothing (the kill switch), or ""; with the switch
        that the plan itself closes for.
        """
        self._clock, self._ledger, self._children, self._links = clock, ledger, children, links
        self._http, self._budgets, self._roster = http, budgets, roster
        self._send_timeout_s, self._request_expiry_s = send_timeout_s, request_expiry_s
        self._rng, self._recheck = rng, recheck
        self._stopped = stopped
        self._shapes: dict[tuple[str, str, type, int], tuple[list[RateRule], str, int]] = {}
        self._waiting: dict[str, _Waiting] = {}  # by request id
        self._ahead: dict[str, _Ahead] = {}  # by the first client order id in each
        self._numbers = iter(range(1, 1 << 62))
        self._http_places = anyio.CapacityLimiter(_HTTP_AT_ONCE)
        self._group: anyio.abc.TaskGroup | None = None
        self.blocked = ""  # why nothing may be sent at all: recovering, disk, kill switch

    # ---- life

    async def run(self) -> None:
        """Times out what got no answer."""
        async with anyio.create_task_group() as self._group:
            while True:
                await self._clock.sleep(_SWEEP_S)
                now_s = self._clock.monotonic_s()
                for request_id, waiting in list(self._waiting.items()):
                    if waiting.due_s > now_s:
                        continue
                    if not waiting.timed_out:
                        waiting.timed_out = True
                        self._unanswered(waiting, f"no answer within {self._send_timeout_s:g} s")
                    elif waiting.due_s + _LATE_ANSWER_S <= now_s:
                        del self._waiting[request_id]

    def on_their_way(self) -> bool:
        """Is an answer still expected to something that was sent?"""
        return any(not w.timed_out for w in self._waiting.values())

    # ---- a plan's way out

    async def execute(self, plan_id: str, by: str) -> Progress:
        """Claim all children in one durable commit, then send them all. Returns when the last frame has left."""
        plan = await self._may_go(plan_id)
        token = f"{self._rng.getrandbits(64):016x}"
        claimed, stay = self._last_look(plan, token)
        places = self._places(claimed)
        if await self._make_room(places, Priority.PLACE):
            plan = await self._may_go(plan_id)  # it waited: the world went on
            claimed, stay = self._last_look(plan, token)
            places = self._places(claimed)
        plan = replace(plan, state=PlanState.EXECUTING)
        self._children.turn(plan)  # nobody else may claim it while this claim is written
        now_ms = self._clock.now_ms()
        crash.point("claim-before-commit")
        try:
            mine = set(
                await self._ledger.write(
                    lambda conn: store.claim(conn, plan, claimed, token, now_ms, by),
                    first=True,  # its plan and children are durable since the approval
                    meanwhile=lambda: self._say_ahead(places),
                )
            )
        except BaseException:
            self._children.turn(replace(plan, state=PlanState.APPROVED))
            raise
        if claimed and not mine:
            self._children.turn(replace(plan, state=PlanState.APPROVED))
            self._children.read_back(plan_id)
            raise NotExecuted(
                f"the ledger says that plan {plan_id} was claimed or ended meanwhile; nothing was sent. "
                f"Look with: unisono plan show {plan_id}"
            )
        if len(mine) != len(claimed):
            log.error("not_all_claimed", plan=plan_id, wanted=len(claimed), claimed=len(mine))
            claimed = [c for c in claimed if c.child_id in mine]
            places = self._places(claimed)
        out = list[tuple[str, str, Command]]()
        for child, place in zip(claimed, places, strict=True):
            known = self._children.child(child.client_order_id)
            self._children.claimed(child, now_ms)
            if known is None or known.state is not OrderState.PLANNED:  # cancelled while the claim was written
                self._not_written([child.client_order_id], [place[2]], "cancelled before it was sent")
            else:
                out.append(place)
        for child, why in stay:
            known = self._children.child(child.client_order_id)
            if known is None or known.state is not OrderState.PLANNED:
                continue  # cancelled meanwhile, too
            if why:
                self._children.step(known, OrderEvent.SKIP, reason=why)
            else:
                self._children.set_waiting(known)
        crash.point("after-claim-before-send")
        await self._send(out)
        self._ahead.clear()
        crash.point("after-last-send")
        self._children.end_if_done(plan_id)
        return self._children.progress(plan_id)

    async def _may_go(self, plan_id: str) -> Plan:
        plan = self._children.plan(plan_id)
        if plan is None or plan.state is not PlanState.APPROVED:
            state = "not approved here" if plan is None else f"{plan.state.value}, not approved"
            raise NotExecuted(f"plan {plan_id} is {state}; nothing was sent")
        if self.blocked:
            raise NotExecuted(f"no orders are sent now: {self.blocked}. Nothing was sent; the plan stays approved")
        if self._clock.now_ms() >= plan.expires_at_ms:
            self._children.end(plan, PlanState.EXPIRED, "it expired before it was executed; nothing was sent")
            raise NotExecuted(f"plan {plan_id} has expired; nothing was sent. Preview and approve it again")
        return plan

    def _last_look(self, plan: Plan, token: str) -> tuple[list[Child], list[tuple[Child, str]]]:
        """Who goes, as they are once claimed under the token; and who stays behind, with the reason ("": it waits)."""
        denied, now_ms = self._recheck(plan), self._clock.now_ms()
        go, stay = list[Child](), list[tuple[Child, str]]()
        wait = waiting(plan, self._children.of_plan(plan.plan_id), denied, now_ms)
        for child in self._children.of_plan(plan.plan_id):
            if child.state is not OrderState.PLANNED:
                continue  # cancelled while an earlier claim failed
            against = denied.get((child.account_id, child.leg))
            if child.client_order_id in wait:
                stay.append((child, ""))
            elif against:
                stay.append((child, "; ".join(f"{d.code}: {d.text}" for d in against)))
            else:
                go.append(
                    replace(
                        child,
                        state=advance(child.state, OrderEvent.CLAIM),
                        claim_token=token,
                        send_by_ms=self._expiry_ms(child),
                        updated_at_ms=now_ms,
                    )
                )
        return go, stay

    async def send_further(self, client_order_id: str, against: Callable[[Child], str | None]) -> None:
        """Claim one further attempt in a durable commit of its own, then send it. Raises LedgerDown, LedgerFull.

        `against` is its last look: "" when it may go, None when not just now, else why it never may.
        """
        child = self._going(client_order_id, against)
        if child is not None and await self._make_room(self._places([child]), Priority.PLACE):
            child = self._going(client_order_id, against)  # it waited: the world went on
        if child is None:
            return
        now_ms = self._clock.now_ms()
        claimed = replace(
            child,
            state=advance(child.state, OrderEvent.CLAIM),
            claim_token=f"{self._rng.getrandbits(64):016x}",
            send_by_ms=self._expiry_ms(child),
            updated_at_ms=now_ms,
        )
        places = self._places([claimed])
        await self._children.flush()  # what is known of its earlier attempts goes first
        crash.point("attempt-before-claim")
        taken = await self._ledger.write(lambda conn: store.claim_attempt(conn, claimed, now_ms))
        known = self._children.child(client_order_id)
        if not taken:
            self._children.read_back_one(child)
            known = self._children.child(client_order_id)
            if known is not None and known.state is OrderState.PLANNED:
                self._children.step(known, OrderEvent.SKIP, reason="an earlier attempt may be at the venue")
            return
        self._children.claimed(claimed, now_ms)
        crash.point("attempt-after-claim")
        if known is None or known.state is not OrderState.PLANNED:  # cancelled while the claim was written
            self._not_written([client_order_id], [places[0][2]], "cancelled before it was sent")
        elif (why := against(claimed)) != "":
            self._not_written([client_order_id], [places[0][2]], why or "it may not go just now")
        else:
            await self._send(places)
        self._children.end_if_done(child.plan_id)

    def _going(self, client_order_id: str, against: Callable[[Child], str | None]) -> Child | None:
        """The planned order where it may go now; where it never may, that is its end."""
        child = self._children.child(client_order_id)
        if child is None or child.state is not OrderState.PLANNED or self.blocked:
            return None
        why = against(child)
        if why:
            self._children.step(child, OrderEvent.SKIP, reason=why)
        return child if why == "" else None

    async def cancel(self, plan_id: str, by: str = "engine") -> int:
        """Ask the venue to cancel every child at work, late ones too; those still unknown, once they show up."""
        plan = self._children.plan(plan_id)
        if plan is None:
            raise NotExecuted(f"plan {plan_id} is not at work here; nothing was cancelled")
        late = self._children.late_at_work(plan_id)
        open_now = [c for c in self._children.of_plan(plan_id) if c.state not in TERMINAL] + late
        for child in open_now:
            if child.state is OrderState.PLANNED:
                self._children.step(child, OrderEvent.SKIP, reason="cancelled before it was sent")
            else:
                self._children.change(replace(child, cancel_state=CancelState.REQUESTED), event="cancel_requested")
        if plan.state is PlanState.EXECUTING:
            self._children.cancelled(plan, by)
        if plan.state is PlanState.APPROVED:
            self._children.end(plan, PlanState.DISCARDED, "cancelled before it was executed; nothing was sent")
        else:
            working = [c for c in self._children.of_plan(plan_id) if c.state is OrderState.WORKING]
            await self.cancel_orders([*working, *self._children.late_at_work(plan_id)])
        try:  # who is told that it was asked for must be able to rely on it, also after a crash
            await self._children.durable()
        except (LedgerDown, LedgerFull) as error:
            log.warning("cancel_not_written", plan=plan_id, error=str(error), next="it is kept, and written later")
        return len(open_now)

    async def cancel_orders(self, children: Sequence[Child]) -> None:
        """One cancel for each; repeating a cancel is safe, placing is not."""
        commands: list[tuple[str, str, Command]] = []
        for child in children:
            instrument = self._roster.catalogue(child.account_id).by_name(child.instrument)
            if instrument is None:
                log.error("cancel_impossible", child=child.child_id, instrument=child.instrument)
                continue
            sent = replace(child, cancel_state=CancelState.SENDING, updated_at_ms=self._clock.now_ms())
            self._children.change(sent, event="cancel_sent")
            command = Cancel(
                client_order_id=child.client_order_id,
                venue_order_id=child.venue_order_id,
                instrument=instrument,
                account_ref=self._roster.ref(child.account_id),
            )
            commands.append((child.account_id, child.client_order_id, command))
        await self._make_room(commands, Priority.RISK)
        crash.point("cancel-before-send")
        await self._send(commands)

    async def amend(self, plan_id: str, *, price: Decimal | None, factor: Decimal | None, by: str = "") -> int:
        """Change price and/or scale the quantity of every order; the venue's answer changes the child.

        What was not sent yet is changed here. What shows up later hears of it then: see `engine/latecomers.py`.
        """
        plan = self._children.plan(plan_id)
        if plan is None or plan.state is not PlanState.EXECUTING:
            raise NotExecuted(f"plan {plan_id} is not at work here; nothing was changed")
        if self.blocked:
            raise NotExecuted(f"no orders are sent now: {self.blocked}. Nothing was changed")
        open_now = [c for c in self._children.of_plan(plan_id) if c.state not in TERMINAL]
        if not open_now:
            return 0
        amendment = Amendment(price=price, factor=factor, by=by, at_ms=self._clock.now_ms())
        plan = replace(plan, amendments=(*plan.amendments, amendment))
        kept, now_ms = plan, amendment.at_ms
        await self._ledger.write(lambda conn: store.save_plan(conn, kept, PlanState.EXECUTING, now_ms))
        self._children.turn(plan)
        approved = approved_quantities(plan)
        for child in open_now:
            if (known := self._children.child(child.client_order_id)) is not None:
                self._amend_unsent(plan, known, approved)
        await self.amend_orders(plan, behind(plan, self._children.of_plan(plan_id)))
        return len(open_now)

    def _amend_unsent(self, plan: Plan, child: Child, approved: Mapping[tuple[str, int], Decimal]) -> None:
        instrument = self._roster.catalogue(child.account_id).by_name(child.instrument)
        if child.state is not OrderState.PLANNED or instrument is None:
            return
        whole = approved.get((child.account_id, child.leg), child.quantity)
        price, quantity = wanted(plan, child, whole, instrument)
        shown = None if (child.visible_quantity or quantity) >= quantity else child.visible_quantity
        changed = replace(
            child, price=price, quantity=quantity, visible_quantity=shown, amendments=len(plan.amendments)
        )
        self._children.change(changed, event="amended_unsent")

    async def amend_orders(self, plan: Plan, children: Sequence[Child]) -> None:
        """One amendment for each that brings it to what the plan wants now; its intent is durable before it leaves."""
        commands: list[tuple[str, str, Command]] = []
        intents: list[tuple[Child, Amend]] = []
        approved = approved_quantities(plan)
        for child in children:
            instrument = self._roster.catalogue(child.account_id).by_name(child.instrument)
            if instrument is None or self._stopped(child.account_id, ""):
                continue
            whole = approved.get((child.account_id, child.leg), child.quantity)
            price, quantity = wanted(plan, child, whole, instrument)
            told = replace(child, amendments=len(plan.amendments))
            self._children.change(told, event="amend_sent")
            if (price, quantity) == (child.price, child.quantity):
                continue
            command = Amend(
                client_order_id=child.client_order_id,
                venue_order_id=child.venue_order_id,
                instrument=instrument,
                amend_id=f"{self._rng.getrandbits(128):032x}",
                new_quantity=quantity if quantity != child.quantity else None,
                new_price=price if price != child.price else None,
                expires_at_ms=self._expiry_ms(child),
                order=self._place(child, instrument),
                filled=child.filled,
                account_ref=self._roster.ref(child.account_id),
            )
            commands.append((child.account_id, child.client_order_id, command))
            intents.append((told, command))
        if not commands:
            return
        now_ms = self._clock.now_ms()
        await self._make_room(commands, Priority.PLACE)
        await self._ledger.write(lambda conn: store.record_amends(conn, intents, now_ms))
        self._children.will_amend((child.account_id, child.client_order_id, a.amend_id) for child, a in intents)
        crash.point("amend-after-record")
        await self._send(commands)

    # ---- out

    async def _make_room(self, commands: Sequence[tuple[str, str, Command]], priority: Priority) -> bool:
        """Budget is taken before the claim, so that claims do not rot in a queue. True when that took a while."""
        waited = False
        for account_id, batch in _by_account(commands, self._roster):
            ask, units = self._limits(account_id, [command for _, command in batch])
            if not self._budgets.try_take(ask, priority, units):
                waited = True
                await self._budgets.take(ask, priority, units)
        return waited

    def _limits(self, account_id: str, commands: Sequence[Command]) -> tuple[rate.Ask, int]:
        """What these commands count against; the venue's own description of the request says it, over either way."""
        venue = self._roster.venue(account_id)
        shape = (venue.name, commands[0].instrument.name, type(commands[0]), len(commands))
        known = self._shapes.get(shape)
        if known is None:
            try:
                request = self._roster.rest(account_id).orders_request(commands)
            except ValueError:
                return [], 0  # the dialect will not say it: nothing is sent, so nothing is counted
            rules = {r.name: r for r in venue.rates}
            known = self._shapes[shape] = ([rules[name] for name in request.rules], request.rule_key, request.units)
        rules_of_shape, rule_key, units = known
        login = self._roster.login_of(account_id)
        return [rate.scope(rule, venue.name, account_id, rule_key, login) for rule in rules_of_shape], units

    def _expiry_ms(self, child: Child) -> int:
        """Until when the venue may still carry a request of now out, by the venue's clock."""
        account = self._roster.account(child.account_id)
        longest_ms = self._roster.venues[account.venue].capabilities.request_expiry_ms
        now_ms = self._http.venue_now_ms(account.venue, account.environment)
        if longest_ms is None:  # it takes no expiry: what counts is how long we wait
            return now_ms + round(self._send_timeout_s * 1000)
        return now_ms + min(round(self._request_expiry_s * 1000), longest_ms)

    def _places(self, children: Sequence[Child]) -> list[tuple[str, str, Command]]:
        """The children as requests; one whose instrument has vanished was denied by the last look."""
        places: list[tuple[str, str, Command]] = []
        for child in children:
            instrument = self._roster.catalogue(child.account_id).by_name(child.instrument)
            assert instrument is not None, "checked before"
            place = self._place(child, instrument)
            places.append((child.account_id, child.client_order_id, place))
        return places

    def _place(self, child: Child, instrument: Instrument) -> Place:
        return Place(
            client_order_id=child.client_order_id,
            instrument=instrument,
            side=child.side,
            order_type=child.order_type,
            quantity=child.quantity,
            price=child.price,
            trigger_price=child.trigger_price,
            visible_quantity=child.visible_quantity,
            reduce_only=child.reduce_only,
            margin_mode=self._roster.margin_mode(child.account_id, instrument),
            expires_at_ms=child.send_by_ms,
            account_ref=self._roster.ref(child.account_id),
        )

    def _say_ahead(self, commands: Sequence[tuple[str, str, Command]]) -> None:
        """Make the frames while the disk is at work; what is not said here is said when it is sent."""
        for account_id, batch in _by_account(commands, self._roster):
            kind = self._roster.order_kind(account_id)
            link = None if kind is None else self._links.of_listener(account_id, kind)
            if self._closes_for(batch[0][0]):
                continue
            if link is None or link.conversation is None:
                continue
            asked, request_id = tuple(m for _, m in batch), f"r{next(self._numbers)}"
            with suppress(Exception):  # what is wrong with it shows when it is sent
                frame = link.conversation.say(asked, request_id, self._clock.now_ms())
                self._ahead[batch[0][0]] = _Ahead(link.conversation, asked, request_id, frame)

    async def _send(self, commands: Sequence[tuple[str, str, Command]]) -> None:
        """Send (account, client order id, command) each over its account's way; one plain loop, no task each."""
        with self._children.fan_out():
            await self._send_all(commands)

    async def _send_all(self, commands: Sequence[tuple[str, str, Command]]) -> None:
        sent = 0
        for account_id, batch in _by_account(commands, self._roster):
            crash.point("mid-send")
            batch = self._still_wanted(account_id, batch)
            if not batch:
                continue
            kind = self._roster.order_kind(account_id)
            if kind is None or self._closes_for(batch[0][0]):  # what a kill switch closes with needs no connection
                assert self._group is not None
                self._group.start_soon(self._ask_over_http, account_id, batch)
                continue
            link = self._links.of_listener(account_id, kind)
            await self._ask_over_stream(link, batch)
            sent += 1
            if sent % _YIELD_EVERY == 0:
                await anyio.lowlevel.checkpoint()

    def _still_wanted(self, account_id: str, batch: list[tuple[str, Command]]) -> list[tuple[str, Command]]:
        """Less what was stopped or cancelled while the claim was written or others were sent: not one order more."""
        if isinstance(batch[0][1], Cancel):
            return batch
        wanted = list[tuple[str, Command]]()
        plan = self._plan_of(batch[0][0])
        stopped = self.blocked or self._stopped(account_id, "" if plan is None else plan.closes_for)
        if not stopped and plan is not None and plan.aborted and isinstance(batch[0][1], Place):
            stopped = plan.aborted
        for client_order_id, command in batch:
            child = self._children.child(client_order_id)
            cancelled = child is not None and child.cancel_state is not CancelState.NONE
            if why := stopped or ("cancelled before it was sent" if cancelled else ""):
                self._not_written([client_order_id], [command], why)
            else:
                wanted.append((client_order_id, command))
        return wanted

    def _closes_for(self, client_order_id: str) -> str:
        """The kill switch that this order closes for; "" for all others."""
        plan = self._plan_of(client_order_id)
        return "" if plan is None else plan.closes_for

    def _plan_of(self, client_order_id: str) -> Plan | None:
        child = self._children.child(client_order_id)
        return None if child is None else self._children.plan(child.plan_id)

    async def _ask_over_stream(self, link: Link | None, batch: Sequence[tuple[str, Command]]) -> None:
        now_ms = self._clock.now_ms()
        ids, commands = tuple(c for c, _ in batch), tuple(m for _, m in batch)
        if link is None or link.conversation is None or not link.live:
            self._not_written(ids, commands, "its connection is down")
            return
        ahead = self._ahead.pop(ids[0], None)
        if ahead is not None and ahead.conversation is link.conversation and ahead.commands == commands:
            request_id, frame = ahead.request_id, ahead.frame
        else:
            request_id = f"r{next(self._numbers)}"
            try:
                frame = link.conversation.say(commands, request_id, now_ms)
            except ValueError as error:  # the dialect cannot say it without meaning something else
                self._not_written(ids, commands, str(error), again=False)
                return
        due_s = self._clock.monotonic_s() + self._send_timeout_s
        self._waiting[request_id] = waiting = _Waiting(commands, ids, link.connection.connection_key, due_s)
        try:
            await link.send(frame)
        except NotSent as error:
            del self._waiting[request_id]
            if error.written:
                self._unanswered(waiting, str(error))
            else:
                self._not_written(ids, commands, str(error))
            return
        self._stamp_sent(ids, commands, now_ms)

    async def _ask_over_http(self, account_id: str, batch: list[tuple[str, Command]]) -> None:
        async with self._http_places:
            batch = self._still_wanted(account_id, batch)  # it waited for its place
            if not batch:
                return
            request_id = f"r{next(self._numbers)}"
            ids, commands = tuple(c for c, _ in batch), tuple(m for _, m in batch)
            self._waiting[request_id] = _Waiting(commands, ids, "", math.inf)  # the HTTP client has limits of its own
            try:
                await self._one_over_http(account_id, ids, commands)
            finally:
                del self._waiting[request_id]

    async def _one_over_http(self, account_id: str, ids: Sequence[str], commands: Sequence[Command]) -> None:
        rest = self._roster.rest(account_id)
        try:
            request = rest.orders_request(commands)
            origin = self._roster.origin(account_id)
        except (ValueError, VenueError) as error:  # not sayable, or nobody to say it as
            self._not_written(ids, commands, str(error), again=isinstance(error, VenueError))
            return
        self._stamp_sent(ids, commands, self._clock.now_ms())
        try:
            outcomes = rest.read_outcomes(commands, await self._http.send(origin, request))
        except NoAnswer as error:
            if not error.written:
                self._not_written(ids, commands, str(error))
                return
            outcomes = tuple(Unknown(str(error)) for _ in commands)
        except Exception as error:  # a mistake of ours in the midst of sending: it may have arrived
            log.exception("send_failed", account=account_id)
            outcomes = tuple(Unknown(f"failed inside: {type(error).__name__}: {error}") for _ in commands)
        self._settle(ids, commands, outcomes)

    def _stamp_sent(self, ids: Sequence[str], commands: Sequence[Command], now_ms: int) -> None:
        for client_order_id, command in zip(ids, commands, strict=True):
            if isinstance(command, Place):
                self._children.stamp_sent(client_order_id, now_ms)

    # ---- back

    def on_reply(self, connection: Connection, reply: Reply) -> None:
        """The venue's answer to one request. One that came after its time-out is still the answer."""
        waiting = self._waiting.pop(reply.request_id, None)
        if waiting is None:
            log.info("late_reply", connection=connection.connection_key, request=reply.request_id)
            return
        crash.point("answer-before-step")
        self._settle(waiting.client_order_ids, waiting.commands, reply.outcomes)

    def on_down(self, connection_key: str, reason: str) -> None:
        """Whatever was on its way over this connection may have arrived: unknown, not failed."""
        for request_id in [r for r, w in self._waiting.items() if w.connection_key == connection_key]:
            waiting = self._waiting.pop(request_id)
            if not waiting.timed_out:
                self._unanswered(waiting, f"the connection was lost: {reason}")

    def _settle(self, ids: Sequence[str], commands: Sequence[Command], outcomes: Sequence[Outcome]) -> None:
        now_ms = self._clock.now_ms()
        for client_order_id, command, outcome in zip(ids, commands, outcomes, strict=True):
            child = self._children.child(client_order_id)
            if child is None:
                continue
            if isinstance(command, Place):
                self._placed(child, outcome, now_ms)
            elif isinstance(command, Cancel):
                self._cancelled(child, outcome)
            elif isinstance(outcome, Refused):
                told = child.amendments - 1 if outcome.again else child.amendments  # one too many: told once more
                refused = replace(child, amendments=told, reason=f"amend refused: {outcome.reason}")
                self._children.change(refused, event="amend_refused")
            elif isinstance(outcome, Accepted):
                self._children.replaced(child, outcome.venue_order_id)
            elif isinstance(outcome, Unknown):
                self._children.change(replace(child, reason=f"amend unknown: {outcome.reason}"), event="amend_unknown")

    def _placed(self, child: Child, outcome: Outcome, now_ms: int) -> None:
        if child.state not in (OrderState.SENDING, OrderState.UNKNOWN):
            if isinstance(outcome, Accepted) and child.acknowledged_at_ms is None:
                self._children.change(replace(child, acknowledged_at_ms=now_ms))
            return  # the stream was faster than the answer
        match outcome:
            case Accepted(venue_order_id):
                child = replace(child, venue_order_id=venue_order_id, acknowledged_at_ms=now_ms)
                self._children.step(child, OrderEvent.ACK)
            case Refused(code, reason):
                self._children.step(
                    replace(child, acknowledged_at_ms=now_ms), OrderEvent.REFUSED, reason=f"{code}: {reason}"
                )
            case Unknown(reason):
                if child.state is OrderState.SENDING:
                    self._children.step(child, OrderEvent.NO_ANSWER, reason=reason)

    def _cancelled(self, child: Child, outcome: Outcome) -> None:
        match outcome:
            case Accepted():
                return  # accepted is not cancelled: the venue's event says that
            case Refused(code, reason, again, target_gone):
                # Gone means ended in some way: the order's own fact tells which, so it is asked for.
                state = CancelState.UNKNOWN if target_gone else CancelState.REFUSED
                if again:
                    state = CancelState.REQUESTED  # the resolver asks again
                self._children.change(
                    replace(child, cancel_state=state, reason=f"cancel {code}: {reason}"), event="cancel_refused"
                )
            case Unknown(reason):
                self._children.change(replace(child, cancel_state=CancelState.UNKNOWN), event="cancel_unknown")

    def _unanswered(self, waiting: _Waiting, reason: str) -> None:
        self._settle(waiting.client_order_ids, waiting.commands, [Unknown(reason)] * len(waiting.commands))

    def _not_written(self, ids: Sequence[str], commands: Sequence[Command], reason: str, *, again: bool = True) -> None:
        """Provably not one byte left us: a placement is skipped, a cancel stays requested, and so does an amendment
        unless it cannot be said at all."""
        for client_order_id, command in zip(ids, commands, strict=True):
            child = self._children.child(client_order_id)
            if child is None:
                continue
            if isinstance(command, Place) and child.state is OrderState.SENDING:
                self._children.step(child, OrderEvent.NOT_WRITTEN)
                if (planned := self._children.child(client_order_id)) is not None:
                    self._children.step(planned, OrderEvent.SKIP, reason=f"not sent: {reason}")
            elif isinstance(command, Cancel):
                self._children.change(
                    replace(child, cancel_state=CancelState.REQUESTED, reason=reason), event="cancel_not_sent"
                )
            elif isinstance(command, Amend):
                told = child.amendments - 1 if again else child.amendments
                unsent = replace(child, amendments=told, reason=f"amend not sent: {reason}")
                self._children.change(unsent, event="amend_not_sent")


def _by_account(
    commands: Sequence[tuple[str, str, Command]], roster: Roster
) -> list[tuple[str, list[tuple[str, Command]]]]:
    """Commands of one account, kind and instrument go together, as many as the venue takes in one request."""
    batches: list[tuple[str, list[tuple[str, Command]]]] = []
    latest: dict[tuple[str, type, str], list[tuple[str, Command]]] = {}
    for account_id, client_order_id, command in commands:
        key = (account_id, type(command), command.instrument.name)
        batch = latest.get(key)
        if batch is None or len(batch) >= roster.venue(account_id).capabilities.max_batch:
            batch = latest[key] = []
            batches.append((account_id, batch))
        batch.append((client_order_id, command))
    return batches
