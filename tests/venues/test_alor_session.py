"""ALOR's conversations, reads and tokens by themselves: what the simulator does not say."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accounts.model import Secret
from engine.core.facts import FillFact, MarkFact, OrderFact
from engine.core.orders import Amend, Cancel, order_uuid
from engine.core.venue import ACCESS_TOKEN, Conversation, ErrorClass, Login, Notice, Page, Read, Response, VenueError
from engine.venues.alor.numbers import iso
from engine.venues.alor.replacing import shared
from tests.venues.alor_talk import ALOR, START_MS, Catalogue
from tests.venues.test_alor_words import amend, place

OURS = ALOR.render_order_id(order_uuid("plan", "a", 0, 1).int)


def login(portfolio: str = "D10001", number: int = 1) -> Login:
    """With the token t1, t2, …"""
    return Login(f"MOEX:{portfolio}", {"refresh_token": Secret("r"), ACCESS_TOKEN: Secret(f"t{number}")})


def talk(kind: str, *logins: Login, catalogue: Catalogue | None = None, **options: str) -> Conversation:
    channels: Sequence[str] = options.pop("channels", "orders").split()
    return ALOR.converse(
        kind=kind,
        channels=channels,
        logins=logins or (login(),),
        environment="demo",
        catalogue=catalogue or Catalogue(),
        options={**ALOR.options, **options},
    )


def said(conversation: Conversation, **frame: Any) -> list[tuple[Notice, str]]:
    heard = conversation.hear(json.dumps(frame).encode(), START_MS)
    return [(s.notice, s.ref) for s in heard.said]


def sent(frames: Sequence[str | bytes]) -> list[dict[str, Any]]:
    return [json.loads(frame) for frame in frames]


# ---- Pings, renewals, addresses


@pytest.mark.parametrize("kind", ["cws", "ws"])
def test_a_ping_is_webSockets_own_unless_the_brokers_is_asked_for(kind: str) -> None:
    assert list(talk(kind).beat(START_MS)) == []
    conversation = talk(kind, ping="opcode")
    conversation.open(START_MS)
    (first,), (second,) = sent(conversation.beat(START_MS)), sent(conversation.beat(START_MS))
    assert first["opcode"] == "ping"
    assert first["guid"] != second["guid"]
    assert ("token" in first) is (kind == "ws")
    assert said(conversation, requestGuid=first["guid"], httpCode=200, message="whatever") == [(Notice.PONG, "")]
    assert said(conversation, requestGuid=first["guid"], httpCode=200) == [(Notice.INFO, "")]


def test_a_new_token_is_authorised_with_an_identifier_of_its_own() -> None:
    conversation = talk("cws")
    (first,) = sent(conversation.open(START_MS))
    (second,) = sent(conversation.renew([login(number=2)], START_MS))
    assert (second["opcode"], second["token"]) == ("authorize", "t2")
    assert first["guid"] != second["guid"]
    assert said(conversation, requestGuid=first["guid"], httpCode=200) == [(Notice.READY, "")]
    assert said(conversation, requestGuid=second["guid"], httpCode=200) == []


def test_a_new_token_is_used_by_whatever_is_said_later_over_the_other_connection() -> None:
    conversation = talk("ws", ping="opcode")
    conversation.open(START_MS)
    assert list(conversation.renew([login(number=2)], START_MS)) == []
    assert sent(conversation.beat(START_MS))[0]["token"] == "t2"


def test_a_plain_address_is_said_to_be_one() -> None:
    for kind in ("cws", "ws"):
        said_ = talk(kind).refused(406, START_MS)
        assert said_ is not None
        assert "wss" in said_.detail
        assert talk(kind).refused(503, START_MS) is None


def test_a_refused_authorisation_for_another_reason_is_tried_again_later() -> None:
    conversation = talk("cws")
    (auth,) = sent(conversation.open(START_MS))
    assert said(conversation, requestGuid=auth["guid"], httpCode=400, message="Connections limit") == [
        (Notice.RETRY, "")
    ]


def test_one_request_is_one_command_and_orders_have_their_own_connection() -> None:
    with pytest.raises(ValueError, match="one command"):
        talk("cws").say([place(), place()], "r1", START_MS)
    with pytest.raises(ValueError, match="other connection"):
        talk("ws").say([place()], "r1", START_MS)
    with pytest.raises(ValueError, match="request id"):
        talk("cws").say([place()], "auth.1", START_MS)


# ---- Subscriptions


def test_each_account_is_subscribed_with_its_own_token_and_history_is_left_to_http() -> None:
    conversation = talk("ws", login(), login("D10002", 2), channels="orders positions quotes:SBER/RUB")
    frames = sent(conversation.open(START_MS))
    assert [(f["guid"], f["token"], f.get("skipHistory")) for f in frames] == [
        ("orders.MOEX:D10001", "t1", True),
        ("positions.MOEX:D10001", "t1", False),
        ("orders.MOEX:D10002", "t2", True),
        ("positions.MOEX:D10002", "t2", False),
        ("quotes:SBER/RUB", "t1", None),
    ]


def test_it_is_ready_when_every_subscription_has_an_answer() -> None:
    conversation = talk("ws", channels="orders trades")
    first, second = (f["guid"] for f in sent(conversation.open(START_MS)))
    assert said(conversation, requestGuid=second, httpCode=200) == []
    assert said(conversation, requestGuid=first, httpCode=200) == [(Notice.READY, "")]
    assert said(conversation, requestGuid=first, httpCode=200) == [(Notice.INFO, "")]


def test_refusals_without_a_name_are_laid_to_whoever_has_no_answer_when_all_others_have_one() -> None:
    conversation = talk("ws", login(), login("D10002"), login("D10003"))
    conversation.open(START_MS)
    nameless = {"requestGuid": "", "httpCode": 401, "message": "Invalid JWT token!"}
    assert said(conversation, **nameless) == []
    assert said(conversation, requestGuid="orders.MOEX:D10001", httpCode=200) == []
    assert said(conversation, requestGuid="orders.MOEX:D10003", httpCode=200) == [
        (Notice.AUTH_REFUSED, "MOEX:D10002"),
        (Notice.READY, ""),
    ]


def test_a_close_after_a_nameless_refusal_halts_nobody_who_may_be_innocent() -> None:
    conversation = talk("ws", login(), login("D10002"))
    conversation.open(START_MS)
    assert conversation.closed(1000, "") is None
    said(conversation, requestGuid="", httpCode=401, message="Invalid JWT token!")
    told = conversation.closed(1008, "")
    assert told is not None
    assert told.notice is Notice.INFO


def test_a_connection_on_which_nobody_is_left_is_not_ready() -> None:
    conversation = talk("ws", channels="orders trades")
    conversation.open(START_MS)
    assert said(conversation, requestGuid="orders.MOEX:D10001", httpCode=403) == [(Notice.AUTH_REFUSED, "MOEX:D10001")]
    assert said(conversation, requestGuid="trades.MOEX:D10001", httpCode=403) == []


def test_a_refused_price_is_said_and_the_rest_goes_on() -> None:
    conversation = talk("ws", channels="orders quotes:NOPE/RUB")
    conversation.open(START_MS)
    said(conversation, requestGuid="orders.MOEX:D10001", httpCode=200)
    assert said(conversation, requestGuid="quotes:NOPE/RUB", httpCode=404, message="No such instrument") == [
        (Notice.REFUSED, "MOEX:D10001"),
        (Notice.READY, ""),
    ]


@pytest.mark.parametrize("channel", ["nonsense", "quotes", "trades:SBER/RUB"])
def test_a_channel_that_there_is_not_is_a_mistake_in_the_row(channel: str) -> None:
    with pytest.raises(ValueError, match="no channel"):
        talk("ws", channels=channel).open(START_MS)


# ---- An order's end, and the end of what took its place


def order(number: str, status: str, made: int = 0, comment: str = OURS) -> dict[str, Any]:
    return {
        "id": number,
        "symbol": "SBER",
        "exchange": "MOEX",
        "comment": comment,
        "type": "limit",
        "side": "buy",
        "status": status,
        "transTime": iso(START_MS + made),
        "updateTime": iso(START_MS + made + 500),
        "qtyBatch": 3,
        "filledQtyBatch": 0,
        "price": 300,
    }


def heard(conversation: Conversation, row: dict[str, Any], guid: str = "orders.MOEX:D10001") -> OrderFact:
    (fact,) = conversation.hear(json.dumps({"data": row, "guid": guid}).encode(), START_MS).facts
    assert isinstance(fact, OrderFact)
    return fact


def pair() -> tuple[Conversation, Conversation, Amend]:
    """Both connections of one engine, and an amendment."""
    catalogue = Catalogue()
    commands, facts = talk("cws", catalogue=catalogue), talk("ws", catalogue=catalogue)
    facts.open(START_MS)
    return commands, facts, amend(client_order_id=OURS)


def test_what_was_asked_over_one_connection_explains_what_is_heard_on_the_other() -> None:
    commands, facts, change = pair()
    commands.say([change], "r1", START_MS)
    assert heard(facts, order("41", "canceled")).venue_action == "replaced"
    assert heard(facts, order("42", "working", 1)).venue_action == ""
    assert heard(facts, order("42", "canceled", 1)).venue_action == ""


def test_a_refused_amendment_explains_nothing() -> None:
    commands, facts, change = pair()
    commands.say([change], "r1", START_MS)
    refusal = {"requestGuid": "r1", "httpCode": 400, "message": "Order to update not found"}
    commands.hear(json.dumps(refusal).encode(), START_MS)
    assert heard(facts, order("41", "canceled")).venue_action == ""


def test_an_amendment_of_unknown_outcome_may_be_what_ended_the_order() -> None:
    commands, facts, change = pair()
    commands.say([change], "r1", START_MS)
    commands.hear(b'{"requestGuid":"r1","httpCode":400,"message":"Command Timeout"}', START_MS)
    assert heard(facts, order("41", "canceled")).venue_action == "replaced"


def test_the_successor_may_be_heard_of_first() -> None:
    _, facts, _ = pair()
    assert heard(facts, order("42", "working", 1)).venue_action == ""
    assert heard(facts, order("41", "canceled", 0)).venue_action == "replaced"


def test_other_peoples_comments_make_no_chain() -> None:
    _, facts, _ = pair()
    heard(facts, order("42", "working", 1, "mine"))
    assert heard(facts, order("41", "canceled", 0, "mine")).venue_action == ""


def test_engines_with_catalogues_of_their_own_know_nothing_of_each_other() -> None:
    one, other = Catalogue(), Catalogue()
    shared(one).asked("MOEX:D10001", "41")
    assert shared(one).concerns("MOEX:D10001", "41")
    assert not shared(one).concerns("MOEX:D10002", "41")
    assert not shared(other).concerns("MOEX:D10001", "41")


def test_what_is_remembered_is_bounded() -> None:
    replacing = shared(Catalogue())
    for number in range(10_001):
        replacing.asked("MOEX:D10001", str(number))
    assert not replacing.concerns("MOEX:D10001", "0")
    assert replacing.concerns("MOEX:D10001", "10000")


# ---- History, page by page, whatever it holds


class Archive:
    """History as the venue tells it: by date, or within a date by number; at most `limit` rows."""

    def __init__(self, times_ms: Sequence[int], limit: int, *, inclusive: bool, shown: int | None = None) -> None:
        self.trades = [(t, 9_000 + n) for n, t in enumerate(sorted(times_ms))]
        self.limit, self.inclusive, self.asked = limit, inclusive, 0

    def answer(self, read: Read) -> Response:
        self.asked += 1
        query = dict(part.split("=") for part in read.request.path.partition("?")[2].split("&"))
        since, first = query["dateFrom"].replace("%3A", ":"), int(query.get("from", 0))
        found = [(t, n) for t, n in self.trades if iso(t) >= since and (n > first or (self.inclusive and n == first))]
        body = json.dumps([self.row(t, n) for t, n in found[: self.limit]]).encode()
        return Response(status=200, body=body)

    def row(self, at_ms: int, number: int) -> dict[str, Any]:
        return {
            "id": str(number),
            "orderno": "41",
            "symbol": "SBER",
            "exchange": "MOEX",
            "date": iso(at_ms),
            "qtyBatch": 1,
            "price": 300,
            "side": "buy",
        }


def walk(archive: Archive, read: Read) -> list[Page]:
    pages = [read.read(archive.answer(read))]
    while (further := pages[-1].next) is not None:
        assert archive.asked < 500, "a walk comes to an end"
        assert further.request != read.request
        read = further
        pages.append(read.read(archive.answer(read)))
    return pages


def history(since_ms: int = START_MS) -> Read:
    return ALOR.rest(Catalogue(), ref="MOEX:D10001", options=ALOR.options).fills(since_ms, since_ms)[1]


@pytest.mark.parametrize(("named", "lots"), [({"qtyBatch": 2}, 2), ({"qty": 3}, 3), ({"qtyBatch": 2, "qty": 9}, 2)])
def test_a_trade_counts_its_lots_under_either_name(named: dict[str, int], lots: int) -> None:
    row = {**Archive([START_MS], 10, inclusive=True).row(START_MS, 1), "qtyBatch": None, **named}
    page = history().read(Response(status=200, body=json.dumps([row]).encode()))
    (fill,) = page.facts
    assert isinstance(fill, FillFact)
    assert fill.quantity == lots


def test_a_trade_of_nobody_knows_how_much_is_no_trade() -> None:
    row = {**Archive([START_MS], 10, inclusive=True).row(START_MS, 1), "qtyBatch": None}
    with pytest.raises(VenueError, match="nobody knows how much"):
        history().read(Response(status=200, body=json.dumps([row]).encode()))


def test_a_last_price_without_its_time_is_not_told_and_the_book_has_its_own() -> None:
    (read,) = ALOR.rest(Catalogue(), ref="MOEX:D10001", options={**ALOR.options, "quoted": "SBER/RUB"}).marks()
    row = {"symbol": "SBER", "exchange": "MOEX", "last_price": 300, "bid": 299, "ask": 301}
    for stamps, told in (({}, []), ({"ob_ms_timestamp": START_MS}, [("bid", START_MS), ("ask", START_MS)])):
        page = read.read(Response(status=200, body=json.dumps([{**row, **stamps}]).encode()))
        assert [(f.basis, f.at_ms) for f in page.facts if isinstance(f, MarkFact)] == told


@given(
    gaps=st.lists(st.sampled_from((0, 0, 1, 400, 1000, 5000)), min_size=1, max_size=30),
    times=st.sampled_from((1, 40, 150)),
    inclusive=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_a_walk_through_history_finds_every_trade_however_close_together(
    gaps: list[int], times: int, inclusive: bool
) -> None:
    at_ms, moments = START_MS, list[int]()
    for gap in gaps:
        at_ms += gap
        moments += [at_ms] * times
    archive = Archive(moments, 1000, inclusive=inclusive)
    fills = [f for page in walk(archive, history()) for f in page.facts if isinstance(f, FillFact)]
    assert {f.fill_id for f in fills} == {f"{n}:buy" for _, n in archive.trades}


def test_a_history_that_does_not_lead_on_is_not_taken_for_complete() -> None:
    archive = Archive([START_MS] * 1500, 1000, inclusive=True)
    archive.limit = 1000
    read = history()
    stuck = archive.answer(read)  # the venue ignores where it is to go on from
    first = read.read(stuck).next
    assert first is not None
    with pytest.raises(VenueError, match="does not lead on"):
        first.read(stuck)


def test_a_full_page_in_another_order_than_asked_for_is_not_believed() -> None:
    archive = Archive(range(START_MS, START_MS + 1000), 1000, inclusive=True)
    rows = json.loads(archive.answer(history()).body)
    with pytest.raises(VenueError, match="order of time"):
        history().read(Response(status=200, body=json.dumps(rows[::-1]).encode()))


# ---- Other answers over HTTP


@pytest.mark.parametrize(
    ("status", "error_class"),
    [
        (401, ErrorClass.TOKEN),
        (403, ErrorClass.AUTH),
        (404, ErrorClass.REFUSED),
        (429, ErrorClass.RATE),
        (500, ErrorClass.RETRYABLE_READ),
        (400, ErrorClass.REFUSED),
    ],
)
def test_a_read_that_fails_says_why(status: int, error_class: ErrorClass) -> None:
    with pytest.raises(VenueError) as raised:
        history().read(Response(status=status, body=b"<html>"))
    assert raised.value.error_class is error_class


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b"success", "Accepted"),
        (200, b'"success"', "Accepted"),
        (200, b'{"message":"success"}', "Accepted"),
        (200, b"<html>", "Unknown"),
        (400, b'{"code":"OrderToCancelNotFound (404)","message":"Order to cancel not found"}', "Refused"),
        (400, b'"Provided json can\'t be properly deserialised"', "Refused"),
        (400, b"", "Refused"),
        (429, b"", "Refused"),
        (502, b"success", "Unknown"),
    ],
)
def test_answers_to_a_cancellation_over_http(status: int, body: bytes, kind: str) -> None:
    command = Cancel(client_order_id="", venue_order_id="41", instrument=place().instrument)
    rest = ALOR.rest(Catalogue(), ref="MOEX:D10001", options=ALOR.options)
    (outcome,) = rest.read_outcomes([command], Response(status=status, body=body))
    assert type(outcome).__name__ == kind


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"message":"success","orderNumber":"41"}', "Accepted"),
        (b'{"message":"success","orderNumber":41}', "Accepted"),
        (b'{"message":"success"}', "Unknown"),
        (b"<html>", "Unknown"),
    ],
)
def test_answers_to_an_order_over_http(body: bytes, kind: str) -> None:
    rest = ALOR.rest(Catalogue(), ref="MOEX:D10001", options=ALOR.options)
    (outcome,) = rest.read_outcomes([place()], Response(status=200, body=body))
    assert type(outcome).__name__ == kind


@given(st.integers(100, 599), st.binary(max_size=80))
def test_no_answer_to_an_order_makes_us_raise(status: int, body: bytes) -> None:
    rest = ALOR.rest(Catalogue(), ref="MOEX:D10001", options=ALOR.options)
    (outcome,) = rest.read_outcomes([place()], Response(status=status, body=body))
    assert type(outcome).__name__ != "Accepted"


# ---- Tokens


def jwt(**claims: Any) -> str:
    middle = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"head.{middle}.signature"


@pytest.mark.parametrize(
    ("token", "ends_in_s"),
    [
        (jwt(exp=START_MS // 1000 + 600), 600),
        (jwt(exp=START_MS // 1000 + 7200), 1800),
        (jwt(sub="P1"), 1800),
        (jwt(exp="soon"), 1800),
        ("no JWT at all", 1800),
        ("a.!!!.c", 1800),
    ],
)
def test_a_token_ends_when_it_says_and_never_after_half_an_hour(token: str, ends_in_s: int) -> None:
    assert ALOR.grant is not None
    found = ALOR.grant.read(Response(status=200, body=json.dumps({"AccessToken": token}).encode()), START_MS)
    assert found.secret.reveal() == token
    assert found.expires_at_ms == START_MS // 1000 * 1000 + ends_in_s * 1000


@pytest.mark.parametrize(
    ("status", "body", "error_class"),
    [
        (403, b'{"message":"token"}', ErrorClass.AUTH),
        (401, b"", ErrorClass.AUTH),
        (502, b"<html>", ErrorClass.RETRYABLE_READ),
        (429, b"", ErrorClass.RETRYABLE_READ),
        (200, b"{}", ErrorClass.RETRYABLE_READ),
        (200, b"[]", ErrorClass.RETRYABLE_READ),
    ],
)
def test_without_a_token_it_is_a_failure_whatever_the_status(status: int, body: bytes, error_class: ErrorClass) -> None:
    assert ALOR.grant is not None
    with pytest.raises(VenueError) as raised:
        ALOR.grant.read(Response(status=status, body=body), START_MS)
    assert raised.value.error_class is error_class


@given(st.binary(max_size=80))
def test_no_bytes_make_the_reading_of_a_token_raise_anything_else(body: bytes) -> None:
    assert ALOR.grant is not None
    with pytest.raises(VenueError):
        ALOR.grant.read(Response(status=200, body=body), START_MS)
