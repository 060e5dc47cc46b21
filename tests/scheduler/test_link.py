"""One connection's life, as a table and as properties."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.link import Action, Link, Phase, Pulse, Signal, step

PULSE = Pulse()
P, S, A = Phase, Signal, Action


class Life:
    """Drives `step` and keeps what it said."""

    def __init__(self, *, keep_alive: bool = True, chance: float = 1.0) -> None:
        self.link, self.now_s, self.chance = Link(keep_alive=keep_alive), 1000.0, chance
        self.actions: list[Action] = []

    def on(self, *signals: Signal, at_s: float | None = None) -> Action | None:
        action = None
        for signal in signals:
            now_s = self.now_s if at_s is None else at_s
            self.link, action = step(self.link, signal, now_s=now_s, pulse=PULSE, chance=self.chance)
            if action is not None:
                self.actions.append(action)
        return action

    def after(self, seconds: float, *signals: Signal) -> Action | None:
        self.now_s += seconds
        return self.on(*signals)

    def tick_until(self, action: Action, within_s: float) -> float:
        """Ticks each second; how long it took."""
        started_s = self.now_s
        while self.now_s - started_s <= within_s:
            if self.after(1.0, S.TICK) is action:
                return self.now_s - started_s
        raise AssertionError(f"no {action} within {within_s} s, but {self.actions}")


def live(*, keep_alive: bool = True, for_s: float = 0.0) -> Life:
    life = Life(keep_alive=keep_alive)
    life.on(S.WANTED, S.OPENED, S.READY)
    assert life.link.phase is P.LIVE
    while for_s > 0:
        life.after(1.0, S.HEARD, S.TICK)
        for_s -= 1.0
    life.actions.clear()
    return life


# ---- the plain way


def test_a_wanted_link_opens_logs_in_and_is_live() -> None:
    life = Life()
    assert life.on(S.WANTED) is A.OPEN
    assert life.link.phase is P.OPENING
    assert life.on(S.OPENED) is None
    assert life.link.phase is P.OPENING
    assert life.on(S.READY) is None
    assert life.link.phase is P.LIVE


def test_the_first_retry_comes_within_a_second_and_the_next_ones_ever_later() -> None:
    life = live()
    life.on(S.CLOSED)
    waits_s = []
    for _ in range(9):
        assert life.link.phase is P.DOWN
        waits_s.append(life.link.retry_at_s - life.now_s)
        assert life.after(waits_s[-1], S.TICK) is A.OPEN
        life.on(S.FAILED)
    assert waits_s == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_a_link_that_flaps_backs_off_although_it_was_live_each_time() -> None:
    life = live()
    for expected_s in (0.5, 1.0, 2.0):
        life.after(5.0, S.CLOSED)
        assert life.link.retry_at_s - life.now_s == expected_s
        life.after(expected_s, S.TICK, S.OPENED, S.READY)


def test_a_link_that_was_stable_starts_over_with_the_first_retry() -> None:
    life = live()
    for _ in range(5):
        life.after(1.0, S.CLOSED)
        life.after(30.0, S.TICK, S.OPENED, S.READY)
    for _ in range(60):
        life.after(1.0, S.HEARD)
    life.on(S.CLOSED)
    assert life.link.attempts == 1
    assert life.link.retry_at_s - life.now_s == 0.5


def test_the_beat_reopens_what_is_down_but_not_before_its_time() -> None:
    life = live()
    life.on(S.CLOSED)
    assert life.after(0.4, S.BEAT) is None
    assert life.after(0.1, S.BEAT) is A.OPEN
    assert life.on(S.BEAT) is None


# ---- silence


def test_the_silence_timer_pings_without_waiting_for_the_beat() -> None:
    assert live().tick_until(A.PING, within_s=60) == 19.0, "with the next tick it would be more than 20 s"


def test_nothing_heard_after_a_ping_means_dead() -> None:
    life = live()
    life.tick_until(A.PING, within_s=60)
    assert life.tick_until(A.CLOSE, within_s=60) == 7.0
    assert life.link.phase is P.DOWN


def test_any_frame_answers_a_ping() -> None:
    life = live()
    life.tick_until(A.PING, within_s=60)
    life.after(6.7, S.HEARD)
    assert life.tick_until(A.PING, within_s=60) == pytest.approx(13.0), "19 s after the first ping"


def test_what_was_heard_before_the_ping_does_not_answer_it() -> None:
    life = live()
    life.tick_until(A.PING, within_s=60)
    life.on(S.HEARD, at_s=life.now_s - 1)
    assert life.tick_until(A.CLOSE, within_s=60) == 7.0


@pytest.mark.parametrize(("heard_s_ago", "pings"), [(2.9, False), (3.0, True), (19.0, True)])
def test_the_beat_pings_whoever_could_be_silent_for_too_long_by_the_next_one(heard_s_ago: float, pings: bool) -> None:
    life = live()
    assert (life.after(heard_s_ago, S.BEAT) is A.PING) is pings


def test_a_link_that_hears_all_the_time_is_pinged_as_often_as_a_quiet_one() -> None:
    """Frames that are 15 s late tell nothing of the last 15 s: the venue's own 30 s may be nearly over."""
    life = live()
    pings_s = []
    for _ in range(60):
        if life.after(1.0, S.HEARD, S.TICK) is A.PING:
            pings_s.append(life.now_s)
    assert [later - one for one, later in pairwise(pings_s)] == [19.0, 19.0]


def test_one_ping_at_a_time() -> None:
    life = live()
    life.after(20.0, S.TICK, S.BEAT, S.TICK)
    assert life.actions == [A.PING]


def test_beats_alone_keep_the_silence_below_the_venues_limit() -> None:
    life = live()
    silent_s = worst_s = 0.0
    for _ in range(40):
        silent_s += 25.0
        worst_s = max(worst_s, silent_s)
        if life.after(25.0, S.BEAT) is A.PING:
            life.after(0.1, S.HEARD)
            silent_s = 0.0
    assert worst_s < 28.0


def test_our_own_stall_is_not_the_venues_silence() -> None:
    life = live()
    life.after(20.0, S.TICK)
    assert life.actions == [A.PING]
    life.after(12.0, S.STALLED, S.TICK)
    assert life.link.phase is P.LIVE
    life.after(8.0, S.TICK)
    assert life.link.phase is P.DOWN


def test_an_opening_that_hangs_is_given_up() -> None:
    life = Life()
    life.on(S.WANTED, S.OPENED)
    assert life.after(9.9, S.TICK) is None
    assert life.after(0.1, S.TICK) is A.CLOSE
    assert life.link.phase is P.DOWN


def test_waiting_for_a_turn_to_open_is_no_hanging() -> None:
    life = Life()
    life.on(S.WANTED)
    assert life.after(3600.0, S.TICK, S.BEAT) is None
    assert life.link.phase is P.OPENING


def test_a_stable_link_forgets_its_failed_tries_also_for_its_replacements() -> None:
    life = live(for_s=5)
    life.after(1.0, S.CLOSED)
    life.after(1.0, S.TICK, S.OPENED, S.READY)
    assert life.link.attempts == 1
    for _ in range(60):
        life.after(1.0, S.HEARD, S.TICK)
    assert life.link.attempts == 0
    for attempts in (1, 2, 3):
        life.on(*(S.CLOSING_SOON,) if attempts == 1 else (S.TICK,))
        life.on(S.FAILED)
        life.after(5.0, S.HEARD)
        assert life.link.attempts == attempts


# ---- refused, temporary, unwanted


@pytest.mark.parametrize("before", [(S.WANTED,), (S.WANTED, S.OPENED), (S.WANTED, S.OPENED, S.READY)])
def test_a_halted_link_stays_closed_until_told(before: tuple[Signal, ...]) -> None:
    life = Life()
    life.on(*before, S.REFUSED)
    assert life.link.phase is P.HALTED
    life.actions.clear()
    for signal in S:
        if signal not in (S.WANTED, S.UNWANTED):
            life.after(100.0, signal)
    assert life.actions == []
    assert life.on(S.WANTED) is A.OPEN


def test_the_pulse_leaves_a_temporary_link_alone() -> None:
    life = live(keep_alive=False)
    for _ in range(100):
        life.after(1.0, S.TICK, S.BEAT)
    life.on(S.CLOSING_SOON, S.CLOSED)
    for _ in range(100):
        life.after(1.0, S.TICK, S.BEAT)
    assert life.actions == []
    assert life.link.phase is P.IDLE


def test_an_unwanted_link_is_closed_and_stays_so() -> None:
    life = live()
    assert life.on(S.UNWANTED) is A.CLOSE
    life.on(S.CLOSED)
    life.after(1000.0, S.TICK, S.BEAT)
    assert life.actions == [A.CLOSE]
    assert life.link.phase is P.IDLE


# ---- make before break


def test_a_coming_close_opens_the_replacement_first() -> None:
    life = live()
    assert life.on(S.CLOSING_SOON) is A.REPLACE
    assert life.link.phase is P.LIVE
    life.after(1.0, S.OPENED, S.READY)
    assert life.link.phase is P.LIVE
    now_s = life.now_s
    assert life.link == Link(phase=P.LIVE, live_since_s=now_s, last_heard_s=now_s, last_ping_s=now_s)
    assert life.actions == [A.REPLACE]


def test_the_old_one_closing_too_early_makes_the_replacement_the_opening() -> None:
    life = live()
    life.on(S.CLOSING_SOON, S.OPENED, S.CLOSED)
    assert life.link.phase is P.OPENING
    life.on(S.READY)
    assert life.link.phase is P.LIVE
    assert life.actions == [A.REPLACE]


def test_a_replacement_that_became_the_opening_is_still_given_up_in_time() -> None:
    life = live()
    life.on(S.CLOSING_SOON, S.OPENED)
    life.after(5.0, S.CLOSED)
    assert life.after(5.0, S.TICK) is A.CLOSE


def test_a_replacement_that_fails_is_tried_again_while_the_old_one_lives() -> None:
    life = live()
    life.on(S.CLOSING_SOON, S.FAILED)
    assert life.link.phase is P.LIVE
    assert life.after(0.4, S.TICK) is None
    assert life.after(0.1, S.TICK) is A.REPLACE


def test_a_replacement_that_hangs_is_abandoned_and_the_old_one_kept() -> None:
    life = live()
    life.on(S.CLOSING_SOON, S.OPENED)
    assert life.after(10.0, S.HEARD, S.TICK) is A.ABANDON
    assert life.link.phase is P.LIVE


def test_a_mute_link_is_replaced_and_live_again_when_the_new_one_is_ready() -> None:
    life = live()
    assert life.on(S.MUTED) is A.REPLACE
    assert life.link.phase is P.MUTE
    life.on(S.OPENED, S.READY)
    assert life.link.phase is P.LIVE


def test_notices_while_a_replacement_is_on_its_way_ask_for_no_second() -> None:
    life = live()
    life.on(S.CLOSING_SOON, S.MUTED, S.CLOSING_SOON, S.CLOSING_SOON)
    assert life.actions == [A.REPLACE]


def test_a_replacement_whose_key_is_refused_halts_the_link() -> None:
    life = live()
    life.on(S.CLOSING_SOON)
    assert life.on(S.REFUSED) is A.CLOSE
    assert life.link.phase is P.HALTED


# ---- properties

signals = st.lists(
    st.tuples(st.sampled_from(sorted(S)), st.floats(0, 40, allow_nan=False), st.floats(0, 1)), max_size=60
)


@given(signals=signals, keep_alive=st.booleans())
def test_whatever_comes_there_is_one_socket_in_use_and_at_most_one_being_opened(
    signals: list[tuple[Signal, float, float]], keep_alive: bool
) -> None:
    """The holder of the sockets, played: signals that its state makes impossible are late ones, and ignored."""
    life = Life(keep_alive=keep_alive)
    in_use = opening = False
    for signal, seconds, chance in signals:
        life.chance = chance
        impossible = (signal is S.CLOSED and not in_use) or (signal in (S.OPENED, S.READY, S.FAILED) and not opening)
        before = life.link
        action = life.after(seconds, signal)
        if impossible:
            assert life.link == before
            assert action is None
            continue
        if signal is S.READY:
            in_use, opening = True, False
        elif signal is S.FAILED:
            opening = False
        elif signal is S.CLOSED:
            in_use = False
        match action:
            case A.OPEN:
                assert not in_use
                assert not opening
                opening = True
            case A.REPLACE:
                assert in_use
                assert not opening
                opening = True
            case A.ABANDON:
                assert in_use
                assert opening
                opening = False
            case A.PING:
                assert in_use
                assert keep_alive
            case A.CLOSE:
                assert in_use or opening
                if in_use:
                    in_use = False
                else:
                    opening = False
        if life.link.phase in (P.IDLE, P.HALTED):
            in_use = opening = False  # its holder closes whatever there is
        assert in_use == (life.link.phase in (P.LIVE, P.MUTE))
        assert opening == (life.link.phase is P.OPENING or life.link.replacing)


@given(signals=signals)
def test_a_kept_link_that_is_down_opens_at_most_the_longest_retry_later(
    signals: list[tuple[Signal, float, float]],
) -> None:
    life = Life()
    for signal, seconds, chance in signals:
        life.chance = chance
        life.after(seconds, signal)
        if life.link.phase is P.DOWN:
            assert life.link.retry_at_s - life.now_s <= PULSE.longest_retry_s
            down, _ = step(life.link, S.BEAT, now_s=life.now_s + PULSE.longest_retry_s, pulse=PULSE)
            assert down.phase is P.OPENING


@given(signals=signals)
def test_silence_always_ends_in_a_close(signals: list[tuple[Signal, float, float]]) -> None:
    life = Life()
    for signal, seconds, chance in signals:
        life.chance = chance
        life.after(seconds, signal)
    if life.link.phase in (P.LIVE, P.MUTE):
        took_s = life.tick_until(A.CLOSE, within_s=60)
        assert took_s <= PULSE.quiet_s + PULSE.pong_wait_s


@given(heard_s=st.floats(0, 1), late_s=st.lists(st.floats(0, 0.25), min_size=40, max_size=40), beat=st.integers(0, 40))
def test_a_dead_line_is_found_within_28_s_wherever_ticks_and_beats_fall(
    heard_s: float, late_s: list[float], beat: int
) -> None:
    life = live()
    began_s = life.now_s
    life.after(heard_s, S.HEARD)
    for second, late in enumerate(late_s, start=1):
        life.now_s = began_s + second + late
        if second == beat:
            life.on(S.BEAT)
        life.on(S.TICK)
        if life.link.phase is P.DOWN:
            break
    assert life.actions == [A.PING, A.CLOSE]
    assert life.now_s - began_s - heard_s <= 28.0
    assert PULSE.quiet_s + PULSE.pong_wait_s <= 28.0


@given(signals=signals, duplicate=st.sampled_from(sorted(set(S) - {S.BEAT, S.TICK})))
def test_a_duplicate_signal_changes_nothing(signals: list[tuple[Signal, float, float]], duplicate: Signal) -> None:
    life = Life()
    for signal, seconds, chance in signals:
        life.chance = chance
        life.after(seconds, signal)
    life.on(duplicate)
    once = life.link
    assert life.on(duplicate) is None
    assert life.link == once
