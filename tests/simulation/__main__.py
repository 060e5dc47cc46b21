"""Does. `python -m tests.simulation --seed S --hours H [--seeds N] [--accounts N] [--verbose]`."""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections import Counter

from tests.simulation.people import Misfortune
from tests.simulation.run import simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1, help="how many, from --seed on")
    parser.add_argument("--hours", type=float, default=1.0, help="simulated hours of trouble for each seed")
    parser.add_argument("--accounts", type=int, default=0, help="0: by the seed, 3 to 12")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--watch", default="", help="print every event that holds this text")
    asked = parser.parse_args()
    began_s, happened, failed = time.monotonic(), Counter[str](), list[int]()
    intents = fills = lost = duplicated = wrongly_final = broken = 0
    simulated_s, traces = 0.0, hashlib.blake2b(digest_size=12)
    for seed in range(asked.seed, asked.seed + asked.seeds):
        started_s = time.process_time()
        report = simulate(seed, hours=asked.hours, accounts=asked.accounts, watched=asked.watch, verbose=asked.verbose)
        verdict = report.verdict
        intents, fills = intents + verdict.intents, fills + verdict.fills
        lost, duplicated = lost + len(verdict.lost), duplicated + len(verdict.duplicated)
        wrongly_final, broken = wrongly_final + len(verdict.wrongly_final), broken + len(verdict.broken)
        happened += report.happened
        simulated_s += report.simulated_s
        traces.update(report.trace.encode())
        took_s = time.process_time() - started_s
        print(
            f"seed {seed}: {verdict.intents} intents, {verdict.fills} fills, {report.lives} lives, "
            f"{report.events} events, {dict(report.states)}, "
            f"{report.accounts * report.simulated_s / took_s:.0f} account-seconds a second, "
            f"trace={report.trace}",
            flush=True,
        )
        if not verdict.sound:
            failed.append(seed)
            for complaint in verdict.complaints()[:12]:
                print(f"  {complaint}")
            print(
                f"  replay: python -m tests.simulation --seed {seed} --hours {asked.hours:g}"
                + (f" --accounts {asked.accounts}" if asked.accounts else "")
                + " --verbose",
                flush=True,
            )
    print("what really happened: " + ", ".join(f"{kind} {n}" for kind, n in sorted(happened.items())))
    never = sorted(Misfortune.expected() - happened.keys())
    if never:
        print(f"never happened: {', '.join(never)}")
    took_s = time.monotonic() - began_s
    print(
        f"{simulated_s / 3600:.1f} simulated hours in {took_s:.0f} s; other promises broken: {broken}; "
        f"failing seeds: {failed or 'none'}"
    )
    print(
        f"seeds={asked.seeds} intents={intents} fills={fills} lost={lost} duplicated={duplicated} "
        f"wrongly_final={wrongly_final} trace={traces.hexdigest()}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
