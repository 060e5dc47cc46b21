"""Does. `make burst`: fills at ten times what the engine can take, on a slow disk; exit 1 when a promise is broken."""

from __future__ import annotations

import argparse
import sys

import anyio

from tests.burst.measure import Figures, burst
from tests.figures import dated, record


def lines(f: Figures) -> list[str]:
    return [
        f"{f.accounts} accounts; {f.fold_rate:,.0f} fills a second can be taken; {f.offered:,} offered at "
        f"{f.offered_rate:,.0f} a second, {f.offered_rate / f.fold_rate:.1f} times as many; all taken within "
        f"{f.taken_within:.0f} s",
        f"queue: at most {f.queue_peak:,} of {f.queue_limit:,}; held back: {f.held_peak} connections at a time, "
        f"{f.held_times} times, one for {f.held_longest:.1f} s in all",
        f"memory grew by {f.grown_mb:.0f} MB; the loop was late by {f.loop_late:.2f} s at most",
        f"meanwhile: a plan approved in {f.approve:.2f} s, its orders at the venue after {f.orders_out:.2f} s, "
        f"cancels after {f.cancels_out:.2f} s",
        f"the doctor: {'; '.join(f.told)}",
        f"lost={f.lost} invented={f.invented} connections_lost={f.connections_lost} gaps={f.gaps} "
        f"unsettled={f.unsettled} longest_silence={f.silence_longest:.1f}s",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.burst")
    parser.add_argument("--accounts", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=6.0, help="of the burst; to take it lasts ten times as long")
    parser.add_argument("--commit-s", type=float, default=0.25, help="how long a commit of the slow disk takes")
    parser.add_argument("--record", action="store_true", help="write the figures into docs/reference/reliability.md")
    asked = parser.parse_args()
    figures = anyio.run(
        lambda: burst(accounts=asked.accounts, seconds=asked.seconds, commit_s=asked.commit_s, probe=3000),
        backend_options={"use_uvloop": True},
    )
    told = lines(figures)
    print("\n".join(told))
    if broken := figures.broken():
        print("broken: " + "; ".join(broken))
    if asked.record:
        command = f"python -m tests.burst --accounts {asked.accounts} --seconds {asked.seconds:g}"
        record("burst", dated(f"{command} --commit-s {asked.commit_s:g}", told))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
