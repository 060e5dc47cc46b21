"""A command's figures go into their own section of the page, whole or not at all."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.figures import PAGE, dated, record

TEXT = """# Page

Before.

<!-- figures:one -->
old
<!-- /figures:one -->

After.

<!-- figures:two -->
<!-- /figures:two -->
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    page = tmp_path / "page.md"
    page.write_text(TEXT, encoding="utf-8")
    return page


def test_figures_take_the_place_of_the_former_ones_and_of_nothing_else(page: Path) -> None:
    record("one", [r"lost=0 \1", "second"], page)
    assert page.read_text(encoding="utf-8") == TEXT.replace("old", "lost=0 \\1\nsecond")
    record("one", ["old"], page)
    assert page.read_text(encoding="utf-8") == TEXT
    record("two", ["new"], page)
    assert "figures:two -->\nnew\n<!-- /figures:two" in page.read_text(encoding="utf-8")
    assert [p.name for p in page.parent.iterdir()] == ["page.md"], "no draft stays behind"


def test_a_section_that_is_not_there_or_there_twice_is_an_error_and_the_page_stays(page: Path) -> None:
    with pytest.raises(LookupError, match="figures:three"):
        record("three", ["x"], page)
    page.write_text(TEXT + TEXT, encoding="utf-8")
    with pytest.raises(LookupError, match="once"):
        record("one", ["x"], page)
    assert page.read_text(encoding="utf-8") == TEXT + TEXT


def test_figures_tell_their_command_and_day() -> None:
    lines = dated("make x N=2", ["a ", "b"], now=datetime(2026, 1, 2, 23, 59, tzinfo=UTC))
    assert lines == ["2026-01-02, `make x N=2`:", "", "```text", "a", "b", "```"]


def test_every_section_of_the_page_is_opened_and_closed_once_in_turn() -> None:
    marks = re.findall(r"<!-- (/?figures:[\w-]+) -->", PAGE.read_text(encoding="utf-8"))
    assert marks
    assert marks[1::2] == [f"/{mark}" for mark in marks[::2]]
    assert len(set(marks)) == len(marks)
