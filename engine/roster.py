"""Holds. What the running engine knows of the registry: accounts, connections, groups, opened credentials.

Filled by the app from `accounts.registry` at the start and after each recorded change; everybody else only asks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from accounts.model import Account, AccountState, Connection, Credentials, Group, Listener, Mandate
from engine.config import VenueSettings
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.venue import Catalogue, ErrorClass, Identity, Rest, Transport, Venue, VenueError
from engine.wire.http import Origin


class UnknownAccount(Exception):
    """No such account under management."""


class Roster:
    def __init__(
        self,
        venues: dict[str, Venue],
        settings: dict[str, VenueSettings],
        catalogue: Callable[[str, str], Catalogue],
        open_credentials: Callable[[str], Credentials],
    ) -> None:
        self.venues = venues
        self._settings = settings
        self._catalogue = catalogue
        self._open = open_credentials
        self._credentials: dict[str, Credentials] = {}
        self._rests: dict[tuple[str, str], Rest] = {}
        self._rest_urls: dict[str, str] = {}
        self.accounts: dict[str, Account] = {}
        self.connections: list[Connection] = []
        self.groups: dict[str, Group] = {}
        self.mandates: dict[str, Mandate] = {}
        self.identities: dict[str, Identity] = {}  # what the venue last said of each account's key
        self._order_kinds: dict[str, str | None] = {}  # by venue
        self.halted: dict[str, str] = {}  # account_id -> why it takes no part until a person has seen to it

    def fill(
        self,
        accounts: Sequence[Account],
        connections: Sequence[Connection],
        groups: Sequence[Group],
        mandates: Sequence[Mandate],
    ) -> set[str]:
        """Take the registry's content; returns the accounts whose row changed, came or went."""
        new = {a.account_id: a for a in accounts}
        changed = {i for i in self.accounts.keys() | new.keys() if self.accounts.get(i) != new.get(i)}
        for account_id in changed:
            self._credentials.pop(account_id, None)
            self.halted.pop(account_id, None)  # an edit by a person is what a halted account waits for
        self.accounts = new
        self.connections = list(connections)
        self.groups = {g.group_id: g for g in groups}
        self.mandates = {m.account_id: m for m in mandates}
        self._rest_urls = {
            c.listener_id: c.url
            for c in connections
            if c.listener is Listener.ACCOUNT and self.venues[c.venue].endpoint(c.kind).transport is Transport.HTTP
        }
        return changed

    def account(self, account_id: str) -> Account:
        try:
            return self.accounts[account_id]
        except KeyError:
            raise UnknownAccount(f"there is no account {account_id} under management") from None

    def active(self) -> list[Account]:
        return [a for a in self.accounts.values() if a.state is AccountState.ACTIVE]

    def venue(self, account_id: str) -> Venue:
        return self.venues[self.account(account_id).venue]

    def credentials(self, account_id: str) -> Credentials:
        """Opened once per version of the account; raises what the vault raises."""
        known = self._credentials.get(account_id)
        if known is None:
            known = self._credentials[account_id] = self._open(account_id)
        return known

    def margin_mode(self, account_id: str, instrument: Instrument) -> str:
        if instrument.kind is not InstrumentKind.SPOT:
            return "cross"
        identity = self.identities.get(account_id)
        return "cash" if identity is None else identity.spot_margin_mode

    def catalogue(self, account_id: str) -> Catalogue:
        account = self.account(account_id)
        return self._catalogue(account.venue, account.environment)

    def rest(self, account_id: str) -> Rest:
        account = self.account(account_id)
        return self.rest_at(account.venue, account.environment)

    def rest_at(self, venue: str, environment: str) -> Rest:
        key = (venue, environment)
        if key not in self._rests:
            self._rests[key] = self.venues[venue].rest(self._catalogue(*key))
        return self._rests[key]

    def origin(self, account_id: str) -> Origin:
        """Where and as whom this account is asked over HTTP. Raises VenueError AUTH when its keys cannot be opened."""
        account = self.account(account_id)
        try:
            credentials = self.credentials(account_id)
        except Exception as error:  # whatever the vault raises: this account cannot be asked, the others can
            raise VenueError(ErrorClass.AUTH, "credentials", f"{type(error).__name__}: {error}") from error
        return Origin(
            venue=self.venues[account.venue],
            base_url=self._rest_urls[account_id],
            account_id=account_id,
            credentials=credentials,
            environment=account.environment,
        )

    def places(self) -> dict[tuple[str, str], list[Origin]]:
        """Each (venue, environment) in use, and every address there at which what is common to all can be asked for.

        As nobody: one account's refused key must not keep instruments and prices from the others.
        """
        found: dict[tuple[str, str], dict[str, Origin]] = {}
        for account in self.active():
            url = self._rest_urls.get(account.account_id)
            urls = found.setdefault((account.venue, account.environment), {})
            if url is not None and url not in urls:
                urls[url] = Origin(venue=self.venues[account.venue], base_url=url, environment=account.environment)
        return {place: list(urls.values()) for place, urls in found.items()}

    def order_kind(self, account_id: str) -> str | None:
        """The kind of connection that carries this account's orders; None: they go over HTTP."""
        venue = self.account(account_id).venue
        if venue not in self._order_kinds:
            self._order_kinds[venue] = self._order_kind(self.venues[venue])
        return self._order_kinds[venue]

    def _order_kind(self, venue: Venue) -> str | None:
        chosen = self.settings(venue.name).orders_over or venue.capabilities.orders_over.value
        if chosen == Transport.HTTP.value:
            return None
        return next(e.name for e in venue.endpoints if e.carries_orders)

    def fact_kind(self, account_id: str) -> str:
        """The kind of connection whose loss means that facts of this account may be missed."""
        return next(e.name for e in self.venue(account_id).endpoints if e.carries_facts)

    def settings(self, venue: str) -> VenueSettings:
        return self._settings.get(venue, VenueSettings())

    def members(self, groups: Sequence[str], accounts: Sequence[str]) -> list[str]:
        """The accounts of these groups and those named one by one, each once, in a fixed order."""
        found = dict.fromkeys(accounts)
        for group_id in groups:
            if group_id not in self.groups:
                raise UnknownAccount(f"there is no group {group_id}")
            found.update(dict.fromkeys(w.account_id for w in self.groups[group_id].weights))
        for account_id in found:
            self.account(account_id)
        return sorted(found)
