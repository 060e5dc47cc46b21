"""Holds. What leads a running engine past each named place of `engine/crash.py`, and how often a start may pass it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from engine.crash import POINTS

ACCOUNTS = 6

FIRST = "open-before-keep"  # passed only when an account is seen for the first time
ENOUGH = 10  # a run with so many kills for each place must have met all of them


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """How to get there: what to do (a name of `Office.ACTS`), and the most passes to wait for."""

    act: str  # "": it comes by itself after the start
    most: int = 1
    within_s: float = 8.0
    restored: bool = False  # only on a database that is marked as put back from a backup


_BY_PREFIX = {
    "recover": Way(act=""),
    "open": Way(act="", most=ACCOUNTS),
    "backfill": Way(act="read back", most=ACCOUNTS),
    "sweep": Way(act=""),
    "reconcile": Way(act="reconcile"),
    "ledger": Way(act="anything", most=60),
    "claim": Way(act="send"),
    "after": Way(act="send"),
    "mid": Way(act="send", most=ACCOUNTS),
    "answer": Way(act="send", most=2 * ACCOUNTS),
    "steps": Way(act="send", most=6),
    "cancel": Way(act="cancel"),
    "amend": Way(act="amend"),
    "resolve": Way(act="lose", within_s=20.0),
    "attempt": Way(act="lose", within_s=20.0),
    "kill": Way(act="kill switch"),
}
_OWN = {
    "backfill-between-pages": Way(act="read back", most=8 * ACCOUNTS),
    "reconcile-statement-read": Way(act="reconcile", most=ACCOUNTS),
    "sweep-between-pages": Way(act="", most=6 * ACCOUNTS),
    "sweep-after-read": Way(act="", most=ACCOUNTS),
    "sweep-before-release": Way(act="", restored=True),
    "sweep-after-release": Way(act="", restored=True),
    "kill-before-cancel": Way(act="kill switch", most=ACCOUNTS),
    "kill-after-cancel": Way(act="kill switch", most=ACCOUNTS),
}


def way_to(place: str) -> Way:
    """KeyError: nobody has said yet how to get there."""
    return _OWN.get(place) or _BY_PREFIX[place.partition("-")[0]]


def never_met(met: Iterable[str]) -> list[str]:
    known = set(met)
    return [place for place in POINTS if place not in known]
