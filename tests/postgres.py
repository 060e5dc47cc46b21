"""A throwaway PostgreSQL: a cluster of our own from Debian's binaries, on loopback, in a temporary folder."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg
import pytest

from engine.ledger import tables, upgrade

_numbers = count(1)


def find_binaries() -> Path | None:
    """The newest installed version's folder of binaries; None where there is none."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(found, key=lambda path: float(path.parent.name), default=None)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of a running server's `template`, a database at the ledger's newest schema."""
    with serving() as url:
        yield url


@contextmanager
def serving() -> Iterator[str]:
    """The same outside of a fixture."""
    with restartable() as server:
        _administer(f"{server.root}/postgres", "CREATE DATABASE template")
        upgrade(f"{server.root}/template")
        yield f"{server.root}/template"


def new_database(postgres_url: str) -> str:
    """URL of a fresh copy of the template."""
    name = f"test_{next(_numbers)}"
    _administer(postgres_url, f"CREATE DATABASE {name} TEMPLATE template")
    return f"{postgres_url.rpartition('/')[0]}/{name}"


def bare_database(postgres_url: str) -> str:
    """URL of a database without a table."""
    name = f"test_{next(_numbers)}"
    _administer(postgres_url, f"CREATE DATABASE {name}")
    return f"{postgres_url.rpartition('/')[0]}/{name}"


def empty_database(url: str) -> None:
    """Deletes every row; as replication does, without asking the triggers that refuse it."""
    with psycopg.connect(url, connect_timeout=5) as connection:
        connection.execute("SET session_replication_role = replica")
        for table in tables.metadata.tables:
            connection.execute(f'DELETE FROM "{table}"')  # type: ignore[arg-type]  # noqa: S608


def drop_database(url: str) -> None:
    _administer(url, f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")


def _server_user() -> tuple[int, int] | None:
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    return None


class Server:
    """A cluster of our own; it can be stopped and started again."""

    def __init__(self, binaries: Path, folder: Path, user: tuple[int, int]) -> None:
        self._binaries, self._folder = binaries, folder
        self._who = {"user": user[0], "group": user[1], "extra_groups": []} if os.geteuid() == 0 else {}
        made = subprocess.run(
            [
                *(binaries / "initdb", "-D", folder / "cluster", "-U", "unisono", "-A", "trust", "-E", "UTF8"),
                *("--locale=C", "--no-sync"),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=folder,
            **self._who,
        )
        assert made.returncode == 0, made.stderr
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._running: subprocess.Popen[bytes]

    @property
    def root(self) -> str:
        return f"postgresql://unisono@127.0.0.1:{self._port}"

    def start(self) -> None:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self._port,
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": 40,
        }
        command = [self._binaries / "postgres", "-D", self._folder / "cluster"]
        log = self._folder / "log"
        with log.open("ab") as out:
            self._running = subprocess.Popen(
                [*command, *(f"--{name}={value}" for name, value in options.items())],
                stdout=out,
                stderr=out,
                cwd=self._folder,
                **self._who,
            )
        _await_server(self._running, f"{self.root}/postgres", log)

    def stop(self) -> None:
        self._running.send_signal(signal.SIGINT)  # "fast": connections are ended
        try:
            self._running.wait(20)
        except subprocess.TimeoutExpired:
            self._running.kill()
            self._running.wait(5)


@contextmanager
def restartable() -> Iterator[Server]:
    """A running server of the caller's own; skips where there can be none."""
    binaries, user = _possible()
    folder = Path(tempfile.mkdtemp(prefix="unisono-postgres-"))
    try:
        os.chown(folder, *user)
        server = Server(binaries, folder, user)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def _possible() -> tuple[Path, tuple[int, int]]:
    binaries, user = find_binaries(), _server_user()
    if binaries is None:
        pytest.skip("no PostgreSQL binaries in /usr/lib/postgresql: apt install postgresql")
    if user is None:
        pytest.skip("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody")
    return binaries, user


def _await_server(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            psycopg.connect(url, connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            assert server.poll() is None, log.read_text()
            time.sleep(0.05)  # a process outside: there is no clock of ours to move
    raise AssertionError(f"PostgreSQL did not come up:\n{log.read_text()}")


def _administer(url: str, statement: str) -> None:
    with psycopg.connect(f"{url.rpartition('/')[0]}/postgres", autocommit=True, connect_timeout=5) as connection:
        connection.execute(statement)  # type: ignore[arg-type]
