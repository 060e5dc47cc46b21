"""What accounts are worth, for people: money in hundredths, and where the rates come from."""

from __future__ import annotations

from decimal import Decimal as D

from rich.console import Console

from engine.core.marks import Mark
from engine.core.valuation import AccountWorth, Part, Rate, Stated, Valuation, Worth
from engine.reports.worth import nav_table

NOW = 1_767_225_600_000


def test_money_has_two_places_and_each_rate_is_told_once_with_its_source() -> None:
    mark = Mark(
        instrument="USD/RUB", price=D("81.37"), basis="last", at_ms=NOW, received_at_ms=NOW, source="feed", market="X"
    )
    rate = Rate(currency="RUB", factor=D(1) / D("81.37"), marks=(mark,))
    parts = (Part(name="RUB", quantity=D(100), value=D("1.2289541600098316332800786"), rate=rate),)
    worths = [
        AccountWorth(
            valuation=Valuation(account_id=name, currency="USD", total=parts[0].value, at_ms=NOW, parts=parts),
            stated=Stated(currency="RUB", total=D("100.00500"), at_ms=NOW),
        )
        for name in ("a", "b")
    ]
    together = Worth(currency="USD", total=D("2.4579083200196632665601572"), counted=("a", "b"), left_out={})
    console = Console(width=160, color_system=None)
    with console.capture() as captured:
        console.print(nav_table(worths, together))
    told = captured.get()
    assert "together 2.46" in told
    assert told.count(" 1.23 ") == 2
    assert "100.00 RUB" in told
    assert told.count("USD/RUB 81.37 (last from feed") == 1
