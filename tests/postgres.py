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
    if find_binaries() is None:
        pytest.skip("no PostgreSQL binaries in /usr/lib/postgresql: apt install postgresql")
    if _server_user() is None:
        pytest.skip("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody")
    yield from serving()


def serving() -> Iterator[str]:
    """The same outside of pytest: its one value is the URL, the server ends with the generator."""
    binaries, user = find_binaries(), _server_user()
    assert binaries is not None, "PostgreSQL is installed"
    assert user is not None, "there is a user to run it as"
    folder = Path(tempfile.mkdtemp(prefix="unisono-postgres-"))
    try:
        os.chown(folder, *user)
        yield from _serve(binaries, folder, user)
    finally:
        shutil.rmtree(folder)


def new_database(postgres_url: str) -> str:
    """URL of a fresh copy of the template."""
    name = f"test_{next(_numbers)}"
    _administer(postgres_url, f"CREATE DATABASE {name} TEMPLATE template")
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


def _serve(binaries: Path, folder: Path, user: tuple[int, int]) -> Iterator[str]:
    who = {"user": user[0], "group": user[1], "extra_groups": []} if os.geteuid() == 0 else {}
    cluster, log = folder / "cluster", folder / "log"
    made = subprocess.run(
        [binaries / "initdb", "-D", cluster, "-U", "unisono", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        **who,
    )
    assert made.returncode == 0, made.stderr
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "fsync": "off",
        "max_connections": 40,
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    with log.open("wb") as out:
        server = subprocess.Popen(
            [binaries / "postgres", "-D", cluster, *arguments], stdout=out, stderr=out, cwd=folder, **who
        )
    try:
        root = f"postgresql://unisono@127.0.0.1:{port}"
        _await_server(server, f"{root}/postgres", log)
        _administer(f"{root}/postgres", "CREATE DATABASE template")
        upgrade(f"{root}/template")
        yield f"{root}/template"
    finally:
        server.send_signal(signal.SIGINT)  # "fast": connections are ended
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(5)


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
