"""What every venue's folder must keep to, whatever it is called."""

from __future__ import annotations

import contextlib
import json
import random
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accounts.model import Listener, Secret
from engine.core.facts import Candle, Fact
from engine.core.instruments import Instrument
from engine.core.orders import Outcome, order_uuid
from engine.core.venue import ACCESS_TOKEN, Heard, Identity, Notice, Read, Response, Transport, Venue, VenueError
from engine.venues import venues
from tests.venues.samples import (
    NOW_MS,
    Sample,
    all_samples,
    command,
    converse,
    read_of,
    rest_of,
    samples_of,
    unwired,
    wire,
)

every_venue = pytest.mark.parametrize("venue", venues().values(), ids=lambda v: v.name)
brokers = pytest.mark.parametrize(
    "venue", [v for v in venues().values() if v.capabilities.trades], ids=lambda v: v.name
)
streams = [s for s in all_samples() if "call" not in s]
reads = [s for s in all_samples() if "call" in s]


def test_okx_is_found_by_walking_the_folders() -> None:
    assert "okx" in venues()


# ---- What a venue declares


@every_venue
def test_every_place_has_a_secure_url_for_every_endpoint(venue: Venue) -> None:
    assert venue.places
    for places in venue.places:
        assert set(places.urls) == {endpoint.name for endpoint in venue.endpoints}
        for endpoint in venue.endpoints:
            url = urlsplit(venue.url(places.site, places.environment, endpoint.name))
            assert url.scheme == ("wss" if endpoint.transport is Transport.STREAM else "https")
            assert url.hostname
            assert not url.query


@every_venue
def test_an_unknown_site_is_an_error_that_names_it(venue: Venue) -> None:
    with pytest.raises(KeyError, match="atlantis"):
        venue.url("atlantis", "prod", venue.endpoints[0].name)


@every_venue
def test_endpoints_are_told_apart_and_nobodys_connections_need_no_login(venue: Venue) -> None:
    names = [endpoint.name for endpoint in venue.endpoints]
    assert len(set(names)) == len(names)
    assert all(not e.requires_auth for e in venue.endpoints if e.listener is Listener.VENUE)


@every_venue
def test_one_address_over_http_answers_questions_and_one_issues_tokens_where_there_are_tokens(venue: Venue) -> None:
    http = [e for e in venue.endpoints if e.transport is Transport.HTTP]
    assert len([e for e in http if not e.grants]) == 1
    assert len([e for e in http if e.grants]) == (0 if venue.grant is None else 1)


@every_venue
def test_only_streams_of_accounts_are_packed(venue: Venue) -> None:
    packed = [e for e in venue.endpoints if e.pack > 1]
    assert all(e.transport is Transport.STREAM and e.listener is Listener.ACCOUNT for e in packed)
    assert all(e.pack >= 1 for e in venue.endpoints)


@brokers
def test_an_accounts_facts_come_over_a_stream(venue: Venue) -> None:
    assert any(e.carries_facts and e.listener is Listener.ACCOUNT for e in venue.endpoints)


@every_venue
def test_the_example_of_an_account_reference_is_one(venue: Venue) -> None:
    if venue.account_ref is not None:
        assert re.fullmatch(venue.account_ref.pattern, venue.account_ref.example)
        assert not re.fullmatch(venue.account_ref.pattern, "")


@every_venue
def test_orders_have_exactly_one_way_out(venue: Venue) -> None:
    carriers = [e for e in venue.endpoints if e.carries_orders]
    assert len(carriers) == (1 if venue.capabilities.orders_over is Transport.STREAM else 0)
    assert all(e.transport is Transport.STREAM and e.listener is Listener.ACCOUNT for e in carriers)


@every_venue
def test_rate_rules_have_names_of_their_own_and_a_known_scope(venue: Venue) -> None:
    rules = [*venue.rates, venue.opens]
    assert len({rule.name for rule in rules}) == len(rules)
    assert {rule.scope for rule in rules} <= {"account", "account_instrument", "login", "address"}
    assert venue.opens.scope == "address"
    assert all(rule.limit >= 1 and rule.window_s > 0 for rule in rules)


def _reads(venue: Venue) -> list[Read]:
    rest = rest_of(venue)
    long_ago_ms = NOW_MS - 40 * 86_400_000
    walks = (rest.fills, rest.orders, rest.cash)
    told: list[Sequence[Read]] = [
        [rest.server_time(), rest.identity()],
        rest.instruments(),
        rest.marks(),
        rest.open_orders(),
        rest.statement(),
        *(walk(since_ms, NOW_MS) for walk in walks for since_ms in (NOW_MS - 60_000, long_ago_ms)),
    ]
    return [read for some in told for read in some]


@every_venue
def test_every_read_counts_against_declared_rules(venue: Venue) -> None:
    declared = {rule.name for rule in venue.rates}
    for read in _reads(venue):
        assert read.request.method in ("GET", "POST")
        assert read.request.path.startswith("/")
        assert read.request.rules
        assert set(read.request.rules) <= declared


@every_venue
def test_a_signature_leaves_path_and_body_alone_and_a_signed_request_needs_credentials(venue: Venue) -> None:
    credentials = {field: Secret("x") for field in (*venue.credential_fields, ACCESS_TOKEN)}
    for request in (read.request for read in _reads(venue)):
        signed = venue.sign(request, credentials, "demo", NOW_MS)
        assert (signed.method, signed.path, signed.body) == (request.method, request.path, request.body)
        assert set(request.headers) <= set(signed.headers)
        if request.signed:
            assert len(signed.headers) > len(request.headers)
            with pytest.raises(ValueError, match="credentials"):
                venue.sign(request, None, "demo", NOW_MS)
        else:
            venue.sign(request, None, "demo", NOW_MS)


# ---- Our ids


@brokers
@given(plan=st.uuids(), account=st.text(max_size=8), leg=st.integers(0, 9), attempt=st.integers(1, 9))
@settings(max_examples=50)
def test_our_order_ids_are_known_again_and_never_the_same_twice(
    venue: Venue, plan: Any, account: str, leg: int, attempt: int
) -> None:
    identity = order_uuid(str(plan), account, leg, attempt)
    again = order_uuid(str(plan), account, leg, attempt + 1)
    rendered = venue.render_order_id(identity.int)
    assert venue.owns_order_id(rendered)
    assert rendered != venue.render_order_id(again.int)


@brokers
@pytest.mark.parametrize("foreign", ["", "0", "sync0a1", "A" * 32, "f" * 32, "12345678901234567890123456789012"])
def test_foreign_order_ids_are_not_ours(venue: Venue, foreign: str) -> None:
    assert not venue.owns_order_id(foreign)


# ---- Samples


@every_venue
def test_every_endpoint_has_samples(venue: Venue) -> None:
    kinds = {sample["kind"] for sample in samples_of(venue.name)}
    assert kinds >= {e.name for e in venue.endpoints if not (e.optional or e.grants)}


@pytest.mark.parametrize("sample", streams, ids=lambda s: f"{s['where']} {s['name']}")
def test_a_frame_is_understood(sample: Sample) -> None:
    conversation = converse(
        venues()[sample["venue"]], sample["kind"], sample.get("channels"), **sample.get("options", {})
    )
    conversation.open(NOW_MS)
    for frame in sample.get("before", ()):
        conversation.hear(wire(frame), NOW_MS)
    if "say" in sample:
        commands = [command(c) for c in sample["say"]["commands"]]
        assert unwired(conversation.say(commands, sample["say"]["request_id"], NOW_MS)) == sample["says"]
    _compare(conversation.hear(wire(sample["frame"]), NOW_MS), sample)


def _compare(heard: Heard, sample: Sample) -> None:
    assert list(heard.facts) == msgspec.convert(sample["facts"], list[Fact], strict=False)
    assert heard.channel == sample.get("channel", "")
    assert [[said.notice.value, said.code] for said in heard.said] == sample.get("said", [])
    assert [{"request_id": reply.request_id, "outcomes": list(reply.outcomes)} for reply in heard.replies] == [
        {"request_id": reply["request_id"], "outcomes": msgspec.convert(reply["outcomes"], list[Outcome])}
        for reply in sample.get("replies", [])
    ]
    assert [unwired(frame) for frame in heard.frames] == sample.get("sends", [])
    assert list(heard.instruments) == msgspec.convert(sample.get("instruments", []), list[Instrument], strict=False)


@pytest.mark.parametrize("sample", reads, ids=lambda s: f"{s['where']} {s['name']}")
def test_an_answer_is_understood(sample: Sample) -> None:
    read = read_of(venues()[sample["venue"]], sample)
    response = Response(status=sample["status"], body=wire(sample["frame"]), headers=sample.get("headers", {}))
    assert read.request.path == sample["path"]
    if "error" in sample:
        with pytest.raises(VenueError) as raised:
            read.read(response)
        assert [raised.value.error_class.value, raised.value.code] == sample["error"]
        return
    page = read.read(response)
    assert list(page.facts) == msgspec.convert(sample["facts"], list[Fact], strict=False)
    assert list(page.instruments) == msgspec.convert(sample.get("instruments", []), list[Instrument], strict=False)
    assert page.identity == msgspec.convert(sample.get("identity"), Identity | None)
    assert page.server_time_ms == sample.get("server_time_ms")
    assert list(page.candles) == msgspec.convert(sample.get("candles", []), list[Candle], strict=False)
    assert (page.next is not None) == sample.get("goes_on", False), "a short page is the proven end"


# ---- Whatever comes in


def _conversations() -> list[tuple[str, str]]:
    return [(v.name, e.name) for v in venues().values() for e in v.endpoints if e.transport is Transport.STREAM]


every_stream = pytest.mark.parametrize(("venue", "kind"), _conversations())


@every_stream
@given(frames=st.lists(st.binary(max_size=200), max_size=5))
@settings(max_examples=150)
def test_no_bytes_make_a_conversation_raise(venue: str, kind: str, frames: list[bytes]) -> None:
    conversation = converse(venues()[venue], kind)
    conversation.open(NOW_MS)
    for frame in frames:
        conversation.hear(frame, NOW_MS)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@every_stream
@given(value=json_values)
@settings(max_examples=150)
def test_no_json_makes_a_conversation_raise(venue: str, kind: str, value: Any) -> None:
    conversation = converse(venues()[venue], kind)
    conversation.open(NOW_MS)
    heard = conversation.hear(json.dumps(value).encode(), NOW_MS)
    assert not heard.facts
    assert not heard.replies


def _mutated(rng: random.Random, value: Any) -> Any:
    """The same frame with something in it bent: the shape stays, one place in some is strange."""
    if isinstance(value, dict):
        return {k: _mutated(rng, v) for k, v in value.items() if rng.random() > 0.01}
    if isinstance(value, list):
        return [_mutated(rng, v) for v in value]
    if rng.random() > 0.04:
        return value
    strange = ("", "NaN", "-1", "1e9999", "9" * 70, "0x10", "\x00", "\ud800", "٣", None, 5, 0.5, True, [], {})
    return rng.choice(strange)


@pytest.mark.parametrize("sample", streams, ids=lambda s: s["where"])
def test_no_bent_frame_makes_a_conversation_raise(sample: Sample) -> None:
    rng = random.Random(sample["where"])
    for _ in range(25):
        conversation = converse(
            venues()[sample["venue"]], sample["kind"], sample.get("channels"), **sample.get("options", {})
        )
        conversation.open(NOW_MS)
        if "say" in sample:
            conversation.say([command(c) for c in sample["say"]["commands"]], sample["say"]["request_id"], NOW_MS)
        for frame in [*sample.get("before", ()), sample["frame"]]:
            heard = conversation.hear(wire(_mutated(rng, frame)), NOW_MS)
            for fact in heard.facts:
                assert fact.key
                assert 0 <= fact.at_ms < 10**13
                msgspec.json.encode(fact)


@pytest.mark.parametrize("sample", reads, ids=lambda s: s["where"])
def test_a_bent_answer_is_read_or_refused_but_nothing_else(sample: Sample) -> None:
    rng = random.Random(sample["where"])
    read = read_of(venues()[sample["venue"]], sample)
    for _ in range(25):
        bent = wire(_mutated(rng, sample["frame"]))
        cut = bent[: rng.choice((None, len(bent) // 2))]
        with contextlib.suppress(VenueError):
            read.read(Response(status=rng.choice((200, sample["status"])), body=cut))


@every_stream
@pytest.mark.parametrize(
    "frame",
    [b"", b"\xff\xfe", b"{", b"null", b"[" * 100_000, b'{"arg":' * 50_000, b'{"a":"' + b"x" * 1_000_000],
    ids=["empty", "no text", "cut", "nothing", "deep list", "deep object", "long"],
)
def test_what_nobody_can_read_is_said_to_be_unreadable(venue: str, kind: str, frame: bytes) -> None:
    conversation = converse(venues()[venue], kind)
    conversation.open(NOW_MS)
    heard = conversation.hear(frame, NOW_MS)
    assert [said.notice for said in heard.said] == [Notice.UNREADABLE]
    assert len(heard.said[0].detail) <= 300
