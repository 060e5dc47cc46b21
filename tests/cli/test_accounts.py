"""The office's commands: set up, add, edit, group, bring in; what is refused changes nothing and says why."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from accounts.registry import Registry
from accounts.vault import Vault, create_key_file
from engine.cli import app
from engine.cli.exits import Exit

CANARIES = {"api_key": "CANARY-key", "secret": "CANARY-secret", "passphrase": "CANARY-pass"}
LOGIN = "".join(f'{field} = "{value}"\n' for field, value in CANARIES.items())
WHY = ("--why", "a test")
DEMO = ("--venue", "okx", "--site", "global", "-e", "demo")


COMMAND = get_command(app)  # built once: most of a short command's time


class Result(NamedTuple):
    exit_code: int
    stdout: str
    output: str  # with standard error


def invoke(*arguments: str, typed: str | None = None) -> Result:
    with CliRunner().isolation(input=typed) as (out, _, both):
        try:
            COMMAND.main(args=list(arguments), prog_name="unisono")
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        sys.stdout.flush()
        sys.stderr.flush()
        return Result(code, out.getvalue().decode(), both.getvalue().decode())


class Office:
    """A set-up folder and the commands in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config, self.key = folder / "unisono.toml", folder / "vault.key"
        self.login = folder / "login.toml"
        self.outputs = list[str]()

    def run(self, *arguments: str, code: Exit = Exit.OK, typed: str | None = None) -> Result:
        result = invoke(*arguments, "--config", str(self.config), typed=typed)
        assert result.exit_code == code, result.output
        self.outputs.append(result.output)
        return result

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)

    def add(self, *account_ids: str) -> None:
        for account_id in account_ids:
            self.run("accounts", "add", account_id, *DEMO, "--credentials-file", str(self.login), *WHY)

    def counter(self) -> int:
        with Registry(f"sqlite:///{self.folder / 'unisono.sqlite'}") as registry:
            return registry.change_counter()


@pytest.fixture(scope="session")
def new_office(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("office") / "office"
    result = invoke("init", "--dir", str(folder))
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def office(new_office: Path, tmp_path: Path) -> Office:
    made = Office(shutil.copytree(new_office, tmp_path / "office"))
    made.login.write_text(LOGIN)
    made.login.chmod(0o600)
    return made


# ---- init


def test_init_makes_three_files_that_only_their_owner_can_read(office: Office) -> None:
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in office.folder.iterdir() if p != office.login}
    assert modes == {"unisono.toml": 0o600, "vault.key": 0o600, "unisono.sqlite": 0o600}


def test_init_overwrites_nothing(office: Office) -> None:
    before = {p: p.read_bytes() for p in office.folder.iterdir()}
    result = invoke("init", "--dir", str(office.folder))
    assert result.exit_code == Exit.ERROR
    assert "Nothing was made or changed" in result.output
    assert {p: p.read_bytes() for p in office.folder.iterdir()} == before


def test_init_takes_back_what_it_began(tmp_path: Path) -> None:
    result = invoke("init", "--dir", str(tmp_path / "new"), "--database", "mysql://host/db")
    assert result.exit_code == Exit.ERROR
    assert list((tmp_path / "new").iterdir()) == []


def test_init_tells_what_to_do_next(tmp_path: Path) -> None:
    result = invoke("init", "--dir", str(tmp_path / "new"))
    for step in ("unisono accounts add", "unisono groups add", "unisono run", "UNISONO_CONFIG="):
        assert step in result.output


# ---- accounts


def test_who_must_be_told_what_to_hear_of_is_not_added_without(office: Office) -> None:
    office.login.write_text('username = "u"\npassword = "p"\n')
    add = ("accounts", "add", "gold", "--venue", "ime", "-e", "demo", "--credentials-file", str(office.login), *WHY)
    assert "--channels names=A,B. Nothing was changed." in office.run(*add, code=Exit.ERROR).output
    office.run(*add, "--channels", "names=gold")
    assert [r["account_id"] for r in office.json("accounts", "list")] == ["gold"]


def test_doctor_names_an_account_whose_book_cannot_be_read(office: Office) -> None:
    office.add("a001")
    with closing(sqlite3.connect(office.folder / "unisono.sqlite")) as conn:
        conn.execute("INSERT INTO checkpoint VALUES ('a001', 0, '{\"form\":\"unisono.book/1\"}')")
        conn.commit()
    found = json.loads(office.run("doctor", "--json", code=Exit.FINDINGS).stdout)
    assert [f["level"] for f in found if f["subject"] == "a001"] == ["error"]
    for word in ("positions", "balances"):
        assert "The book of a001 cannot be made" in office.run(word, code=Exit.ERROR).output
    command = [sys.executable, "-m", "engine.cli", "run", "--config", str(office.config)]
    started = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert started.returncode == Exit.ERROR
    assert "Traceback" not in started.stderr
    assert "The book of a001 cannot be made" in " ".join(started.stderr.split())


def test_an_added_account_is_listed_and_shown(office: Office) -> None:
    office.add("a001")
    (row,) = office.json("accounts", "list")
    assert (row["account_id"], row["state"], row["live"]) == ("a001", "active", 0)
    assert sorted(row["credential_fields"]) == ["api_key", "passphrase", "secret"]
    shown = office.json("accounts", "show", "a001")
    assert {c["kind"] for c in shown["connections"]} == {"rest", "private"}
    assert {c["kind"] for c in shown["shared"]} == {"public"}
    assert "a001" in office.run("accounts", "list").output
    assert "sealed by key" in office.run("accounts", "show", "a001").output


def test_credentials_are_sealed_and_never_shown(office: Office) -> None:
    office.add("a001")
    office.json("accounts", "edit", "a001", "--name", "Other", *WHY)
    for words in (
        ("list",),
        ("show", "a001"),
        ("history",),
        ("history", "a001"),
        ("export",),
        ("export", "--format", "csv"),
    ):
        office.run("accounts", *words)
        office.run("accounts", *words, "--json")
    with Registry(f"sqlite:///{office.folder / 'unisono.sqlite'}") as registry:
        opened = Vault.from_file(office.key, environ={}).open("a001", registry.sealed("a001"))
        assert {field: secret.reveal() for field, secret in opened.items()} == CANARIES
        stored = b"".join(p.read_bytes() for p in office.folder.glob("unisono.sqlite*"))
    assert b"CANARY" not in stored
    assert not any("CANARY" in output for output in office.outputs)


def test_credentials_may_come_from_standard_input(office: Office) -> None:
    office.run("accounts", "add", "a001", *DEMO, "--credentials-file", "-", *WHY, typed=LOGIN)
    assert office.json("accounts", "show", "a001")["credentials"]["fields"] == ["api_key", "passphrase", "secret"]


def test_a_credentials_file_that_others_can_read_is_refused(office: Office) -> None:
    office.login.chmod(0o644)
    result = office.run(
        "accounts", "add", "a001", *DEMO, "--credentials-file", str(office.login), *WHY, code=Exit.ERROR
    )
    assert "chmod 600" in result.output
    assert office.json("accounts", "list") == []


@pytest.mark.parametrize(
    ("login", "says"),
    [
        ('api_key = "CANARY"', "missing or unknown: passphrase, secret"),
        (LOGIN + 'extra = "CANARY"', "missing or unknown: extra"),
        (LOGIN.replace("CANARY-pass", ""), "passphrase is empty"),
        (LOGIN + "extra = 7", "extra must be a text"),
        ("CANARY", "is not TOML"),
    ],
)
def test_a_login_that_is_not_the_venues_is_refused(office: Office, login: str, says: str) -> None:
    office.login.write_text(login)
    result = office.run(
        "accounts", "add", "a001", *DEMO, "--credentials-file", str(office.login), *WHY, code=Exit.ERROR
    )
    assert says in result.output
    assert "CANARY" not in result.output
    assert office.json("accounts", "list") == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("a001", "--venue", "nowhere", "-e", "demo", *WHY), "There is no venue nowhere. Known:"),
        (("a001", "--venue", "okx", "-e", "demo", *WHY), "has several sites: "),
        (("a001", "--venue", "okx", "--site", "moon", "-e", "demo", *WHY), "okx has no moon/demo. Known: "),
        (("A 1", *DEMO, *WHY), "account id"),
        (("a001", *DEMO), "--why TEXT"),
        (("a001", *DEMO, *WHY, "--endpoint", "private"), "KIND=URL"),
        (("a001", *DEMO, *WHY, "--endpoint", "private=wss://evil.example/"), 'allow_hosts = ["evil.example"]'),
        (("a001", *DEMO, *WHY, "--endpoint", "private=ws://10.0.0.1/"), "not encrypted"),
    ],
)
def test_what_cannot_be_added_is_said(office: Office, arguments: tuple[str, ...], says: str) -> None:
    counter = office.counter()
    result = office.run("accounts", "add", *arguments, "--credentials-file", str(office.login), code=Exit.ERROR)
    assert says in " ".join(result.output.split())
    assert office.counter() == counter


def test_an_allowed_host_of_the_configuration_is_accepted(office: Office) -> None:
    with office.config.open("a") as config:
        config.write('[venues.okx]\nallow_hosts = ["proxy.example"]\n')
        config.write('endpoints = { "global.demo.rest" = "http://127.0.0.1:9" }\n')
    endpoint = ("--endpoint", "private=wss://proxy.example/ws")
    office.run("accounts", "add", "a001", *DEMO, *endpoint, "--credentials-file", str(office.login), *WHY)
    urls = {c["kind"]: c["url"] for c in office.json("accounts", "show", "a001")["connections"]}
    assert urls == {"private": "wss://proxy.example/ws", "rest": "http://127.0.0.1:9"}


def test_the_channels_of_a_kind_can_be_said_when_it_is_added(office: Office) -> None:
    office.run(
        *("accounts", "add", "a001", *DEMO, "--channels", "private=orders,account", *WHY),
        *("--credentials-file", str(office.login)),
    )
    told = {c["kind"]: c["channels"] for c in office.json("accounts", "show", "a001")["connections"]}
    assert told["private"] == ["orders", "account"]


def test_a_dry_run_shows_the_change_and_makes_none(office: Office) -> None:
    office.add("a001")
    counter = office.counter()
    for words in (
        ("pause", "a001"),
        ("edit", "a001", "--name", "N"),
        ("close", "a001"),
        ("mandate", "a001", "--max-order", "5"),
    ):
        told = office.json("accounts", *words, "--dry-run", *WHY)
        assert told["dry_run"] is True
        assert len(told["changes"]) == 1
    office.json("accounts", "rotate-key", "--dry-run", *WHY)
    assert office.counter() == counter


def test_an_edit_reaches_own_and_shared_connections_and_says_who_follows(office: Office) -> None:
    office.add("a001", "a002")
    result = office.run(
        "accounts", "edit", "a001", "--name", "Miller", "--endpoint", "private=ws://127.0.0.1:7/p",
        "--channels", "public=tickers:X,instruments:SPOT", "--keep-alive", "private=no", *WHY,
    )  # fmt: skip
    assert "the running engine follows within a second" in result.output.lower()
    first, second = office.json("accounts", "show", "a001"), office.json("accounts", "show", "a002")
    private = next(c for c in first["connections"] if c["kind"] == "private")
    assert (first["name"], private["url"], private["keep_alive"]) == ("Miller", "ws://127.0.0.1:7/p", False)
    assert first["shared"] == second["shared"]
    assert second["shared"][0]["channels"] == ["tickers:X", "instruments:SPOT"]
    assert next(c for c in second["connections"] if c["kind"] == "private")["url"].startswith("wss://")


def test_an_optional_kind_can_be_added_later(office: Office) -> None:
    office.add("a001")
    office.run("accounts", "edit", "a001", "--endpoint", "business=ws://127.0.0.1:7/b", *WHY)
    assert "business" in {c["kind"] for c in office.json("accounts", "show", "a001")["connections"]}


def test_the_same_credentials_again_are_no_change(office: Office) -> None:
    office.add("a001")
    edit = ("accounts", "edit", "a001", "--credentials-file", str(office.login), *WHY)
    assert office.json(*edit)["changes"] == []
    office.login.write_text(LOGIN.replace("CANARY-pass", "CANARY-new"))
    assert [c["kind"] for c in office.json(*edit)["changes"]] == ["credentials"]


def test_pausing_several_is_all_or_nothing(office: Office) -> None:
    office.add("a001")
    office.run("accounts", "pause", "a001", "a404", *WHY, code=Exit.ERROR)
    assert office.json("accounts", "list")[0]["state"] == "active"
    office.run("accounts", "pause", "a001", *WHY)
    assert [a["account_id"] for a in office.json("accounts", "list", "--state", "paused")] == ["a001"]
    office.run("accounts", "resume", "a001", *WHY)
    assert office.json("accounts", "list", "--state", "paused") == []


def test_closing_asks_and_can_drop_the_credentials(office: Office) -> None:
    office.add("a001")
    assert "--yes" in office.run("accounts", "close", "a001", *WHY, code=Exit.ERROR).output
    office.run("accounts", "close", "a001", "--yes", "--drop-credentials", *WHY)
    shown = office.json("accounts", "show", "a001")
    assert (shown["state"], shown["credentials"]) == ("closed", None)


def test_a_mandate_changes_only_what_is_named(office: Office) -> None:
    office.add("a001")
    office.run("accounts", "mandate", "a001", "--max-order", "5000.50", "--deny", "X,Y", *WHY)
    office.run("accounts", "mandate", "a001", "--deny", "none", "--allow", "Z", *WHY)
    mandate = office.json("accounts", "show", "a001")["mandate"]
    assert (mandate["max_order_notional"], mandate["do_not_trade"], mandate["allowed_instruments"]) == (
        "5000.50",
        [],
        ["Z"],
    )


def test_a_list_of_instruments_may_have_spaces_and_only_its_word_lifts_it(office: Office) -> None:
    office.add("a001")
    office.run("accounts", "mandate", "a001", "--deny", "ETH/USDT, BTC/USDT", *WHY)
    for empty in ("", " , "):
        assert "write: none" in office.run("accounts", "mandate", "a001", "--deny", empty, *WHY, code=Exit.ERROR).output
    assert office.json("accounts", "show", "a001")["mandate"]["do_not_trade"] == ["ETH/USDT", "BTC/USDT"]


def test_history_tells_who_and_why(office: Office) -> None:
    office.add("a001")
    office.run("accounts", "edit", "a001", "--name", "Miller", "--why", "she married")
    latest = office.json("accounts", "history", "a001")[0]
    assert (latest["why"], latest["before"]["name"], latest["after"]["name"]) == ("she married", "a001", "Miller")
    assert latest["by"]
    assert len(office.json("accounts", "history", "-n", "2")) == 2


def test_what_people_typed_is_not_markup(office: Office) -> None:
    office.add("a001")
    office.run("accounts", "edit", "a001", "--name", "A [red]x[/red]", *WHY)
    assert "[red]x[/red]" in office.run("accounts", "list").output


# ---- the vault's key


@pytest.mark.parametrize("wrong", ["other", "open", "missing"])
def test_a_wrong_vault_key_is_exit_64_and_seals_nothing(office: Office, wrong: str) -> None:
    if wrong == "open":
        office.key.chmod(0o644)
    else:
        office.key.unlink()
        if wrong == "other":
            create_key_file(office.key)
    office.run("accounts", "add", "a001", *DEMO, "--credentials-file", str(office.login), *WHY, code=Exit.VAULT)
    assert office.json("accounts", "list") == []


def test_a_rotated_key_opens_everything(office: Office) -> None:
    office.add("a001")
    old = Vault.from_file(office.key, environ={}).key_id
    told = office.json("accounts", "rotate-key", "--yes", *WHY)
    assert (told["old_key_id"], told["accounts"]) == (old, 1)
    office.add("a002")
    keys = {office.json("accounts", "show", a)["credentials"]["key_id"] for a in ("a001", "a002")}
    assert keys == {told["new_key_id"]}


# ---- import and export


def test_an_export_is_imported_elsewhere_after_a_rehearsal(office: Office, new_office: Path, tmp_path: Path) -> None:
    office.add("a001", "a002")
    office.run("groups", "add", "g", "a001=1.5", "a002", *WHY)
    exported = tmp_path / "clients.toml"
    office.run("accounts", "export", "--out", str(exported))
    assert "exists" in office.run("accounts", "export", "--out", str(exported), code=Exit.ERROR).output

    other = Office(shutil.copytree(new_office, tmp_path / "other"))
    rehearsed = other.json("accounts", "import", str(exported), "--dry-run", *WHY)
    assert other.json("accounts", "list") == []
    applied = other.json("accounts", "import", str(exported), *WHY)
    assert len(applied["changes"]) == len(rehearsed["changes"]) > 0
    assert [n.split(":")[0] for n in applied["notes"]] == ["a001 has no credentials", "a002 has no credentials"]
    assert other.json("groups", "list") == office.json("groups", "list")
    assert other.json("accounts", "import", str(exported), *WHY)["changes"] == []


def test_an_import_with_credentials_seals_them_and_wants_a_private_file(office: Office, tmp_path: Path) -> None:
    file = tmp_path / "new.toml"
    file.write_text(
        '[[account]]\nid = "b001"\nvenue = "okx"\nsite = "global"\nenvironment = "demo"\n[account.credentials]\n'
        + LOGIN
    )
    file.chmod(0o644)
    assert "chmod 600" in office.run("accounts", "import", str(file), *WHY, code=Exit.ERROR).output
    file.chmod(0o600)
    office.run("accounts", "import", str(file), *WHY)
    assert office.json("accounts", "list")[0]["state"] == "active"
    assert not any("CANARY" in output for output in office.outputs)


def test_an_import_tells_every_error_and_changes_nothing(office: Office, tmp_path: Path) -> None:
    file = tmp_path / "bad.csv"
    file.write_text("id,venue,site,environment,weight:g\na,okx,global,demo,x\nb,okx,global,demo,y\n")
    counter = office.counter()
    output = office.run("accounts", "import", str(file), *WHY, code=Exit.ERROR).output
    assert "line 2: weight:g is 'x'" in output
    assert "line 3: weight:g is 'y'" in output
    assert "--format" in office.run("accounts", "import", os.devnull, *WHY, code=Exit.ERROR).output
    assert office.counter() == counter


# ---- groups


def test_a_group_is_made_weighed_renamed_and_removed(office: Office) -> None:
    office.add("a001", "a002")
    office.run("groups", "add", "g", "--all", "--name", "Everyone", *WHY)
    office.run("groups", "weights", "g", "a001=60", "a002=40", "--percent", *WHY)
    office.run("groups", "rename", "g", "The model", *WHY)
    shown = office.json("groups", "show", "g")
    assert (shown["name"], [w["weight"] for w in shown["weights"]]) == ("The model", ["60", "40"])
    assert "60.00%" in office.run("groups", "show", "g").output
    office.run("groups", "remove", "g", *WHY)
    assert office.json("groups", "list") == []
    assert [c["action"] for c in office.json("groups", "history", "g")] == ["remove", "rename", "weights", "add"]


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        (("a001=60", "a002=39.5"), "the weights sum to 99.5, not to 100: 0.5 too little"),
        (("a001=60", "a002=40.01"), "the weights sum to 100.01, not to 100: 0.01 too much"),
        ((), "the weights sum to 0, not to 100"),
    ],
)
def test_percents_that_are_not_100_are_refused_with_their_numbers(
    office: Office, weights: tuple[str, ...], says: str
) -> None:
    office.add("a001", "a002")
    office.run("groups", "add", "g", "a001=1", *WHY)
    counter = office.counter()
    result = office.run("groups", "weights", "g", *weights, "--percent", *WHY, code=Exit.FINDINGS)
    assert says in " ".join(result.output.split())
    assert office.counter() == counter


def test_merging_keeps_the_members_that_are_not_named(office: Office) -> None:
    office.add("a001", "a002")
    office.run("groups", "add", "g", "a001=70", "a002=30", *WHY)
    office.run("groups", "weights", "g", "a002=31", "--merge", *WHY)
    assert {w["account_id"]: w["weight"] for w in office.json("groups", "show", "g")["weights"]} == {
        "a001": "70",
        "a002": "31",
    }
    result = office.run("groups", "weights", "g", "a002=31", "--merge", "--percent", *WHY, code=Exit.FINDINGS)
    assert "sum to 101" in result.output


@pytest.mark.parametrize("weight", ["a001=", "a001=x", "a001=-1", "a001=NaN", "a404=1"])
def test_a_weight_that_is_none_is_refused(office: Office, weight: str) -> None:
    office.add("a001")
    office.run("groups", "add", "g", weight, *WHY, code=Exit.ERROR)
    assert office.json("groups", "list") == []


# ---- without an office


def test_a_groups_mandate_and_what_an_account_may_trade_are_set_and_shown(office: Office) -> None:
    office.add("a001")
    office.run("groups", "add", "g", "a001", *WHY)
    office.run("groups", "mandate", "g", "--deny", "DOGE/USDT", "--max-daily-loss", "500", *WHY)
    office.run("accounts", "mandate", "a001", "--max-day", "10000", "--max-instrument", "2000", *WHY)
    office.run("accounts", "trading", "a001", "--to", "reducing", *WHY)
    shown = office.json("accounts", "show", "a001")
    assert (shown["trading"], shown["mandate"]["max_day_notional"]) == ("reducing", "10000")
    assert "largest position" in office.run("accounts", "show", "a001").stdout
    assert (
        "neither an amount"
        in office.run("accounts", "mandate", "a001", "--max-day", "much", *WHY, code=Exit.ERROR).output
    )


def test_a_model_is_set_shown_and_removed(office: Office) -> None:
    office.run("model", "set", "balanced", "BTC/USDT:USDT=40:5", "ETH/USDT=50", "--cash", "10", "--band", "2", *WHY)
    told = office.json("model", "show", "balanced")
    assert [(x["instrument"], x["weight"], x["band"]) for x in told["lines"]] == [
        ("BTC/USDT:USDT", "40", "5"),
        ("ETH/USDT", "50", "2"),
    ]
    assert "± 5" in office.run("model", "show", "balanced").stdout
    assert "balanced" in office.run("model", "list").stdout
    before = office.counter()
    refused = office.run("model", "set", "balanced", "BTC/USDT=40", *WHY, code=Exit.ERROR)
    assert "sum to 40, not to 100" in refused.output
    assert "write it as INSTRUMENT=WEIGHT" in office.run("model", "set", "x", "BTC", *WHY, code=Exit.ERROR).output
    assert office.counter() == before
    office.run("model", "remove", "balanced", *WHY)
    assert [c["action"] for c in office.json("model", "history", "balanced")] == ["remove", "add"]


def test_a_rebalance_without_an_engine_or_accounts_is_said(office: Office) -> None:
    office.run("model", "set", "m", "BTC/USDT=100", *WHY)
    assert "name accounts" in office.run("rebalance", "preview", "m", code=Exit.ERROR).output
    assert office.run("rebalance", "preview", "m", "-g", "g", code=Exit.ERROR).output
    assert "There is no model x" in office.run("rebalance", "propose", "x", "-g", "g", code=Exit.ERROR).output


def test_without_a_configuration_it_is_exit_78(tmp_path: Path) -> None:
    result = invoke("accounts", "list", "--config", str(tmp_path / "unisono.toml"))
    assert result.exit_code == Exit.CONFIG
    assert "unisono init" in result.output


def test_without_a_database_it_says_how_to_make_one(tmp_path: Path) -> None:
    config = tmp_path / "unisono.toml"
    config.write_text("")
    result = invoke("accounts", "list", "--config", str(config))
    assert result.exit_code == Exit.ERROR
    assert "unisono init" in result.output
    assert [p.name for p in tmp_path.iterdir()] == ["unisono.toml"]
