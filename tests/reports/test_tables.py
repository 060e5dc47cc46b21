"""Rows in, tables out: what needs a look comes first, and nothing from outside becomes markup."""

from __future__ import annotations

from decimal import Decimal as D

import pytest
from rich.console import Console, RenderableType

from engine.core.standing import Standing
from engine.reports import tables

NOW = 1_767_225_600_000


def _lines(table: RenderableType) -> list[str]:
    console = Console(width=180, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return captured.get().splitlines()


def _row(key: str, phase: str, **more: object) -> dict[str, object]:
    return {"connection_key": key, "listener_id": key, "kind": "private", "phase": phase, **more}


def test_links_that_need_a_look_come_first_and_all_are_counted() -> None:
    lines = _lines(
        tables.connections_table(
            [_row("a", "live"), _row("b", "halted", last_error="50111 invalid key"), _row("c", "opening")], now_ms=NOW
        )
    )
    order = [next(i for i, line in enumerate(lines) if word in line) for word in ("✕ halted", "◐ opening", "● live")]
    assert order == sorted(order)
    assert "1 halted · 1 opening · 1 live" in lines[-1]
    assert any("50111 invalid key" in line for line in lines)


def test_a_long_last_error_does_not_push_aside_whose_it_is() -> None:
    rows = [_row(f"client-{n:03}", "halted", last_error="the venue refused this login " * 8) for n in range(3)]
    lines = _lines(tables.connections_table(rows, now_ms=NOW))
    for n in range(3):
        assert any(f"client-{n:03}" in line and "✕ halted" in line for line in lines)


def test_how_long_ago_a_link_was_heard_needs_the_time_and_else_is_a_time_of_day() -> None:
    row = _row("a", "live", last_heard_at_ms=NOW - 4_200)
    assert any("4.2 s" in line for line in _lines(tables.connections_table([row], now_ms=NOW)))
    assert any("23:59:55" in line for line in _lines(tables.connections_table([row])))


def test_connections_that_are_held_back_are_told_with_how_long() -> None:
    rows = [_row("a", "live", blocked=True, blocked_s=12.3), _row("b", "live", blocked_s=0.5), _row("c", "live")]
    lines = _lines(tables.connections_table(rows, now_ms=NOW))
    assert "3 live · 1 held back" in lines[-1]
    assert any("a " in line and "12 s" in line for line in lines)
    assert any("b " in line and "0.5 s" in line for line in lines)


def test_what_does_not_fit_is_counted() -> None:
    rows = [_row(f"a{n}", "live") for n in range(50)]
    assert "50 live · 10 more not shown" in _lines(tables.connections_table(rows, limit=40))[-1]


def test_open_gaps_come_before_proven_ones() -> None:
    proven = {"account_id": "a", "since_ms": NOW, "closed_at_ms": NOW + 8_000, "proven_at_ms": NOW + 9_500}
    lines = _lines(
        tables.gaps_table([proven | {"state": "PROVEN"}, {"account_id": "b", "since_ms": NOW - 1, "state": "OPEN"}])
    )
    rows = [line.split()[:2] for line in lines if line.split()[:1] in (["a"], ["b"])]
    assert rows == [["b", "open"], ["a", "proven"]]
    assert any("8.0 s" in line and "1.5 s" in line for line in lines)


@pytest.mark.parametrize(
    ("table", "shown"),
    [
        (
            tables.orders_table(
                [
                    tables.OrderRow(
                        account_id="a",
                        instrument="BTC/USDT",
                        side="buy",
                        quantity=D(1500),
                        state="working",
                        updated_at_ms=NOW,
                    )
                ]
            ),
            ["1\u202f500", "working", "EXTERNAL"],
        ),
        (
            tables.fills_table(
                [
                    {
                        "account_id": "a",
                        "instrument": "BTC/USDT",
                        "side": "sell",
                        "quantity": "2",
                        "price": "60000",
                        "fee": "-0.5",
                        "fee_currency": "USDT",
                        "external": True,
                        "venue_action": "liquidation",
                        "fill_id": "f1",
                        "traded_at_ms": NOW,
                    }
                ]
            ),
            ["60\u202f000", "−0.5 USDT", "2026-01-01 00:00:00", "EXTERNAL liquidation"],
        ),
        (
            tables.positions_table(
                [
                    Standing(
                        account_id="a",
                        instrument="X",
                        position_side="long",
                        quantity=D(-3),
                        unit="contract",
                        currency="USDT",
                        avg_price=None,
                        mark=D(5),
                        mark_basis="last",
                        mark_source="okx",
                        mark_as_of_ms=NOW - 2000,
                        why_not="what it cost is not known",
                        realised=D(7),
                        unpriced=D(2),
                        elsewhere={"external": D(-3)},
                        updated_at_ms=NOW,
                    )
                ],
                now_ms=NOW,
            ),
            ["−3 contract", "X long", "not known", "okx last 2.0 s", "7 + 2 at ?", "external −3", "USDT"],
        ),
        (tables.positions_table([]), ["no engine runs: without prices"]),
        (tables.balances_table([{"account_id": "a", "currency": "USDT", "cash": "12.50"}]), ["12.5", "USDT"]),
    ],
)
def test_rows_come_as_structs_or_as_objects_from_outside(table: RenderableType, shown: list[str]) -> None:
    text = "\n".join(_lines(table))
    assert all(word in text for word in shown)


def test_text_from_outside_is_not_markup() -> None:
    row = _row("a", "down", last_error="[bold]x[/bold] [/]")
    assert any("[bold]x[/bold] [/]" in line for line in _lines(tables.connections_table([row])))
