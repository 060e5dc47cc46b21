"""Our side of ISS+ alone: what it asks for, what it makes of answers, and what it does when none come."""

from __future__ import annotations

import json
from decimal import Decimal as D
from typing import Any

import pytest

from accounts.model import Secret
from engine.core.facts import MarkFact
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.venue import Heard, Login
from engine.venues import venues
from engine.venues.issplus.errors import MEANINGS, Meaning
from engine.venues.issplus.stream import Session
from engine.venues.issplus.symbols import place_of, terms, topic_of
from tests.venues.issplus_talk import Catalogue

ISSPLUS = venues()["issplus"]
T_MS = 1_781_078_400_000
SBER = 'MXSE.securities|TICKER="MXSE.TQBR.SBER"'
BOOK = 'MXSE.orderbooks|TICKER="MXSE.TQBR.SBER"'


def session(*channels: str, domain: str = "passport", **options: str) -> Session:
    made = ISSPLUS.converse(
        kind="feed",
        channels=channels or (SBER,),
        logins=[Login("", {"domain": Secret(domain), "login": Secret("l"), "passcode": Secret("p")})],
        environment="demo",
        catalogue=Catalogue(),
        options={**ISSPLUS.options, **options},
    )
    assert isinstance(made, Session)
    made.open(T_MS)
    return made


def connected(*channels: str, **options: str) -> Session:
    made = session(*channels, **options)
    made.hear(b"CONNECTED\n\n\0", T_MS)
    return made


def snapshot(asked_as: str = "s1", number: int = 1, **row: Any) -> bytes:
    return message(asked_as, "snapshot", number, **{"LAST": [300, 2], "BID": [299, 2], "TRADINGSTATUS": "T", **row})


def message(asked_as: str, kind: str, number: int, stamp: int = T_MS, **row: Any) -> bytes:
    told = {"TICKER": "MXSE.TQBR.SBER", **row}
    properties = {"type": kind, "seqnum": number, "timestamp": stamp}
    body = {"properties": properties, "columns": list(told), "data": [list(told.values())]}
    return f"MESSAGE\nsubscription:{asked_as}\n\n{json.dumps(body)}\0".encode()


def sent(heard: Heard | None) -> list[str]:
    return [] if heard is None else [_text(frame).split("\n\n")[0].replace("\n", " ") for frame in heard.frames]


def _text(frame: str | bytes) -> str:
    return frame if isinstance(frame, str) else frame.decode()


def notices(heard: Heard | None) -> list[str]:
    return [] if heard is None else [f"{said.notice.value} {said.code}".strip() for said in heard.said]


def marks(heard: Heard) -> list[tuple[str, str, int]]:
    return [(f.basis, str(f.price), f.at_ms - T_MS) for f in heard.facts if isinstance(f, MarkFact)]


# ---- The login


@pytest.mark.parametrize(
    ("options", "frame", "subprotocols"),
    [
        ({}, b"CONNECT\ndomain:passport\nlogin:l\npasscode:p\n\n\0", ("STOMP",)),
        ({"opcode": "text"}, "CONNECT\ndomain:passport\nlogin:l\npasscode:p\n\n\0", ("STOMP",)),
        ({"subprotocol": "v12.stomp"}, b"CONNECT\ndomain:passport\nlogin:l\npasscode:p\n\n\0", ("v12.stomp",)),
        ({"subprotocol": "none"}, b"CONNECT\ndomain:passport\nlogin:l\npasscode:p\n\n\0", ()),
    ],
)
def test_it_connects_with_three_headers_and_no_other(
    options: dict[str, str], frame: str | bytes, subprotocols: tuple[str, ...]
) -> None:
    made = session(**options)
    assert made.open(T_MS) == (frame,)
    assert made.handshake(T_MS).subprotocols == subprotocols


@pytest.mark.parametrize("code", MEANINGS)
def test_an_error_at_the_login_halts_or_waits(code: str) -> None:
    heard = session().hear(f"ERROR\nmessage:{code}\n\n\0".encode(), T_MS)
    assert notices(heard) == [f"{'auth_refused' if MEANINGS[code][0] is Meaning.NEVER else 'retry'} {code}"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("message:gateway.timeout\n\n", "gateway.timeout"),
        ("message:Failure\nerror-code:gateway.timeout\n\n", "gateway.timeout"),
        ("message:Failure\n\ngateway.transport: no broker", "gateway.transport"),
        ("message:Access denied\n\n", "gateway.access-denied"),
        ("\nAccess denied", "gateway.access-denied"),
        ("message:Something else\n\n", "gateway.exception"),
        ("message:gateway.new-thing\n\n", "gateway.new-thing"),
    ],
)
def test_the_code_is_found_wherever_it_stands(error: str, code: str) -> None:
    assert session().hear(f"ERROR\n{error}\0".encode(), T_MS).said[0].code == code


# ---- Ready


def test_a_connection_without_channels_is_ready_once_connected() -> None:
    made = ISSPLUS.converse(
        kind="feed",
        channels=(),
        logins=[Login("", {"domain": Secret("DEMO"), "login": Secret("guest"), "passcode": Secret("guest")})],
        environment="demo",
        catalogue=Catalogue(),
        options=ISSPLUS.options,
    )
    made.open(T_MS)
    assert "ready" in notices(made.hear(b"CONNECTED\n\n\0", T_MS))


def test_it_is_ready_with_the_last_channel_and_a_slow_one_is_not_waited_for_long() -> None:
    made = connected(SBER, BOOK)
    assert notices(made.hear(snapshot(), T_MS)) == []
    assert notices(made.tick(T_MS + 4_000)) == []
    assert notices(made.tick(T_MS + 5_000)) == ["ready"]


def test_with_nothing_delivered_it_is_not_ready() -> None:
    assert notices(connected().tick(T_MS + 9_000)) == []


def test_many_channels_are_asked_for_at_a_measured_pace() -> None:
    made = session(*(f'MXSE.securities|TICKER="MXSE.TQBR.A{n}"' for n in range(50)))
    counts = [len(made.hear(b"CONNECTED\n\n\0", T_MS).frames)]
    counts += [len(sent(made.tick(T_MS + seconds * 1000))) for seconds in (1, 2, 3)]
    assert counts == [20, 20, 10, 0]


# ---- Prices and their times


def test_a_price_is_of_the_rows_own_time_and_later_ones_are_no_older() -> None:
    made = connected(domain="DEMO")  # whose packets may be told late
    assert ("last", "300.00", -60_000) in marks(made.hear(snapshot(TIME="10:59:00"), T_MS))
    later = made.hear(message("s1", "updates", 2, T_MS + 1_000, BID=[298, 2]), T_MS)
    assert marks(later) == [("bid", "298.00", -60_000)]


@pytest.mark.parametrize(
    ("domain", "delay_ms", "age_ms"), [("DEMO", "900000", 900_000), ("DEMO", "0", 0), ("x", "900000", 0)]
)
def test_what_guests_are_told_without_its_time_counts_as_old(domain: str, delay_ms: str, age_ms: int) -> None:
    made = connected(domain=domain, guest_delay_ms=delay_ms)
    assert ("last", "300.00", -age_ms) in marks(made.hear(snapshot(), T_MS))


def test_what_is_on_no_main_board_has_no_price_of_ours() -> None:
    made = connected('MXSE.securities|TICKER="MXSE.SMAL.SBER"')
    heard = made.hear(snapshot(TICKER="MXSE.SMAL.SBER"), T_MS)
    assert (list(heard.facts), notices(heard)) == ([], ["ready"])


# ---- Beginning anew


def test_a_gap_gives_up_the_subscription_and_asks_under_a_new_name() -> None:
    made = connected(sequence="strict")
    made.hear(snapshot(), T_MS)
    heard = made.hear(message("s1", "updates", 3, LAST=[1, 0]), T_MS)
    assert sent(heard) == [
        "UNSUBSCRIBE id:s1",
        'SUBSCRIBE id:s2 destination:MXSE.securities receipt:s2 selector:TICKER="MXSE.TQBR.SBER"',
    ]
    assert (made.table(SBER).stale, len(made.table(SBER).rows)) == (True, 1)
    late = made.hear(message("s1", "updates", 4, LAST=[1, 0]), T_MS)
    assert (list(late.facts), late.said) == ([], [])  # what still comes under the old one is no news
    assert marks(made.hear(snapshot("s2"), T_MS))
    assert not made.table(SBER).stale


def test_gaps_that_repeat_are_mended_ever_more_slowly() -> None:
    made, now_ms, pauses = connected(sequence="strict"), T_MS, list[int]()
    for round_ in range(1, 5):
        made.hear(snapshot(f"s{round_}"), now_ms)
        heard: Heard | None = made.hear(message(f"s{round_}", "updates", 9, LAST=[1, 0]), now_ms)
        broken_ms = now_ms
        while not any("SUBSCRIBE id:" in s and not s.startswith("UN") for s in sent(heard)):
            now_ms += 1000
            heard = made.tick(now_ms)
        pauses.append(now_ms - broken_ms)
    assert pauses == [0, 1_000, 2_000, 4_000]


def test_a_snapshot_that_never_comes_is_asked_for_three_times_and_then_elsewhere() -> None:
    made, told = connected(), list[str]()
    for seconds in range(1, 60):
        told += notices(made.tick(T_MS + seconds * 1000))
    assert told[:3] == ["info mute", "info mute", "retry mute"]


@pytest.mark.parametrize("code", ["gateway.exception", "gateway.timeout", "gateway.transport"])
def test_a_failure_that_may_pass_is_waited_out(code: str) -> None:
    made = connected()
    heard = made.hear(f"ERROR\nsubscription:s1\nmessage:{code}\n\n\0".encode(), T_MS)
    assert notices(heard) == [f"refused {code}", f"info {code}"]
    assert sent(heard) == []
    assert [s[:15] for s in sent(made.tick(T_MS + 1_000))] == ["SUBSCRIBE id:s2"]


def test_our_clock_set_back_keeps_nobody_waiting() -> None:
    made = connected()
    made.tick(T_MS)
    made.hear(b"ERROR\nsubscription:s1\nmessage:gateway.timeout\n\n\0", T_MS)
    hour_ago_ms = T_MS - 3_600_000
    assert sent(made.tick(hour_ago_ms)) == []
    assert [s[:15] for s in sent(made.tick(hour_ago_ms + 60_000))] == ["SUBSCRIBE id:s2"]
    assert notices(made.tick(hour_ago_ms + 70_000)) == ["info mute"]


def test_a_server_without_its_broker_is_left_after_a_while() -> None:
    made, told = connected(), list[str]()
    for number in range(1, 6):
        now_ms = T_MS + number * 100_000
        told += notices(made.hear(f"ERROR\nreceipt-id:s{number}\nmessage:gateway.transport\n\n\0".encode(), now_ms))
        made.tick(now_ms + 61_000)
    assert told[-1] == "retry gateway.transport"
    assert told.count("retry gateway.transport") == 1


@pytest.mark.parametrize("code", ["gateway.access-denied", "gateway.invalidrequest", "gateway.notimplemented"])
def test_a_refusal_for_good_costs_its_channel_only(code: str) -> None:
    made = connected(SBER, BOOK)
    made.hear(snapshot("s1"), T_MS)
    heard = made.hear(f"ERROR\nreceipt-id:s2\nmessage:{code}\n\n\0".encode(), T_MS)
    assert notices(heard) == [f"refused {code}", "ready"]
    assert all(sent(made.tick(T_MS + seconds * 1000)) == [] for seconds in range(1, 200))
    assert marks(made.hear(message("s1", "updates", 2, LAST=[301, 2]), T_MS))


def test_what_is_silent_while_it_is_traded_is_asked_for_anew() -> None:
    made = connected(SBER, 'MXSE.securities|TICKER="MXSE.TQBR.HALT"')
    made.hear(snapshot("s1"), T_MS)
    made.hear(snapshot("s2", TICKER="MXSE.TQBR.HALT", TRADINGSTATUS="N"), T_MS)
    assert notices(made.tick(T_MS + 299_000)) == []
    heard = made.tick(T_MS + 300_000)
    assert notices(heard) == ["info idle"]
    assert sent(heard)[0] == "UNSUBSCRIBE id:s1"


def test_news_of_what_nobody_asked_for_is_not_understood() -> None:
    assert notices(connected().hear(snapshot("s77"), T_MS)) == ["unreadable"]
    assert notices(connected().hear(b"NEWKIND\n\n\0", T_MS)) == ["unreadable"]
    assert notices(connected().hear(b"MESSAGE\nsubscription:s1\n\n\0", T_MS)) == []


def test_a_board_that_is_not_told_is_assumed() -> None:
    made = connected("orderbooks:SBER/RUB")
    assert sent(made.tick(T_MS + 10_000)) == [
        'SUBSCRIBE id:s2 destination:MXSE.orderbooks receipt:s2 selector:TICKER="MXSE.TQBR.SBER"'
    ]
    refused = connected("candles:SBER/RUB:M1")
    heard = refused.hear(b"ERROR\nrequest-id:q1\nmessage:gateway.access-denied\n\n\0", T_MS)
    assert sent(heard)[0].endswith('selector:ticker="MXSE.TQBR.SBER" and interval="M1"')


def test_a_query_that_cannot_be_read_is_asked_again() -> None:
    made = connected("COMMON.boards")
    assert notices(made.hear(b"REPLY\nrequest-id:q1\n\n{\0", T_MS)) == ["unreadable", "info gap"]
    assert sent(made.tick(T_MS + 1_000)) == ["REQUEST id:q2 destination:COMMON.boards selector:"]
    made.hear(b'REPLY\nrequest-id:q2\n\n{"columns":["ID","NAME"],"data":[[1,"TQBR"]]}\0', T_MS)
    assert [row["NAME"] for row in made.table("COMMON.boards").rows.values()] == ["TQBR"]


def test_a_feed_takes_no_orders() -> None:
    with pytest.raises(ValueError, match="orders"):
        connected().say((), "r1", T_MS)


# ---- Channels and names


@pytest.mark.parametrize(
    ("channel", "destination", "selector"),
    [
        ("securities:SBER/RUB", "MXSE.securities", 'TICKER="MXSE.TQBR.SBER"'),
        ("orderbooks:CNY/RUB", "MXCX.orderbooks", 'TICKER="MXCX.CETS.CNYRUB_TOM"'),
        ("securities:USD/RUB_TOD", "MXCX.securities", 'TICKER="MXCX.CETS.USD000UTSTOD"'),
        ("securities:EUR/RUB", "MXCX.securities", 'TICKER="MXCX.CETS.EUR_RUB__TOM"'),
        ("securities:SR/RUB:RUB-2606", "FORTS.securities", 'ticker="FORTS.RFUD.SRM6"'),
        ("candles:SI/RUB:RUB-2612:H1", "FORTS.candles", 'ticker="FORTS.RFUD.SiZ6" and interval="H1"'),
        ('OPTIONS.candles|ticker="a" and interval="m1"', "OPTIONS.candles", 'ticker="a" and interval="m1"'),
        ("COMMON.news", "COMMON.news", ""),
    ],
)
def test_a_channel_says_what_is_asked_for(channel: str, destination: str, selector: str) -> None:
    topic = topic_of(channel, Catalogue())
    assert (topic.destination, topic.selector) == (destination, selector)


@pytest.mark.parametrize(
    "channel",
    [
        "",
        "trades:SBER/RUB",
        "securities:",
        "securities:SBER",
        "candles:SBER/RUB",
        "candles:SBER/RUB:M2",
        'MXSE.securities|TICKER="a"\nid:1',
        'MXSE.securities|TICKER="a" or "b"="c"',
        "MXSE securities|x",
        'MXSE.securities|TICKER="a" and ticker="b"',
    ],
)
def test_what_cannot_be_asked_for_is_refused_here(channel: str) -> None:
    with pytest.raises(ValueError, match=r"no|nothing"):
        topic_of(channel, Catalogue())


def test_the_catalogue_knows_the_board() -> None:
    place = place_of("TMOS/RUB", Catalogue())
    assert place is not None
    assert (place.ticker, place.sure) == ("MXSE.TQBR.TMOS", False)
    known = Instrument(
        name="TMOS/RUB",
        venue="issplus",
        kind=InstrumentKind.SPOT,
        base="TMOS",
        quote="RUB",
        settle="RUB",
        unit="lot",
        multiplier=D(1),
        quantity_step=D(1),
        min_quantity=D(1),
        price_tick=D("0.01"),
        venue_ref="MXSE.TQTF.TMOS",
    )
    place = place_of("TMOS/RUB", Catalogue({"TMOS/RUB": known}))
    assert place is not None
    assert (place.ticker, place.sure) == ("MXSE.TQTF.TMOS", True)


def test_terms_are_read_by_their_names() -> None:
    assert terms('TICKER="x and y" and Interval="M1"') == {"ticker": "x and y", "interval": "M1"}
    assert terms("") == {}
