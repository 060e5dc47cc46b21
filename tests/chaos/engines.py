"""Does. Starts engines as processes of their own, quickly, and ends them without a word.

An engine is forked from a process that has its program loaded already, and from there on runs `unisono run` as it is
installed: what a start costs is then the engine's own recovery, not Python's reading of libraries.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from importlib import import_module
from pathlib import Path

from engine import cli
from engine.crash import VARIABLE

_FIRST_FREE = 3  # file descriptors above the standard ones belong to whoever forks
# The command line loads what a command needs when it is asked for, and libraries some of theirs later still.
_LOADED = (
    "engine.cli.run",
    "anyio._backends._asyncio",
    "apscheduler.schedulers.asyncio",
    "apscheduler.triggers.interval",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
    "uvicorn.middleware.proxy_headers",
    "uvicorn.lifespan.off",
    "uvloop",
    "websockets.asyncio.client",
)


def load() -> None:
    """Everything that an engine would load: once, before the first of them is forked."""
    for name in _LOADED:
        import_module(name)
    gc.collect()
    gc.freeze()  # a child that looks for garbage must not copy every page of its parent


class Engine:
    """A running `unisono run`. `crash_at` arms one of the engine's named crash points."""

    def __init__(self, config: Path, log: Path, crash_at: str = "") -> None:
        self.ended = False
        self.pid = os.fork()
        if self.pid == 0:
            _become(config, log, crash_at)

    def alive(self) -> bool:
        if not self.ended:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._note(status)
        return not self.ended

    def kill(self) -> None:
        if not self.ended:
            os.kill(self.pid, signal.SIGKILL)
            self._note(os.waitpid(self.pid, 0)[1])

    def wait(self, limit_s: float) -> bool:
        """True once it is dead."""
        deadline_s = time.monotonic() + limit_s
        while self.alive():
            if time.monotonic() > deadline_s:
                return False
            time.sleep(0.01)
        return True

    def _note(self, status: int) -> None:
        self.ended = True
        code = os.waitstatus_to_exitcode(status)
        if code != -signal.SIGKILL:
            raise AssertionError(f"the engine ended by itself with {code}: see its log")


def _become(config: Path, log: Path, crash_at: str) -> None:
    """In the child: nothing of the parent's stays open, and it never comes back."""
    try:
        os.setsid()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.closerange(_FIRST_FREE, 4096)
        os.environ.pop(VARIABLE, None)
        if crash_at:
            os.environ[VARIABLE] = crash_at
        sys.argv = ["unisono", "run", "--config", str(config)]
        cli.main()
        os._exit(0)
    except SystemExit as left:
        os._exit(left.code if isinstance(left.code, int) else 1)
    except BaseException as error:
        os.write(2, f"{error!r}\n".encode())
        os._exit(70)
