"""Does. `make interop`: what other people wrote against what we wrote, each beside the venue's own truth; tables.

Exit 0: everything fits; 1: something does not, and it says what. What is left out: each venue's README.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from engine.cli.demo_office import simulator
from tests.interop.environments import FOLDER, ROOT, certificate, environment
from tests.interop.steps import OUR_PYTHON, STEPS

_LIMIT_S = 120
_AT_ONCE = 6


class Client(NamedTuple):
    venue: str
    title: str
    environment: str
    script: tuple[str, ...]


CLIENTS = (
    Client("okx", "ccxt", "ccxt", ("ccxt_rest", "sync")),
    Client("okx", "ccxt\nasync", "ccxt", ("ccxt_rest", "async")),
    Client("okx", "ccxt\n.pro", "ccxt", ("ccxt_pro",)),
    Client("okx", "python\n-okx", "python-okx", ("official_rest",)),
    Client("okx", "python\n-okx\nstream", "python-okx", ("official_stream",)),
    Client("issplus", "stomp.py\nframes", "moexalgo", ("issplus_frames",)),
    Client("issplus", "moexalgo", "moexalgo", ("issplus_moexalgo",)),
    Client("alor", "brokapi", "brokapi", ("alor_brokapi",)),
    Client("alor", "we, on\nbrokapi's\nserver", "brokapi", ("alor_mock",)),
    Client("tinvest", "contracts", "contracts", ("tinvest_contracts",)),
)


def converse(seed: int, client: Client, python: str, variables: Mapping[str, str]) -> dict[str, str]:
    """What became of each step: "" or why it failed. Each client has a simulator to itself."""
    name = "-".join(client.script)
    folder = FOLDER / f"run-{name}"
    folder.mkdir(exist_ok=True)
    with simulator(folder, 3, seed, venue=client.venue) as venue, (folder / "client.log").open("wb") as log:
        command = (python, "-m", f"tests.interop.{client.script[0]}", *client.script[1:])
        try:
            ended = subprocess.run(
                command,
                input=json.dumps(venue.doors).encode(),
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, **variables},
                timeout=_LIMIT_S,
            )
        except subprocess.TimeoutExpired as late:
            return _told(late.stdout or b"") | {"": f"not done after {_LIMIT_S} s"}
    told = _told(ended.stdout)
    return told | ({"": f"ended with {ended.returncode}, see {folder / 'client.log'}"} if ended.returncode else {})


def _told(lines: bytes) -> dict[str, str]:
    return {told["step"]: told["why"] for told in map(json.loads, lines.splitlines())}


def _table(venue: str, outcomes: Sequence[tuple[str, Mapping[str, str]]]) -> Table:
    table = Table("step", *(title for title, _ in outcomes), title=venue, box=SIMPLE_HEAD)
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "center"
    for step in STEPS[venue]:
        marks = ["–" if step not in told else "[red]✗[/]" if told[step] else "[green]✓[/]" for _, told in outcomes]
        table.add_row(step, *marks)
    return table


def main() -> int:
    console, began_s = Console(width=None if sys.stdout.isatty() else 110), time.monotonic()
    FOLDER.mkdir(exist_ok=True)
    try:
        with console.status("making the clients' environments"):
            pythons = {name: str(environment(name)) for name in dict.fromkeys(c.environment for c in CLIENTS)}
    except subprocess.CalledProcessError as error:
        console.print(
            f"An environment could not be made ({' '.join(error.cmd[-2:])}). Nothing was tried.", markup=False
        )
        return 1
    made_s = time.monotonic()
    variables = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "SSL_CERT_FILE": str(certificate())}
    variables |= {OUR_PYTHON: sys.executable}
    with console.status("talking"), ThreadPoolExecutor(_AT_ONCE) as pool:
        began = [
            pool.submit(converse, seed, client, pythons[client.environment], variables)
            for seed, client in enumerate(CLIENTS, start=1)
        ]
        outcomes = [one.result() for one in began]
    for venue in dict.fromkeys(client.venue for client in CLIENTS):
        console.print(_table(venue, [(c.title, o) for c, o in zip(CLIENTS, outcomes, strict=True) if c.venue == venue]))
    wrong = [
        f"{client.venue} · {client.title.replace(chr(10), ' ')} · {step or 'the client'}: {why}"
        for client, outcome in zip(CLIENTS, outcomes, strict=True)
        for step, why in outcome.items()
        if why
    ]
    for line in wrong:
        console.print(line, markup=False, highlight=False)
    taken = sum(len(outcome) for outcome in outcomes)
    console.print(
        f"{taken - len(wrong)} of {taken} fit; environments {made_s - began_s:.0f} s, "
        f"conversations {time.monotonic() - made_s:.0f} s. A dash: not asked of this client."
    )
    return 1 if wrong or not all(outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
