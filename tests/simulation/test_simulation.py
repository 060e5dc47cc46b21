"""The whole engine on virtual time: nothing lost, nothing doubled, nothing wrongly final, whatever goes wrong."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from tests.simulation.people import Misfortune
from tests.simulation.run import Report, simulate

SEEDS = int(os.environ.get("SIMULATED_SEEDS", "3"))
HOURS = 0.05


def settled(seed: int) -> Report:
    report = simulate(seed, hours=HOURS, accounts=3)
    complaints = "\n".join(report.verdict.complaints())
    replay = f"python -m tests.simulation --seed {seed} --hours {HOURS} --accounts 3 --verbose"
    assert report.verdict.sound, f"{complaints}\nreplay: {replay}"
    return report


def test_whatever_goes_wrong_the_venue_and_the_ledger_agree_in_the_end() -> None:
    happened, intents, fills = Counter[str](), 0, 0
    for seed in range(1, SEEDS + 1):
        report = settled(seed)
        happened += report.happened
        intents, fills = intents + report.verdict.intents, fills + report.verdict.fills
    assert intents > 10 * SEEDS, "orders really went out"
    assert fills > 10 * SEEDS, "and were filled"
    assert len(happened) >= min(10, 3 * SEEDS), f"hardly anything went wrong: {dict(happened)}"
    if SEEDS >= 100:
        assert not Misfortune.expected() - happened.keys(), "every kind of trouble happened"


@pytest.mark.parametrize("seed", [7])
def test_the_same_seed_gives_the_same_trace(seed: int) -> None:
    first, second, other = settled(seed), settled(seed), settled(seed + 1)
    assert (first.trace, first.events) == (second.trace, second.events)
    assert other.trace != first.trace
