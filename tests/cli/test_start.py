"""The command starts at once: it imports what the command at hand needs, and its list of commands is the truth."""

from __future__ import annotations

import subprocess
import sys

import pytest

from engine.cli import COMMANDS, command

HEAVY = {"alembic", "anyio", "apscheduler", "cryptography", "jinja2", "sqlalchemy", "sqlmodel", "starlette"}
HEAVY |= {"structlog", "tenacity", "uvicorn", "uvloop", "websockets"}
_LOOK = (
    "import sys, engine.cli\ntry: engine.cli.app({words!r})\nexcept SystemExit: print(*sys.modules, file=sys.stderr)"
)


def imported(*words: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", _LOOK.format(words=words)], capture_output=True, text=True, timeout=30, check=True
    )
    return {module.partition(".")[0] for module in done.stderr.split()}


@pytest.mark.parametrize("words", [("--help",), ("connections", "--help")], ids=" ".join)
def test_help_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    modules = imported(*words)
    assert "typer" in modules
    assert not modules & HEAVY


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_says_of_itself(name: str) -> None:
    said = " ".join((command(name).help or "").split("\n\n")[0].split())
    assert said == COMMANDS[name][1]
