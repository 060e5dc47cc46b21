"""An account and its venue's profile make connections; no address that is not safe gets through."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from accounts.model import Account, Listener
from engine.core.register import RegisterError, check_url, compose, is_loopback
from engine.core.venue import AccountRef, EndpointKind, Places, Transport, Venue
from engine.venues import venues

_KINDS = (
    ("rest", Transport.HTTP, Listener.ACCOUNT, False),
    ("private", Transport.STREAM, Listener.ACCOUNT, False),
    ("extra", Transport.STREAM, Listener.ACCOUNT, True),
    ("public", Transport.STREAM, Listener.VENUE, False),
)


def _places(site: str, environment: str, host: str) -> Places:
    urls = {kind: f"{'https' if kind == 'rest' else 'wss'}://{host}/{kind}" for kind, *_ in _KINDS}
    return Places(site=site, environment=environment, urls=urls)


# A real dialect with another name and other places: only what composing looks at matters here.
VENUE: Venue = msgspec.structs.replace(
    next(iter(venues().values())),
    name="venue",
    account_ref=None,
    places=(
        _places("main", "prod", "real.venue.example"),
        _places("main", "demo", "demo.venue.example"),
        _places("far", "demo", "demo.far.example"),
    ),
    endpoints=tuple(
        EndpointKind(
            name=name,
            transport=transport,
            listener=listener,
            requires_auth=listener is Listener.ACCOUNT,
            channels=("a", "b") if transport is Transport.STREAM else (),
            optional=optional,
        )
        for name, transport, listener, optional in _KINDS
    ),
)
ACCOUNT = Account(account_id="a001", name="A", venue="venue", site="main", environment="demo")


def urls(**told: Mapping[str, str] | tuple[str, ...]) -> dict[str, str]:
    return {c.kind: c.url for c in compose(ACCOUNT, VENUE, **told)}  # type: ignore[arg-type]


NAMED = msgspec.structs.replace(VENUE, account_ref=AccountRef(title="portfolio", example="X:1", pattern="X:[0-9]+"))


@pytest.mark.parametrize(("ref", "why"), [("", "it is missing"), ("X:", "'X:' is none"), ("1", "'1' is none")])
def test_where_a_login_may_hold_several_accounts_it_must_be_said_which_it_is(ref: str, why: str) -> None:
    with pytest.raises(RegisterError, match=f"portfolio, for example X:1, .*{why}"):
        compose(msgspec.structs.replace(ACCOUNT, venue_ref=ref), NAMED)
    assert compose(msgspec.structs.replace(ACCOUNT, venue_ref="X:12"), NAMED)


def test_each_kind_but_the_optional_becomes_one_connection_of_its_listener() -> None:
    made = {c.kind: c for c in compose(ACCOUNT, VENUE)}
    assert list(made) == ["rest", "private", "public"]
    assert (made["private"].listener, made["private"].listener_id) == (Listener.ACCOUNT, "a001")
    assert (made["public"].listener, made["public"].listener_id) == (Listener.VENUE, "venue")
    assert {c.environment for c in made.values()} == {"demo"}
    assert (made["private"].channels, made["rest"].channels) == (("a", "b"), ())
    assert {kind: c.keep_alive for kind, c in made.items()} == {"rest": False, "private": True, "public": True}
    assert {(c.connection_key, c.client_key) for c in made.values()} == {("", "")}, "the registry assigns keys"


def test_an_accounts_own_address_goes_before_the_configuration_and_that_before_the_venue() -> None:
    configured = {
        "main.demo.private": "ws://127.0.0.1:1/p",
        "main.demo.public": "ws://127.0.0.1:1/q",
        "main.prod.rest": "http://127.0.0.1:1/r",
    }
    assert urls(overrides=configured, urls={"private": "ws://localhost:2/p"}) == {
        "rest": "https://demo.venue.example/rest",
        "private": "ws://localhost:2/p",
        "public": "ws://127.0.0.1:1/q",
    }


def test_an_optional_kind_is_made_when_it_is_named() -> None:
    assert "extra" in urls(optional=("extra",))
    assert urls(urls={"extra": "ws://[::1]:9/"})["extra"] == "ws://[::1]:9/"
    assert "extra" not in urls(overrides={"main.demo.extra": "ws://127.0.0.1:9/"})


def test_channels_may_be_given_by_kind() -> None:
    made = {c.kind: c.channels for c in compose(ACCOUNT, VENUE, channels={"public": ("x",)})}
    assert made == {"rest": (), "private": ("a", "b"), "public": ("x",)}


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (
            {"urls": {"pirvate": "wss://demo.venue.example/"}},
            "no endpoint pirvate. Known: rest, private, extra, public",
        ),
        ({"optional": ("nothing",)}, "no endpoint nothing"),
        ({"channels": {"nothing": ()}}, "no endpoint nothing"),
        ({"overrides": {"main.demo.nothing": "ws://127.0.0.1/"}}, "no endpoint nothing"),
        ({"overrides": {"main.demo.private": "wss://evil.example/"}}, "evil.example is not a demo host"),
    ],
)
def test_what_the_venue_does_not_have_is_refused(told: dict[str, Mapping[str, str]], says: str) -> None:
    with pytest.raises(RegisterError, match=says):
        urls(**told)


@pytest.mark.parametrize(("site", "environment"), [("main", "paper"), ("near", "demo"), ("far", "prod")])
def test_an_unknown_place_is_refused_and_the_known_ones_are_named(site: str, environment: str) -> None:
    elsewhere = msgspec.structs.replace(ACCOUNT, site=site, environment=environment)
    with pytest.raises(RegisterError, match="Known: main/prod, main/demo, far/demo"):
        compose(elsewhere, VENUE)


@pytest.mark.parametrize(
    "url",
    [
        "wss://demo.venue.example/other",
        "wss://DEMO.venue.example:8443/ws",
        "wss://demo.far.example/",
        "wss://allowed.example/ws",
        "ws://127.0.0.1:8080/ws",
        "ws://127.8.9.1/",
        "ws://localhost:1/",
        "ws://[::1]:1/",
        "wss://localhost/",
    ],
)
def test_a_safe_address(url: str) -> None:
    check_url(VENUE, "demo", "private", url, ["Allowed.example"])


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ws://demo.venue.example/", "not encrypted"),
        ("ws://allowed.example/", "not encrypted"),
        ("ws://127.0.0.1.evil.example/", "not encrypted"),
        ("ws://192.168.0.1/", "not encrypted"),
        ("ws://2130706433/", "not encrypted"),
        ("wss://real.venue.example/", "not a demo host"),
        ("wss://evil.example/", "allow_hosts"),
        ("wss://demo.venue.example.evil.example/", "allow_hosts"),
        ("wss://demo.venue.example@evil.example/", "does not belong"),
        ("wss://user:word@demo.venue.example/", "does not belong"),
        ("wss://demo.venue.example/?token=1", "does not belong"),
        ("wss://demo.venue.example/#x", "does not belong"),
        ("wss://demo.venue.example/a b", "does not belong"),
        ("https://demo.venue.example/", "must begin with wss:// or ws://"),
        ("file:///etc/passwd", "must begin with"),
        ("demo.venue.example", "must begin with"),
        ("", "must begin with"),
        ("wss:///path", "must begin with"),
        ("wss://demo.venue.example:port/", "is no address"),
        ("wss://[::1/", "is no address"),
    ],
)
def test_an_address_that_is_not_safe(url: str, says: str) -> None:
    with pytest.raises(RegisterError, match=says):
        check_url(VENUE, "demo", "private", url, ["allowed.example"])


def test_http_endpoints_want_http_addresses() -> None:
    check_url(VENUE, "prod", "rest", "https://real.venue.example")
    check_url(VENUE, "prod", "rest", "http://localhost:9")
    with pytest.raises(RegisterError, match="must begin with https:// or http://"):
        check_url(VENUE, "prod", "rest", "wss://real.venue.example/")


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "localhost.evil", "::2", "", "127.1"])  # noqa: S104
def test_what_is_not_this_machine(host: str) -> None:
    assert not is_loopback(host)
