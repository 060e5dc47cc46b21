from __future__ import annotations

import os
import random
import signal
import subprocess
import sys

import sqlalchemy as sa

from engine.core.orders import OrderState
from engine.core.plans import PlanState
from engine.ledger import gaps, plans, reader
from engine.ledger.tables import fact, intent
from tests.ledger.doomed import CHILDREN, FACTS

SEED = 20_260_101
ROUNDS = 20


def test_killed_at_any_moment_everything_acknowledged_is_there_and_nothing_is_there_by_half(url: str) -> None:
    """kill -9 of the writing process, again and again on one database."""
    print(f"seed {SEED}")
    rng, number = random.Random(SEED), 0
    with subprocess.Popen(
        [sys.executable, "-m", "tests.ledger.doomed", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as nursery:
        assert nursery.stdin is not None
        for _ in range(ROUNDS):
            nursery.stdin.write(f"{number}\n")
            nursery.stdin.flush()
            told = _kill_after(nursery, rng.randrange(12))
            _check(url, told)
            number = _next_number(url)
        nursery.stdin.close()
    assert number > ROUNDS, "they wrote something before they died"


def _kill_after(nursery: subprocess.Popen[str], steps: int) -> list[tuple[str, int]]:
    """Lets a writer go on for so many steps, kills it, and returns all that it said was durable."""
    assert nursery.stdout is not None
    told, pid = list[tuple[str, int]](), 0
    for line in nursery.stdout:
        word, _, value = line.strip().partition(" ")
        if word == "dead":
            return told
        if word == "pid":
            pid = int(value)
        else:
            told.append((word, int(value)))
        if len(told) >= steps and pid:
            os.kill(pid, signal.SIGKILL)
            pid = 0
    raise AssertionError("the nursery died")


def _check(url: str, told: list[tuple[str, int]]) -> None:
    with reader(url) as connection:
        found = {p.plan_id: p for p in plans.load_plans(connection)}
        children = plans.load_children(connection, list(found))
        tokens = dict(connection.execute(sa.select(intent.c.child_id, intent.c.claim_token)).all())  # type: ignore[arg-type]
        stored = set(connection.scalars(sa.select(fact.c.key)))
        watermark = gaps.watermark(connection, "ann", "history") or 0
    for word, number in told:
        state = found[f"p{number}"].state
        assert state is PlanState.EXECUTING if word == "claimed" else state in (PlanState.APPROVED, PlanState.EXECUTING)
    assert {f"f{n}" for n in range(watermark * FACTS)} <= stored, "a watermark never moves before its facts"
    assert len(children) == CHILDREN * len(found)
    for one in children:
        claimed = found[one.plan_id].state is PlanState.EXECUTING
        assert (one.state is not OrderState.PLANNED) is claimed
        assert tokens.get(one.child_id, "") == one.claim_token == (f"t{one.plan_id[1:]}" if claimed else "")


def _next_number(url: str) -> int:
    with reader(url) as connection:
        return len(plans.load_plans(connection))
