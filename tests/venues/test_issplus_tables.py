"""Packets, and the tables that they keep: what a row is after any of them, and when something must be missing."""

from __future__ import annotations

import json
from decimal import Decimal as D
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.venues.issplus.packets import UNREADABLE, moment_ms, packet, price, time_of_day_ms
from engine.venues.issplus.tables import Gap, Sequence, Table

T_MS = 1_767_225_600_000  # 2026-01-01, 03:00 in Moscow


def told(kind: str, number: int | None, columns: list[str], *rows: list[Any], **more: Any) -> bytes:
    properties = {"type": kind, "seqnum": number, **more}
    return json.dumps({"properties": properties, "columns": columns, "data": rows}).encode()


def table(*packets: bytes, destination: str = "MXSE.securities", sequence: Sequence = Sequence.MONOTONIC) -> Table:
    made = Table(destination, sequence)
    for one in packets:
        made.apply(packet(one))
    return made


SNAPSHOT = told(
    "snapshot", 5, ["TICKER", "LAST", "BID", "TIME"], ["A", [1.5, 2], [1.4, 2], None], ["B", [2, 0], None, None]
)
KEY_A, KEY_B = ("A",), ("B",)


# ---- Cells


@pytest.mark.parametrize(
    ("cell", "meant"),
    [
        ([302.0, 2], D("302.00")),
        ([1322700, 0], D(1322700)),
        ([-0.125, 3], D("-0.125")),
        ([302.004999, 2], D("302.00")),
        ([302.5], D("302.5")),
        (302.5, D("302.5")),
        (["302.5", 1], D("302.5")),
        ([None, 2], None),
        (None, None),
        ("T", "T"),
        (True, True),
        (10**17, D(10**17)),
    ],
)
def test_a_cell(cell: Any, meant: Any) -> None:
    read = packet(told("snapshot", 1, ["A"], [cell])).rows[0]["A"]
    assert read == meant
    assert str(read) == str(meant)


def test_no_digit_of_a_price_passes_through_a_float() -> None:
    body = b'{"columns":["A"],"data":[[[0.1000000000000000055511151231257827,20]],[[123456789.123456789,9]]]}'
    assert [str(row["A"]) for row in packet(body).rows] == ["0.10000000000000000555", "123456789.123456789"]


@pytest.mark.parametrize(
    "cell", ["[1,-1]", "[1,99]", "[[1],2]", "[1,2,3]", "{}", "1e999", "[1e40,2]", "[]", '["x",2]', "[1,1.5]"]
)
def test_a_cell_that_is_none_makes_the_packet_unreadable(cell: str) -> None:
    with pytest.raises(UNREADABLE):
        packet(f'{{"columns":["A"],"data":[[{cell}]]}}'.encode())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"columns":["A"],"data":[[1,2]]}',
        b'{"columns":["A","A"],"data":[]}',
        b'{"columns":[1],"data":[]}',
    ],
)
def test_a_body_that_is_no_packet(body: bytes) -> None:
    with pytest.raises(UNREADABLE):
        packet(body)


@given(st.binary(max_size=60))
def test_no_bytes_do_more_than_fail(body: bytes) -> None:
    try:
        packet(body)
    except UNREADABLE:
        pass


@pytest.mark.parametrize(("stamp", "at_ms"), [(T_MS, T_MS), (T_MS // 1000, T_MS), (T_MS * 1000, T_MS), (None, None)])
def test_the_unit_of_a_timestamp_shows_in_its_size(stamp: int | None, at_ms: int | None) -> None:
    assert packet(told("snapshot", 1, ["A"], timestamp=stamp)).at_ms == at_ms


@pytest.mark.parametrize(
    ("text", "by_ms", "at_ms"),
    [
        ("02:59:59", T_MS, T_MS - 1000),
        ("03:00:01", T_MS, T_MS + 1000),  # its clock is a little before ours
        ("23:50:00", T_MS, T_MS - 3 * 3_600_000 - 600_000),  # yesterday's
        ("24:00:00", T_MS, None),
        ("", T_MS, None),
        (None, T_MS, None),
    ],
)
def test_a_time_of_day_is_the_last_one_so_late_in_moscow(text: Any, by_ms: int, at_ms: int | None) -> None:
    assert time_of_day_ms(text, by_ms) == at_ms


def test_moments_are_moscows() -> None:
    assert moment_ms("2026-01-01 03:00:00") == T_MS
    assert moment_ms("2026-01-01") == T_MS - 3 * 3_600_000
    for wrong in ("2026-01-01T03:00:00Z", "2026-01-01 03:00:00+0300", "", None, "0001-01-01"):
        with pytest.raises(ValueError, match="no moment"):
            moment_ms(wrong)


@pytest.mark.parametrize(
    ("cell", "meant"), [("1.5", D("1.5")), (0, None), (-1, None), (None, None), ("x", None), (D("NaN"), None)]
)
def test_a_price_is_above_zero_or_none(cell: Any, meant: D | None) -> None:
    assert price(cell) == meant


# ---- Tables


def test_an_update_changes_its_columns_only_and_an_explicit_null_empties() -> None:
    kept = table(SNAPSHOT, told("updates", 6, ["TICKER", "BID"], ["A", None]))
    assert kept.rows[KEY_A] == {"TICKER": "A", "LAST": D("1.50"), "BID": None, "TIME": None}


def test_a_new_row_is_inserted_and_a_removed_one_gone() -> None:
    kept = table(
        SNAPSHOT,
        told("updates", 6, ["TICKER", "LAST", "BID"], ["C", 3, 4]),
        told("removal", 7, ["TICKER"], ["A"], ["unknown"]),
    )
    assert set(kept.rows) == {KEY_B, ("C",)}
    assert kept.dropped == 1


def test_a_snapshot_replaces_everything_whenever_it_comes() -> None:
    kept = table(SNAPSHOT, told("snapshot", 1, ["TICKER"], ["Z"]))
    assert list(kept.rows) == [("Z",)]
    assert kept.apply(packet(told("updates", 2, ["TICKER", "LAST"], ["Z", 1]))).rows


def test_before_the_snapshot_nothing_counts() -> None:
    kept = table(told("updates", 4, ["TICKER", "LAST"], ["A", 1]))
    assert (kept.rows, kept.stale, kept.dropped) == ({}, True, 1)


@pytest.mark.parametrize(
    ("sequence", "number", "taken"),
    [
        (Sequence.MONOTONIC, 6, True),
        (Sequence.MONOTONIC, 60, True),
        (Sequence.MONOTONIC, 5, False),
        (Sequence.MONOTONIC, 4, False),
        (Sequence.MONOTONIC, None, True),
        (Sequence.STRICT, 6, True),
        (Sequence.STRICT, 5, False),
        (Sequence.OFF, 4, True),
        (Sequence.OFF, 60, True),
    ],
)
def test_what_a_number_means(sequence: Sequence, number: int | None, taken: bool) -> None:
    kept = table(SNAPSHOT, sequence=sequence)
    change = kept.apply(packet(told("updates", number, ["TICKER", "LAST"], ["A", 9])))
    assert bool(change.rows) is taken
    assert kept.rows[KEY_A]["LAST"] == (9 if taken else D("1.50"))


@pytest.mark.parametrize(
    ("late", "sequence", "destination"),
    [
        (told("updates", 7, ["TICKER", "LAST"], ["A", 9]), Sequence.STRICT, "MXSE.securities"),
        (told("updates", 6, ["TICKER"], ["new"]), Sequence.MONOTONIC, "MXSE.securities"),
        (told("updates", 6, ["PRICE"], [1]), Sequence.MONOTONIC, "MXSE.orderbooks"),
    ],
    ids=["a number is missing", "a row that was never told whole", "an update of a book"],
)
def test_a_gap_changes_nothing(late: bytes, sequence: Sequence, destination: str) -> None:
    kept = table(SNAPSHOT, sequence=sequence, destination=destination)
    before = dict(kept.rows)
    with pytest.raises(Gap):
        kept.apply(packet(late))
    assert kept.rows == before


@pytest.mark.parametrize(
    "wrong",
    [
        told("updates", 6, ["LAST"], [1]),
        told("updates", 6, ["TICKER", "LAST"], [None, 1]),
        told("removal", 6, ["LAST"], [1]),
        told("news", 6, ["TICKER"], ["A"]),
        b'{"columns":["TICKER"],"data":[["A"]]}',
    ],
)
def test_a_packet_that_makes_no_sense_changes_nothing(wrong: bytes) -> None:
    kept = table(SNAPSHOT)
    before = dict(kept.rows)
    with pytest.raises(ValueError, match=r"key|type"):
        kept.apply(packet(wrong))
    assert kept.rows == before


def test_a_restart_keeps_the_rows_and_calls_them_stale() -> None:
    kept = table(SNAPSHOT)
    kept.restart()
    assert kept.stale
    assert len(kept.rows) == 2
    kept.apply(packet(SNAPSHOT))
    assert not kept.stale


rows = st.dictionaries(
    st.sampled_from("ABC"), st.dictionaries(st.sampled_from(["LAST", "BID"]), st.integers(1, 9), min_size=1)
)


@given(st.lists(rows, max_size=4))
@settings(max_examples=30)
def test_updates_fold_as_they_say(updates: list[dict[str, dict[str, int]]]) -> None:
    kept, number = table(SNAPSHOT, sequence=Sequence.STRICT), 5
    believed = {key[0]: dict(row) for key, row in kept.rows.items()}
    for update in updates:
        for ticker, columns in update.items():
            number += 1
            row = [ticker, *columns.values()]
            kept.apply(packet(told("updates", number, ["TICKER", *columns], row)))
            believed.setdefault(ticker, {"TICKER": ticker}).update({c: D(v) for c, v in columns.items()})
    assert {key[0]: row for key, row in kept.rows.items()} == believed


def test_a_table_is_bounded() -> None:
    body = msgspec.json.encode(
        {"properties": {"type": "snapshot"}, "columns": ["TICKER"], "data": [[str(n)] for n in range(100_001)]}
    )
    with pytest.raises(ValueError, match="rows"):
        table(body)
