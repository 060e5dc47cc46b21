"""Does. `python -m tests.simulation`: an office's days by seed, a flood of fills (`--fills`), or a big office and the
venue's limits (`--limits`). The last line holds what it came to and the hash of all that happened."""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial

from msgspec.structs import replace

from tests.figures import dated, record
from tests.simulation.courses import flood, long_day, office_day
from tests.simulation.many import side_by_side
from tests.simulation.misfortune import Misfortune
from tests.simulation.run import Course, Report, simulate

_FILLS_A_RUN = 20_000
_HOURS_A_RUN = 6.0
_MANY_SEEDS = 100  # among so many, every kind of trouble must have happened


def main() -> int:
    asked = _arguments()
    began_s = time.monotonic()
    reports = list(_reports(asked))
    lines = [*_common(reports, time.monotonic() - began_s), *_results(asked, reports)]
    print("\n".join(lines))
    if asked.record:
        section = "fills" if asked.fills else "limits" if asked.limits else "simulation"
        record(section, dated(_command(asked), lines))
    missing = asked.seeds >= _MANY_SEEDS and _never(reports)
    return 1 if missing or not all(report.verdict.sound for report in reports) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1, help="how many, from --seed on")
    parser.add_argument("--hours", type=float, default=0.2, help="simulated hours of trouble for each seed")
    parser.add_argument("--accounts", type=int, default=0, help="0: by the seed, mostly 2 to 4")
    parser.add_argument("--fills", type=int, default=0, help="until so many fills have happened, whatever the hours")
    parser.add_argument("--limits", action="store_true", help="a big office in a hurry, for --hours in all")
    parser.add_argument("--venue", default="", help="all at this one; else by the seed")
    parser.add_argument("--processes", type=int, default=0, help="side by side; 0: one for each core")
    parser.add_argument("--record", action="store_true", help="write the result into docs/reference/reliability.md")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--watch", default="", help="print every event that holds this text")
    return parser.parse_args()


def _command(asked: argparse.Namespace) -> str:
    told = [f"SEED={asked.seed}"]
    if asked.fills:
        told.append(f"FILLS={asked.fills}")
    elif asked.limits:
        told += ["LIMITS=1", f"HOURS={asked.hours:g}", f"ACCOUNTS={asked.accounts or 300}"]
    else:
        told += [f"SEEDS={asked.seeds}", f"HOURS={asked.hours:g}"]
    if asked.venue:
        told.append(f"VENUE={asked.venue}")
    return " ".join(["make simulate", *told])


def _courses(asked: argparse.Namespace) -> list[Course]:
    if asked.fills:
        runs = -(-asked.fills // _FILLS_A_RUN)
        return [flood(asked.seed + n, fills=-(-asked.fills // runs)) for n in range(runs)]
    if asked.limits:
        runs = max(1, round(asked.hours / _HOURS_A_RUN))
        hours, accounts = asked.hours / runs, asked.accounts or 300
        return [long_day(asked.seed + n, hours=hours, accounts=accounts) for n in range(runs)]
    return [office_day(asked.seed + n, hours=asked.hours, accounts=asked.accounts) for n in range(asked.seeds)]


def _reports(asked: argparse.Namespace) -> Iterator[Report]:
    courses = _courses(asked)
    courses = [replace(course, venue=asked.venue) for course in courses]
    run = partial(simulate, watched=asked.watch, verbose=asked.verbose)
    for course, report in zip(courses, side_by_side(run, courses, asked.processes), strict=True):
        verdict = report.verdict
        print(
            f"seed {course.seed} at {report.venue}: {verdict.intents} intents, {verdict.fills} fills, "
            f"{report.lives} lives, {report.gaps} gaps, {report.events} events, {dict(report.states)}, "
            f"{report.took_s:.1f} s, trace={report.trace}",
            flush=True,
        )
        if not verdict.sound:
            for complaint in verdict.complaints()[:12]:
                print(f"  {complaint}")
            print(f"  replay: {report.replay}", flush=True)
        yield report


def _common(reports: Sequence[Report], took_s: float) -> list[str]:
    happened = sum((report.happened for report in reports), Counter[str]())
    lines = ["what really happened: " + ", ".join(f"{kind} {n}" for kind, n in sorted(happened.items()))]
    if len(reports) >= _MANY_SEEDS:
        lines.append(f"never happened: {', '.join(_never(reports)) or 'nothing'}")
    failed = [report.seed for report in reports if not report.verdict.sound]
    lines.append(
        f"{sum(r.simulated_s for r in reports) / 3600:.1f} simulated hours in {took_s:.0f} s, "
        f"{sum(r.lives for r in reports)} starts, {sum(r.gaps for r in reports)} gaps proven; "
        f"other promises broken: {sum(len(r.verdict.broken) for r in reports)}; failing seeds: {failed or 'none'}"
    )
    return lines


def _never(reports: Sequence[Report]) -> list[str]:
    """Kinds of trouble that did not really happen: then nothing is known of them."""
    return sorted(Misfortune.expected().difference(*(report.happened for report in reports)))


def _results(asked: argparse.Namespace, reports: Sequence[Report]) -> list[str]:
    traces = hashlib.blake2b("".join(report.trace for report in reports).encode(), digest_size=12).hexdigest()
    verdicts = [report.verdict for report in reports]
    fills, lost, doubled = (
        sum(v.fills for v in verdicts),
        sum(len(v.lost) for v in verdicts),
        sum(len(v.duplicated) for v in verdicts),
    )
    if asked.fills:
        return [f"fills={fills} lost={lost} doubled={doubled} trace={traces}"]
    intents = sum(v.intents for v in verdicts)
    if asked.limits:
        return [
            *_uses(reports),
            f"hours={asked.hours:g} accounts={reports[0].accounts} intents={intents} "
            f"exceeded={sum(use.refused for r in reports for use in r.uses.values())} trace={traces}",
        ]
    wrongly_final = sum(len(v.wrongly_final) for v in verdicts)
    return [
        f"seeds={len(reports)} intents={intents} fills={fills} lost={lost} duplicated={doubled} "
        f"wrongly_final={wrongly_final} trace={traces}"
    ]


def _uses(reports: Sequence[Report]) -> Iterator[str]:
    """How near to each limit it came: the most in any window of any account, or of our address."""
    for rule in sorted({rule for report in reports for rule in report.uses}):
        uses = [report.uses[rule] for report in reports if rule in report.uses]
        limit, window_s = uses[0].limit, uses[0].window_ms / 1000
        peak, asked, refused = max(u.peak for u in uses), sum(u.asked for u in uses), sum(u.refused for u in uses)
        yield (
            f"{rule:<26} {limit:>5} in {window_s:g} s: asked {asked:>9}, "
            f"at most {peak:>4} in a window ({100 * peak / limit:.0f} %), exceeded {refused}"
        )


if __name__ == "__main__":
    sys.exit(main())
