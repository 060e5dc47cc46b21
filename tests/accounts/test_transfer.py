"""What goes out comes back in the same, a file that is brought in twice changes nothing, and no key ever goes out."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accounts.model import AccountState, Group, Listener, Mandate, Weight
from accounts.registry import Registry, RegistryError
from accounts.transfer import (
    AccountPart,
    ConnectionPart,
    GroupPart,
    MandatePart,
    Sheet,
    TransferError,
    bring_in,
    from_csv,
    from_toml,
    sheet,
    to_csv,
    to_toml,
)
from accounts.vault import Vault
from tests.accounts.world import CANARIES, WHO, Profiles, add, login, on_sqlite

ids = st.from_regex(r"[a-z0-9][a-z0-9-]{0,9}", fullmatch=True)
names = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=20)
amounts = st.decimals(min_value=Decimal("0.001"), max_value=Decimal(10**9), places=3)
words = st.lists(st.from_regex(r"[A-Z/]{1,9}", fullmatch=True), max_size=3).map(tuple)
accounts = st.builds(
    AccountPart,
    id=ids,
    name=names,
    venue=st.just("venue"),
    site=st.just("main"),
    environment=st.sampled_from(["demo", "prod"]),
    state=st.sampled_from(AccountState),
    mandate=st.builds(
        MandatePart, max_order_notional=st.none() | amounts, allowed_instruments=words, do_not_trade=words
    ),
    connection=st.just((ConnectionPart(kind="private", url="wss://venue.example/x"),)),
)


@st.composite
def sheets(draw: st.DrawFn) -> Sheet:
    members = draw(st.lists(accounts, max_size=4, unique_by=lambda a: a.id))
    weights = {a.id: draw(amounts) for a in members}
    groups = draw(
        st.lists(
            st.builds(GroupPart, id=ids, name=names, weights=st.just(weights)), max_size=2, unique_by=lambda g: g.id
        )
    )
    return Sheet(accounts=tuple(members), groups=tuple(groups))


@settings(max_examples=50)
@given(content=sheets())
def test_toml_comes_back_as_it_went(content: Sheet) -> None:
    assert from_toml(to_toml(content)) == content


@settings(max_examples=50)
@given(content=sheets())
def test_csv_comes_back_as_it_went_but_for_names_of_groups(content: Sheet) -> None:
    back = from_csv(to_csv(content))
    assert back.accounts == content.accounts
    assert {g.id: g.weights for g in back.groups} == {g.id: g.weights for g in content.groups if g.weights}


@pytest.fixture
def office(registry: Registry, vault: Vault) -> Registry:
    add(registry, vault, "a001", "a002", "a003")
    weights = (Weight("a001", Decimal("33.4")), Weight("a002", Decimal("66.6")))
    registry.add_group(Group(group_id="g", name="The group", weights=weights), **WHO)
    registry.set_mandate(Mandate(account_id="a002", max_order_notional=Decimal("0.1"), do_not_trade=("X",)), **WHO)
    registry.close("a003", **WHO)
    public = next(c for c in registry.connections() if c.listener is Listener.VENUE)
    registry.edit_connection(public.connection_key, {"channels": ("marks", "tickers")}, **WHO)
    return registry


@pytest.mark.parametrize(("write", "read"), [(to_toml, from_toml), (to_csv, from_csv)], ids=["toml", "csv"])
def test_bringing_in_what_was_written_out_changes_nothing(
    office: Registry, vault: Vault, write: Callable[[Sheet], str], read: Callable[[str], Sheet]
) -> None:
    counter = office.change_counter()
    assert bring_in(office, read(write(sheet(office))), Profiles(), vault, **WHO) == []
    assert office.change_counter() == counter


def test_an_empty_registry_becomes_the_same_but_paused_without_keys(
    office: Registry, vault: Vault, tmp_path: Path
) -> None:
    with Registry(f"sqlite:///{tmp_path / 'second.sqlite'}") as second:
        second.upgrade()
        notes = bring_in(second, from_toml(to_toml(sheet(office))), Profiles(), None, **WHO)
        assert [n.split(":")[0] for n in notes] == ["a001 has no credentials", "a002 has no credentials"]
        assert [a.state.value for a in second.accounts()] == ["paused", "paused", "closed"]
        assert second.groups() == office.groups()
        assert second.mandates() == office.mandates()
        assert [c.channels for c in second.connections()] == [c.channels for c in office.connections()]


@on_sqlite
def test_nothing_that_goes_out_holds_a_key(office: Registry) -> None:
    for text in (to_toml(sheet(office)), to_csv(sheet(office)), repr(sheet(office))):
        assert "a001" in text
        assert not any(canary in text for canary in CANARIES.values())


_NEW = """
[[account]]
id = "b001"
venue = "venue"
site = "main"
environment = "demo"
"""
_LOGIN = "[account.credentials]\n" + "".join(f'{field} = "{value}"\n' for field, value in CANARIES.items())


def test_credentials_of_a_file_are_sealed_and_the_same_ones_again_change_nothing(
    registry: Registry, vault: Vault
) -> None:
    bring_in(registry, from_toml(_NEW + _LOGIN), Profiles(), vault, **WHO)
    assert vault.open("b001", registry.sealed("b001")) == login()
    assert registry.account("b001").state is AccountState.ACTIVE
    counter = registry.change_counter()
    bring_in(registry, from_toml(_NEW + _LOGIN), Profiles(), vault, **WHO)
    assert registry.change_counter() == counter
    bring_in(registry, from_toml(_NEW + _LOGIN.replace("93ab", "0000")), Profiles(), vault, **WHO)
    assert registry.change_counter() == counter + 1


@on_sqlite
def test_a_file_changes_what_it_names_and_leaves_the_rest(office: Registry, vault: Vault) -> None:
    before = {a.account_id: a for a in office.accounts()}
    text = "id,venue,site,environment,name,url:private\na001,venue,main,demo,Renamed,wss://venue.example/moved\n"
    bring_in(office, from_csv(text), Profiles(), vault, **WHO)
    after = {a.account_id: a for a in office.accounts()}
    assert (after["a001"].name, after["a002"]) == ("Renamed", before["a002"])
    assert office.connections("a001")[0].url == "wss://venue.example/moved"
    assert office.connections("a001")[0].channels == ("orders", "positions")
    assert [w.account_id for w in office.group("g").weights] == ["a001", "a002"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (_NEW.replace('"demo"', '"prod"').replace("b001", "a001"), "that is another account"),
        (_NEW + '[[account.connection]]\nkind = "private"\nurl = "wss://evil.example/"', "not allowed"),
        (_NEW.replace("b001", "a001") + '[[account.connection]]\nkind = "private"\nurl = "wss://e/"', "not allowed"),
        (_NEW.replace("b001", "B 1"), "account id"),
        (_NEW + '[account.credentials]\napi_key = "k"\n', "passphrase, secret"),
        (_NEW + _LOGIN.replace(CANARIES["secret"], " "), "secret is empty"),
        (_NEW + '[[group]]\nid = "h"\n[group.weights]\nnobody = 1', "no account nobody"),
        ('[[shared]]\nvenue="v"\nsite="s"\nenvironment="demo"\nkind="k"\nurl="wss://u"', "no shared feed v/s/demo/k"),
    ],
)
@on_sqlite
def test_a_file_that_cannot_be_carried_out_changes_nothing(
    office: Registry, vault: Vault, text: str, says: str
) -> None:
    counter = office.change_counter()
    first = '[[account]]\nid = "a002"\nvenue = "venue"\nsite = "main"\nenvironment = "demo"\nname = "Would change"\n'
    with pytest.raises((RegistryError, ValueError), match=says):
        bring_in(office, from_toml(first + text), Profiles(), vault, **WHO)
    assert office.change_counter() == counter
    assert office.account("a002").name == "Client a002"


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        ("[[account", ["is not TOML"]),
        ("[[accounts]]\n[[acount]]", ["accounts is no part", "acount is no part"]),
        ("account = 3", [r"account must be written as \[\[account\]\]"]),
        (
            _NEW + "state = 'gone'" + _NEW.replace("b001", "b002") + "colour = 1",
            [r"account 1 \(b001\)", r"account 2 \(b002\)"],
        ),
        (_NEW + _NEW, ["account b001 is there twice"]),
        ('[[group]]\nid = "g"\n[group.weights]\na = "x"', [r"group 1 \(g\)"]),
        ("[[account]]\nid = 7", ["account 1"]),
    ],
)
def test_every_error_of_a_toml_file_is_told(text: str, errors: list[str]) -> None:
    with pytest.raises(TransferError) as caught:
        from_toml(text)
    assert len(caught.value.errors) == len(errors)
    for error in errors:
        assert caught.match(error)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "column id is missing"),
        ("id,venue,site,environment,secret\n", "column 'secret' is not known"),
        ("id,id,venue,site,environment\n", "column id is there twice"),
        ("id,venue,site,environment\na,v\n", "line 2: has not as many fields"),
        ("id,venue,site,environment\na,v,s,e,f\n", "line 2: has not as many fields"),
        ("id,venue,site,environment,weight:g\na,v,s,e,much\n", "line 2: weight:g is 'much', not a number"),
        ("id,venue,site,environment,state\na,v,s,e,gone\n", r"line 2 \(a\)"),
        ("id,venue,site,environment\n,v,s,e\n", "line 2"),
    ],
)
def test_an_error_of_a_csv_file_is_told_with_its_line(text: str, says: str) -> None:
    with pytest.raises(TransferError, match=says):
        from_csv(text)


def test_no_error_repeats_a_credential() -> None:
    for text in (
        _NEW + _LOGIN + "3",
        _NEW + _LOGIN + "again = 3",
        _NEW + _LOGIN + "x = ['CANARY-in-list']",
        _NEW + _LOGIN * 2,
    ):
        with pytest.raises(TransferError) as caught:
            from_toml(text)
        assert "CANARY" not in str(caught.value)
        assert "CANARY" not in repr(caught.value.errors)
