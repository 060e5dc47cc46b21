from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from engine.ledger import AlreadyOwned, own


def test_a_database_has_one_owner_and_the_second_is_told_which(url: str) -> None:
    first = own(url)
    with pytest.raises(AlreadyOwned, match=rf"pid {os.getpid()} .*since 20\d\d-"):
        own(url)
    assert first.still_mine()
    first.release()
    own(url).release()


def test_two_databases_have_two_owners(tmp_path: Path) -> None:
    owners = [own(f"sqlite:///{tmp_path}/{name}.sqlite") for name in ("a", "b")]
    assert all(o.still_mine() for o in owners)
    for owner in owners:
        owner.release()


def test_an_owner_that_was_killed_owns_nothing(url: str) -> None:
    code = f"import time; from engine.ledger import own; o = own({url!r}); print('mine', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"mine\n"
        with pytest.raises(AlreadyOwned, match=f"pid {owner.pid}"):
            own(url)
        owner.send_signal(signal.SIGKILL)
        owner.wait(10)
    _until_free(url)


def _until_free(url: str) -> None:
    """The file lock is free at once; a server notices a dead client in its own time."""
    for _ in range(1000):
        try:
            own(url).release()
            return
        except AlreadyOwned:
            if url.startswith("sqlite"):
                raise
    raise AssertionError("the dead owner still owns it")


@pytest.mark.postgres
def test_ownership_that_the_server_took_away_is_noticed(postgres_database: str) -> None:
    owner = own(postgres_database)
    with psycopg.connect(postgres_database) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name LIKE 'unisono%' AND datname = current_database()"
        )
    assert not owner.still_mine()
    owner.release()
