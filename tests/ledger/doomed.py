"""A process that writes until it is killed: `python -m tests.ledger.doomed URL` forks one writer for each line on its
standard input (the number to go on from). A writer tells its pid, then each step once it is durable."""

from __future__ import annotations

import os
import sys

import anyio
import sqlalchemy as sa
from msgspec.structs import replace

from engine.config import Ledger as Settings
from engine.core.orders import OrderState
from engine.core.plans import Child, PlanState
from engine.ledger import Ledger, plans
from engine.ledger.gaps import move_watermark
from engine.ledger.plans import Change
from scheduler.clock import SystemClock
from tests.ledger.samples import child, fill_rows, plan, sending

FACTS, CHILDREN = 10, 3


def children_of(number: int) -> list[Child]:
    return [child(number * 100 + i, plan_id=f"p{number}") for i in range(CHILDREN)]


def say(word: str) -> None:
    os.write(1, f"{word}\n".encode())


async def write_for_ever(url: str, number: int) -> None:
    ledger = Ledger.open(url, Settings(group_wait_ms=0.5), SystemClock())
    say(f"pid {os.getpid()}")
    while True:
        await write_one(ledger, number)
        number += 1


async def write_one(ledger: Ledger, number: int) -> None:
    """What the engine does of one plan: facts and their watermark, approval, claim, and what became of it."""
    approved, planned, token = plan(plan_id=f"p{number}"), children_of(number), f"t{number}"
    claimed = [sending(c, token) for c in planned]

    def approve(connection: sa.Connection) -> None:
        assert plans.save_plan(connection, replace(approved, state=PlanState.PREVIEWED), None, 1)
        assert plans.save_approved(connection, approved, planned, 2)

    def claim(connection: sa.Connection) -> list[str]:
        return plans.claim(connection, replace(approved, state=PlanState.EXECUTING), claimed, token, 3, "mia")

    for start in range(number * FACTS, (number + 1) * FACTS):
        ledger.append(fill_rows(range(start, start + 1)))
    ledger.post(lambda connection: move_watermark(connection, "ann", "history", number + 1, 1))
    await ledger.write(approve)
    say(f"approved {number}")
    assert len(await ledger.write(claim)) == CHILDREN
    say(f"claimed {number}")
    changes = [Change(c, replace(c, state=OrderState.WORKING), "ack") for c in claimed]
    ledger.post(lambda connection: plans.record_changes(connection, changes))


if __name__ == "__main__":
    for line in sys.stdin:
        writer = os.fork()
        if not writer:
            anyio.run(write_for_ever, sys.argv[1], int(line))
        os.waitpid(writer, 0)
        say("dead")
