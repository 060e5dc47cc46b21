"""Does. `python -m bench [--out FILE] [--quick] [P1 …]`: floors and engine in one run, a table, and JSON.

It never fails for being slow: misses are printed. It exits 1 only when something could not be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench import measures, planning
from bench.figures import Figure, Samples, document, machine, percentile
from bench.measures import Tell
from bench.world import Bare, Door, Running, bare, configure_log, door_of, office, running, venue_process

ALL = ("P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "P9", "P10")
LOAD = 10_000  # messages a second


class Scale(msgspec.Struct, frozen=True):
    """How much is measured."""

    runs: int
    links: int
    many: int  # accounts at which memory and growth are measured
    few: int
    messages: int
    beats: int
    books: int  # accounts to reconcile


FULL = Scale(runs=7, links=1000, many=3000, few=100, messages=20_000, beats=3, books=300)
QUICK = Scale(runs=3, links=300, many=600, few=100, messages=6_000, beats=1, books=60)


class Bench:
    """One run: what was asked for, against one venue."""

    def __init__(self, doors: dict[str, str], door: Door, scale: Scale, wanted: set[str], bars: Progress) -> None:
        self._doors, self._door, self._scale, self._wanted, self._bars = doors, door, scale, wanted, bars
        self.figures: dict[str, Figure] = {}
        self.failed: list[str] = []
        self._growth: dict[str, dict[int, Samples]] = {}  # target -> accounts -> cost an account

    async def run(self) -> None:
        scale = self._scale
        if self._wanted & {"P1", "P2", "P3", "P4", "P6", "P9"}:
            await self._guarded("P1 P2 P3 P4 P6 P9", self._with_links)
        if "P10" in self._wanted:
            await self._guarded("P10", self._planning)
        if "P8" in self._wanted:
            await self._guarded("P8", self._reconcile)
        if "P7" in self._wanted:
            for accounts in (scale.few, scale.many):
                await self._guarded("P7", lambda accounts=accounts: self._grown(accounts))
        if self._wanted & {"P5", "P7"}:
            await self._guarded("P5", self._memory)
        if "P7" in self._wanted:
            await self._guarded("P7", self._flat)

    async def _guarded(self, name: str, part: Callable[[], Any]) -> None:
        try:
            await part()
        except Exception:
            self.failed.append(name)
            self._bars.console.print(f"[red]{name} could not be measured[/]")
            self._bars.console.print(traceback.format_exc(), markup=False)

    def _steps(self, title: str, total: int) -> Tell:
        bar = self._bars.add_task(title, total=total)
        return lambda: self._bars.advance(bar)

    @asynccontextmanager
    async def _office(self, accounts: int, title: str, *, starts: bool = False) -> AsyncIterator[tuple[Running, Bare]]:
        """An engine whose accounts are all live and proven, and as many bare connections."""
        door, doors, scale = self._door, self._doors, self._scale
        async with AsyncExitStack() as stack:
            tell = self._steps(f"{title}: an office of {accounts:,} accounts", 1)
            config = stack.enter_context(office(doors, accounts))
            tell()
            if starts:
                runs = max(3, scale.runs // 2)
                found = await measures.starts(
                    door, config, doors, runs, accounts, self._steps("P9 start to all links open", runs)
                )
                self.figures["P9"] = figure = found.figure(
                    "ms", what=f"start with {accounts:,} accounts to all links open", target="≤ 3,000 ms"
                )
                figure.met = figure.engine <= 3000
            engine = await stack.enter_async_context(running(config))
            await engine.links_live()
            bar = self._bars.add_task(f"{title}: accounts proven", total=accounts)
            await engine.proven(lambda done: self._bars.update(bar, completed=done))
            await engine.written()
            floor = await stack.enter_async_context(bare(doors, accounts))
            await measures.warm(engine, door)
            yield engine, floor

    # ---- P1, P2, P3, P4, P6, P9

    async def _with_links(self) -> None:
        scale, wanted, door = self._scale, self._wanted, self._door
        async with self._office(scale.links, "links", starts="P9" in wanted) as (engine, floor):
            if "P1" in wanted:
                commits = await measures.commits_before_first_frame(door, engine)
                assert commits == 1, f"{commits} durable commits stood before the first frame"
                tell = self._steps("P1 fan-out", scale.runs)
                self._fan_out("P1", await measures.fan_out(door, engine, floor, scale.runs, tell), 2.0, commits)
            if "P2" in wanted:
                tell = self._steps(f"P2 fan-out under {LOAD:,} pushes a second", scale.runs)
                self._fan_out("P2", await measures.fan_out(door, engine, floor, scale.runs, tell, LOAD), 2.5)
            if "P3" in wanted:
                await self._ingest(engine, floor)
            if "P6" in wanted:
                await self._pings(engine, floor)
            if "P4" in wanted:
                runs = max(3, scale.runs // 2)
                tell = self._steps("P4 all links cut", runs)
                found = await measures.reconnect(door, engine, self._doors, runs, tell)
                self._put(
                    "P4", found.figure("ms", what=f"{scale.links:,} links cut: back, subscribed", target="≤ 1.5"), 1.5
                )

    def _put(self, name: str, figure: Figure, limit: float) -> None:
        figure.met = figure.ratio <= limit
        self.figures[name] = figure

    def _fan_out(self, name: str, found: measures.FanOut, limit: float, commits: int | None = None) -> None:
        figure = found.last.figure(
            "ms", what=f"fan-out of {self._scale.links:,} to the last frame", target=f"≤ {limit}"
        )
        first = found.first.figure("ms", what="", target="")
        figure.also = {
            "first_frame_ms": first.engine,
            "first_frame_of_floors_last": first.engine / figure.floor,
            "execute_returned_ms": statistics.median(found.returned.engine),
            "preview_ms": statistics.median(found.preview.engine),
            "approve_ms": statistics.median(found.approve.engine),
        }
        if commits is not None:
            figure.also["commits_before_first_frame"] = commits
        self._put(name, figure, limit)

    async def _ingest(self, engine: Running, floor: Bare) -> None:
        scale, door = self._scale, self._door
        tell = self._steps("P3 ingest", scale.runs * 2)
        found = await measures.ingest(door, engine, floor, scale.runs, tell, scale.messages)
        fills = await measures.ingest(door, engine, floor, scale.runs, tell, scale.messages, fills=True)
        figure = found.figure("us", what="an order update: folded, durable, told", target="≤ 3.0")
        with_fill = fills.figure("us", what="", target="")
        figure.also = {"with_a_fill_us": with_fill.engine, "with_a_fill_ratio": with_fill.ratio}
        self._put("P3", figure, 3.0)

    async def _pings(self, engine: Running, floor: Bare) -> None:
        beats = self._scale.beats
        tell = self._steps(f"P6 pings under {LOAD:,} messages a second", beats + max(4, beats))
        found = await measures.pings(self._door, engine, floor, beats, LOAD, tell)
        figure = found.late.figure("ms", what="lateness of a ping, p99", target="≤ 250 ms, 27 s")
        figure.engine, figure.floor = percentile(found.late.engine, 99), percentile(found.late.floor, 99)
        figure.ratio = figure.engine / figure.floor
        figure.also = {
            "longest_silence_s": found.longest_silence_s,
            "median_ms": statistics.median(found.late.engine),
            "worst_entry_late_s": max(p.latest_s for p in engine.engine.heartbeat.paces.values()),
        }
        figure.met = figure.engine <= 250 and found.longest_silence_s <= 27
        self.figures["P6"] = figure

    # ---- P10

    async def _planning(self) -> None:
        """Nothing else runs meanwhile: the numbers are of one core."""
        runs = self._scale.runs
        shown = planning.previews(1000, runs, self._steps("P10 previews", runs))
        split, each = planning.splits(10_000, runs, self._steps("P10 splits", runs))
        figure = shown.figure("ms", what="preview of 1,000 accounts at three venues", target="≤ 1,000 ms")
        over_all = split.figure("ms", what="", target="")
        figure.also = {
            "split_over_10000_ms": over_all.engine,
            "split_over_10000_against_bare_divisions": over_all.ratio,
            **{f"split_over_10000_{name}": ms for name, ms in each.items()},
            "rebalance_of_1000_by_10_lines_ms": planning.rebalance(1000),
        }
        figure.met = figure.engine <= 1000 and over_all.engine <= 1000
        self.figures["P10"] = figure

    # ---- P8

    async def _reconcile(self) -> None:
        scale = self._scale
        few = max(20, scale.books // 3)
        await self._door("hold", positions=50)
        try:
            found: dict[int, Figure] = {}
            for accounts in (few, scale.books):
                async with self._office_to_read(accounts) as engine:
                    tell = self._steps(f"P8 reconciliation of {accounts:,} × 50 positions", 3)
                    at_once = engine.engine._config.reconcile.at_once
                    samples = await measures.reconcile(engine, self._doors, at_once, 3, tell)
                what = f"reconciliation of {accounts:,} × 50 positions"
                found[accounts] = samples.figure("ms", what=what, target="≤ 10,000 ms")
        finally:
            await self._door("hold", positions=0)
        figure = found[scale.books]
        growth = (figure.engine / scale.books) / (found[few].engine / few)
        figure.also = {"cost_an_account_against_a_third_of_them": growth}
        figure.met = figure.engine <= 10_000
        self.figures["P8"] = figure

    @asynccontextmanager
    async def _office_to_read(self, accounts: int) -> AsyncIterator[Running]:
        with office(self._doors, accounts) as config:
            async with running(config) as engine:
                bar = self._bars.add_task("P8: accounts proven", total=accounts)
                await engine.proven(lambda done: self._bars.update(bar, completed=done))
                await engine.written()
                yield engine

    # ---- P5, P7

    async def _memory(self) -> None:
        scale = self._scale
        counts = (scale.few, scale.many) if "P7" in self._wanted else (scale.many,)
        tell = self._steps("P5 memory", 2 + 2 * len(counts))
        one = {kind: self._resident_kb(kind, 1, tell) for kind in ("engine", "bare")}
        for accounts in counts:
            found = Samples()
            found.engine = [(self._resident_kb("engine", accounts, tell) - one["engine"]) / (accounts - 1)]
            found.floor = [(self._resident_kb("bare", accounts, tell) - one["bare"]) / (accounts - 1)]
            self._growth.setdefault("P5", {})[accounts] = found
        what = f"memory of a kept account at {scale.many:,}"
        self._put("P5", self._growth["P5"][scale.many].figure("kB", what=what, target="≤ 3.0"), 3.0)

    def _resident_kb(self, kind: str, accounts: int, tell: Tell) -> float:
        command = [sys.executable, "-m", "bench.memory", kind, str(accounts), json.dumps(self._doors)]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=900).stdout
        tell()
        return float(json.loads(answer))

    async def _grown(self, accounts: int) -> None:
        """P1, P3 and P4 at this size, as cost an account (a message)."""
        scale, door = self._scale, self._door
        async with self._office(accounts, "P7") as (engine, floor):
            tell = self._steps(f"P7 at {accounts:,} accounts", 9)
            out = (await measures.fan_out(door, engine, floor, 3, tell)).last
            back = await measures.reconnect(door, engine, self._doors, 3, tell)
            for samples in (out, back):
                samples.engine = [ms / accounts for ms in samples.engine]
                samples.floor = [ms / accounts for ms in samples.floor]
            heard = await measures.ingest(door, engine, floor, 3, tell, scale.messages)
        for name, samples in (("P1", out), ("P3", heard), ("P4", back)):
            self._growth.setdefault(name, {})[accounts] = samples

    async def _flat(self) -> None:
        few, many, found, each = self._scale.few, self._scale.many, Samples(), dict[str, Any]()
        for name, by_accounts in sorted(self._growth.items()):
            small, large = (
                by_accounts[few].figure("", what="", target=""),
                by_accounts[many].figure("", what="", target=""),
            )
            found.engine.append(large.engine / small.engine)
            found.floor.append(large.floor / small.floor)
            each[name] = {
                "engine": found.engine[-1],
                "floor": found.floor[-1],
                "engine_each": [small.engine, large.engine],
            }
        what = f"cost an account at {many:,} against {few:,}, the worst"
        figure = found.figure("x", what=what, target="≤ 1.2", also=each)
        figure.engine, figure.floor = max(found.engine), max(found.floor)
        figure.ratio = figure.engine / figure.floor
        figure.met = figure.engine <= 1.2
        self.figures["P7"] = figure


def _table(figures: dict[str, Figure]) -> Table:
    table = Table(title="the engine against the floor, medians (smallest to largest)")
    for column in ("", "what", "engine", "floor", "engine ÷ floor", "target", ""):
        table.add_column(column, justify="right" if column.startswith(("engine", "floor")) else "left")
    for name, f in sorted(figures.items()):
        verdict = "[green]met[/]" if f.met else "[red]missed[/]"
        engine, floor = _spread(f.engine, f.engine_spread), _spread(f.floor, f.floor_spread)
        table.add_row(name, f"{f.what}, {f.unit}", engine, floor, f"{f.ratio:.2f}", f.target, verdict)
    return table


def _spread(median: float, spread: tuple[float, float]) -> str:
    return f"{median:,.1f} ({spread[0]:,.1f} to {spread[1]:,.1f})"


async def _main(options: argparse.Namespace, console: Console) -> int:
    scale, facts = QUICK if options.quick else FULL, machine()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with venue_process() as doors, Progress(*columns, console=console) as bars:
        async with door_of(doors) as door:
            bench = Bench(doors, door, scale, set(options.targets or ALL), bars)
            await bench.run()
    facts["load_after"] = os.getloadavg()
    facts["scale"] = "quick" if options.quick else "full"
    console.print(_table(bench.figures))
    for name, figure in sorted(bench.figures.items()):
        for key, value in figure.also.items():
            console.print(
                f"  {name} {key.replace('_', ' ')}: {value if not isinstance(value, float) else round(value, 2)}"
            )
    console.print(f"  load average before {facts['load_before'][0]:.1f}, after {facts['load_after'][0]:.1f}")
    if options.out:
        Path(options.out).write_bytes(document(bench.figures, facts))
    return 1 if bench.failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Floors and engine, measured in one run.")
    parser.add_argument(
        "targets", nargs="*", choices=[*ALL, []], metavar="P1…P10", help="which; all when none is named"
    )
    parser.add_argument("--out", help="write the figures as JSON")
    parser.add_argument("--quick", action="store_true", help="fewer accounts and runs: a look, not a figure")
    configure_log()
    return uvloop.run(_main(parser.parse_args(), Console(width=150 if not sys.stdout.isatty() else None)))


if __name__ == "__main__":
    sys.exit(main())
