"""Holds. What the running engine knows of the registry: accounts, connections, groups, opened credentials.

Filled by the app from `accounts.registry` at the start and after each recorded change; everybody else only asks.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from accounts.model import Account, AccountState, Connection, Credentials, Group, Listener, Mandate
from engine.config import VenueSettings
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.venue import (
    ACCESS_TOKEN,
    Amending,
    Catalogue,
    ErrorClass,
    Identity,
    Login,
    Rest,
    Token,
    Transport,
    Venue,
    VenueError,
)
from engine.wire.http import Origin

_PLACES_ASKED = 8  # addresses and logins that are tried one after the other


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
        self._logins: dict[str, str] = {}
        self._salt = secrets.token_bytes(16)
        self._rests: dict[tuple[str, str, str], Rest] = {}
        self._rest_urls: dict[str, str] = {}
        self._grant_urls: dict[str, str] = {}
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
            self._logins.pop(account_id, None)
            self.halted.pop(account_id, None)  # an edit by a person is what a halted account waits for
        self.accounts = new
        self.connections = list(connections)
        self.groups = {g.group_id: g for g in groups}
        self.mandates = {m.account_id: m for m in mandates}
        self._rest_urls, self._grant_urls = {}, {}
        for c in connections:
            endpoint = self.venues[c.venue].endpoint(c.kind)
            if c.listener is Listener.ACCOUNT and endpoint.transport is Transport.HTTP:
                (self._grant_urls if endpoint.grants else self._rest_urls)[c.listener_id] = c.url
        return changed

    def account(self, account_id: str) -> Account:
        try:
            return self.accounts[account_id]
        except KeyError:
            raise UnknownAccount(f"there is no account {account_id} under management") from None

    def active(self) -> list[Account]:
        """The accounts that hold money and take orders."""
        return [a for a in self._on() if self.venues[a.venue].capabilities.trades]

    def feeds(self) -> list[Account]:
        """The logins at feeds of prices."""
        return [a for a in self._on() if not self.venues[a.venue].capabilities.trades]

    def without_channels(self, account_id: str) -> list[str]:
        """The kinds of its connections that must name channels and name none."""
        rows = [c for c in self.connections if c.listener_id == account_id and not c.channels]
        return [c.kind for c in rows if self.venues[c.venue].endpoint(c.kind).needs_channels]

    def _on(self) -> list[Account]:
        return [a for a in self.accounts.values() if a.state is AccountState.ACTIVE]

    def venue(self, account_id: str) -> Venue:
        return self.venues[self.account(account_id).venue]

    def replaces(self, account_id: str) -> bool:
        """Does its venue change an order by ending it and making another one?"""
        return self.venue(account_id).capabilities.amending is Amending.REPLACES

    def amend_key(self, account_id: str, amend_id: str) -> str:
        """An amendment's id as its venue spells ids; "" for an account that is not here."""
        return self.venue(account_id).render_order_id(int(amend_id, 16)) if account_id in self.accounts else ""

    def credentials(self, account_id: str) -> Credentials:
        """Opened once per version of the account; raises what the vault raises."""
        known = self._credentials.get(account_id)
        if known is None:
            known = self._credentials[account_id] = self._open(account_id)
        return known

    def login_of(self, account_id: str) -> str:
        """The same name for all accounts with the same credentials; it tells nothing of them, and lives as long as
        the process. Accounts whose credentials cannot be opened are by themselves."""
        known = self._logins.get(account_id)
        if known is None:
            try:
                credentials = self.credentials(account_id)
            except Exception:  # whatever the vault raises is told where they are used
                return account_id
            told = "\0".join(f"{field}={credentials[field].reveal()}" for field in sorted(credentials))
            known = hashlib.blake2b(told.encode(), key=self._salt, digest_size=8).hexdigest()
            self._logins[account_id] = known
        return known

    def login(self, account_id: str, token: Token | None) -> Login:
        credentials = self.credentials(account_id)
        if token is not None:
            credentials = credentials | {ACCESS_TOKEN: token.secret}
        return Login(self.account(account_id).venue_ref, credentials)

    def options(self, venue: str) -> Mapping[str, str]:
        return {**self.venues[venue].options, **self.settings(venue).options}

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
        return self.rest_at(account.venue, account.environment, self.ref(account_id))

    def ref(self, account_id: str) -> str:
        """The venue's own name of the account where its login does not say it; else ""."""
        account = self.account(account_id)
        return account.venue_ref if self.venues[account.venue].account_ref is not None else ""

    def rest_at(self, venue: str, environment: str, ref: str = "") -> Rest:
        key = (venue, environment, ref)
        if key not in self._rests:
            catalogue = self._catalogue(venue, environment)
            self._rests[key] = self.venues[venue].rest(catalogue, ref=ref, options=self.options(venue))
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
            login=self.login_of(account_id),
            environment=account.environment,
            grant_url=self._grant_urls.get(account_id, ""),
            options=self.options(account.venue),
        )

    def places(self) -> dict[tuple[str, str], list[Origin]]:
        """Each (venue, environment) in use, and every address there at which what is common to all can be asked for.

        As nobody: one account's refused key must not keep instruments and prices from the others. Where the venue
        tells nothing to nobody, as a few of its logins, one after the other.
        """
        found: dict[tuple[str, str], dict[tuple[str, str], Origin]] = {}
        for account in self._on():
            account_id, venue = account.account_id, self.venues[account.venue]
            url = self._rest_urls.get(account_id)
            origins = found.setdefault((venue.name, account.environment), {})
            as_somebody = self.rest_at(venue.name, account.environment).server_time().request.signed
            key = (url or "", self.login_of(account_id) if as_somebody else "")
            if url is None or key in origins or len(origins) >= _PLACES_ASKED:
                continue
            if not as_somebody:
                origins[key] = Origin(
                    venue=venue, base_url=url, environment=account.environment, options=self.options(venue.name)
                )
            elif account_id not in self.halted:
                with suppress(VenueError):  # its credentials cannot be opened: another's may
                    origins[key] = self.origin(account_id)
        return {place: list(origins.values()) for place, origins in found.items()}

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
            if not self.venue(account_id).capabilities.trades:
                raise UnknownAccount(
                    f"{account_id} is a login at a feed of prices; it holds nothing and takes no orders"
                )
        return sorted(found)
