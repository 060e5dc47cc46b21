"""Does. Named places where a chaos run may end the engine with kill -9, to see what a restart makes of it.

Nothing happens at any of them unless the engine was started with UNISONO_CRASH_AT="name:count": it then dies when it
passes that place for the count-th time. The places stand where something durable lies just behind or just ahead.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

VARIABLE = "UNISONO_CRASH_AT"

POINTS = (
    "recover-before-flush",  # what was on its way is known, nothing of that is written
    "recover-after-flush",
    "claim-before-commit",
    "after-claim-before-send",
    "mid-send",  # passed once for each request of a fan-out
    "after-last-send",
    "answer-before-step",  # an answer is here, and nobody was told
    "steps-posted",
    "ledger-facts-written",  # in the transaction, before the jobs that came with them
    "ledger-before-commit",
    "ledger-after-commit",  # durable, and those who wait for it were not told
    "cancel-before-send",
    "amend-after-record",
    "resolve-before-proof",
    "attempt-before-claim",  # its place is taken by the proof already
    "attempt-after-claim",
    "open-before-keep",  # an account's first statement is read
    "backfill-between-pages",
    "backfill-after-read",
    "backfill-after-apply",
    "backfill-before-settle",
    "backfill-watermark-moved",  # in the transaction, and the gap is not marked yet
    "backfill-after-settle",
    "reconcile-opened",
    "reconcile-statement-read",
    "reconcile-before-save",
    "reconcile-run-written",  # in the transaction, and its breaks are not written yet
    "reconcile-after-save",
    "sweep-between-pages",
    "sweep-after-read",
    "sweep-before-release",  # passed only by a database that was restored
    "sweep-after-release",
    "kill-before-record",  # it stops already, and would not survive
    "kill-after-record",
    "kill-before-cancel",
    "kill-after-cancel",
    "kill-lifted",
)


def point(name: str) -> None:
    """Passed by. `arm` puts another function in the place of this one."""


def arm(environment: Mapping[str, str]) -> None:
    """What the environment asks for. Raises ValueError for what is no place."""
    told = environment.get(VARIABLE, "")
    if not told:
        return
    wanted, _, count = told.partition(":")
    if wanted not in POINTS or not (count or "1").isdigit():
        raise ValueError(f"{VARIABLE}={told} names no place; known are: {', '.join(POINTS)}")
    left = int(count or "1")

    def die_here(name: str) -> None:
        nonlocal left
        if name == wanted:
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    global point
    point = die_here
