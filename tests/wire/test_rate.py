"""Budgets: never above the venue's limit in any window, the urgent first."""

from __future__ import annotations

import math

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.venue import Priority, RateRule
from engine.wire.rate import Ask, Budgets, scope
from tests.fakes import FakeClock, settle

P = Priority


def rule(limit: int, window_s: float = 1.0, name: str = "r") -> RateRule:
    return RateRule(name=name, limit=limit, window_s=window_s, scope="account")


def ask(limit: int, window_s: float = 1.0, name: str = "r", who: str = "a") -> Ask:
    return [(who, rule(limit, window_s, name))]


def taken_now(budgets: Budgets, what: Ask, priority: Priority = P.PLACE) -> int:
    count = 0
    while budgets.try_take(what, priority):
        count += 1
        assert count < 10_000
    return count


# ---- how much


@pytest.mark.parametrize(
    ("limit", "percent", "at_once"), [(60, 80.0, 48), (5, 80.0, 4), (3, 80.0, 3), (1, 80.0, 1), (60, 100.0, 60)]
)
def test_a_fresh_bucket_gives_the_budgeted_share_at_once(
    clock: FakeClock, limit: int, percent: float, at_once: int
) -> None:
    assert taken_now(Budgets(clock, percent=percent), ask(limit)) == at_once


@pytest.mark.anyio
@pytest.mark.parametrize(("limit", "window_s"), [(60, 2.0), (3, 1.0), (1, 1.0), (5, 2.0)])
async def test_the_lasting_pace_is_the_budgeted_share(clock: FakeClock, limit: int, window_s: float) -> None:
    budgets, taken = Budgets(clock, percent=80.0), 0

    async def take_on_and_on() -> None:
        nonlocal taken
        while True:
            await budgets.take(ask(limit, window_s), P.PLACE)
            taken += 1

    async with anyio.create_task_group() as group:
        group.start_soon(take_on_and_on)
        await clock.advance(100 * window_s)
        group.cancel_scope.cancel()
    # What leaves at the end of one window may overtake on the way: so much later the next one begins.
    room, jitter_s = math.ceil(0.8 * limit), 0.1
    every_s = max(window_s * room / (0.8 * limit), window_s + jitter_s)
    assert taken == pytest.approx(100 * window_s / every_s * room, rel=0.01, abs=limit)
    assert taken > 75 * limit


@given(
    st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 0.1)), min_size=20, max_size=120),
    st.sampled_from([(5, 1.0), (60, 2.0), (3, 1.0)]),
)
@settings(deadline=None, max_examples=60)
def test_what_is_on_its_way_for_different_times_arrives_within_the_limit_too(
    asks: list[tuple[float, float]], window: tuple[int, float]
) -> None:
    limit, window_s = window

    class Standing(FakeClock):
        now_s = 0.0

        def monotonic_s(self) -> float:
            return self.now_s

    clock, arrived_s = Standing(), list[float]()
    budgets = Budgets(clock, percent=80.0)
    for wait_s, way_s in asks:
        clock.now_s += wait_s
        while budgets.try_take(ask(limit, window_s), P.PLACE):
            arrived_s.append(clock.now_s + way_s)
    for instant_s in arrived_s:
        assert sum(1 for other_s in arrived_s if instant_s - window_s < other_s <= instant_s) <= limit


def test_a_rule_may_have_its_own_percentage(clock: FakeClock) -> None:
    budgets = Budgets(clock, {rule(60): 50.0})
    assert taken_now(budgets, ask(60)) == 30
    assert taken_now(budgets, ask(60, name="other")) == 48


@given(
    limit=st.integers(1, 12),
    window_s=st.sampled_from([0.5, 1.0, 2.0]),
    percent=st.sampled_from([10.0, 50.0, 80.0, 100.0]),
    wanted=st.lists(st.tuples(st.sampled_from(sorted(P)), st.floats(0, 1.5), st.booleans()), max_size=60),
)
@settings(deadline=None, max_examples=60)
def test_no_window_ever_holds_more_than_the_limit(
    limit: int, window_s: float, percent: float, wanted: list[tuple[Priority, float, bool]]
) -> None:
    """Many callers with different priorities, waiting and not waiting; every instant of a taking is recorded."""
    taken_s: list[float] = []

    async def main() -> None:
        clock = FakeClock()
        budgets = Budgets(clock, percent=percent)
        what = ask(limit, window_s)

        async def caller(priority: Priority) -> None:
            await budgets.take(what, priority)
            taken_s.append(clock.monotonic_s())

        async with anyio.create_task_group() as group:
            for priority, pause_s, waits in wanted:
                if waits:
                    group.start_soon(caller, priority)
                elif budgets.try_take(what, priority):
                    taken_s.append(clock.monotonic_s())
                await clock.advance(pause_s)
            await clock.advance(len(wanted) * (window_s / (limit * percent / 100) + window_s) + 1)

    anyio.run(main)
    assert len(taken_s) >= sum(waits for _, _, waits in wanted), "whoever waits gets its turn"
    for first_s in taken_s:
        assert sum(first_s <= t <= first_s + window_s for t in taken_s) <= limit


# ---- who goes first


@pytest.mark.anyio
async def test_the_urgent_go_first_and_equals_in_the_order_of_their_coming(clock: FakeClock) -> None:
    budgets, order = Budgets(clock), list[str]()
    what = ask(1)
    assert budgets.try_take(what, P.PLACE)

    async def caller(name: str, priority: Priority) -> None:
        await budgets.take(what, priority)
        order.append(name)

    async with anyio.create_task_group() as group:
        callers = {"report": P.REPORT, "place 1": P.PLACE, "resolve": P.RESOLVE, "place 2": P.PLACE, "cancel": P.RISK}
        for name, priority in callers.items():
            group.start_soon(caller, name, priority)
            await settle()
        await clock.advance(10)
    assert order == ["cancel", "place 1", "place 2", "resolve", "report"]


@pytest.mark.anyio
async def test_nobody_passes_those_who_wait_but_the_more_urgent(clock: FakeClock) -> None:
    budgets, what, stopped = Budgets(clock), ask(60), ask(60, name="stopped")
    budgets.penalise(stopped, 10.0)
    async with anyio.create_task_group() as group:
        group.start_soon(budgets.take, [*what, *stopped], P.RESOLVE)
        await settle()
        assert not budgets.try_take(what, P.HISTORY)
        assert not budgets.try_take(what, P.RESOLVE)
        assert budgets.try_take(what, P.RISK)
        await clock.advance(10)
    assert budgets.try_take(what, P.HISTORY)


def test_the_lowly_may_not_drain_the_last_quarter(clock: FakeClock) -> None:
    budgets = Budgets(clock, percent=100.0)
    for lowly in (P.STATEMENT, P.HISTORY, P.REPORT):
        taken_now(budgets, ask(60), lowly)
    assert taken_now(budgets, ask(60), P.RISK) == 15


def test_a_request_takes_from_all_its_buckets_or_from_none(clock: FakeClock) -> None:
    budgets = Budgets(clock, percent=100.0)
    small, large = ask(1, name="small"), ask(10, name="large")
    both = [*large, *small]
    assert taken_now(budgets, both) == 1
    assert taken_now(budgets, large) == 9


def test_many_requests_are_asked_for_in_one_call(clock: FakeClock) -> None:
    budgets = Budgets(clock, percent=100.0)
    asks = [ask(1, who=who) for who in ("a", "b", "a", "c")]
    assert budgets.try_each(asks, P.PLACE) == [True, True, False, True]


def test_more_than_the_bucket_ever_holds_is_a_mistake(clock: FakeClock) -> None:
    with pytest.raises(ValueError, match="never"):
        Budgets(clock).try_take(ask(3), P.PLACE, count=4)


# ---- waiting


@pytest.mark.anyio
async def test_a_penalty_stops_everybody_for_its_time_also_those_who_wait_already(clock: FakeClock) -> None:
    budgets, what, waited_s = Budgets(clock), ask(1), list[float]()
    assert budgets.try_take(what, P.PLACE)

    async def caller() -> None:
        waited_s.append(await budgets.take(what, P.RISK))

    async with anyio.create_task_group() as group:
        group.start_soon(caller)
        await settle()
        budgets.penalise(what, 7.0)
        await clock.advance(6.9)
        assert waited_s == []
        await clock.advance(0.1)
        assert waited_s == [7.0]
    assert not budgets.try_take(what, P.RISK)


@pytest.mark.anyio
async def test_who_gives_up_waiting_leaves_the_line(clock: FakeClock) -> None:
    budgets, what = Budgets(clock), ask(1)
    assert budgets.try_take(what, P.PLACE)
    done = anyio.Event()

    async def patient() -> None:
        await budgets.take(what, P.REPORT)
        done.set()

    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as impatient:
                impatient.start_soon(budgets.take, what, P.RISK)
                await settle()
                group.start_soon(patient)
                await settle()
                scope.cancel()
        await clock.advance(2)
        assert done.is_set()


@pytest.mark.anyio
async def test_who_waits_for_one_bucket_keeps_the_place_in_all_the_others(clock: FakeClock) -> None:
    budgets, order = Budgets(clock, percent=100.0), list[str]()
    left, right, third = ask(1, name="left"), ask(1, name="right"), ask(1, name="third")
    budgets.penalise(left, 5.0)

    async def caller(name: str, what: Ask, priority: Priority) -> None:
        await budgets.take(what, priority)
        order.append(name)

    async with anyio.create_task_group() as group:
        group.start_soon(caller, "cancel", [*left, *right], P.RISK)
        group.start_soon(caller, "report", [*third, *right], P.REPORT)
        await clock.advance(10)
    assert order == ["cancel", "report"]


@pytest.mark.anyio
async def test_waiters_of_several_buckets_do_not_lock_each_other_up(clock: FakeClock) -> None:
    budgets = Budgets(clock, percent=100.0)
    left, right = ask(1, name="left"), ask(1, name="right")
    done = 0

    async def caller(what: Ask, priority: Priority) -> None:
        nonlocal done
        await budgets.take(what, priority)
        done += 1

    async with anyio.create_task_group() as group:
        for number in range(12):
            what = ([*left, *right], [*right, *left], left, right)[number % 4]
            group.start_soon(caller, what, P(number % 7))
            await settle()
        await clock.advance(15)
        assert done == 12


# ---- whom a rule counts


@pytest.mark.parametrize(
    ("by", "value"), [("account", "acc-1"), ("account_instrument", "acc-1|BTC"), ("address", "@okx")]
)
def test_what_a_rule_is_counted_by(by: str, value: str) -> None:
    limited = RateRule(name="r", limit=1, window_s=1.0, scope=by)
    assert scope(limited, "okx", "acc-1", "BTC") == (value, limited)


def test_a_rule_that_counts_by_something_unknown_is_refused() -> None:
    with pytest.raises(ValueError, match="planet"):
        scope(RateRule(name="r", limit=1, window_s=1.0, scope="planet"), "okx", "a")
