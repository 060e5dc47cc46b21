"""Decides. An account and its venue's profile -> the rows of the connection register; and which URLs are safe.

Plain ws and http reach only this machine; any host that the venue's own profile does not name must be allowed in the
configuration, so that a mistyped or planted address never gets a signed request.
"""

from __future__ import annotations

import ipaddress
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
    endpoints: Mapping[str, str] = {}  # "site.environment.kind" -> url
    allow_hosts: Collection[str] = ()


class Composer(msgspec.Struct, frozen=True):
    """Every venue's profile: composes and checks for whoever edits the registry."""

    profiles: Mapping[str, Profile]

    def compose(
        self, account: Account, urls: Mapping[str, str] = {}, optional: Collection[str] = ()
    ) -> tuple[Connection, ...]:
        return compose(account, self.profile(account.venue), urls, optional)

    def check(self, venue: str, environment: str, kind: str, url: str) -> None:
        """Raises RegisterError unless a connection of this kind may point there."""
        check_url(self.profile(venue), environment, kind, url)

    def credential_fields(self, venue: str) -> tuple[str, ...]:
        return self.profile(venue).venue.credential_fields

    def profile(self, venue: str) -> Profile:
        try:
            return self.profiles[venue]
        except KeyError:
            raise RegisterError(f"There is no venue {venue}. Known: {', '.join(sorted(self.profiles))}.") from None


def compose(
    account: Account, profile: Profile, urls: Mapping[str, str] = {}, optional: Collection[str] = ()
) -> tuple[Connection, ...]:
    """One connection per endpoint kind, shared feeds among them; the registry assigns their keys.

    `urls` are this account's own addresses by kind; they go before the configuration's, which go before the venue's.
    Kinds that the venue marks optional are made when `optional` or `urls` names them.
    """
    venue = profile.venue
    place = next((p for p in venue.places if (p.site, p.environment) == (account.site, account.environment)), None)
    if place is None:
        known = ", ".join(f"{p.site}/{p.environment}" for p in venue.places)
        raise RegisterError(f"{venue.name} has no {account.site}/{account.environment}. Known: {known}.")
    prefix = f"{account.site}.{account.environment}."
    configured = {k.removeprefix(prefix): url for k, url in profile.endpoints.items() if k.startswith(prefix)}
    for kind in (*urls, *configured, *optional):
        endpoint(venue, kind)
    asked = {*urls, *optional}
    return tuple(
        _connection(account, profile, kind, {**place.urls, **configured, **urls})
        for kind in venue.endpoints
        if not kind.optional or kind.name in asked
    )


def check_url(profile: Profile, environment: str, kind: str, url: str) -> None:
    """Raises RegisterError unless a connection of this kind and environment may point to `url`."""
    venue = profile.venue
    allowed = _SCHEMES[endpoint(venue, kind).transport]
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise RegisterError(f"{url!r} is no address: {error}.") from None
    if parts.scheme not in allowed or not host:
        raise RegisterError(f"{url!r} is no address for {kind}: it must begin with {' or '.join(allowed)}://.")
    if "@" in parts.netloc or parts.fragment or parts.query or not url.isprintable() or " " in url:
        raise RegisterError(f"{url!r} has a part that does not belong there: a user, a query, a fragment or a space.")
    if is_loopback(host):
        return
    if parts.scheme in ("ws", "http"):
        raise RegisterError(
            f"{url} is not encrypted: plain {parts.scheme} is for this machine only. Use {allowed[0]}://."
        )
    own = {urlsplit(u).hostname for p in venue.places if p.environment == environment for u in p.urls.values()}
    if host not in own and host not in {h.lower() for h in profile.allow_hosts}:
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


def _connection(account: Account, profile: Profile, kind: EndpointKind, urls: Mapping[str, str]) -> Connection:
    if kind.name not in urls:
        raise RegisterError(f"{account.venue} has no {kind.name} address on {account.site}/{account.environment}.")
    check_url(profile, account.environment, kind.name, urls[kind.name])
    return Connection(
        connection_key="",
        client_key="",
        listener=kind.listener,
        listener_id=account.account_id if kind.listener is Listener.ACCOUNT else account.venue,
        venue=account.venue,
        site=account.site,
        environment=account.environment,
        kind=kind.name,
        url=urls[kind.name],
        requires_auth=kind.requires_auth,
        keep_alive=kind.transport is Transport.STREAM,
        channels=kind.channels,
    )
