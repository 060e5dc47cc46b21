"""Does. `python -m tests.chaos --kills n`: several offices under chaos side by side, one line at the end.

The last line is `kills=… intents=… lost=… duplicated=… wrongly_final=…`; the exit code is not 0 unless the last three
are, everything came to rest, and a run that is long enough has met every named place.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

from engine.crash import POINTS
from engine.sim.server import playable
from engine.venues import venues
from tests import figures, postgres
from tests.chaos import ran
from tests.chaos.office import AT_RANDOM, NOT_REACHED
from tests.chaos.places import ENOUGH, never_met
from tests.chaos.ran import Ran
from tests.chaos.torment import Told, torment

_LIFE = 100  # kills in the life of one office: in longer ones ever more time goes into reading its history


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    asked.add_argument("--kills", type=int, default=100)
    asked.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--venue", default="", help="every office at this one; else they take turns")
    asked.add_argument("--offices", type=int, default=4, help="how many are under chaos at the same time")
    asked.add_argument("--settle-every", type=int, default=25, help="kills between two comparisons with the truth")
    asked.add_argument("--folder", type=Path, default=None, help="where databases and logs stay; default: nowhere")
    asked.add_argument("--record", action="store_true", help="add the run to docs/reference/reliability.md")
    options = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="unisono-chaos-") as scratch:
        return run(options, options.folder or Path(scratch))


def run(options: argparse.Namespace, root: Path) -> int:
    began_s = time.monotonic()
    trading = [name for name in playable() if venues()[name].capabilities.trades]
    with postgres.serving() if options.database == "postgres" else nullcontext("") as template:
        lives = max(options.offices, -(-options.kills // _LIFE))
        share, rest = divmod(options.kills, lives)
        jobs = [
            (
                root / f"office-{n}",
                postgres.new_database(template) if template else "",
                share + (n < rest),
                options.seed * 1000 + n,
                options.settle_every,
                options.venue or trading[(options.seed + n) % len(trading)],
            )
            for n in range(lives)
        ]
        # A process for each life: what an engine is forked from is always fresh.
        with multiprocessing.get_context("spawn").Pool(options.offices, maxtasksperchild=1) as offices:
            told = offices.starmap(torment, [job for job in jobs if job[2]], chunksize=1)
    return _tell(told, options, time.monotonic() - began_s)


def _tell(told: list[Told], options: argparse.Namespace, took_s: float) -> int:
    kills, faults = sum((t.kills for t in told), Counter[str]()), sum((t.faults for t in told), Counter[str]())
    total, fills = sum(kills.values()), sum(t.fills for t in told)
    _tell_places(kills)
    print("  faults of the venue beside them: " + ", ".join(f"{k} {n}" for k, n in sorted(faults.items())))
    for one in told:
        for sentence in (*one.verdict.sentences(), *filter(None, [one.failed])):
            print(f"  {sentence}")
    never, long_enough = never_met(kills), total >= ENOUGH * len(POINTS)
    if never:
        print(f"  {'NEVER MET' if long_enough else 'not met, the run is short'}: {', '.join(never)}")
    print(
        f"  {options.database}, seed {options.seed}: {took_s:.0f} s, {total * 60 / took_s:.0f} kills a minute, "
        f"{fills} fills compared one by one"
    )
    lost, duplicated, wrong = (
        sum(len(getattr(t.verdict, kind)) for t in told) for kind in ("lost", "duplicated", "wrongly_final")
    )
    unwell = any(t.failed or t.verdict.unsettled for t in told) or (never and long_enough) or total < options.kills
    this = Ran(
        seed=options.seed,
        kills=total,
        named=sum(kills[place] for place in POINTS),
        intents=sum(t.intents for t in told),
        fills=fills,
        lost=lost,
        duplicated=duplicated,
        wrongly_final=wrong,
        minutes=took_s / 60,
    )
    if options.record:
        section = f"kills-{options.database}"
        figures.record(section, ran.added(figures.recorded(section), this))
    print(f"kills={total} intents={this.intents} lost={lost} duplicated={duplicated} wrongly_final={wrong}")
    return 1 if lost or duplicated or wrong or unwell else 0


def _tell_places(kills: Counter[str]) -> None:
    for place in POINTS:
        print(f"  killed {kills[place]:>5} x {place}")
    for phase, count in sorted(kills.items()):
        if phase.startswith(AT_RANDOM):
            print(f"  killed {count:>5} x {phase}")
    missed = {place: count for place, count in sorted(kills.items()) if place.startswith(NOT_REACHED)}
    if missed:
        print("  killed elsewhere: " + ", ".join(f"{n} x {place}" for place, n in missed.items()))


if __name__ == "__main__":
    sys.exit(main())
