"""Holds. Runs to make reports of: everything agrees, some things differ, something could not be compared."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal as D
from typing import Any

import msgspec

from engine.core.breaks import aged
from engine.core.compare import compare
from engine.core.facts import Side
from engine.core.orders import OrderState
from engine.core.runs import Checked, Run, RunKind, account_verdict, whole_run
from engine.core.statements import Evidence, OpenGap, Part
from engine.core.tolerances import RULES
from tests.core.sides import BOOKED, BTC, CATALOGUE, ETH, LONG_AGO, NOW, STATED, balance, fill, order, ours, position

Changes = Mapping[str, Any]

ELSEWHERE = order(
    client_order_id="", venue_order_id="1948830112", quantity=D(2), filled=D(0), price=D(58_250), side=Side.SELL
)
GAP = OpenGap(gap_id="g-0419", from_ms=NOW - 190_000, to_ms=NOW - 95_000, state="backfilled", reason="link down: 1006")

DIFFERENCES: dict[str, tuple[Changes, Changes]] = {
    "okx-04": ({"positions": (position(quantity=D(6)),), "fills": (fill(), fill(fill_id="f2"))}, {"gaps": (GAP,)}),
    "okx-07": ({"orders": (order(), ELSEWHERE)}, {}),
    "okx-08": ({"orders": (order(), ELSEWHERE)}, {"orders": (order(), ELSEWHERE)}),
    "okx-09": ({"positions": (position(quantity=D(-5)), position(instrument=ETH, quantity=D(1250)))}, {}),
    "okx-11": ({"balances": (balance(cash=D("10012.25")),)}, {}),
    "okx-12": ({"orders": ()}, {"orders": (order(state=OrderState.UNKNOWN, plan_id="p-20260101-a"),)}),
    "okx-13": ({}, {"orders": (order(filled=D(0)),), "fills": ()}),
    "okx-14": ({"positions": (position(quantity=D("5.2")),)}, {}),
    "okx-15": ({"balances": (balance(cash=D("10000.500000007")),)}, {}),
    "okx-16": ({"positions": (position(quantity=D(7), updated_at_ms=NOW - 1_200),)}, {}),
    "okx-17": ({"fills": ()}, {}),
    "okx-18": ({"positions": (position(avg_price=D("60031.5")),)}, {"stale": "link mute for 74 s"}),
}
FAILURES: dict[str, tuple[Changes, Changes]] = {
    "okx-02": ({"missing": dict.fromkeys(Part, "VenueError: auth 50111: Invalid OK-ACCESS-KEY")}, {}),
    "okx-05": ({"missing": {Part.FILLS: "not read in time"}}, {}),
}


def run(differing: Mapping[str, tuple[Changes, Changes]], accounts: int = 20) -> Run:
    """A run over `okx-01` and so on; those named differ so."""
    names = [f"okx-{n:02d}" for n in range(1, accounts + 1)]
    return whole_run(
        kind=RunKind.ADHOC,
        began_at_ms=NOW,
        ended_at_ms=NOW + 6_340,
        rules=RULES,
        accounts=[_checked(name, n, *differing.get(name, ({}, {}))) for n, name in enumerate(names)],
    )


def _checked(account_id: str, n: int, stated: Changes, booked: Changes) -> Checked:
    venue_side = msgspec.structs.replace(STATED, account_id=account_id, **stated)
    ledger_side = msgspec.structs.replace(BOOKED, account_id=account_id, **booked)
    found = compare(
        venue_side,
        ledger_side,
        rules=RULES,
        venue="okx",
        catalogue=CATALOGUE,
        owns_order_id=ours,
        now_ms=NOW + 100,
    )
    first_seen_ms = NOW + 100 - (0, 90_000, 1_700_000, 9_000_000)[n % 4]
    history = tuple(aged(b, first_seen_ms=first_seen_ms, runs_seen=n % 4 * 3 + 1, rules=RULES) for b in found.breaks)
    found = msgspec.structs.replace(found, breaks=history)
    read = len(venue_side.missing) < len(Part)
    return Checked(
        account_id=account_id,
        venue="okx",
        verdict=account_verdict(found),
        as_of_ms=NOW if read else None,
        since_ms=LONG_AGO if read else None,
        reads=2 if found.breaks else 1,
        last_fact_at_ms=NOW - 400 * n,
        missing=found.missing,
        counts=found.counts,
        breaks=found.breaks,
        uses=found.uses,
        foreign=found.foreign,
        gaps=ledger_side.gaps,
        venue_evidence=tuple(
            Evidence(part=part, sha256=f"{n:02x}{k:02x}" * 16, pages=1 + k // 3, size=900)
            for k, part in enumerate(Part)
            if part not in venue_side.missing
        ),
        ledger_sha256=f"{n:02x}" * 32,
    )


CLEAN = run({"okx-08": DIFFERENCES["okx-08"]})
BREAKS = run(DIFFERENCES)
UNKNOWN = run(DIFFERENCES | FAILURES)

__all__ = ["BREAKS", "BTC", "CLEAN", "DIFFERENCES", "FAILURES", "UNKNOWN", "run"]
