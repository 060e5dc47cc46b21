"""Does. `python -m tests.chaos --kills n`: several offices under chaos side by side, one line at the end.

The last line is `kills=… intents=… lost=… duplicated=… wrongly_final=…`; the exit code is not 0 unless the last three
are, and everything came to rest.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests import postgres
from tests.chaos.torment import Told, torment


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    asked.add_argument("--kills", type=int, default=100)
    asked.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--offices", type=int, default=2, help="how many are under chaos at the same time")
    asked.add_argument("--settle-every", type=int, default=25, help="kills between two comparisons with the truth")
    asked.add_argument("--folder", type=Path, default=None, help="where databases and logs stay; default: nowhere")
    options = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="unisono-chaos-") as scratch:
        return run(options, options.folder or Path(scratch))


def run(options: argparse.Namespace, root: Path) -> int:
    began_s = time.monotonic()
    server = postgres.serving() if options.database == "postgres" else None
    try:
        template = next(server) if server else ""
        share, rest = divmod(options.kills, options.offices)
        jobs = [
            (
                root / f"office-{n}",
                postgres.new_database(template) if template else "",
                share + (n < rest),
                options.seed * 1000 + n,
                options.settle_every,
            )
            for n in range(options.offices)
        ]
        with multiprocessing.get_context("spawn").Pool(options.offices) as offices:
            told = offices.starmap(torment, [job for job in jobs if job[2]])
    finally:
        if server:
            server.close()
    return _tell(told, options, time.monotonic() - began_s)


def _tell(told: list[Told], options: argparse.Namespace, took_s: float) -> int:
    kills, faults = sum((t.kills for t in told), Counter[str]()), sum((t.faults for t in told), Counter[str]())
    for where, count in sorted(kills.items()):
        print(f"  killed {count:>5} x {where}")
    print("  faults of the venue beside them: " + ", ".join(f"{k} {n}" for k, n in sorted(faults.items())))
    for one in told:
        for sentence in (*one.verdict.sentences(), *filter(None, [one.failed])):
            print(f"  {sentence}")
    total, fills = sum(kills.values()), sum(t.fills for t in told)
    print(
        f"  {options.database}, seed {options.seed}: {took_s:.0f} s, {total * 60 / took_s:.0f} kills a minute, "
        f"{fills} fills compared one by one"
    )
    lost, duplicated, wrong = (
        sum(len(getattr(t.verdict, kind)) for t in told) for kind in ("lost", "duplicated", "wrongly_final")
    )
    bad = lost or duplicated or wrong or any(t.failed or t.verdict.unsettled for t in told)
    intents = sum(t.intents for t in told)
    print(f"kills={total} intents={intents} lost={lost} duplicated={duplicated} wrongly_final={wrong}")
    return 1 if bad or total < options.kills else 0


if __name__ == "__main__":
    sys.exit(main())
