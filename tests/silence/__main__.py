"""Does. `make silence`: how long a half-open and a mute connection go unseen, at their worst, over many phases.

Exit 1 when one took longer than is promised.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter

from tests.figures import dated, record
from tests.silence.office import Found, measure

HALF_OPEN_S, MUTE_S = 28.0, 60.0


def told(half_open: list[float], mute: list[float]) -> str:
    return (
        f"half_open={len(half_open)} p50={statistics.median(half_open):.2f}s worst={max(half_open):.2f}s "
        f"mute={len(mute)} p50={statistics.median(mute):.2f}s worst={max(mute):.2f}s"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.silence")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--accounts", type=int, default=30)
    parser.add_argument("--record", action="store_true", help="write the figures into docs/reference/reliability.md")
    asked = parser.parse_args()
    began_s, found, happened, lines = time.monotonic(), Found(), Counter[str](), []
    for seed in range(1, asked.seeds + 1):
        one = measure(seed, asked.accounts)
        found.half_open += one.half_open
        found.mute += one.mute
        happened.update(one.happened)
        print(f"seed {seed}: {told(one.half_open, one.mute)}", flush=True)
    lines.append("what really happened: " + ", ".join(f"{kind} {n}" for kind, n in sorted(happened.items())))
    lines.append(told(found.half_open, found.mute))
    print("\n".join(lines))
    print(f"{time.monotonic() - began_s:.0f} s")
    if asked.record:
        record("silence", dated(f"make silence SEEDS={asked.seeds}", lines))
    return 0 if max(found.half_open) <= HALF_OPEN_S and max(found.mute) <= MUTE_S else 1


if __name__ == "__main__":
    sys.exit(main())
