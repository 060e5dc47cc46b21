"""A backup taken while the engine runs, put back after more was done: nothing is sent until a person has looked."""

from __future__ import annotations

from pathlib import Path

from accounts.vault import create_key_file
from engine.cli.exits import Exit
from tests.acceptance.office import Office, office, refused, until


def test_after_a_restore_nothing_is_sent_until_orders_that_the_backup_does_not_know_are_accepted(
    tmp_path: Path,
) -> None:
    copy = tmp_path / "copy.sqlite"
    with office(tmp_path / "o", 2) as o:
        with o.engine():
            until(lambda: o.all_proven(2), 40.0)
            known = o.approved(["demo-01"])
            o.execute(known)
            until(lambda: _at_rest(o))
            waiting = o.approved(["demo-01"], quantity="2", price="57100")
            done = o.cli("backup", str(copy))
            assert done.returncode == Exit.OK, done.stderr
            later = o.approved(["demo-02"])
            o.execute(later)
            until(lambda: len(o.orders("demo-02")) == 1)
            (orphan,) = (order["clOrdId"] for order in o.orders("demo-02"))
            rehearsed = o.json("restore", str(copy), "--verify")
            assert (rehearsed["sound"], rehearsed["rows"]["plan"], rehearsed["credentials"]) == (True, 2, "")
            owned = o.cli("restore", str(copy))
            assert (owned.returncode, "Stop it first" in owned.stderr) == (Exit.LOCKED, True)
        restored = o.cli("restore", str(copy))
        assert restored.returncode == Exit.OK, restored.stderr
        assert o.cli("doctor").returncode == Exit.FINDINGS
        with o.engine():
            until(lambda: o.all_proven(2), 40.0)
            found = until(lambda: o.findings() if "demo-02" in o.findings() else None)
            assert orphan in found["demo-02"]
            assert "read-only" in found["restore"]
            assert "restored" in str(refused(lambda: o.execute(waiting)))
            assert len(o.orders("demo-01")) == 1, "nothing was sent"
            accepted = o.cli("restore", "--accept-orphans", "--why", "closed at the broker's page")
            assert accepted.returncode == Exit.OK, accepted.stderr
            assert "1 orders accepted" in accepted.stdout
            assert o.findings() == {}
            o.execute(waiting)
            until(lambda: len(o.orders("demo-01")) == 2)
            listed = o.json("orders", "--account", "demo-02")
            assert [(row["client_order_id"], row["external"]) for row in listed] == [(orphan, True)]


def test_a_restore_that_misses_nothing_releases_itself(tmp_path: Path) -> None:
    copy = tmp_path / "copy.sqlite"
    with office(tmp_path / "o", 1) as o:
        with o.engine():
            until(lambda: o.all_proven(1), 40.0)
            plan_id = o.approved(["demo-01"])
            assert o.cli("backup", str(copy)).returncode == Exit.OK
        assert o.cli("restore", str(copy)).returncode == Exit.OK
        with o.engine():
            until(lambda: o.control.get("/status")["blocked"] == "" and o.all_proven(1), 40.0)
            o.execute(plan_id)
            until(lambda: len(o.orders("demo-01")) == 1)


def test_a_rehearsal_changes_nothing_and_says_what_the_copy_is_worth(tmp_path: Path) -> None:
    copy, key = tmp_path / "copy.sqlite", tmp_path / "other.key"
    with office(tmp_path / "o", 1) as o:
        database = Path(o.url.removeprefix("sqlite:///"))
        told = o.json("backup", str(copy))
        assert (told["sound"], told["bytes"]) == (True, copy.stat().st_size)
        before = {file.name: file.read_bytes() for file in (*database.parent.glob("unisono.sqlite*"), copy)}

        good = o.cli("restore", str(copy), "--verify")
        assert good.returncode == Exit.OK, good.stderr
        assert "was restored into a temporary folder and read through" in " ".join(good.stdout.split())

        right = (o.folder / "vault.key").rename(key)
        create_key_file(o.folder / "vault.key")
        locked_out = o.cli("restore", str(copy))
        assert locked_out.returncode == Exit.VAULT
        assert "nothing was changed" in " ".join(locked_out.stderr.split())
        (o.folder / "vault.key").unlink()
        right.rename(o.folder / "vault.key")

        whole = copy.read_bytes()
        copy.write_bytes(whole[:-8192])
        assert o.cli("restore", str(copy)).returncode == Exit.FINDINGS
        assert o.json("restore", str(copy), "--verify")["complaints"]
        copy.write_bytes(whole)
        after = {file.name: file.read_bytes() for file in (*database.parent.glob("unisono.sqlite*"), copy)}
        assert after == before, "also no old database beside it"


def _at_rest(o: Office) -> bool:
    return len(o.orders("demo-01")) == 1 and bool(o.control.get("/status")["open_orders"] == 1)
