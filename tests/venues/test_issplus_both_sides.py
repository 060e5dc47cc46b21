"""Our side of ISS+ against the other one, with every switch of what is unconfirmed: neither may lose the other."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pytest

from engine.core.facts import Side
from engine.core.venue import ErrorClass, Notice, VenueError
from engine.venues.issplus.stream import Phase
from tests.venues.issplus_talk import CHANNELS, ISSPLUS, Floor

SBER = "MXSE.TQBR.SBER"


def agrees(floor: Floor, channel: str = "securities:SBER/RUB") -> bool:
    """Does our table hold what the exchange would tell now?"""
    table, ticker = floor.session.table(channel), floor.front.tickers[SBER]
    (row,) = table.rows.values()
    theirs = ticker.row(floor.now_ms)
    return not table.stale and all(row[column] == value for column, value in theirs.items())


def latest(floor: Floor, basis: str) -> Decimal:
    return next(m.price for m in reversed(floor.marks) if m.basis == basis and m.instrument == "SBER/RUB")


SWITCHES: list[dict[str, Any]] = [
    {},
    {"echo_subprotocol": False},
    {"structure": False, "connected_headers": True},
    {"receipt_last": True},
    {"seq_step": 5},
    {"global_numbers": True},
    {"timestamps": "s"},
    {"timestamps": "us"},
    {"timestamps": "none"},
    {"reply_properties": True},
    {"bare_numbers": True},
    {"framing": "text"},
    {"framing": "trailing_lf"},
    {"framing": "split"},
    {"framing": "coalesce"},
    {"framing": "length"},
    {"framing": "spaced"},
    {"framing": "no_nul"},
    {"heartbeat_ms": 1000},
    {"late_message": True, "unsubscribe_answer": "closed"},
    {"unsubscribe_answer": "receipt", "removal_whole_rows": True},
]


@pytest.mark.parametrize("rules", SWITCHES, ids=str)
def test_the_tables_agree_however_the_unconfirmed_goes(rules: dict[str, Any]) -> None:
    floor = Floor(**rules)
    floor.connect(*CHANNELS, "COMMON.boards")
    floor.seconds(5)
    floor.market.paused = True
    floor.seconds(2)  # the last frame may have lost its end, which shows by nothing following
    assert floor.notices(Notice.READY, Notice.UNREADABLE, Notice.REFUSED, Notice.RETRY) == ["ready"]
    assert agrees(floor)
    book = floor.front.exchange.books[SBER]
    assert (latest(floor, "bid"), latest(floor, "ask")) == (book.best(Side.BUY), book.best(Side.SELL))
    candles, bars = floor.session.table(CHANNELS[2]), floor.front.tickers[SBER].candles(1, floor.now_ms)
    assert [row["CLOSE"] for row in candles.rows.values()][-3:] == [bar.close for bar in bars][-3:]


@pytest.mark.parametrize("seed", range(12))
def test_any_mixture_of_them_is_lived_with(seed: int) -> None:
    floor = Floor(either=random.Random(seed))
    floor.connect(*CHANNELS)
    floor.seconds(8)
    assert floor.notices(Notice.READY, Notice.UNREADABLE, Notice.RETRY) == ["ready"]
    assert agrees(floor)


@pytest.mark.parametrize("subprotocol", ["STOMP", "v12.stomp", "none"])
def test_any_subprotocol_will_do(subprotocol: str) -> None:
    floor = Floor()
    floor.options["subprotocol"] = subprotocol
    floor.connect(*CHANNELS)
    assert floor.accepted.subprotocol == ("" if subprotocol == "none" else subprotocol)
    assert floor.notices(Notice.READY) == ["ready"]


@pytest.mark.parametrize("place", ["message", "header", "body", "plain"])
def test_a_wrong_passcode_halts_wherever_the_code_stands(place: str) -> None:
    floor = Floor(error_place=place)
    floor.connect(*CHANNELS, passcode="wrong")
    assert floor.notices() == ["auth_refused gateway.access-denied"]
    assert floor.closed == [(1000, "")]


def test_guests_are_let_in_and_not_to_everything() -> None:
    floor = Floor(guests_denied=("MXSE.orderbooks",))
    floor.connect(*CHANNELS, domain="DEMO", login="guest", passcode="guest")
    assert floor.notices(Notice.REFUSED, Notice.READY) == ["refused gateway.access-denied", "ready"]
    assert all(mark.at_ms <= floor.now_ms for mark in floor.marks)


@pytest.mark.parametrize("delay_ms", [0, 900_000])
def test_late_prices_of_guests_never_pass_for_new_ones(delay_ms: int) -> None:
    floor = Floor(demo_delay_ms=delay_ms)
    floor.connect("securities:SBER/RUB", domain="DEMO", login="guest", passcode="guest")
    floor.seconds(20)
    moved = [mark for mark in floor.marks if mark.basis == "bid"]
    assert moved
    if delay_ms:
        assert all(mark.at_ms <= floor.now_ms - 20_000 + 1_000 for mark in moved)


@pytest.mark.parametrize("code", ["gateway.exception", "gateway.timeout", "gateway.transport"])
@pytest.mark.parametrize("place", ["message", "plain"])
def test_failures_pass(code: str, place: str) -> None:
    floor = Floor(error_place=place)
    floor.faults.begin("refuse", None, floor.now_ms, times=4, code=code)
    floor.connect(*CHANNELS)
    floor.seconds(9)
    assert floor.notices(Notice.READY, Notice.RETRY) == ["ready"]
    assert agrees(floor)


def test_a_request_that_is_lost_is_asked_again() -> None:
    floor = Floor()
    floor.faults.begin("drop_request", None, floor.now_ms, times=1)
    floor.connect('MXSE.securities|TICKER="MXSE.TQBR.SBER"')
    floor.seconds(12)
    assert floor.notices() == ["info connected", "info mute", "ready"]


def test_a_receipt_that_is_lost_changes_nothing() -> None:
    floor = Floor()
    floor.faults.begin("drop_ack", None, floor.now_ms)
    floor.connect(*CHANNELS)
    assert floor.faults.happened["drop_ack"] == 3
    assert floor.notices() == ["info connected", "ready"]


def test_lost_messages_are_a_gap_that_is_mended() -> None:
    floor = Floor()
    floor.options["sequence"] = "strict"
    floor.connect(*CHANNELS)
    floor.seconds(2)
    floor.seconds(2, lose=True)
    floor.seconds(6)
    assert floor.notices(Notice.INFO).count("info gap") >= 1
    assert "UNSUBSCRIBE" in "".join(floor.sent)
    assert agrees(floor)


@pytest.mark.parametrize("sequence", ["monotonic", "strict"])
def test_repeated_and_overtaken_messages_do_no_harm(sequence: str) -> None:
    floor = Floor()
    floor.options["sequence"] = sequence
    floor.connect(*CHANNELS)
    floor.faults.begin("duplicate", None, floor.now_ms, times=10)
    floor.seconds(3)
    assert floor.notices(Notice.UNREADABLE, Notice.RETRY) == []
    assert floor.faults.happened["duplicate"] == 10
    assert agrees(floor)


def test_an_overtaken_message_is_a_gap_where_numbers_go_by_one() -> None:
    floor = Floor()
    floor.options["sequence"] = "strict"
    floor.connect("securities:SBER/RUB")
    floor.seconds(2)
    floor.faults.begin("late", None, floor.now_ms, times=1)
    floor.seconds(6)
    assert "info gap" in floor.notices(Notice.INFO)
    assert agrees(floor)


def test_what_the_server_ends_out_of_the_blue_is_asked_for_again() -> None:
    floor = Floor()
    floor.connect(*CHANNELS)
    assert floor.front.command("notice", ["issplus"], {}, floor.now_ms) == 3
    floor.seconds(3)
    assert floor.notices(Notice.INFO).count("info closed") == 3
    assert agrees(floor)


def test_a_login_that_ends_closes_the_session_and_does_not_come_back() -> None:
    floor = Floor()
    floor.connect(*CHANNELS)
    old = floor.front.accounts()[0]["passcode"]
    floor.front.command("kill_key", ["issplus"], {}, floor.now_ms)
    floor.listen()
    assert floor.notices(Notice.RETRY) == ["retry closed"]
    assert floor.closed == [(1008, "the login has ended")]
    floor.connect(*CHANNELS, passcode=old)
    assert floor.notices(Notice.AUTH_REFUSED) == ["auth_refused gateway.access-denied"]


def test_news_come_and_go() -> None:
    floor = Floor(news_ms=1000)
    floor.connect("COMMON.news")
    floor.seconds(8)
    assert len(floor.session.table("COMMON.news").rows) == 5


def test_a_paper_is_found_on_its_board() -> None:
    floor = Floor()
    floor.connect("securities:TMOS/RUB")
    assert 'TICKER="MXSE.TQTF.TMOS"' in floor.sent[-1]
    assert any(mark.instrument == "TMOS/RUB" for mark in floor.marks)


def test_what_the_exchange_does_not_have_is_refused_alone() -> None:
    floor = Floor()
    floor.connect('MXSE.securities|TICKER="MXSE.TQBR.NONE"', "orderbooks:SR/RUB:RUB-2612", "securities:SBER/RUB")
    assert floor.notices(Notice.REFUSED) == ["refused gateway.invalidrequest"] * 2
    assert agrees(floor)
    assert [s.phase for s in floor.session._subscriptions.values()].count(Phase.FAILED) == 2


# ---- ISS over HTTP


def test_everything_is_listed_in_our_spelling_and_then_found_by_it() -> None:
    floor = Floor(boards_paged=True, page_rows=2)
    rest = ISSPLUS.rest(floor.catalogue, ref="", options=ISSPLUS.options)
    listed = {i.name: i for read in rest.instruments() for page in floor.walk(read) for i in page.instruments}
    assert {name: str(i.multiplier) for name, i in listed.items()} == {
        "SBER/RUB": "1",
        "GAZP/RUB": "10",
        "LKOH/RUB": "1",
        "TMOS/RUB": "1",
        "CNY/RUB": "1000",
        "USD/RUB": "1000",
        "SR/RUB:RUB-2612": "1",
        "CR/RUB:RUB-2612": "1000",
    }
    floor.catalogue |= listed
    floor.connect("securities:TMOS/RUB", "securities:CR/RUB:RUB-2612")
    assert not any(frame.startswith("REQUEST") for frame in floor.sent)
    assert floor.notices(Notice.READY) == ["ready"]


@pytest.mark.parametrize("paged", [True, False])
def test_latest_prices_are_as_old_as_what_guests_are_shown(paged: bool) -> None:
    floor = Floor(boards_paged=paged, page_rows=2)
    floor.seconds(60)
    rest = ISSPLUS.rest(floor.catalogue, ref="", options=ISSPLUS.options)
    marks = [fact for read in rest.marks() for page in floor.walk(read) for fact in page.facts]
    assert {mark.instrument for mark in marks} >= {"SBER/RUB", "CNY/RUB", "SR/RUB:RUB-2612"}  # type: ignore[union-attr]
    assert all(mark.at_ms <= floor.now_ms - 900_000 for mark in marks)


def test_a_key_that_is_not_taken_does_not_pass_late_prices_for_fresh_ones() -> None:
    floor = Floor()
    rest = ISSPLUS.rest(floor.catalogue, ref="", options={**ISSPLUS.options, "iss_login": "login"})
    with pytest.raises(VenueError) as raised:
        floor.walk(rest.marks()[0], authorization="Bearer old")
    assert (raised.value.error_class, raised.value.code) == (ErrorClass.AUTH, "guest")


def test_a_board_that_nobody_knows_is_told_at_once() -> None:
    with pytest.raises(ValueError, match="TQXX"):
        ISSPLUS.rest(Floor().catalogue, ref="", options={**ISSPLUS.options, "boards": "TQBR,TQXX"})


def test_with_an_api_key_they_are_fresh() -> None:
    floor = Floor()
    floor.seconds(60)
    rest = ISSPLUS.rest(floor.catalogue, ref="", options={**ISSPLUS.options, "iss_login": "login"})
    (page, *_) = floor.walk(rest.marks()[0], authorization=f"Bearer {floor.front.api_key}")
    assert max(fact.at_ms for fact in page.facts) > floor.now_ms - 2_000


@pytest.mark.parametrize("page_rows", [7, 60, 500])
def test_candles_are_read_to_their_end_whatever_a_page_holds(page_rows: int) -> None:
    floor = Floor(page_rows=page_rows)
    floor.seconds(30)
    rest = ISSPLUS.rest(floor.catalogue, ref="", options=ISSPLUS.options)
    since_ms = floor.now_ms - 3_600_000
    (read,) = rest.candles("SBER/RUB", 60, since_ms, floor.now_ms)
    candles = [candle for page in floor.walk(read) for candle in page.candles]
    bars = floor.front.tickers[SBER].candles(1, floor.now_ms - 900_000)
    theirs = [bar for bar in bars if bar.begin_ms >= since_ms - 60_000]
    assert [(c.begins_at_ms, c.close, c.volume) for c in candles] == [(b.begin_ms, b.close, b.volume) for b in theirs]
    assert candles[0].begins_at_ms <= since_ms < candles[1].begins_at_ms  # one that overlaps
    assert [c.finished for c in candles[-2:]] == [True, False]


def test_nobody_has_candles_of_strange_lengths_or_things() -> None:
    rest = ISSPLUS.rest(Floor().catalogue, ref="", options=ISSPLUS.options)
    assert rest.candles("SBER/RUB", 61, 0, 1) == ()
    assert rest.candles("nonsense", 60, 0, 1) == ()


def test_who_is_not_entitled_gets_a_page_for_people_and_it_is_known_for_one() -> None:
    floor = Floor(entitled=False)
    rest = ISSPLUS.rest(floor.catalogue, ref="", options=ISSPLUS.options)
    with pytest.raises(VenueError) as raised:
        floor.walk(rest.marks()[0])
    assert (raised.value.error_class, raised.value.code) == (ErrorClass.AUTH, "not_entitled")


def test_the_time_is_the_servers() -> None:
    floor = Floor()
    (page,) = floor.walk(ISSPLUS.rest(floor.catalogue, ref="", options=ISSPLUS.options).server_time())
    assert page.server_time_ms == floor.now_ms // 1000 * 1000
