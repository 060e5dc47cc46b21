"""Decides. A venue in a box, sans I/O: front, market and faults under one clock that the caller moves.

The world stands between the front and whatever carries its frames: it cuts, freezes, mutes and delays. `server.py`
serves it over sockets; a simulation in virtual time drives it directly. The same seed and the same calls at the same
times give the same frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Any

from engine.core.venue import Call, Fault, Front, Outgoing, Response, Sent, Session
from engine.sim.faults import AT_ONCE, FaultPlan
from engine.sim.market import Market

DEAD_LINE = 0
"""What `accept` gives when there is not even a refusal."""

_GARBAGE = '{"arg":{"channel":"orders"},"data":[{"ordId":'
"""What nobody can read: a frame that breaks off."""


class World:
    def __init__(self, front: Front, market: Market, faults: FaultPlan, now_ms: int) -> None:
        self.front, self.market, self.faults = front, market, faults
        self._sessions: dict[Session, None] = {}
        self._frozen: dict[Session, int] = {}  # until when
        self._ready: list[Outgoing] = []
        self._delayed: list[tuple[int, int, Outgoing]] = []
        self._last_due_ms: dict[Session, int] = {}
        self._order = count()
        self.tick(now_ms)  # the market opens

    def names(self) -> list[str]:
        return [account["name"] for account in self.front.accounts()]

    # ---- What the carrier brings

    def accept(self, call: Call, now_ms: int) -> Session | int:
        """A session, or the HTTP status of a refusal; DEAD_LINE when the line gives no answer."""
        if self._struck_by_all("cut", now_ms):
            return DEAD_LINE
        if self.faults.strikes("refuse_connect", "", now_ms):
            return 503
        session = self.front.accept(call, now_ms)
        if not isinstance(session, int):
            self._sessions[session] = None
        return session

    def hear(self, session: Session, frame: bytes, now_ms: int) -> None:
        if session in self._frozen:
            return
        known = set(session.accounts)
        session.hear(frame, now_ms)
        for account in session.accounts:  # only a login tells whose line it is
            if account in known:
                continue
            if self.faults.active("cut", account, now_ms):
                self._cut(session)
                return
            if half_open := self.faults.active("half_open", account, now_ms):
                self._freeze(session, half_open.until_ms)
                return

    def gone(self, session: Session) -> None:
        self._sessions.pop(session, None)
        self._frozen.pop(session, None)
        self._last_due_ms.pop(session, None)
        session.gone()

    def call(self, call: Call, now_ms: int) -> tuple[Response | None, int]:
        """The answer (None: the connection breaks) and when it is to be given."""
        account = self.front.caller(call)
        if self.faults.strikes("cut", account, now_ms):
            return None, now_ms
        if half_open := self.faults.active("half_open", account, now_ms):
            self.faults.count("half_open", account)
            return None, half_open.until_ms
        response = self.front.call(call, now_ms)
        slow = self.faults.strikes("slow", account, now_ms)
        return response, now_ms + (slow.by_ms if slow else 0)

    # ---- Time and what comes of it

    def tick(self, now_ms: int) -> None:
        if self.market.tick(now_ms):
            self.front.settle(now_ms)
        self.front.tick(now_ms)
        for session, until_ms in list(self._frozen.items()):
            if now_ms >= until_ms:
                # A line that was dead for so long is not taken up again: the other side has forgotten it.
                self._ready.append(Outgoing(session, Sent.ABORT))
                self.gone(session)

    def drain(self, now_ms: int) -> list[Outgoing]:
        """What is to be carried now, in order."""
        for outgoing in self.front.drain():
            self._pass_on(outgoing, now_ms)
        while self._delayed and self._delayed[0][0] <= now_ms:
            outgoing = heappop(self._delayed)[2]
            if outgoing.session in self._sessions and outgoing.session not in self._frozen:
                self._ready.append(outgoing)
        ready, self._ready = self._ready, []
        return ready

    def _pass_on(self, outgoing: Outgoing, now_ms: int) -> None:
        session = outgoing.session
        if session not in self._sessions or session in self._frozen:
            return
        whose = (outgoing.account,) if outgoing.account else tuple(session.accounts) or ("",)
        if outgoing.sent is Sent.PUSH and self._strikes("silence", whose, now_ms):
            return
        if outgoing.sent is Sent.PUSH and (garbage := self._strikes("garbage", whose, now_ms)):
            self._ready.append(Outgoing(session, Sent.SAID, garbage.what or _GARBAGE))
        by_ms = 0
        if outgoing.sent is not Sent.CLOSE:
            if delay := self._strikes("delay", whose, now_ms):
                by_ms = delay.by_ms
            if outgoing.sent is Sent.REPLY and (slow := self._strikes("slow", whose, now_ms)):
                by_ms = max(by_ms, slow.by_ms)
        due_ms = max(now_ms + by_ms, self._last_due_ms.get(session, 0))
        if due_ms <= now_ms:
            self._ready.append(outgoing)
        else:
            # Nothing overtakes on one connection.
            self._last_due_ms[session] = due_ms
            heappush(self._delayed, (due_ms, next(self._order), outgoing))

    def _strikes(self, kind: str, whose: Sequence[str], now_ms: int) -> Fault | None:
        """What is about several accounts goes wrong when it does for one of them."""
        return next((fault for account in whose if (fault := self.faults.strikes(kind, account, now_ms))), None)

    # ---- Commands

    def trouble(self, kind: str, accounts: Sequence[str] | None, detail: Mapping[str, Any], now_ms: int) -> int:
        """Begin a fault, or have the venue do something at once. Returns how many it met straight away.

        Raises KeyError for an unknown kind or account.
        """
        names = self.names()
        for name in accounts or ():
            if name not in names:
                raise KeyError(name)
        if kind in AT_ONCE:
            done = self.front.command(kind, accounts or names, {k: str(v) for k, v in detail.items()}, now_ms)
            self.faults.happened[kind] += done
            return done
        planned = self.faults.begin(
            kind,
            accounts,
            now_ms,
            seconds=_number(detail, "seconds"),
            times=None if detail.get("times") is None else int(detail["times"]),
            by_ms=None if detail.get("by_ms") is None else int(detail["by_ms"]),
            code=str(detail.get("code", "")),
            what=str(detail.get("what", "")),
        )
        met = [s for s in self._sessions if accounts is None or set(s.accounts) & set(accounts)]
        if kind == "cut":
            for session in met:
                self._cut(session)
            return len(met)
        if kind == "half_open":
            for session in met:
                self._freeze(session, planned.until_ms)
            return len(met)
        return 0

    def _struck_by_all(self, kind: str, now_ms: int) -> bool:
        planned = self.faults.active(kind, "", now_ms)
        if planned is not None:
            self.faults.count(kind, "")
        return planned is not None

    def _cut(self, session: Session) -> None:
        self.faults.count("cut", "".join(session.accounts[:1]))
        self._ready.append(Outgoing(session, Sent.ABORT))
        self.gone(session)

    def _freeze(self, session: Session, until_ms: int) -> None:
        self.faults.count("half_open", "".join(session.accounts[:1]))
        self._frozen[session] = until_ms
        self._ready.append(Outgoing(session, Sent.FREEZE))


def _number(detail: Mapping[str, Any], name: str) -> float | None:
    value = detail.get(name)
    return None if value is None else float(value)
