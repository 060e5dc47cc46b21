"""Decides. The life of one connection: `step(link, signal, now)` -> the link afterwards, and what is to be done.

    idle ──WANTED──> opening ──READY──> live ──MUTED──> mute
      ^                ^  │ FAILED, time out  │ CLOSED, silence │
      │ UNWANTED       │  v                   v                 v
    (from any)         └─ down <──────────────┴─────────────────┘          REFUSED, from opening, live, mute: halted

Time is monotonic seconds. Whoever holds the sockets sends the signals and carries the actions out; nothing here
knows a socket. Two sockets can stand side by side only while a replacement is opened (`replacing`): then CLOSED,
HEARD and PING are about the one in use, OPENED, READY and FAILED about the new one.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from scheduler import backoff


class Phase(StrEnum):
    IDLE = "idle"  # nobody wants it open
    DOWN = "down"  # wanted, and waits for its next try
    OPENING = "opening"  # from waiting for its turn, over login and subscriptions, to READY
    LIVE = "live"
    MUTE = "mute"  # connected, but what it should deliver does not come
    HALTED = "halted"  # the credentials were refused: never opened again until told


class Signal(StrEnum):
    WANTED = "wanted"
    UNWANTED = "unwanted"
    BEAT = "beat"  # the pulse passes; the next one is `beat_s` away
    TICK = "tick"  # time has passed
    OPENED = "opened"  # the socket is open; login and subscriptions follow
    READY = "ready"  # logged in, every channel acknowledged
    HEARD = "heard"  # a frame or a pong came; `now_s` is when
    CLOSED = "closed"  # the socket in use is gone
    FAILED = "failed"  # the socket being opened came to nothing
    REFUSED = "refused"  # the venue refused the credentials
    CLOSING_SOON = "closing_soon"  # the venue will close the socket in use
    MUTED = "muted"  # what should have come did not, though the socket lives
    STALLED = "stalled"  # we ourselves stood still: what came meanwhile may not have been read yet


class Action(StrEnum):
    OPEN = "open"
    PING = "ping"
    CLOSE = "close"  # give up the socket in use; where none is in use, the one being opened
    REPLACE = "replace"  # open another one beside the one in use, and close that only when the new one is READY
    ABANDON = "abandon"  # give up the replacement that is being opened


class Pulse(Struct, frozen=True, kw_only=True):
    """When connections are pinged, reopened and given up. Seconds."""

    beat_s: float = 25.0
    quiet_s: float = 20.0
    pong_wait_s: float = 8.0
    open_timeout_s: float = 10.0
    first_retry_s: float = 0.5
    longest_retry_s: float = 30.0
    stable_s: float = 60.0


class Link(Struct, frozen=True, kw_only=True):
    keep_alive: bool = True  # false: temporary; the pulse neither pings nor reopens it
    phase: Phase = Phase.IDLE
    attempts: int = 0  # openings and losses in a row since it was last stable
    retry_at_s: float = 0.0  # no opening, and no replacement, before
    opened_s: float | None = None  # when the socket that is being opened was open, READY still to come
    live_since_s: float = 0.0
    last_heard_s: float = 0.0
    pinged_s: float | None = None  # a ping is out since then and nothing was heard after it
    last_ping_s: float = 0.0  # or when it came to life
    leaving: bool = False  # the socket in use must be replaced
    replacing: bool = False  # a replacement is being opened


_HELD = (Phase.LIVE, Phase.MUTE)
_TICK_S = 1.25  # TICK comes each second, and may be late


def step(
    link: Link, signal: Signal, *, now_s: float, pulse: Pulse, chance: float = 1.0, not_before_s: float = 0.0
) -> tuple[Link, Action | None]:
    """`chance` in [0, 1] is the jitter of a retry that this step may decide on; the venue may have asked that none
    is made before `not_before_s`. Late and duplicate signals change nothing."""
    after, action = _step(link, signal, now_s, pulse, chance)
    if not_before_s > after.retry_at_s and (after.phase is Phase.DOWN or after.leaving):
        after = replace(after, retry_at_s=not_before_s)
    return after, action


def _step(link: Link, signal: Signal, now_s: float, pulse: Pulse, chance: float) -> tuple[Link, Action | None]:
    if signal is Signal.UNWANTED:
        holds_socket = link.phase is Phase.OPENING or link.phase in _HELD
        return Link(keep_alive=link.keep_alive), Action.CLOSE if holds_socket else None
    match link.phase:
        case Phase.IDLE | Phase.HALTED:
            if signal is Signal.WANTED:
                return Link(keep_alive=link.keep_alive, phase=Phase.OPENING), Action.OPEN
        case Phase.DOWN:
            if signal in (Signal.TICK, Signal.BEAT) and now_s >= link.retry_at_s:
                return replace(link, phase=Phase.OPENING), Action.OPEN
        case Phase.OPENING:
            return _opening(link, signal, now_s, pulse, chance)
        case Phase.LIVE | Phase.MUTE:
            return _held(link, signal, now_s, pulse, chance)
    return link, None


def _opening(link: Link, signal: Signal, now_s: float, pulse: Pulse, chance: float) -> tuple[Link, Action | None]:
    match signal:
        case Signal.OPENED:
            return replace(link, opened_s=now_s), None
        case Signal.READY:
            return _live(link, now_s), None
        case Signal.FAILED:
            return _lost(link, now_s, pulse, chance), None
        case Signal.REFUSED:
            return _halted(link), None
        case Signal.TICK | Signal.BEAT if _overdue(link, now_s, pulse):
            return _lost(link, now_s, pulse, chance), Action.CLOSE
        case Signal.STALLED if link.opened_s is not None:
            return replace(link, opened_s=now_s), None
    return link, None


def _held(link: Link, signal: Signal, now_s: float, pulse: Pulse, chance: float) -> tuple[Link, Action | None]:
    match signal:
        case Signal.HEARD if now_s > link.last_heard_s:
            answered = link.pinged_s is not None and now_s >= link.pinged_s
            return replace(link, last_heard_s=now_s, pinged_s=None if answered else link.pinged_s), None
        case Signal.TICK:
            return _watched(link, now_s, pulse, chance, quiet_s=_ahead_s(pulse.quiet_s))
        case Signal.BEAT:
            # The next beat is far: whoever could be silent for too long by then is pinged now.
            quiet_s = min(_ahead_s(pulse.quiet_s), max(0.0, pulse.quiet_s + pulse.pong_wait_s - pulse.beat_s))
            return _watched(link, now_s, pulse, chance, quiet_s=quiet_s)
        case Signal.CLOSED:
            return _dropped(link, now_s, pulse, chance), None
        case Signal.REFUSED:
            return _halted(link), Action.CLOSE
        case Signal.CLOSING_SOON if link.keep_alive:
            return _leave(link)
        case Signal.MUTED if link.phase is Phase.LIVE:
            muted = replace(link, phase=Phase.MUTE)
            return _leave(muted) if link.keep_alive else (muted, None)
        case Signal.OPENED if link.replacing:
            return replace(link, opened_s=now_s), None
        case Signal.READY if link.replacing:
            return _live(link, now_s), None
        case Signal.FAILED if link.replacing:
            return _put_off(link, now_s, pulse, chance), None
        case Signal.STALLED if link.pinged_s is not None or link.opened_s is not None:
            return replace(
                link,
                pinged_s=None if link.pinged_s is None else now_s,
                opened_s=None if link.opened_s is None else now_s,
            ), None
    return link, None


def _watched(link: Link, now_s: float, pulse: Pulse, chance: float, *, quiet_s: float) -> tuple[Link, Action | None]:
    """Dead, overdue, to be replaced or quiet? The gravest goes first; the others come with the next tick."""
    if not link.keep_alive:
        return link, None
    if now_s - link.live_since_s >= pulse.stable_s and link.attempts and not link.leaving:
        link = replace(link, attempts=0)
    if link.pinged_s is not None and now_s - link.pinged_s >= _ahead_s(pulse.pong_wait_s):
        return _dropped(link, now_s, pulse, chance), Action.CLOSE
    if link.replacing and _overdue(link, now_s, pulse):
        return _put_off(link, now_s, pulse, chance), Action.ABANDON
    # What we hear may have been long on its way: a venue can have been silent for much longer than we know, and then
    # closes. So however much is heard, it is made to say something in time.
    quiet = now_s - link.last_heard_s >= quiet_s or now_s - link.last_ping_s >= _ahead_s(pulse.quiet_s)
    if link.pinged_s is None and quiet:
        return replace(link, pinged_s=now_s, last_ping_s=now_s), Action.PING
    if link.leaving and not link.replacing and now_s >= link.retry_at_s:
        return replace(link, replacing=True), Action.REPLACE
    return link, None


def _ahead_s(limit_s: float) -> float:
    """What will have lasted `limit_s` before the next tick is acted on now: a limit is kept, not passed by a tick."""
    return limit_s - min(_TICK_S, limit_s / 2)


def _live(link: Link, now_s: float) -> Link:
    return Link(
        keep_alive=link.keep_alive,
        phase=Phase.LIVE,
        attempts=link.attempts,
        live_since_s=now_s,
        last_heard_s=now_s,
        last_ping_s=now_s,
    )


def _halted(link: Link) -> Link:
    return Link(keep_alive=link.keep_alive, phase=Phase.HALTED)


def _leave(link: Link) -> tuple[Link, Action | None]:
    """Make before break: the one in use goes on until another one stands."""
    if link.leaving:
        return link, None  # asked for already
    return replace(link, leaving=True, replacing=True, opened_s=None), Action.REPLACE


def _dropped(link: Link, now_s: float, pulse: Pulse, chance: float) -> Link:
    """The socket in use is gone; a replacement on its way becomes the opening."""
    if link.replacing:
        return Link(phase=Phase.OPENING, attempts=link.attempts, opened_s=link.opened_s)
    return _lost(link, now_s, pulse, chance)


def _lost(link: Link, now_s: float, pulse: Pulse, chance: float) -> Link:
    if not link.keep_alive:
        return Link(keep_alive=False)
    was_stable = link.phase in _HELD and now_s - link.live_since_s >= pulse.stable_s
    attempts = 1 if was_stable else link.attempts + 1
    return Link(phase=Phase.DOWN, attempts=attempts, retry_at_s=now_s + _delay_s(attempts, pulse, chance))


def _put_off(link: Link, now_s: float, pulse: Pulse, chance: float) -> Link:
    """The replacement came to nothing; the one in use is kept, and another replacement tried later."""
    attempts = link.attempts + 1
    return replace(
        link,
        replacing=False,
        opened_s=None,
        attempts=attempts,
        retry_at_s=now_s + _delay_s(attempts, pulse, chance),
    )


def _overdue(link: Link, now_s: float, pulse: Pulse) -> bool:
    return link.opened_s is not None and now_s - link.opened_s >= pulse.open_timeout_s


def _delay_s(attempts: int, pulse: Pulse, chance: float) -> float:
    return backoff.delay_s(attempts, first_s=pulse.first_retry_s, longest_s=pulse.longest_retry_s, chance=chance)
