"""Our side of the IME feed alone: the token, the handshake, messages and their times."""

from __future__ import annotations

import base64
import json
from decimal import Decimal as D
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts.model import Secret
from engine.core.facts import MarkFact
from engine.core.venue import ACCESS_TOKEN, ErrorClass, Heard, Login, Notice, Request, Response, VenueError
from engine.venues import venues
from engine.venues.ime.messages import UNREADABLE, Zone, decode, identifier, snapshot, spelt
from engine.venues.ime.rest import ends_at_ms, sign
from engine.venues.ime.stream import Session
from tests.venues.ime_talk import Catalogue

VENUE = venues()["ime"]
T_MS = 1_781_078_400_000  # 2026-06-10, 11:30 in Tehran
CREDENTIALS = {"username": Secret("u@x"), "password": Secret("p&q")}


def session(*channels: str, kind: str = "names", **options: str) -> Session:
    made = VENUE.converse(
        kind=kind,
        channels=channels or ("SAMPLE05F",),
        logins=[Login("", {**CREDENTIALS, ACCESS_TOKEN: Secret("head.body.sign")})],
        environment="demo",
        catalogue=Catalogue(),
        options={**VENUE.options, **options},
    )
    assert isinstance(made, Session)
    made.open(T_MS)
    return made


def message(stamp: str = "2026-06-10T11:30:00.000000", **more: Any) -> bytes:
    aggregate = {"date": stamp[:10], "time": stamp[11:19], "last_price": 100, **more.pop("Aggregate", {})}
    told = {"contractName": "SAMPLE05F", "timestamp": stamp, "data": {"Aggregate": aggregate, **more}}
    return json.dumps(told).encode()


def lasts(heard: Heard) -> list[tuple[str, int]]:
    return [(str(f.price), f.at_ms - T_MS) for f in heard.facts if isinstance(f, MarkFact) and f.basis == "last"]


def notices(heard: Heard | None) -> list[str]:
    return [f"{said.notice.value} {said.code}".strip() for said in (heard.said if heard else ())]


# ---- The token


def answered(status: int, told: Any) -> Response:
    return Response(status=status, body=json.dumps(told).encode())


def jwt(**claims: Any) -> str:
    part = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"eyJhbGciOiJIUzI1NiJ9.{part}.c2ln"


@pytest.mark.parametrize(
    ("setting", "fields"),
    [
        ("readme", {"username": "u@x", "password": "p&q"}),
        ("sdk", {"UserName_or_Email": "u@x", "Password": "p&q"}),
        ("both", {"username": "u@x", "password": "p&q", "UserName_or_Email": "u@x", "Password": "p&q"}),
    ],
)
def test_a_login_is_a_form_in_either_spelling(setting: str, fields: dict[str, str]) -> None:
    assert VENUE.grant is not None
    request = VENUE.grant.request(CREDENTIALS, {**VENUE.options, "login_fields": setting})
    assert (request.method, dict(parse_qsl(request.body.decode()))) == ("POST", fields)
    assert dict(request.headers) == {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(("claims", "ends"), [({"exp": 1_800_000_000}, 1_800_000_000_000), ({"sub": "u"}, None)])
@pytest.mark.parametrize("word", ["", "Bearer "])
def test_a_token_tells_its_end_or_none(claims: dict[str, Any], ends: int | None, word: str) -> None:
    assert VENUE.grant is not None
    token = VENUE.grant.read(answered(201, {"Authorization": word + jwt(**claims)}), T_MS)
    assert (token.secret.reveal(), token.expires_at_ms) == (jwt(**claims), ends)


@pytest.mark.parametrize(
    "text", ["", "abc", "a.b.c", "a.!!!.c", jwt(exp="soon"), jwt(exp=-1), jwt(exp=1e300), jwt(exp=[])]
)
def test_a_token_that_says_nothing_is_renewed_when_it_is_refused(text: str) -> None:
    assert ends_at_ms(text) is None


@given(st.text(max_size=40))
def test_no_token_is_too_strange(text: str) -> None:
    assert ends_at_ms(f"a.{text}.b") is None or text


@pytest.mark.parametrize(
    ("status", "told", "error"),
    [
        (401, {"detail": "no"}, (ErrorClass.AUTH, "login_401")),
        (403, {"detail": {"Status": {"Description": {"en": "not approved"}}}}, (ErrorClass.AUTH, "login_403")),
        (422, {"detail": []}, (ErrorClass.AUTH, "login_422")),
        (429, {}, (ErrorClass.RATE, "429")),
        (500, {}, (ErrorClass.RETRYABLE_READ, "500")),
        (200, {}, (ErrorClass.RETRYABLE_READ, "unreadable")),
        (200, [], (ErrorClass.RETRYABLE_READ, "unreadable")),
        (200, {"Authorization": "a\nb"}, (ErrorClass.RETRYABLE_READ, "unreadable")),
        (200, {"Authorization": "Bearer "}, (ErrorClass.RETRYABLE_READ, "unreadable")),
    ],
)
def test_a_login_that_fails(status: int, told: Any, error: tuple[ErrorClass, str]) -> None:
    assert VENUE.grant is not None
    with pytest.raises(VenueError) as raised:
        VENUE.grant.read(answered(status, told), T_MS)
    assert (raised.value.error_class, raised.value.code) == error


def test_what_a_refusal_says_is_kept() -> None:
    assert VENUE.grant is not None
    with pytest.raises(VenueError, match="not approved"):
        VENUE.grant.read(answered(403, {"detail": {"Status": {"Description": {"en": "not approved"}}}}), T_MS)


def test_the_token_stands_bare_or_behind_its_word() -> None:
    credentials = {**CREDENTIALS, ACCESS_TOKEN: Secret("t")}
    assert sign(Request(method="GET", path="/"), credentials, "demo", 0).headers == (("Authorization", "t"),)
    (read, *_) = VENUE.rest(Catalogue(), ref="", options={**VENUE.options, "authorization": "bearer"}).marks()
    assert sign(read.request, credentials, "demo", 0).headers == (("Authorization", "Bearer t"),)
    with pytest.raises(ValueError, match="credentials"):
        sign(read.request, CREDENTIALS, "demo", 0)


# ---- The handshake


@pytest.mark.parametrize(
    ("kind", "channels", "options", "suffix", "header"),
    [
        (
            "names",
            ("A&B", "سکه"),
            {},
            "?contract_names=A%26B&contract_names=%D8%B3%DA%A9%D9%87&contract_name=A%26B&contract_name=%D8%B3%DA%A9%D9%87",
            "head.body.sign",
        ),
        (
            "names",
            ("A", "A/IRR", "B/IRR:IRR"),
            {"parameter": "contract_name"},
            "?contract_name=A&contract_name=B",
            "head.body.sign",
        ),
        ("names", ("A",), {"parameter": "contract_names"}, "?contract_names=A", "head.body.sign"),
        (
            "ids",
            ("012345:A", "7"),
            {"authorization": "bearer"},
            "?contract_id=012345&contract_id=7",
            "Bearer head.body.sign",
        ),
    ],
)
def test_the_handshake_says_everything(
    kind: str, channels: tuple[str, ...], options: dict[str, str], suffix: str, header: str
) -> None:
    made = session(*channels, kind=kind, **options).handshake(T_MS)
    assert (made.suffix, made.headers, made.subprotocols) == (suffix, (("Authorization", header),), ())


@pytest.mark.parametrize(
    ("status", "notice"),
    [(401, "auth_refused http_401"), (403, "auth_refused http_403"), (429, "retry 429"), (500, None), (503, None)],
)
def test_a_refused_opening(status: int, notice: str | None) -> None:
    said = session().refused(status, T_MS)
    assert (f"{said.notice.value} {said.code}" if said else None) == notice


def test_a_connection_that_names_nothing_is_no_matter_of_the_token() -> None:
    made = VENUE.converse(
        kind="names",
        channels=(),
        logins=[Login("", {ACCESS_TOKEN: Secret("t")})],
        environment="demo",
        catalogue=Catalogue(),
        options=VENUE.options,
    )
    assert made.handshake(T_MS).suffix == ""
    said = made.refused(403, T_MS)
    assert said is not None
    assert (said.notice, said.code) == (Notice.REFUSED, "no_contracts")


@pytest.mark.parametrize(("code", "halts"), [(1008, True), (1000, False), (1006, False), (1011, False), (1012, False)])
def test_only_policy_is_a_refusal(code: int, halts: bool) -> None:
    said = session().closed(code, "why")
    assert (said is not None and said.notice is Notice.AUTH_REFUSED and "why" in said.detail) is halts


# ---- Ready, silence


def test_a_quiet_opening_is_ready_after_a_moment_and_a_message_makes_it_so_at_once() -> None:
    quiet = session()
    assert [notices(quiet.tick(T_MS + s * 1000)) for s in range(4)] == [[], [], ["ready"], []]
    lively = session()
    assert notices(lively.hear(message(), T_MS)) == ["ready"]
    assert notices(lively.hear(message(), T_MS)) == []
    assert [notices(lively.tick(T_MS + s * 1000)) for s in range(4)] == [[], [], [], []]


def test_our_clock_set_back_keeps_nobody_waiting() -> None:
    made = session()
    made.tick(T_MS)
    assert notices(made.tick(T_MS - 3_600_000)) == []
    assert notices(made.tick(T_MS - 3_598_000)) == ["ready"]


def test_a_zone_that_nobody_knows_is_told_at_once() -> None:
    with pytest.raises(ValueError, match="mars"):
        session(zone="mars")


def test_what_cannot_be_read_makes_nothing_ready() -> None:
    assert notices(session().hear(b"{}", T_MS)) == ["unreadable"]


def test_silence_ends_a_connection_only_where_that_is_wanted() -> None:
    patient, strict = session(), session(silence_ms="60000")
    for made in (patient, strict):
        made.tick(T_MS)
        made.hear(message(), T_MS)
    assert notices(patient.tick(T_MS + 10**8)) == []
    assert notices(strict.tick(T_MS + 59_000)) == []
    assert notices(strict.tick(T_MS + 60_000)) == ["retry silence"]


# ---- Times


@pytest.mark.parametrize(
    ("zone", "stamp", "at_ms"),
    [
        ("tehran", "2026-06-10T11:30:00.5", 500),
        ("tehran", "2026-06-10T11:30:00Z", 0),
        ("utc", "2026-06-10T08:00:00.000001", 0),
        ("tehran", "2026-06-10T08:00:00+00:00", 0),  # one that says its zone is believed
        ("auto", "2026-06-10T11:30:00", 0),
        ("auto", "2026-06-10T08:00:00", 0),
        ("auto", "2026-06-10T09:00:00", -2 * 3_600_000 - 1_800_000),  # neither: the earlier of both
    ],
)
def test_the_zone_of_a_time(zone: str, stamp: str, at_ms: int) -> None:
    believed = Zone(zone)
    believed.learn(stamp, T_MS)
    assert believed.us(stamp) // 1000 - T_MS == at_ms


def test_a_zone_is_learnt_once() -> None:
    zone = Zone("auto")
    zone.learn("2026-06-10T11:30:00", T_MS)
    zone.learn("2026-06-10T11:30:00", T_MS + 12_600_000)  # so late that it would be fresh in UTC
    assert zone.us("2026-06-10T11:30:00") == T_MS * 1000


def test_the_last_price_is_of_its_own_time_and_never_newer_than_the_message() -> None:
    assert lasts(session().hear(message(Aggregate={"time": "11:00:00"}), T_MS)) == [("100", -1_800_000)]
    assert lasts(session().hear(message(Aggregate={"time": "11:40:00"}), T_MS)) == [("100", 0)]


def test_older_messages_are_dropped_and_the_view_stays() -> None:
    made = session()
    made.hear(message(Aggregate={"last_price": 101}), T_MS)
    assert lasts(made.hear(message("2026-06-10T11:29:59.999999"), T_MS)) == []
    assert (made.dropped, made.view("SAMPLE05F").last) == (1, D(101))
    assert lasts(made.hear(message(Aggregate={"last_price": 102}), T_MS)) == [("102", 0)]


# ---- Messages


def test_everything_that_has_no_place_among_facts_is_in_the_view() -> None:
    made = session()
    levels = {"1": {"buy_price": 9, "buy_quantity": 2, "sell_price": 0, "sell_quantity": 0}, "7": None}
    made.hear(
        message(
            BestLimit=levels,
            AllowedPriceRange={"minAllowedPrice": 1, "maxAllowedPrice": 9999999999},
            ContractInfo={"open_interest": 5, "open_interest_changes": -2},
            New={"unknown": True},
        ),
        T_MS,
    )
    view = made.view("SAMPLE05F")
    assert (view.lowest_allowed, view.highest_allowed) == (1, 9999999999)
    assert (view.open_interest, view.open_interest_change) == (5, -2)
    assert [(level.bid, level.ask, level.bid_quantity) for level in view.levels] == [(9, None, 2)]


@pytest.mark.parametrize("member", ["contractName", "contractId", "ContractId", "ContractName"])
def test_any_spelling_of_the_identifier(member: str) -> None:
    assert identifier({member: "012345"}) == "012345"


@pytest.mark.parametrize("told", [{}, {"contractId": 12345}, {"contractName": ""}])
def test_an_identifier_is_a_text(told: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no contract"):
        identifier(told)


@pytest.mark.parametrize("name", ["", "a/b", "a:b", " a", "a ", "a\nb", "x" * 80, "a\u200bb"])
def test_what_is_no_name_of_a_contract(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        spelt(name)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=9),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(["BestLimit", "Aggregate", "1", "2", "buy_price", "date", "time", "last_price"]), x
            )
        ),
        max_leaves=8,
    )
)
def test_a_snapshot_is_read_or_refused_and_nothing_else(told: Any) -> None:
    try:
        read = snapshot({"BestLimit": told, "Aggregate": told}, 1, Zone("tehran"))
    except UNREADABLE:
        return
    assert all(mark.price > 0 for mark in read.marks("A/IRR"))


def test_no_digit_passes_through_a_float() -> None:
    told = decode(b'{"Aggregate":{"last_price":0.1000000000000000055511151231257827}}')
    assert str(snapshot(told, 1, Zone("utc")).last) == "0.1000000000000000055511151231257827"


def test_a_feed_takes_no_orders_and_speaks_no_pings() -> None:
    assert session().beat(T_MS) == ()
    with pytest.raises(ValueError, match="orders"):
        session().say((), "r", T_MS)
