"""Decides. An account and its venue's profile -> the rows of the connection register; and which URLs are safe.

Plain ws and http reach only this machine; any host that the venue's own profile does not name must be allowed in the
configuration, so that a mistyped or planted address never gets a signed request.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

import msgspec

from accounts.model import Account, Connection, Listener
from engine.core.venue import EndpointKind, Transport, Venue

_SCHEMES = {Transport.STREAM: ("wss", "ws"), Transport.HTTP: ("https", "http")}


class RegisterError(Exception):
    """No such venue, place or endpoint kind, or an address that is not safe. Nothing was made."""


class Profile(msgspec.Struct, frozen=True):
    """A venue and what the configuration says of it."""

    venue: Venue
    overrides: Mapping[str, str] = {}  # "site.environment.kind" -> url
    allow_hosts: Collection[str] = ()


class Composer(msgspec.Struct, frozen=True):
    """Every venue's profile: composes and checks for whoever edits the registry."""

    profiles: Mapping[str, Profile]

    def compose(
        self,
        account: Account,
        urls: Mapping[str, str] = {},
        optional: Collection[str] = (),
        channels: Mapping[str, tuple[str, ...]] = {},
    ) -> tuple[Connection, ...]:
        profile = self.profile(account.venue)
        return compose(
            account,
            profile.venue,
            overrides=profile.overrides,
            allow_hosts=profile.allow_hosts,
            urls=urls,
            channels=channels,
            optional=optional,
        )

    def check(self, venue: str, environment: str, kind: str, url: str) -> None:
        """Raises RegisterError unless a connection of this kind may point there."""
        profile = self.profile(venue)
        check_url(profile.venue, environment, kind, url, profile.allow_hosts)

    def credential_fields(self, venue: str) -> tuple[str, ...]:
        return self.profile(venue).venue.credential_fields

    def trades(self, venue: str) -> bool:
        """Do its accounts hold money and take orders, or is it a feed of prices?"""
        return self.profile(venue).venue.capabilities.trades

    def without_channels(self, connections: Collection[Connection]) -> list[str]:
        """The kinds among them that must name channels and name none."""
        silent = [c for c in connections if not c.channels]
        return [c.kind for c in silent if endpoint(self.profile(c.venue).venue, c.kind).needs_channels]

    def profile(self, venue: str) -> Profile:
        try:
            return self.profiles[venue]
        except KeyError:
            raise RegisterError(f"There is no venue {venue}. Known: {', '.join(sorted(self.profiles))}.") from None


def compose(
    account: Account,
    venue: Venue,
    *,
    overrides: Mapping[str, str] = {},
    allow_hosts: Collection[str] = (),
    urls: Mapping[str, str] = {},
    channels: Mapping[str, tuple[str, ...]] = {},
    optional: Collection[str] = (),
) -> tuple[Connection, ...]:
    """One connection per endpoint kind, shared feeds among them; the registry assigns their keys.

    `urls` and `channels` are by kind. An address in `urls` goes before one in `overrides` (by
    "site.environment.kind", as the configuration has them), which goes before the venue's own. Kinds that the venue
    marks optional are made when `optional` or `urls` names them.
    """
    place = next((p for p in venue.places if (p.site, p.environment) == (account.site, account.environment)), None)
    if place is None:
        known = ", ".join(f"{p.site}/{p.environment}" for p in venue.places)
        raise RegisterError(f"{venue.name} has no {account.site}/{account.environment}. Known: {known}.")
    if venue.account_ref is not None and not re.fullmatch(venue.account_ref.pattern, account.venue_ref):
        told = f"{account.venue_ref!r} is none" if account.venue_ref else "it is missing"
        raise RegisterError(
            f"{account.account_id}: {venue.name} needs the account's {venue.account_ref.title}, for example "
            f"{venue.account_ref.example}, because a login there may hold several; {told}. Nothing was changed."
        )
    prefix = f"{account.site}.{account.environment}."
    configured = {k.removeprefix(prefix): url for k, url in overrides.items() if k.startswith(prefix)}
    for name in (*urls, *configured, *channels, *optional):
        endpoint(venue, name)
    known_urls = {**place.urls, **configured, **urls}
    wanted = [e for e in venue.endpoints if not e.optional or e.name in urls or e.name in optional]
    for kind in wanted:
        if kind.name not in known_urls:
            raise RegisterError(f"{venue.name} has no {kind.name} address on {account.site}/{account.environment}.")
        check_url(venue, account.environment, kind.name, known_urls[kind.name], allow_hosts)
    return tuple(
        Connection(
            connection_key="",
            client_key="",
            listener=kind.listener,
            listener_id=account.account_id if kind.listener is Listener.ACCOUNT else venue.name,
            venue=venue.name,
            site=account.site,
            environment=account.environment,
            kind=kind.name,
            url=known_urls[kind.name],
            requires_auth=kind.requires_auth,
            keep_alive=kind.transport is Transport.STREAM,
            channels=channels.get(kind.name, kind.channels),
        )
        for kind in wanted
    )


def check_url(venue: Venue, environment: str, kind: str, url: str, allow_hosts: Collection[str] = ()) -> None:
    """Raises RegisterError unless a connection of this kind and environment may point to `url`."""
    schemes = _SCHEMES[endpoint(venue, kind).transport]
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise RegisterError(f"{url!r} is no address: {error}.") from None
    if parts.scheme not in schemes or not host:
        raise RegisterError(
            f"{url!r} is no address for {kind}: it must begin with {' or '.join(f'{s}://' for s in schemes)}."
        )
    if "@" in parts.netloc or parts.fragment or parts.query or not url.isprintable() or " " in url:
        raise RegisterError(f"{url!r} has a part that does not belong there: a user, a query, a fragment or a space.")
    if is_loopback(host):
        return
    if parts.scheme in ("ws", "http"):
        raise RegisterError(f"{url} is not encrypted: plain {parts.scheme} is for this machine only.")
    own = {urlsplit(u).hostname for p in venue.places if p.environment == environment for u in p.urls.values()}
    if host not in own and host not in {h.lower() for h in allow_hosts}:
        raise RegisterError(
            f"{host} is not a {environment} host of {venue.name}. If it is meant, add it to the configuration: "
            f'[venues.{venue.name}] allow_hosts = ["{host}"]'
        )


def is_loopback(host: str) -> bool:
    """This machine, by its name or by an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def endpoint(venue: Venue, kind: str) -> EndpointKind:
    """The endpoint kind of that name, or RegisterError with the names there are."""
    for found in venue.endpoints:
        if found.name == kind:
            return found
    raise RegisterError(f"{venue.name} has no endpoint {kind}. Known: {', '.join(e.name for e in venue.endpoints)}.")
