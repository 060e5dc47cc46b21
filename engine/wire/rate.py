"""Does. Keeps every caller within the venue's limits, the urgent ones first.

A bucket counts what one scope (an account, an account's instrument, our address) asked under one rule. It is a
sliding window, not an average: in no window of the rule's length are there ever more than `limit` requests. The pace
is `percent` of the limit, so that a person or another program with the same key finds room.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import count as numbers

import anyio

from engine.core.venue import Priority, RateRule
from scheduler.clock import Clock

Ask = Sequence[tuple[str, RateRule]]
"""All that one request counts against: (scope value, rule), as `scope` makes them."""

_JITTER_S = 0.1  # of two requests, the first may be so much longer on its way: the venue counts when they arrive


def scope(rule: RateRule, venue: str, account_id: str, rule_key: str = "", login: str = "") -> tuple[str, RateRule]:
    """Whom a rule counts: every account by itself, with one instrument (`rule_key`), all accounts of one login, or
    our address at this venue."""
    match rule.scope:
        case "account":
            return account_id, rule
        case "account_instrument":
            return f"{account_id}|{rule_key}", rule
        case "login":
            return f"login {login or account_id}", rule
        case "address":
            return f"@{venue}", rule
        case unknown:
            raise ValueError(f"{venue}: rule {rule.name} counts by {unknown}, which nobody knows")


class _Bucket:
    """What was taken lately. `taken` holds one instant for each unit, oldest first, at most `room` of them."""

    # Lists, though they are shortened in front: there are a dozen buckets an account, and an empty deque is ten times
    # as large.
    __slots__ = ("closed_until_s", "queue", "reserve", "room", "taken", "window_s")

    def __init__(self, rule: RateRule, percent: float) -> None:
        # Room is rounded up and the window stretched by as much: the pace is exact also for a limit of 3, and
        # neither can exceed the venue's own. Nor can what leaves in two windows and arrives in one.
        pace = rule.limit * percent / 100
        self.room = max(1, math.ceil(pace - 1e-9))
        self.window_s = max(rule.window_s * self.room / pace, rule.window_s + _JITTER_S)
        self.reserve = self.room // 4  # the last quarter is for those who are not lowly
        self.taken: list[float] = []
        self.queue: list[_Waiter] = []  # in the order of their turns
        self.closed_until_s = -math.inf

    def wait_s(self, now_s: float, count: int, lowly: bool) -> float:
        """Seconds until `count` units are free; 0 or less: now."""
        room = self.room - self.reserve if lowly else self.room
        if count > room:
            raise ValueError(f"{count} at once can never be had of {room}")
        taken, past = self.taken, 0
        while past < len(taken) and taken[past] + self.window_s <= now_s:
            past += 1
        if past:
            del taken[:past]
        excess = len(taken) + count - room
        free_s = taken[excess - 1] + self.window_s - now_s if excess > 0 else 0.0
        return max(free_s, self.closed_until_s - now_s)

    def take(self, now_s: float, count: int) -> None:
        self.taken.extend([now_s] * count)
        assert len(self.taken) <= self.room, "never above the room of a window"


class _Waiter:
    __slots__ = ("buckets", "turn", "woken")

    def __init__(self, turn: tuple[int, int], buckets: Sequence[_Bucket]) -> None:
        self.turn, self.buckets, self.woken = turn, buckets, anyio.Event()

    def __lt__(self, other: _Waiter) -> bool:
        return self.turn < other.turn

    @property
    def is_next(self) -> bool:
        return all(bucket.queue[0] is self for bucket in self.buckets)


class Budgets:
    """Every bucket of this process. One per egress address."""

    def __init__(
        self, clock: Clock, percents: Mapping[RateRule, float] | None = None, *, percent: float = 80.0
    ) -> None:
        """`percent` of every limit is used, where `percents` does not say otherwise for its rule."""
        self._clock, self._percents, self._percent = clock, dict(percents or {}), percent
        self._buckets: dict[tuple[str, str], _Bucket] = {}
        self._numbers = numbers()

    def try_take(self, ask: Ask, priority: Priority, count: int = 1) -> bool:
        """Take `count` from all buckets now, or from none. Never passes somebody whose turn comes first."""
        return self._try([self._bucket(s, r) for s, r in ask], priority, count, self._clock.monotonic_s())

    def try_each(self, asks: Iterable[Ask], priority: Priority) -> list[bool]:
        """`try_take` for many requests in one call: which of them may go now."""
        now_s, bucket = self._clock.monotonic_s(), self._bucket
        return [self._try([bucket(s, r) for s, r in ask], priority, 1, now_s) for ask in asks]

    async def take(self, ask: Ask, priority: Priority, count: int = 1) -> float:
        """Wait for `count` from all buckets, in the order of priority and then of arrival. Seconds waited."""
        buckets = [self._bucket(s, r) for s, r in ask]
        started_s = self._clock.monotonic_s()
        if self._try(buckets, priority, count, started_s):
            return 0.0
        waiter = _Waiter((priority, next(self._numbers)), buckets)
        for bucket in buckets:
            bisect.insort(bucket.queue, waiter)
        try:
            while True:
                # Only the first in line keeps time; whoever leaves the line wakes the next. As all lines have one
                # order, some waiter is always first in all of its own.
                if not waiter.is_next:
                    waiter.woken = anyio.Event()
                    await waiter.woken.wait()
                    continue
                now_s = self._clock.monotonic_s()
                wait_s = max(b.wait_s(now_s, count, _lowly(priority)) for b in buckets)
                if wait_s <= 0:
                    for bucket in buckets:
                        bucket.take(now_s, count)
                    return now_s - started_s
                await self._clock.sleep(wait_s)
        finally:
            for bucket in buckets:
                bucket.queue.remove(waiter)
                if bucket.queue:
                    bucket.queue[0].woken.set()

    def penalise(self, ask: Ask, seconds: float) -> None:
        """The venue said: too fast. Nobody takes from these buckets for so long."""
        until_s = self._clock.monotonic_s() + seconds
        for scope_value, rule in ask:
            bucket = self._bucket(scope_value, rule)
            bucket.closed_until_s = max(bucket.closed_until_s, until_s)

    def _try(self, buckets: Sequence[_Bucket], priority: Priority, count: int, now_s: float) -> bool:
        lowly = _lowly(priority)
        for bucket in buckets:
            if bucket.queue and bucket.queue[0].turn[0] <= priority:
                return False
            if bucket.wait_s(now_s, count, lowly) > 0:
                return False
        for bucket in buckets:
            bucket.take(now_s, count)
        return True

    def _bucket(self, scope_value: str, rule: RateRule) -> _Bucket:
        key = (scope_value, rule.name)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(rule, self._percents.get(rule, self._percent))
        return bucket


def _lowly(priority: Priority) -> bool:
    return priority >= Priority.STATEMENT
