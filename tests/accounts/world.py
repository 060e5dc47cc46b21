"""What the tests of accounts share: one imagined venue, spelled as connections, and shorthands."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from accounts.model import Account, AccountState, Connection, Credentials, Listener, Secret
from accounts.registry import Registry
from accounts.vault import Vault

KEY = bytes(range(32))
NOW_MS = 1_767_225_600_000
WHO = {"by": "tester", "why": "because"}

# What does not depend on the database is tried on one.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

# None of these words may ever be seen outside of the vault.
CANARIES = {"api_key": "CANARY-key-7c1f", "secret": "CANARY-secret-93ab", "passphrase": "CANARY-pass-55d0"}


def login(**changed: str) -> Credentials:
    return {field: Secret(value) for field, value in (CANARIES | changed).items()}


def account(account_id: str = "a001", *, site: str = "main", environment: str = "demo", name: str = "") -> Account:
    return Account(
        account_id=account_id, name=name or f"Client {account_id}", venue="venue", site=site, environment=environment
    )


def connections(of: Account, urls: Mapping[str, str] = {}) -> tuple[Connection, ...]:
    """A private connection of the account's own and a shared public feed, without keys as the composer makes them."""
    return tuple(
        Connection(
            connection_key="",
            client_key="",
            listener=Listener.ACCOUNT if kind == "private" else Listener.VENUE,
            listener_id=of.account_id if kind == "private" else of.venue,
            venue=of.venue,
            site=of.site,
            environment=of.environment,
            kind=kind,
            url=urls.get(kind, f"wss://venue.example/{kind}"),
            requires_auth=kind == "private",
            keep_alive=True,
            channels=("orders", "positions") if kind == "private" else ("marks",),
        )
        for kind in ("private", "public")
    )


def add(registry: Registry, vault: Vault, *account_ids: str, state: AccountState = AccountState.ACTIVE) -> None:
    for account_id in account_ids:
        new = account(account_id)
        new = Account(
            account_id=new.account_id, name=new.name, venue="venue", site="main", environment="demo", state=state
        )
        registry.add_account(new, connections(new), vault.seal(account_id, login()), **WHO)


class Profiles:
    """The venue's profile as transfer asks for it; every address but one host is refused."""

    def compose(self, of: Account, urls: Mapping[str, str]) -> tuple[Connection, ...]:
        for kind, url in urls.items():
            self.check(of.venue, of.environment, kind, url)
        return connections(of, urls)

    def check(self, venue: str, environment: str, kind: str, url: str) -> None:
        if not url.startswith("wss://venue.example/"):
            raise ValueError(f"{url} is not allowed")

    def credential_fields(self, venue: str) -> tuple[str, ...]:
        return tuple(CANARIES)
