"""Does. What simulations are about: an office's day with everything that can go wrong, a flood of fills, a hurry."""

from __future__ import annotations

import random

from tests.simulation.feeder import Feeder
from tests.simulation.hurry import Hurry
from tests.simulation.misfortune import Misfortune
from tests.simulation.people import Owners
from tests.simulation.run import Actor, Course, Simulation


def office_day(seed: int, *, hours: float, accounts: int = 0) -> Course:
    several = f" --accounts {accounts}" if accounts else ""
    replay = f"python -m tests.simulation --seed {seed} --hours {hours:g}{several} --verbose"
    return Course(seed=seed, hours=hours, accounts=accounts, actors=_everybody, replay=replay)


def _everybody(simulation: Simulation) -> list[Actor]:
    seed = simulation.seed
    return [
        simulation.operator,
        Owners(simulation, random.Random(f"owners {seed}")),
        Misfortune(simulation, random.Random(f"misfortune {seed}")),
    ]


_FLOOD = """
[log]
level = "error"
[raw]
keep = false
[backfill]
overlap_s = 30.0
crosscheck_s = 60.0
idle_crosscheck_s = 60.0
"""
_UNHEARD = (
    "cut",
    "silence",
    "half_open",
    "delay",
    "slow",
    "duplicate",
    "html_502",
    "read_lag",
    "notice",
    "push_lost",
    "push_overtaken",
    "kill_9",
    "restart",
)
"""What keeps a fill from being heard, or lets it be heard late, out of turn or twice."""


def flood(seed: int, *, fills: int, accounts: int = 8) -> Course:
    """Fills come in floods while hearing them is made hard. Nobody plans anything."""

    def actors(simulation: Simulation) -> list[Actor]:
        return [
            Feeder(simulation, random.Random(f"feeder {seed}"), fills, per_s=20.0),
            Misfortune(simulation, random.Random(f"misfortune {seed}"), every_s=2.0, kinds=_UNHEARD),
        ]

    return Course(
        seed=seed,
        hours=24.0,
        accounts=accounts,
        actors=actors,
        settings=_FLOOD,
        market_every_ms=5000,
        replay=f"python -m tests.simulation --seed {seed} --fills {fills} --verbose",
    )


_LONG_DAY = """
[log]
level = "error"
[raw]
keep = false
[backfill]
idle_crosscheck_s = 900.0
"""
_RUSHES = ("cut", "half_open", "notice", "refuse_connect", "html_502", "slow", "read_lag")
"""After these, everybody wants everything at once."""


def long_day(seed: int, *, hours: float, accounts: int) -> Course:
    """A big office that is quiet for minutes, and then everybody is in a hurry: what becomes of the venue's limits?"""

    def actors(simulation: Simulation) -> list[Actor]:
        return [
            Hurry(simulation, random.Random(f"hurry {seed}"), every_s=400.0),
            Misfortune(simulation, random.Random(f"misfortune {seed}"), every_s=1200.0, kinds=_RUSHES),
        ]

    return Course(
        seed=seed,
        hours=hours,
        accounts=accounts,
        actors=actors,
        settings=_LONG_DAY,
        quiet_s=30.0,
        tick_s=0.25,
        market_every_ms=15_000,
        replay=f"python -m tests.simulation --limits --seed {seed} --hours {hours:g} --accounts {accounts} --verbose",
    )
