"""Does. `python -m tests.storage`: every trouble of files, servers and clocks under a real engine, and how it ended."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

from tests import figures

FILES = ("test_outages.py", "test_storage.py", "test_restore.py")


class Outcomes:
    """A line for each test."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            name = report.nodeid.rpartition("::")[2].removeprefix("test_").replace("_", " ")
            self.lines.append(f"{report.outcome:<8} {report.duration:5.1f} s  {name}")


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m tests.storage", description=__doc__)
    asked.add_argument("--record", action="store_true", help="write the outcomes into docs/reference/reliability.md")
    options = asked.parse_args()
    outcomes, here = Outcomes(), Path(__file__).parent / "acceptance"
    code = pytest.main(["-q", "-p", "no:cacheprovider", *(str(here / file) for file in FILES)], plugins=[outcomes])
    print("\n".join(outcomes.lines))
    if options.record:
        figures.record("storage", figures.dated("make storage", outcomes.lines))
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
