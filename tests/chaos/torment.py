"""Does. One office's whole torment: so many kills, and the verdict after every few of them."""

from __future__ import annotations

import traceback
from collections import Counter
from pathlib import Path

import msgspec

from engine.cli import demo_office
from tests.chaos.engines import load
from tests.chaos.office import Office, records_of
from tests.chaos.places import ACCOUNTS
from tests.chaos.verdict import Verdict


class Told(msgspec.Struct):
    """What one office went through."""

    kills: Counter[str]
    intents: int
    fills: int
    faults: Counter[str]
    verdict: Verdict
    failed: str = ""


def torment(folder: Path, url: str, kills: int, seed: int, settle_every: int, at: str) -> Told:
    """One office at this venue, killed so often; in a process of its own."""
    load()
    demo_office.fresh_folder(folder)
    with demo_office.simulator(folder, ACCOUNTS, seed, "--no-limits", venue=at) as venue:
        office = Office(folder, venue, url or f"sqlite:///{folder / 'unisono.sqlite'}", seed)
        told = Told(kills=office.kills, intents=0, fills=0, faults=Counter(), verdict=Verdict())
        try:
            for number in range(1, kills + 1):
                office.kill_once()
                office.meanwhile()
                if number % settle_every == 0 or number == kills:
                    told.verdict = office.settle()
                    print(f"{folder.name}: {number} of {kills} kills, whole: {told.verdict.whole}", flush=True)
                    if not told.verdict.whole:
                        print("\n".join(told.verdict.sentences()), flush=True)
                        break
        except Exception:  # it is told with the line at the end; the other offices go on
            told.failed = f"{folder.name}, seed {seed}: {traceback.format_exc()}"
        finally:
            office.close()
            records = records_of(office.url)
            told.intents, told.fills, told.faults = len(records.claims), len(records.fills), office.happened()
    return told
