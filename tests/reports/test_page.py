"""The page says what the run says: nothing lost, nothing from outside taken for markup, nothing fetched."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from engine.core.breaks import Code
from engine.core.runs import Run, RunKind, Verdict, difference, whole_run
from engine.core.statements import OpenGap, Part
from engine.reports.page import page
from engine.reports.summary import figure, lasting, summarise
from engine.reports.terminal import changes, terminal
from engine.reports.texts import EN
from tests.core.sides import order, position
from tests.reports.samples import BREAKS, CLEAN, ELSEWHERE, UNKNOWN, run

RUNS = [CLEAN, BREAKS, UNKNOWN]
SECTIONS = ["completeness", "totals", "critical", "accounts", "explained", "tolerance_use", "foreign", "gaps", "rules"]


class _Reader(HTMLParser):
    """Checks that what is opened is closed, and keeps texts, elements and attributes."""

    _VOID = frozenset({"meta", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.texts: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in self._VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(" ".join(data.split()))


def _printed(told: RenderableType) -> str:
    console = Console(width=200, color_system=None)
    with console.capture() as captured:
        console.print(told)
    return captured.get()


@pytest.mark.parametrize("one", RUNS)
def test_the_page_is_well_formed_and_needs_nothing_from_elsewhere(one: Run) -> None:
    reader = _Reader(page(one))
    assert reader.seen.isdisjoint({"script", "link", "img", "iframe", "object", "form", "base"})
    for tag, name, value in reader.attributes:
        assert name != "src", tag
        assert not name.startswith("on"), (tag, name)
        assert name != "href" or (value or "").startswith("#")
    style = page(one).split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


@pytest.mark.parametrize("one", RUNS)
def test_sections_come_in_their_order_with_the_verdict_first_and_the_seal_last(one: Run) -> None:
    html = page(one)
    body = html[html.index("<body>") :]
    places = [body.index(f"<h1>{EN.verdicts[one.verdict]}</h1>")]
    places += [re.search(rf"<h2>{re.escape(getattr(EN, name))}\b", body).start() for name in SECTIONS]  # type: ignore[union-attr]
    places.append(body.rindex(one.seal))
    assert places == sorted(places)


@pytest.mark.parametrize("one", RUNS)
def test_every_break_account_and_reason_is_on_the_page(one: Run) -> None:
    texts = _Reader(page(one)).texts
    for b in one.breaks:
        assert b.code.value in texts
    for account in one.accounts:
        assert account.account_id in texts
        for m in account.missing:
            assert m.reason in texts
        assert account.ledger_sha256 in texts


@pytest.mark.parametrize("one", RUNS)
def test_links_lead_to_places_on_the_page(one: Run) -> None:
    reader = _Reader(page(one))
    ids = [value for _, name, value in reader.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {(value or "")[1:] for _, name, value in reader.attributes if name == "href"} <= set(ids)


@pytest.mark.parametrize("one", RUNS)
def test_the_same_run_gives_the_same_bytes(one: Run) -> None:
    assert page(one) == page(one)


HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7*7 }}'--></style>[red]"


def _hostile(text: str) -> Run:
    gap = OpenGap(gap_id=text, from_ms=1, to_ms=None, state=text, reason=text)
    foreign = msgspec.structs.replace(ELSEWHERE, venue_order_id=text, client_order_id=text)
    odd = position(instrument=text, position_side=text)
    told = run(
        {
            "okx-01": (
                {"orders": (order(), foreign), "positions": (odd,), "missing": {Part.FILLS: text}},
                {"gaps": (gap,), "stale": text},
            )
        },
        accounts=2,
    )
    renamed = [
        msgspec.structs.replace(
            a,
            account_id=text + a.account_id,
            venue=text,
            ledger_sha256=text,
            breaks=tuple(msgspec.structs.replace(b, account_id=text, plan_id=text, unit=text) for b in a.breaks),
        )
        for a in told.accounts
    ]
    return whole_run(kind=RunKind.ADHOC, began_at_ms=0, ended_at_ms=1, rules=told.rules, accounts=renamed)


def test_hostile_text_stays_text() -> None:
    html = page(_hostile(HOSTILE))
    reader = _Reader(html)
    assert reader.seen.isdisjoint({"script", "img"})
    assert "49" not in re.findall(r"\b49\b", html)
    assert "{{ 7*7 }}" in html
    assert HOSTILE in reader.texts
    assert "[red]" in _printed(terminal(_hostile(HOSTILE)))


@settings(max_examples=20)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), max_size=30))
def test_whatever_venues_call_things_the_page_stays_well_formed(text: str) -> None:
    usual = _Reader(page(_hostile("x"))).seen
    assert _Reader(page(_hostile(text))).seen <= usual | {"a"}


@pytest.mark.parametrize("one", RUNS)
def test_the_terminal_tells_the_same(one: Run) -> None:
    text = _printed(terminal(one, limit=100))
    assert EN.verdicts[one.verdict] in text
    assert one.seal in text
    for b in one.breaks:
        assert b.code.value in text
    for account in one.accounts:
        for m in account.missing:
            assert m.reason in text


def test_long_lists_say_how_much_they_leave_out() -> None:
    assert "9 more" in _printed(terminal(BREAKS, limit=5))


def test_changes_between_runs_are_told_by_kind() -> None:
    text = _printed(changes(difference(BREAKS, UNKNOWN)))
    assert f"{EN.breaks_same}: 15" in text
    gone = _printed(changes(difference(BREAKS, CLEAN)))
    assert EN.breaks_gone in gone
    assert "FILL_EXTRA" in gone


def test_the_summary_counts_what_was_and_what_was_not_compared() -> None:
    s = summarise(UNKNOWN)
    assert s.compared == 18
    assert s.by_verdict == {Verdict.CLEAN: 9, Verdict.BREAKS: 9, Verdict.UNKNOWN: 2}
    fills = next(row for row in s.parts if row.part is Part.FILLS)
    assert (fills.compared, fills.not_compared) == (18, 2)
    assert [(m.account_id, len(m.parts)) for m in s.missing] == [("okx-02", 4), ("okx-05", 1)]
    assert sum(row.total for row in s.codes) == sum(row.total for row in s.ages) == len(s.open) == 14
    assert {b.code for b in s.explained} == {Code.POS_DUST}
    assert [(row.field, str(row.total)) for row in s.tolerances] == [("cash", "7E-9"), ("quantity", "0.2")]


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("1234567.5", "1\u202f234\u202f567.5"),
        ("-1000", "−1\u202f000"),
        ("0.00000001", "0.00000001"),
        ("working", "working"),
        ("1e9", "1e9"),
        ("9" * 5000, "9" * 5000),
        (None, "—"),
    ],
)
def test_figures_are_set_apart_and_words_are_left_alone(told: str | None, shown: str) -> None:
    assert figure(told) == shown


@pytest.mark.parametrize(
    ("milliseconds", "shown"),
    [(None, "—"), (0, "0.0 s"), (59_900, "60 s"), (61_000, "1 min 1 s"), (3_600_000, "1 h"), (172_800_000, "2 d 0 h")],
)
def test_durations_are_told_in_two_units(milliseconds: int | None, shown: str) -> None:
    assert lasting(milliseconds) == shown
