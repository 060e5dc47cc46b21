"""Holds. Every word a reader sees in a report, in one place per language.

Numbers are put in with `str.format`; sentences are built as "what: number", so that no language needs plural rules.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from engine.core.breaks import Cause, Code, Severity
from engine.core.runs import Age, RunKind, Verdict
from engine.core.statements import Part


class Texts(msgspec.Struct, frozen=True, kw_only=True):
    """One language."""

    language: str
    title: str
    verdicts: Mapping[Verdict, str]
    verdict_sentences: Mapping[Verdict, str]
    kinds: Mapping[RunKind, str]
    severities: Mapping[Severity, str]
    causes: Mapping[Cause, str]
    codes: Mapping[Code, str]
    ages: Mapping[Age, str]
    parts: Mapping[Part, str]
    legs: Mapping[str, str]

    # sections, in their order
    completeness: str
    totals: str
    critical: str
    accounts: str
    explained: str
    tolerance_use: str
    foreign: str
    gaps: str
    rules: str

    # notes under the headings
    completeness_note: str
    totals_note: str
    critical_note: str
    explained_note: str
    tolerance_note: str
    foreign_note: str
    gaps_note: str
    rules_note: str
    nothing: str

    # figures and columns
    began: str
    took: str
    accounts_compared: str
    of: str
    open_breaks: str
    critical_breaks: str
    under_way: str
    within_tolerance: str
    foreign_orders: str
    open_gaps: str
    account: str
    venue: str
    verdict: str
    part: str
    leg: str
    reason: str
    lines: str
    at_venue: str
    in_ledger: str
    agree: str
    not_compared: str
    pages: str
    code: str
    severity: str
    what: str
    field: str
    difference: str
    differences: str
    worth: str
    cause: str
    seen: str
    runs: str
    total: str
    instrument: str
    order: str
    side: str
    quantity: str
    price: str
    filled: str
    state: str
    gap: str
    since: str
    until: str
    lasting: str
    as_of: str
    fills_since: str
    last_fact: str
    looks: str
    allowed: str
    uses: str
    sum: str
    external: str
    yes: str
    no: str
    absent: str
    more: str
    version: str
    guard: str
    settle: str
    asset: str
    hashes: str
    hash: str
    run: str
    schema: str
    result_hash: str
    by_code: str
    by_account: str
    by_age: str
    first_time: str
    anchor_hint: str
    breaks_new: str
    breaks_gone: str
    breaks_changed: str
    breaks_same: str
    breaks_unproven: str


EN = Texts(
    language="en",
    title="Reconciliation",
    verdicts={Verdict.CLEAN: "Clean", Verdict.BREAKS: "Breaks", Verdict.UNKNOWN: "Unknown"},
    verdict_sentences={
        Verdict.CLEAN: "Everything was compared; nothing differs that is not explained.",
        Verdict.BREAKS: "Everything was compared; the venue and the ledger differ.",
        Verdict.UNKNOWN: "Something could not be compared. What was not compared is neither equal nor different.",
    },
    kinds={
        RunKind.START: "after start",
        RunKind.LIVE: "rolling",
        RunKind.CLOSE: "session close",
        RunKind.ADHOC: "on request",
        RunKind.PLAN: "after a plan",
    },
    severities={
        Severity.CRITICAL: "critical",
        Severity.MAJOR: "major",
        Severity.MINOR: "minor",
        Severity.NOTE: "note",
    },
    causes={cause: cause.value for cause in Cause} | {Cause.TIMING: "under way", Cause.UNKNOWN: "not known"},
    codes={code: code.sentence for code in Code},
    ages={age: age.value for age in Age},
    parts={
        Part.POSITIONS: "Positions",
        Part.CASH: "Cash",
        Part.ORDERS: "Open orders",
        Part.FILLS: "Fills",
    },
    legs={"V": "venue", "L": "ledger"},
    completeness="Completeness",
    totals="Totals",
    critical="Critical and aged",
    accounts="Accounts",
    explained="Explained",
    tolerance_use="Tolerance used",
    foreign="Foreign orders",
    gaps="Gaps",
    rules="Rules and sources",
    completeness_note="What was read on both sides, to its proven end, and what was not.",
    totals_note="Open breaks by code, severity and age.",
    critical_note="Critical breaks, and every break seen for 15 minutes or longer.",
    explained_note="Listed, but not counted as breaks: still under way between the two sides, or below one step.",
    tolerance_note="Differences that the table of tolerances let pass, summed.",
    foreign_note="Not placed by us: at work at the venue, or ended within the time that was compared.",
    gaps_note="Stretches of time in which something may be missing, and that are not proven yet.",
    rules_note="What the run was judged by, and the sha256 of everything that it was made from.",
    nothing="None.",
    began="Began",
    took="took",
    accounts_compared="Accounts compared",
    of="of",
    open_breaks="Open breaks",
    critical_breaks="Critical",
    under_way="Under way",
    within_tolerance="Within tolerance",
    foreign_orders="Foreign orders",
    open_gaps="Open gaps",
    account="Account",
    venue="Venue",
    verdict="Verdict",
    part="Part",
    leg="Side",
    reason="Reason",
    lines="lines",
    at_venue="At the venue",
    in_ledger="In the ledger",
    agree="Agree",
    not_compared="Not compared",
    pages="Pages read",
    code="Code",
    severity="Severity",
    what="What",
    field="Field",
    difference="Difference",
    differences="Differences",
    worth="worth",
    cause="Cause",
    seen="Seen for",
    runs="runs",
    total="Total",
    instrument="Instrument",
    order="Order",
    side="Side",
    quantity="Quantity",
    price="Price",
    filled="Filled",
    state="State",
    gap="Gap",
    since="From",
    until="To",
    lasting="lasting",
    as_of="As of",
    fills_since="Fills since",
    last_fact="Last heard",
    looks="Looks",
    allowed="Allowed",
    uses="Uses",
    sum="Sum",
    external="external",
    yes="yes",
    no="no",
    absent="—",
    more="{count} more: see the HTML report or --json",
    version="Rules version",
    guard="In-flight guard",
    settle="Under way for at most",
    asset="Asset",
    hashes="Sources",
    hash="sha256",
    run="Run",
    schema="Schema",
    result_hash="Result hash (the same inputs give the same)",
    by_code="Open breaks by code",
    by_account="Accounts by verdict",
    by_age="Open breaks by age",
    first_time="new",
    anchor_hint="worst first",
    breaks_new="New",
    breaks_gone="Gone",
    breaks_changed="Changed in amount",
    breaks_same="The same as before",
    breaks_unproven="Could not be looked for again",
)
