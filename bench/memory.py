"""Does. What one kept account costs in memory: `python -m bench.memory engine|bare ACCOUNTS DOORS`, a process each.

Resident memory with so many accounts, each connected, logged in, subscribed and (in the engine) proven, less the same
process with one of them. Prints kilobytes an account.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from pathlib import Path

import uvloop

from bench.world import bare, configure_log, office, running


def _resident_kb() -> float:
    gc.collect()
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmRSS")))


async def _engine(doors: dict[str, str], accounts: int) -> float:
    with office(doors, accounts) as config:
        async with running(config) as engine:
            await engine.links_live()
            await engine.proven(lambda done: None)
            await asyncio.sleep(2)
            return _resident_kb()


async def _bare(doors: dict[str, str], accounts: int) -> float:
    async with bare(doors, accounts):
        await asyncio.sleep(1)
        return _resident_kb()


if __name__ == "__main__":
    configure_log()
    kind, count, doors_json = sys.argv[1:]
    measure = _engine if kind == "engine" else _bare
    print(json.dumps(uvloop.run(measure(json.loads(doors_json), int(count)))))
