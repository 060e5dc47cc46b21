"""OKX over HTTP: walks through history, their proven ends, and what an error means to a reader."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.facts import Fact, FillFact
from engine.core.venue import ErrorClass, Page, Read, Response, VenueError
from engine.venues import venues
from engine.venues.okx.errors import _TABLE, CANCEL_SOURCES, CLOSE_CODES, MEANINGS, of_read
from tests.venues.samples import NOW_MS, NoInstruments, samples_of, wire

REST = venues()["okx"].rest(NoInstruments(), ref="", options={})
DAY_MS = 86_400_000
_SAMPLES = {s["name"]: s for s in samples_of("okx") if s["kind"] == "rest"}
FILL = _SAMPLES["fills: streamed and fetched are the same fill"]["frame"]["data"][0]
ORDER = _SAMPLES["open orders"]["frame"]["data"][0]
BILL = _SAMPLES["cash: trade, funding, transfer, liquidation, and what has no name here"]["frame"]["data"][0]


def query(read: Read) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(read.request.path).query))


def endpoint(read: Read) -> str:
    return urlsplit(read.request.path).path.removeprefix("/api/v5/")


def success(rows: list[dict[str, Any]]) -> Response:
    return Response(status=200, body=wire({"code": "0", "msg": "", "data": rows}))


def walked(first: Read, rows: list[dict[str, Any]], cursor: str) -> tuple[list[Fact], int]:
    """Serve a walk from `rows`, newest first, as OKX pages them: exclusively older than `after`."""
    facts, pages, read = list[Fact](), 0, first
    while True:
        asked = query(read)
        older = [r for r in rows if "after" not in asked or int(r[cursor]) < int(asked["after"])]
        page: Page = read.read(success(older[: int(asked["limit"])]))
        facts, pages = [*facts, *page.facts], pages + 1
        if page.next is None:
            return facts, pages
        read = page.next


@pytest.mark.parametrize(("count", "pages"), [(0, 1), (1, 1), (99, 1), (100, 2), (101, 2), (200, 3), (250, 3)])
@pytest.mark.parametrize(
    ("first", "template", "cursor"),
    [
        (REST.open_orders()[0], ORDER, "ordId"),
        (REST.orders(NOW_MS, NOW_MS)[0], ORDER, "ordId"),
        (REST.cash(NOW_MS, NOW_MS)[0], BILL, "billId"),
    ],
    ids=["open orders", "orders", "cash"],
)
def test_a_walk_ends_with_a_short_page_and_only_there(
    first: Read, template: dict[str, Any], cursor: str, count: int, pages: int
) -> None:
    rows = [{**template, cursor: str(1000 + n)} for n in reversed(range(count))]
    facts, walked_pages = walked(first, rows, cursor)
    assert walked_pages == pages
    assert len({fact.key for fact in facts}) == len(facts) == count


@given(st.data())
@settings(max_examples=20)
def test_a_walk_through_fills_joins_the_rows_of_one_trade_wherever_a_page_ends(data: st.DataObject) -> None:
    """Trades of one to three rows each; rows of one trade share its match time, some trades share theirs, too."""
    sizes = data.draw(st.lists(st.integers(1, 3), min_size=60, max_size=130))
    rows, at_ms = list[dict[str, Any]](), NOW_MS
    for trade, parts in enumerate(sizes, start=1):
        at_ms += trade % 2
        part = {**FILL, "tradeId": str(trade), "fillSz": "1", "fee": "-0.1", "fillPnl": "2", "fillTime": str(at_ms)}
        rows += [{**part, "billId": str(len(rows) + n)} for n in range(parts)]
    rows.reverse()
    facts, _ = walked(REST.fills(NOW_MS, NOW_MS)[0], rows, "billId")
    fills = {fact.fill_id: fact for fact in facts if isinstance(fact, FillFact)}
    assert len(fills) == len(facts) == len(sizes), "each trade once"
    for trade, parts in enumerate(sizes, start=1):
        fill = fills[f"ETH-USDT-SWAP:{trade}:{FILL['ordId']}"]
        assert (fill.quantity, fill.fee, fill.realised) == (parts, Decimal("-0.1") * parts, 2 * parts)


def test_a_page_that_does_not_lead_on_is_an_error_and_no_endless_walk() -> None:
    stuck = [{**ORDER, "ordId": "7"}] * 100
    first = REST.open_orders()[0]
    second = first.read(success(stuck)).next
    assert second is not None
    with pytest.raises(VenueError, match="lead on"):
        second.read(success(stuck))


def test_reading_an_answer_twice_tells_the_same() -> None:
    rows = [{**FILL, "tradeId": str(n), "billId": str(n)} for n in reversed(range(1, 101))]
    first = REST.fills(NOW_MS, NOW_MS)[0]
    once, twice = first.read(success(rows)), first.read(success(rows))
    assert once.facts == twice.facts
    assert once.next is not None
    assert twice.next is not None
    tail = success(rows[:3])
    assert once.next.read(tail).facts == twice.next.read(tail).facts


@pytest.mark.parametrize(
    ("walk", "age_ms", "endpoints"),
    [
        (REST.fills, 60_000, {"trade/fills": 1}),
        (REST.fills, 3 * DAY_MS, {"trade/fills": 1, "trade/fills-history": 5}),
        (REST.orders, 60_000, {"trade/orders-history": 5}),
        (REST.orders, 7 * DAY_MS, {"trade/orders-history": 5, "trade/orders-history-archive": 5}),
        (REST.cash, 60_000, {"account/bills": 1}),
        (REST.cash, 7 * DAY_MS, {"account/bills": 1, "account/bills-archive": 1}),
    ],
)
def test_an_old_gap_reads_the_archives_beside_the_near_history(
    walk: Callable[[int, int], list[Read]], age_ms: int, endpoints: dict[str, int]
) -> None:
    reads = walk(NOW_MS - age_ms, NOW_MS)
    assert {name: sum(endpoint(r) == name for r in reads) for name in endpoints} == endpoints
    assert len(reads) == sum(endpoints.values())
    assert all(query(read)["begin"] == str(NOW_MS - age_ms) for read in reads)


def test_order_history_is_asked_for_every_type_because_margin_and_spot_are_listed_apart() -> None:
    types = [query(read)["instType"] for read in REST.orders(NOW_MS, NOW_MS)]
    assert types == ["SPOT", "MARGIN", "SWAP", "FUTURES", "OPTION"]


def test_only_reads_of_an_account_are_signed() -> None:
    public = [REST.server_time(), *REST.instruments(), *REST.marks()]
    private = [REST.identity(), *REST.statement(), *REST.open_orders(), *REST.fills(NOW_MS, NOW_MS)]
    assert not any(read.request.signed for read in public)
    assert all(read.request.signed for read in private)


# ---- Errors


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (200, "50011", ErrorClass.RATE),
        (429, "", ErrorClass.RATE),
        (429, "50102", ErrorClass.RATE),
        (200, "50013", ErrorClass.RETRYABLE_READ),
        (503, "50001", ErrorClass.RETRYABLE_READ),
        (500, "50026", ErrorClass.RETRYABLE_READ),
        (500, "51603", ErrorClass.RETRYABLE_READ),
        (200, "50004", ErrorClass.RETRYABLE_READ),
        (401, "50102", ErrorClass.CLOCK),
        (401, "50112", ErrorClass.CLOCK),
        (401, "50111", ErrorClass.AUTH),
        (200, "50101", ErrorClass.AUTH),
        (200, "50119", ErrorClass.AUTH),
        (403, "50035", ErrorClass.AUTH),
        (200, "51603", ErrorClass.NOT_FOUND),
        (200, "51000", ErrorClass.REFUSED),
        (200, "12345", ErrorClass.REFUSED),
        (404, "", ErrorClass.REFUSED),
    ],
)
def test_what_an_error_means_to_a_reader(status: int, code: str, expected: ErrorClass) -> None:
    assert of_read(status, code) is expected


@pytest.mark.parametrize(
    "body",
    ["", "{", "[]", "null", "<html></html>", '{"code":"0"}', '{"code":"0","data":5}', '{"code":"0","data":[5]}'],
)
def test_an_answer_that_is_none_never_passes_for_an_empty_one(body: str) -> None:
    for read in (REST.open_orders()[0], *REST.fills(NOW_MS, NOW_MS), *REST.statement(), REST.identity()):
        with pytest.raises(VenueError):
            read.read(Response(status=200, body=body.encode()))


def test_an_error_status_with_the_body_of_a_success_is_an_error() -> None:
    with pytest.raises(VenueError):
        REST.open_orders()[0].read(Response(status=404, body=b'{"code":"0","data":[]}'))


def test_an_order_is_only_looked_up_by_an_id() -> None:
    instrument = venues()["okx"]  # what it is does not matter: there is no id
    with pytest.raises(ValueError, match="ids"):
        REST.order(instrument, "", "")  # type: ignore[arg-type]


# ---- The tables


def test_no_code_stands_in_two_classes() -> None:
    written = [code for sentences in _TABLE.values() for codes in sentences.values() for code in codes.split()]
    assert len(written) == len(set(written)) == len(MEANINGS)
    assert all(len(code) == 5 and code.isdecimal() for code in written)


def test_every_class_that_this_venue_knows_has_codes_and_every_code_a_sentence() -> None:
    assert {error_class for error_class, _ in MEANINGS.values()} == set(ErrorClass) - {ErrorClass.TOKEN}
    assert all(sentence for _, sentence in MEANINGS.values())
    assert all(CANCEL_SOURCES.values())
    assert all(CLOSE_CODES.values())
