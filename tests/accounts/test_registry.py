"""Every edit is one attributed change, all or nothing; what does not change is not recorded."""

from __future__ import annotations

import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from accounts.model import AccountState, Group, Listener, LiveRow, Mandate, Model, ModelLine, Secret, Trading, Weight
from accounts.registry import Conflict, NotFound, Registry, RegistryError
from accounts.vault import Vault
from tests.accounts.world import NOW_MS, WHO, account, add, connections, login, on_sqlite


def test_an_added_account_has_its_connections_and_readable_unique_keys(registry: Registry, vault: Vault) -> None:
    add(registry, vault, "a001")
    assert registry.account("a001") == account("a001")
    private, public = sorted(registry.connections(), key=lambda c: c.kind)
    assert (private.client_key, private.connection_key) == ("venue-a001-private", "venue-a001-private-a000")
    assert (public.client_key, public.connection_key) == ("venue-main-demo-public", "venue-main-demo-public-a001")
    assert registry.connections("a001") == [private]


def test_a_shared_feed_is_made_once_per_place_and_never_again(registry: Registry, vault: Vault) -> None:
    add(registry, vault, "a001", "a002")
    elsewhere = account("a003", environment="prod")
    registry.add_account(elsewhere, connections(elsewhere), vault.seal("a003", login()), **WHO)
    shared = [c for c in registry.connections() if c.listener is Listener.VENUE]
    assert [(c.site, c.environment, c.listener_id) for c in shared] == [
        ("main", "demo", "venue"),
        ("main", "prod", "venue"),
    ]


def test_every_edit_says_who_when_why_and_from_what_to_what(registry: Registry, vault: Vault) -> None:
    add(registry, vault, "a001")
    registry.edit_account("a001", {"name": "New name"}, by="eva", why="she married")
    change = registry.changes(limit=1)[0]
    assert (change.by, change.why, change.at_ms) == ("eva", "she married", NOW_MS)
    assert (change.kind, change.subject_id, change.action) == ("account", "a001", "edit")
    assert change.before is not None
    assert change.after == change.before | {"name": "New name", "version": 2}


BALANCED = Model(
    model_id="balanced",
    name="Balanced",
    cash=Decimal(10),
    lines=(
        ModelLine(instrument="A", weight=Decimal(60), band=Decimal("2.5")),
        ModelLine(instrument="B", weight=Decimal(30)),
    ),
)

_EDITS: dict[str, Callable[[Registry, Vault], object]] = {
    "name": lambda r, v: r.edit_account("a001", {"name": "Other"}, **WHO),
    "venue ref": lambda r, v: r.set_venue_ref("a001", "uid-1", **WHO),
    "pause": lambda r, v: r.pause("a001", **WHO),
    "close": lambda r, v: r.close("a001", **WHO),
    "address": lambda r, v: r.edit_connection(r.connections("a001")[0].connection_key, {"url": "wss://x/"}, **WHO),
    "channels": lambda r, v: r.edit_connection(r.connections("a001")[0].connection_key, {"channels": ("a",)}, **WHO),
    "keep alive": lambda r, v: r.edit_connection(r.connections("a001")[0].connection_key, {"keep_alive": False}, **WHO),
    "mandate": lambda r, v: r.set_mandate(Mandate(account_id="a001", max_order_notional=Decimal("9.5")), **WHO),
    "trading": lambda r, v: r.set_trading("a001", Trading.REDUCING, **WHO),
    "group's mandate": lambda r, v: r.set_group_mandate(Mandate(group_id="g", do_not_trade=("X",)), **WHO),
    "model": lambda r, v: r.set_model(BALANCED, **WHO),
    "group name": lambda r, v: r.rename_group("g", "Other", **WHO),
    "weights": lambda r, v: r.set_weights("g", [Weight("a001", Decimal("0.1"))], **WHO),
}


@pytest.mark.parametrize("name", _EDITS)
def test_an_edit_grows_the_counter_and_the_same_edit_again_records_nothing(
    registry: Registry, vault: Vault, name: str
) -> None:
    add(registry, vault, "a001", "a002")
    registry.add_group(Group(group_id="g", name="G"), **WHO)
    counters = [registry.change_counter()]
    for _ in range(2):
        _EDITS[name](registry, vault)
        counters.append(registry.change_counter())
    assert counters[0] < counters[1] == counters[2]


_NOT_OF_AN_ACCOUNT = ("group name", "weights", "group's mandate", "model")


@pytest.mark.parametrize("name", [n for n in _EDITS if n not in _NOT_OF_AN_ACCOUNT])
@on_sqlite
def test_an_edit_of_an_account_grows_its_version(registry: Registry, vault: Vault, name: str) -> None:
    add(registry, vault, "a001")
    _EDITS[name](registry, vault)
    assert registry.account("a001").version == 2


def test_new_credentials_grow_the_version_and_are_recorded_by_name_only(registry: Registry, vault: Vault) -> None:
    add(registry, vault, "a001")
    registry.set_credentials("a001", vault.seal("a001", login(secret="other")), **WHO)
    assert vault.open("a001", registry.sealed("a001"))["secret"] == Secret("other")
    assert registry.account("a001").version == 2
    shown = {"fields": ["api_key", "passphrase", "secret"], "key_id": vault.key_id}
    change = registry.changes(limit=1)[0]
    assert (change.kind, change.before, change.after) == ("credentials", shown, shown)


def test_credentials_of_another_vault_key_are_refused(registry: Registry, vault: Vault) -> None:
    add(registry, vault, "a001")
    before = registry.sealed("a001")
    with pytest.raises(Conflict, match="another vault key"):
        registry.set_credentials("a001", Vault(bytes(32)).seal("a001", login()), **WHO)
    assert registry.sealed("a001") == before


@pytest.mark.parametrize(
    "edit",
    [
        lambda r: r.edit_account("a001", {"name": "X"}, version=1, **WHO),
        lambda r: r.pause("a001", version=1, **WHO),
        lambda r: r.set_mandate(Mandate(account_id="a001", do_not_trade=("X",)), version=1, **WHO),
        lambda r: r.edit_connection(r.connections("a001")[0].connection_key, {"url": "wss://y"}, version=1, **WHO),
    ],
)
@on_sqlite
def test_an_edit_made_for_an_older_version_is_a_conflict(
    registry: Registry, vault: Vault, edit: Callable[[Registry], object]
) -> None:
    add(registry, vault, "a001")
    registry.edit_account("a001", {"name": "Somebody was faster"}, version=1, **WHO)
    counter = registry.change_counter()
    with pytest.raises(Conflict, match="is at version 2, this edit was made for version 1"):
        edit(registry)
    assert registry.change_counter() == counter


def test_edits_together_are_all_or_nothing(registry: Registry, vault: Vault) -> None:
    counter = registry.change_counter()
    with pytest.raises(Conflict), registry.together():
        add(registry, vault, "a001", "a002", "a001")
    assert registry.accounts() == []
    assert registry.connections() == []
    assert registry.change_counter() == counter


def test_a_rehearsal_shows_its_changes_and_keeps_none(registry: Registry, vault: Vault) -> None:
    before = registry.changes()
    with registry.together(keep=False) as recorded:
        add(registry, vault, "a001")
    assert {c.kind for c in recorded.changes} == {"account", "connection", "credentials"}
    assert registry.accounts() == []
    assert registry.changes() == before
    add(registry, vault, "a001")  # and the registry goes on
    assert len(registry.accounts()) == 1


def test_a_decision_that_rests_on_an_older_registry_is_a_conflict(registry: Registry, vault: Vault) -> None:
    counter = registry.change_counter()
    add(registry, vault, "a001")
    with pytest.raises(Conflict, match="changed by somebody else"), registry.together(counter=counter):
        raise AssertionError("not reached")


def test_writers_at_once_lose_nothing(registry: Registry, vault: Vault, database_url: str) -> None:
    def write(start: int) -> None:
        with Registry(database_url) as own:
            for number in range(start, start + 5):
                add(own, vault, f"a{number:03}")

    threads = [threading.Thread(target=write, args=(start,)) for start in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(registry.accounts()) == 15
    shared = [c for c in registry.connections() if c.listener is Listener.VENUE]
    assert len(shared) == 1


# ---- States


def test_a_paused_account_wants_no_connections_and_a_shared_feed_lives_as_long_as_one_is_active(
    registry: Registry, vault: Vault
) -> None:
    def wanted() -> list[str]:
        return [c.client_key for c in registry.wanted()]

    add(registry, vault, "a001", "a002")
    assert wanted() == ["venue-a001-private", "venue-a002-private", "venue-main-demo-public"]
    registry.pause("a001", **WHO)
    assert wanted() == ["venue-a002-private", "venue-main-demo-public"]
    registry.close("a002", **WHO)
    assert wanted() == []
    registry.resume("a001", **WHO)
    assert wanted() == ["venue-a001-private", "venue-main-demo-public"]


def test_closed_is_for_good_and_leaves_the_groups(registry: Registry, vault: Vault) -> None:
    add(registry, vault, "a001", "a002")
    both = (Weight("a001", Decimal(1)), Weight("a002", Decimal(2)))
    registry.add_group(Group(group_id="g", name="G", weights=both), **WHO)
    registry.close("a001", drop_credentials=True, **WHO)
    assert registry.group("g").weights == both[1:]
    assert registry.sealed("a001") == {}
    for again in (registry.resume, registry.pause):
        with pytest.raises(RegistryError, match="closed is for good"):
            again("a001", **WHO)
    with pytest.raises(RegistryError, match="joins no group"):
        registry.set_weights("g", both, **WHO)


def test_closing_keeps_the_credentials_unless_told(registry: Registry, vault: Vault) -> None:
    add(registry, vault, "a001")
    registry.close("a001", **WHO)
    assert vault.open("a001", registry.sealed("a001")) == login()


def test_an_account_without_credentials_is_never_active(registry: Registry, vault: Vault) -> None:
    new = account("a001")
    with pytest.raises(RegistryError, match="no credentials"):
        registry.add_account(new, connections(new), {}, **WHO)
    assert registry.accounts() == []
    add(registry, vault, "a002", state=AccountState.PAUSED)
    registry.set_credentials("a002", {}, **WHO)
    with pytest.raises(RegistryError, match="no credentials"):
        registry.resume("a002", **WHO)
    assert registry.account("a002").state is AccountState.PAUSED


def test_the_same_login_twice_is_refused(registry: Registry, vault: Vault) -> None:
    add(registry, vault, "a001", "a002")
    registry.set_venue_ref("a001", "uid-7", **WHO)
    with pytest.raises(Conflict, match="placed twice"):
        registry.set_venue_ref("a002", "uid-7", **WHO)
    registry.close("a001", **WHO)
    assert registry.set_venue_ref("a002", "uid-7", **WHO).venue_ref == "uid-7"


# ---- Groups and mandates


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ([("a001", "-1")], "0 or more"),
        ([("a001", "NaN")], "0 or more"),
        ([("a001", "Infinity")], "0 or more"),
        ([("a001", "1"), ("a001", "2")], "named twice"),
        ([("a999", "1")], "no account a999"),
    ],
)
@on_sqlite
def test_wrong_weights_are_refused(registry: Registry, vault: Vault, weights: list[tuple[str, str]], says: str) -> None:
    add(registry, vault, "a001")
    registry.add_group(Group(group_id="g", name="G", weights=(Weight("a001", Decimal(5)),)), **WHO)
    with pytest.raises(RegistryError, match=says):
        registry.set_weights("g", [Weight(a, Decimal(w)) for a, w in weights], **WHO)
    assert registry.group("g").weights == (Weight("a001", Decimal(5)),)


def test_weights_and_limits_come_back_to_the_last_digit(registry: Registry, vault: Vault) -> None:
    exact = Decimal("0.1000000000000000000000000000000000001")
    huge = Decimal("12345678901234567890.000000001")
    add(registry, vault, "a001")
    registry.add_group(Group(group_id="g", name="G", weights=(Weight("a001", exact),)), **WHO)
    registry.set_mandate(Mandate(account_id="a001", max_plan_notional=huge, allowed_instruments=("A", "B")), **WHO)
    assert registry.group("g").weights[0].weight == exact
    assert registry.mandates()[0].max_plan_notional == huge
    assert registry.mandate("a001").allowed_instruments == ("A", "B")


def test_an_exponent_is_written_out(registry: Registry, vault: Vault) -> None:
    add(registry, vault, "a001")
    registry.add_group(Group(group_id="g", name="G", weights=(Weight("a001", Decimal("1E+3")),)), **WHO)
    assert str(registry.group("g").weights[0].weight) == "1000"


@pytest.mark.parametrize("limit", ["0", "-1", "NaN", "Infinity"])
@on_sqlite
def test_a_limit_is_an_amount(registry: Registry, vault: Vault, limit: str) -> None:
    add(registry, vault, "a001")
    with pytest.raises(RegistryError, match="above 0"):
        registry.set_mandate(Mandate(account_id="a001", max_order_notional=Decimal(limit)), **WHO)


def test_a_removed_group_is_gone_and_its_history_stays(registry: Registry, vault: Vault) -> None:
    add(registry, vault, "a001")
    registry.add_group(Group(group_id="g", name="G", weights=(Weight("a001", Decimal(1)),)), **WHO)
    registry.remove_group("g", **WHO)
    assert registry.groups() == []
    with pytest.raises(NotFound):
        registry.group("g")
    assert [c.action for c in registry.changes(subjects=[("group", "g")])] == ["remove", "add"]


# ---- What is refused


@pytest.mark.parametrize("bad", ["", "A001", "a 1", "-a", "a" * 33, "ä", "a/b", "a\n"])
@on_sqlite
def test_a_bad_account_id_is_refused(registry: Registry, vault: Vault, bad: str) -> None:
    with pytest.raises(RegistryError, match="account id"):
        registry.add_account(account(bad), (), {}, **WHO)


@pytest.mark.parametrize("bad", ["", " x", "x" * 101, "a\tb", "a\x00b", "=1+1", "@x", "\u202eabc"])
@on_sqlite
def test_a_bad_name_is_refused(registry: Registry, vault: Vault, bad: str) -> None:
    add(registry, vault, "a001")
    with pytest.raises(RegistryError, match="name"):
        registry.edit_account("a001", {"name": bad}, **WHO)


@on_sqlite
def test_what_an_account_is_cannot_be_edited(registry: Registry, vault: Vault) -> None:
    add(registry, vault, "a001")
    for field in ("venue", "environment", "state", "version", "account_id"):
        with pytest.raises(RegistryError, match="cannot be edited"):
            registry.edit_account("a001", {field: "prod"}, **WHO)
    with pytest.raises(RegistryError, match="cannot be edited"):
        registry.edit_connection(registry.connections("a001")[0].connection_key, {"requires_auth": False}, **WHO)


@pytest.mark.parametrize("why", ["", "   ", "x" * 501])
@on_sqlite
def test_an_edit_without_a_reason_is_refused(registry: Registry, vault: Vault, why: str) -> None:
    add(registry, vault, "a001")
    with pytest.raises(RegistryError, match=r"why|reason"):
        registry.pause("a001", by="eva", why=why)
    assert registry.account("a001").state is AccountState.ACTIVE


@on_sqlite
def test_what_is_not_there_is_not_found(registry: Registry) -> None:
    for ask in (registry.account, registry.mandate, registry.group):
        with pytest.raises(NotFound):
            ask("a404")
    with pytest.raises(NotFound):
        registry.edit_connection("venue-a404-private-0000", {"url": "wss://x"}, **WHO)


# ---- History, live state


def test_an_accounts_history_holds_its_own_rows_only(registry: Registry, vault: Vault) -> None:
    add(registry, vault, "a001", "a002")
    registry.add_group(Group(group_id="a001", name="a group that is called like the account"), **WHO)
    registry.set_mandate(Mandate(account_id="a001", do_not_trade=("X",)), **WHO)
    kinds = [c.kind for c in registry.account_changes("a001")]
    assert kinds == ["mandate", "credentials", "connection", "account"]


def test_live_state_is_written_over_and_records_no_change(registry: Registry, database_url: str) -> None:
    counter = registry.change_counter()
    first = [LiveRow(connection_key=f"k{n}", phase="opening", attempts=n, updated_at_ms=1) for n in range(3)]
    last = LiveRow(
        connection_key="k1", phase="live", opened_at_ms=2**41, last_heard_at_ms=5, last_error="e" * 900, updated_at_ms=2
    )
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        Registry.save_live(connection, first)
        Registry.save_live(connection, [last])
        Registry.save_live(connection, [])
    engine.dispose()
    rows = registry.live()
    assert [row.phase for row in rows] == ["opening", "live", "opening"]
    assert rows[1].opened_at_ms == 2**41
    assert rows[1].last_error == "e" * 500
    assert registry.change_counter() == counter


# ---- Mandates of groups, models


def test_an_account_may_do_what_its_own_and_its_groups_mandates_allow_together(
    registry: Registry, vault: Vault
) -> None:
    add(registry, vault, "a001", "a002", "a003")
    for group_id, members in (("g", ("a001", "a002")), ("h", ("a002",))):
        weights = tuple(Weight(a, Decimal(1)) for a in members)
        registry.add_group(Group(group_id=group_id, name=group_id, weights=weights), **WHO)
    own = Mandate(account_id="a001", max_order_notional=Decimal(5), max_day_notional=Decimal(50), do_not_trade=("X",))
    registry.set_mandate(own, **WHO)
    of_g = Mandate(
        group_id="g", max_order_notional=Decimal(9), max_daily_loss=Decimal(2), allowed_instruments=("A", "B")
    )
    registry.set_group_mandate(of_g, **WHO)
    registry.set_group_mandate(Mandate(group_id="h", allowed_instruments=("C",), do_not_trade=("Y",)), **WHO)
    first, second = registry.mandates_in_force()
    assert (first.account_id, first.group_id, first.do_not_trade) == ("a001", "", ("X",))
    assert (first.max_order_notional, first.max_day_notional, first.max_daily_loss) == (5, 50, 2)
    assert first.allowed_instruments == ("A", "B")
    assert (second.account_id, second.max_order_notional, second.do_not_trade) == ("a002", 9, ("Y",))
    assert not {"A", "B", "C"} & set(second.allowed_instruments), "two lists without a common instrument allow none"
    assert second.allowed_instruments, "an empty list would allow all"
    registry.remove_group("h", **WHO)
    assert registry.mandates_in_force()[1].allowed_instruments == ("A", "B")


def test_a_model_is_kept_whole_and_replaced_whole(registry: Registry) -> None:
    registry.set_model(BALANCED, **WHO)
    assert registry.models() == [BALANCED]
    shorter = msgspec.structs.replace(BALANCED, cash=Decimal(40), lines=BALANCED.lines[:1])
    registry.set_model(shorter, **WHO)
    assert registry.model("balanced") == shorter
    registry.remove_model("balanced", **WHO)
    assert registry.models() == []
    assert [c.action for c in registry.changes(subjects=[("model", "balanced")])] == ["remove", "set", "add"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cash": Decimal(9)}, "sum to 99, not to 100"),
        ({"cash": Decimal("10.0000000001")}, "sum to 100.0000000001, not to 100"),
        ({"cash": Decimal("NaN")}, "The cash line is NaN"),
        ({"lines": (ModelLine(instrument="A", weight=Decimal(-1)),)}, "must lie between 0 and 100"),
        ({"lines": (ModelLine(instrument="A", weight=Decimal(1), band=Decimal(101)),)}, "The band of A is 101"),
        ({"lines": (BALANCED.lines[0], BALANCED.lines[0])}, "'A' is named twice"),
        ({"model_id": "No"}, "A model id"),
    ],
)
def test_a_model_that_does_not_add_up_is_refused(registry: Registry, changes: dict[str, Any], says: str) -> None:
    before = registry.change_counter()
    with pytest.raises(RegistryError, match=says):
        registry.set_model(msgspec.structs.replace(BALANCED, **changes), **WHO)
    assert registry.models() == []
    assert registry.change_counter() == before
