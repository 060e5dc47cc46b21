"""The named places where a chaos run ends the engine: there, all of them, and nothing to anybody who did not ask."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine import crash

ENGINE = Path(crash.__file__).parent
PASSING = """
import os
from engine import crash
crash.arm(os.environ)
for _ in range(3):
    crash.point("mid-send")
    crash.point("after-last-send")
    print("passed", flush=True)
"""


def test_every_place_has_a_name_that_is_told_and_stands_somewhere() -> None:
    told = re.compile(r'crash\.point\("([a-z-]+)"\)')
    standing = [name for file in ENGINE.rglob("*.py") for name in told.findall(file.read_text())]
    assert sorted(standing) == sorted(crash.POINTS)


@pytest.mark.parametrize(("asked", "passes"), [("", 3), ("mid-send", 0), ("mid-send:1", 0), ("after-last-send:3", 2)])
def test_a_process_dies_where_and_when_it_was_told(asked: str, passes: int) -> None:
    done = subprocess.run([sys.executable, "-c", PASSING], env={crash.VARIABLE: asked}, capture_output=True, timeout=30)
    assert done.stdout.count(b"passed") == passes
    assert done.returncode == (-signal.SIGKILL if asked else 0)


@pytest.mark.parametrize("asked", ["nowhere", "mid-send:x", ":3"])
def test_a_place_that_does_not_exist_is_refused(asked: str) -> None:
    with pytest.raises(ValueError, match="known are"):
        crash.arm({crash.VARIABLE: asked})
