"""Does. `make fuzz SECONDS=60`: every target under atheris for its share of the time; what it brings down is kept.

The last line counts what came out uncaught; exit 1 when anything did. `--replay FILE` shows one again, as a trace.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.figures import dated, record
from tests.fuzz.targets import Target, targets
from tests.interop.environments import FOLDER, ROOT, environment

_AT_ONCE = 2
_LEAST_S = 2
_HANGS_S = 10
_FOUND = FOLDER / "fuzz-found"
_PINS = Path(__file__).with_name("requirements-atheris.txt")


class Ran(NamedTuple):
    target: str
    executions: int
    kept: list[Path]
    said: str  # the end of what it said, where it did not end well


def corpus_of(target: Target) -> Path:
    """Its seeds, beside what earlier runs have found to be of interest."""
    folder = FOLDER / "fuzz-corpus" / target.name
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (folder / f"seed-{number}").write_bytes(seed)
    return folder


def run(python: Path, target: Target, seconds: int) -> Ran:
    kept = f"{_FOUND}/{target.name}--"
    flags = ["-print_final_stats=1", f"-max_total_time={seconds}", f"-timeout={_HANGS_S}", "-max_len=65536"]
    command = [str(python), "-m", "tests.fuzz.one", target.name, str(corpus_of(target)), f"-artifact_prefix={kept}"]
    libraries = os.pathsep.join((str(ROOT), sysconfig.get_path("purelib")))
    done = subprocess.run(
        [*command, *flags],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": libraries},
        capture_output=True,
        timeout=seconds + 120,
    )
    said = done.stderr.decode(errors="replace") + done.stdout.decode(errors="replace")
    counted = re.search(r"number_of_executed_units:\s*(\d+)", said) or re.search(r"Done (\d+) runs", said)
    found = sorted(_FOUND.glob(f"{target.name}--*"))
    well = done.returncode == 0 and counted is not None
    return Ran(target.name, int(counted[1]) if counted else 0, found, "" if well else said[-1500:])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together; each gets at least two")
    parser.add_argument("--only", default="", help="targets whose names hold this")
    parser.add_argument("--replay", type=Path, help="a file that was kept")
    parser.add_argument("--record", action="store_true", help="write the figures into docs/reference/reliability.md")
    asked = parser.parse_args()
    if asked.replay is not None:
        targets()[asked.replay.name.partition("--")[0]].read(asked.replay.read_bytes())
        print("nothing is raised any more")
        return 0
    chosen = [target for name, target in targets().items() if asked.only in name]
    try:
        python = environment("atheris", _PINS)
    except subprocess.CalledProcessError as error:
        print(f"atheris cannot be installed ({error}); make test fuzzes the same targets without it")
        return 1
    _FOUND.mkdir(parents=True, exist_ok=True)
    for old in _FOUND.iterdir():
        old.unlink()
    share_s = max(_LEAST_S, asked.seconds * _AT_ONCE // len(chosen))
    lines, executions, uncaught = list[str](), 0, 0
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for ran in pool.map(lambda target: run(python, target, share_s), chosen):
            executions += ran.executions
            uncaught += max(len(ran.kept), bool(ran.said))
            lines.append(f"{ran.target}: {ran.executions} executions, uncaught {max(len(ran.kept), bool(ran.said))}")
            print(lines[-1], flush=True)
            for file in ran.kept:
                print(f"  kept: {file}\n  replay: .venv/bin/python -m tests.fuzz --replay {file}")
            if ran.said:
                print(ran.said)
    lines.append(f"targets={len(chosen)} executions={executions} uncaught={uncaught}")
    print(lines[-1])
    if asked.record:
        record("fuzz", dated(f"make fuzz SECONDS={asked.seconds}", lines))
    return 1 if uncaught else 0


if __name__ == "__main__":
    sys.exit(main())
