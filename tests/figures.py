"""Does. A command writes the figures it has measured into docs/reference/reliability.md: nobody copies them by hand.

Each set of figures stands between `<!-- figures:NAME -->` and `<!-- /figures:NAME -->`; prose stands outside.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "reliability.md"


def record(section: str, lines: list[str], page: Path = PAGE) -> None:
    """Put `lines` where the page holds the figures of `section`; LookupError when it has no such section, or two."""
    marks = _marks(section)
    between = _between(section)
    folder = os.open(page.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # two commands may end at the same moment
        before = page.read_text(encoding="utf-8")
        if len(between.findall(before)) != 1:
            raise LookupError(f"{page.name} must have {marks[0]} … {marks[1]} once")
        text = "\n".join((marks[0], *lines, marks[1]))
        _replace(page, between.sub(lambda _: text, before))
    finally:
        os.close(folder)


def recorded(section: str, page: Path = PAGE) -> list[str]:
    """What `record` has put there, for a command that adds to it."""
    found = _between(section).search(page.read_text(encoding="utf-8"))
    return found[0].splitlines()[1:-1] if found else []


def _marks(section: str) -> tuple[str, str]:
    return f"<!-- figures:{section} -->", f"<!-- /figures:{section} -->"


def _between(section: str) -> re.Pattern[str]:
    begin, end = (re.escape(mark) for mark in _marks(section))
    return re.compile(f"{begin}\n.*?{end}", re.DOTALL)


def dated(command: str, printed: Iterable[str], *, now: datetime | None = None) -> list[str]:
    """The lines of a section: what was run and when, and what it printed."""
    day = (now or datetime.now(UTC)).date()
    return [f"{day}, `{command}`:", "", "```text", *(line.rstrip() for line in printed), "```"]


def _replace(page: Path, text: str) -> None:
    """All or nothing: whoever reads meanwhile sees the page before or after."""
    handle, name = tempfile.mkstemp(dir=page.parent, prefix=f".{page.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as draft:
            draft.write(text)
        Path(name).chmod(page.stat().st_mode & 0o777)
        Path(name).replace(page)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
