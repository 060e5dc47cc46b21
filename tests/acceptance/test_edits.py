"""Edits of the registry take effect in the running engine within a second and touch nobody else's connection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.acceptance.office import Office, until

WITHIN_S = 1.0


@contextmanager
def others_untouched(office: Office, account: str) -> Iterator[None]:
    before = office.connections()
    before.pop(account, None)
    yield
    after = office.connections()
    after.pop(account, None)
    assert after == before, "nobody else's connection was opened anew"


def edit(office: Office, *arguments: str, told: str = "") -> None:
    done = office.cli("accounts", *arguments, "--why", "a promise is tried", told=told)
    assert done.returncode == 0, done.stderr


def phase(office: Office, account: str) -> str:
    found = [c["phase"] for c in office.control.get("/connections") if c["listener_id"] == account]
    return str(found[0]) if found else ""


def newest(office: Office, account: str) -> Any:
    return office.json("accounts", "history", account)[0]


def keys(office: Office, account: str) -> str:
    (told,) = (a for a in office.venue.doors["accounts"] if a["name"] == account)
    return "".join(f"{field} = {json.dumps(told[field])}\n" for field in ("api_key", "secret", "passphrase"))


def test_a_paused_account_is_disconnected_and_a_resumed_one_proven_again(shared: Office) -> None:
    with others_untouched(shared, "demo-01"):
        edit(shared, "pause", "demo-01")
        until(lambda: "demo-01" not in shared.connections(), WITHIN_S)
        change = newest(shared, "demo-01")
        assert (change["action"], change["why"]) == ("pause", "a promise is tried")
        assert (change["before"]["state"], change["after"]["state"]) == ("active", "paused")
        assert "account_paused" in shared.denials("demo-01")

        missed = shared.elsewhere("demo-01", type="market")
        edit(shared, "resume", "demo-01")
        until(lambda: phase(shared, "demo-01"), WITHIN_S)
        until(lambda: not shared.denials("demo-01"))
    known = [o["venue_order_id"] for o in shared.json("orders", "--account", "demo-01")]
    assert missed in known, "what happened during the pause was read back"
    (gap,) = shared.gaps("demo-01")
    assert gap.state == "proven"


def test_an_account_that_is_added_is_connected_and_can_be_closed_for_good(shared: Office) -> None:
    rest, private = shared.venue.doors["rest"], shared.venue.doors["ws_private"]
    with others_untouched(shared, "demo-13"):
        added = ("add", "demo-13", "--venue", "okx", "--site", "global", "-e", "demo", "--credentials-file", "-")
        edit(
            shared,
            *added,
            "--endpoint",
            f"rest={rest}",
            "--endpoint",
            f"private={private}",
            told=keys(shared, "demo-13"),
        )
        until(lambda: phase(shared, "demo-13"), WITHIN_S)
        until(lambda: not shared.denials("demo-13"))
        edit(shared, "close", "demo-13", "--yes")
        until(lambda: "demo-13" not in shared.connections(), WITHIN_S)
        assert shared.json("accounts", "history", "demo-13")[0]["action"] == "close"


def test_new_keys_open_only_their_own_account_anew(shared: Office) -> None:
    right = keys(shared, "demo-02")
    wrong = right.replace('passphrase = "', 'passphrase = "not-')
    with others_untouched(shared, "demo-02"):
        edit(shared, "edit", "demo-02", "--credentials-file", "-", told=wrong)
        until(lambda: phase(shared, "demo-02") != "live", WITHIN_S)
        until(lambda: "credentials_refused" in shared.denials("demo-02"))
        edit(shared, "edit", "demo-02", "--credentials-file", "-", told=right)
        until(lambda: phase(shared, "demo-02") != "halted", WITHIN_S)
        until(lambda: not shared.denials("demo-02"))
    assert [c["kind"] for c in shared.json("accounts", "history", "demo-02")[:2]] == ["credentials", "credentials"]
    shown = shared.cli("accounts", "history", "demo-02", "--json").stdout
    secret = next(a["secret"] for a in shared.venue.doors["accounts"] if a["name"] == "demo-02")
    assert secret not in shown, "a recorded edit never shows a secret"
