"""A world cuts, freezes, mutes and delays on command, counts it, and repeats itself by its seed. No sockets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.core.venue import Call, Outgoing, Sent, Session
from engine.sim.faults import FaultPlan
from engine.sim.market import Market
from engine.sim.world import DEAD_LINE, World
from engine.venues.okx.front import front
from tests.venues.okx_talk import ORDERS, PRIVATE, SWAP, order, signature, wants

START_MS = 1_767_225_600_000
TIME = Call(method="GET", target="/api/v5/public/time")


class Box:
    """A world with a clock, and what came out of it."""

    def __init__(self, seed: int = 1) -> None:
        self.now_ms, self.faults = START_MS, FaultPlan()
        venue = front(accounts=2, seed=seed, now_ms=START_MS, faults=self.faults, limits=False)
        self.keys = {account["name"]: account for account in venue.accounts()}
        self.world = World(venue, Market(venue.exchange, venue.quoted, seed), self.faults, START_MS)
        self.out: list[Outgoing] = []

    def carry(self) -> None:
        self.out += self.world.drain(self.now_ms)

    def pass_ms(self, milliseconds: int) -> None:
        for _ in range(milliseconds // 10):
            self.now_ms += 10
            self.world.tick(self.now_ms)
            self.carry()

    def say(self, session: Session, frame: Any) -> None:
        text = frame if isinstance(frame, str) else json.dumps(frame)
        self.world.hear(session, text.encode(), self.now_ms)
        self.carry()

    def connect(self, account: str = "demo-01") -> Session:
        session = self.world.accept(wants(PRIVATE, "127.0.0.1"), self.now_ms)
        assert not isinstance(session, int)
        key, stamp = self.keys[account], str(self.now_ms // 1000)
        arg = {"apiKey": key["api_key"], "passphrase": key["passphrase"], "timestamp": stamp}
        arg["sign"] = signature(key["secret"], f"{stamp}GET/users/self/verify")
        self.say(session, {"op": "login", "args": [arg]})
        self.say(session, {"op": "subscribe", "args": [ORDERS]})
        return session

    def buy(self, session: Session) -> None:
        self.say(session, {"id": "p1", "op": "order", "args": [order(ordType="market", sz="1")]})

    def sent(self, session: Session) -> list[Sent]:
        """What came to a session since the last time."""
        found = [o.sent for o in self.out if o.session is session]
        self.out = [o for o in self.out if o.session is not session]
        return found

    def call(self, account: str = "demo-01") -> Call:
        return Call(method="GET", target=TIME.target, headers={"ok-access-key": self.keys[account]["api_key"]})


@pytest.fixture
def box() -> Box:
    return Box()


def test_a_cut_breaks_the_accounts_connections_and_keeps_new_ones_and_calls_out(box: Box) -> None:
    cut, other = box.connect("demo-01"), box.connect("demo-02")
    box.sent(cut)
    box.sent(other)
    assert box.world.trouble("cut", ["demo-01"], {"seconds": 5}, box.now_ms) == 1
    box.carry()
    assert box.sent(cut) == [Sent.ABORT]
    again = box.connect("demo-01")
    assert box.sent(again) == [Sent.ABORT], "only the login tells whose line it is"
    assert box.world.call(box.call("demo-01"), box.now_ms)[0] is None
    assert box.world.call(box.call("demo-02"), box.now_ms)[0] is not None
    assert box.sent(other) == []
    assert box.faults.happened["cut"] == 3
    box.pass_ms(5000)
    back = box.connect("demo-01")
    assert Sent.ABORT not in box.sent(back)
    assert box.world.call(box.call("demo-01"), box.now_ms)[0] is not None


def test_a_cut_of_everybody_gives_no_answer_at_all(box: Box) -> None:
    box.world.trouble("cut", None, {"seconds": 1}, box.now_ms)
    assert box.world.accept(wants(PRIVATE, "127.0.0.1"), box.now_ms) == DEAD_LINE
    assert box.world.call(TIME, box.now_ms)[0] is None


def test_what_was_filled_while_the_line_was_cut_is_in_the_truth_and_was_never_pushed(box: Box) -> None:
    session = box.connect()
    box.world.trouble("cut", ["demo-01"], {"seconds": 5}, box.now_ms)
    box.world.front.place_elsewhere("demo-01", {"instrument": SWAP, "side": "buy", "quantity": "1"}, box.now_ms)
    box.sent(session)
    box.carry()
    assert Sent.PUSH not in box.sent(session)
    assert [row["fillSz"] for row in box.world.front.truth("fills", "demo-01")] == ["1"]


def test_a_half_open_line_hears_and_says_nothing_and_breaks_at_the_end(box: Box) -> None:
    session = box.connect()
    box.sent(session)
    box.world.trouble("half_open", ["demo-01"], {"seconds": 10}, box.now_ms)
    box.carry()
    box.say(session, "ping")
    box.buy(session)
    assert box.sent(session) == [Sent.FREEZE]
    assert box.world.front.truth("orders", "demo-01") == [], "what nobody heard is not executed"
    response, due_ms = box.world.call(box.call(), box.now_ms)
    assert (response, due_ms) == (None, box.now_ms + 10_000)
    box.pass_ms(10_000)
    assert box.sent(session) == [Sent.ABORT]


def test_silence_lets_pongs_and_answers_through_but_no_push(box: Box) -> None:
    session = box.connect()
    box.sent(session)
    box.world.trouble("silence", ["demo-01"], {"seconds": 5}, box.now_ms)
    box.say(session, "ping")
    box.buy(session)
    assert box.sent(session) == [Sent.PONG, Sent.REPLY]
    assert box.faults.happened["silence"] == 3
    box.pass_ms(5000)
    box.buy(session)
    assert Sent.PUSH in box.sent(session)


def test_delayed_frames_come_later_in_their_old_order(box: Box) -> None:
    session = box.connect()
    box.sent(session)
    box.world.trouble("delay", ["demo-01"], {"seconds": 1, "by_ms": 3000}, box.now_ms)
    box.buy(session)
    box.pass_ms(1000)
    assert box.sent(session) == []
    box.say(session, "ping")
    assert box.sent(session) == [], "nothing overtakes"
    box.pass_ms(1990)
    assert box.sent(session) == []
    box.pass_ms(10)
    sent = box.sent(session)
    assert sorted(sent[:-1]) == ["push", "push", "push", "reply"]
    assert sent[-1] is Sent.PONG


def test_slow_answers_are_done_at_once_and_told_later(box: Box) -> None:
    session = box.connect()
    box.sent(session)
    box.world.trouble("slow", ["demo-01"], {"by_ms": 1500}, box.now_ms)
    assert box.world.call(box.call(), box.now_ms)[1] == box.now_ms + 1500
    box.buy(session)
    assert box.world.front.truth("fills", "demo-01") != []
    assert Sent.REPLY not in box.sent(session)
    box.pass_ms(1500)
    assert Sent.REPLY in box.sent(session)


def test_connections_can_be_refused(box: Box) -> None:
    box.world.trouble("refuse", None, {"what": "connect", "seconds": 1}, box.now_ms)
    assert box.world.accept(wants(PRIVATE, "127.0.0.1"), box.now_ms) == 503
    assert box.world.accept(wants(PRIVATE, "127.0.0.1"), box.now_ms + 1000) != 503


@pytest.mark.parametrize(("kind", "accounts"), [("earthquake", None), ("cut", ["nobody"])])
def test_unknown_troubles_and_accounts_are_refused(box: Box, kind: str, accounts: list[str] | None) -> None:
    with pytest.raises(KeyError):
        box.world.trouble(kind, accounts, {}, box.now_ms)
    assert box.faults.report(box.now_ms)["under_way"] == []


def test_a_fault_with_times_strikes_so_often_and_a_cleared_one_no_more() -> None:
    faults = FaultPlan()
    faults.begin("late", None, 0, times=2, seconds=9)
    assert [faults.strikes("late", "a", 1) is not None for _ in range(3)] == [True, True, False]
    faults.begin("late", ["a"], 0, seconds=9)
    assert faults.strikes("late", "b", 1) is None
    assert faults.strikes("late", "a", 9000) is None
    faults.begin("late", ["a"], 9000, seconds=9)
    faults.clear()
    assert faults.strikes("late", "a", 9001) is None
    assert faults.report(9001)["happened_to"] == {"late": {"a": 2}}


def test_the_same_seed_and_the_same_calls_give_the_same_frames() -> None:
    def frames(seed: int) -> list[tuple[Sent, Any]]:
        box = Box(seed)
        session = box.connect()
        for _ in range(10):
            box.buy(session)
            box.pass_ms(700)
        return [(o.sent, o.frame) for o in box.out]

    assert frames(1) == frames(1)
    assert frames(1) != frames(2)
