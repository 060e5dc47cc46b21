"""Does. What accounts' and groups' mandates share on the command line: the options, and what they make of a mandate."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated

import msgspec
import typer

from accounts.model import Mandate
from engine.cli.context import fail

MaxOrderOption = Annotated[
    str | None, typer.Option("--max-order", metavar="AMOUNT|none", help="Largest value of one order.")
]
MaxPlanOption = Annotated[
    str | None, typer.Option("--max-plan", metavar="AMOUNT|none", help="Largest value of its share in a plan.")
]
MaxDayOption = Annotated[
    str | None, typer.Option("--max-day", metavar="AMOUNT|none", help="Largest value of all its orders of a day (UTC).")
]
MaxInstrumentOption = Annotated[
    str | None,
    typer.Option("--max-instrument", metavar="AMOUNT|none", help="Largest value of its position in one instrument."),
]
MaxLossOption = Annotated[
    str | None,
    typer.Option("--max-daily-loss", metavar="AMOUNT|none", help="Having lost so much in a day, it may only reduce."),
]
AllowOption = Annotated[
    str | None, typer.Option("--allow", metavar="A,B|all", help="The only instruments it may trade.")
]
DenyOption = Annotated[str | None, typer.Option("--deny", metavar="A,B|none", help="Instruments it must not trade.")]

_FIELDS = {
    "--max-order": "max_order_notional",
    "--max-plan": "max_plan_notional",
    "--max-day": "max_day_notional",
    "--max-instrument": "max_instrument_notional",
    "--max-daily-loss": "max_daily_loss",
}


def mandate_after(now: Mandate, limits: Mapping[str, str | None], allow: str | None, deny: str | None) -> Mandate:
    """The mandate with what was given; what is None stays as it is. `limits` are by their options' names."""
    changes: dict[str, Decimal | tuple[str, ...] | None] = {
        _FIELDS[option]: _amount(option, text) for option, text in limits.items() if text is not None
    }
    if allow is not None:
        changes["allowed_instruments"] = _names(allow, "all")
    if deny is not None:
        changes["do_not_trade"] = _names(deny, "none")
    return msgspec.structs.replace(now, **changes)


def limit_lines(mandate: Mapping[str, object]) -> dict[str, str]:
    """A mandate for people, line by line."""
    told = {
        "largest order": mandate["max_order_notional"],
        "largest plan share": mandate["max_plan_notional"],
        "largest day": mandate["max_day_notional"],
        "largest position": mandate["max_instrument_notional"],
        "pauses at a loss of": mandate["max_daily_loss"],
    }
    allowed, banned = mandate["allowed_instruments"], mandate["do_not_trade"]
    assert isinstance(allowed, list | tuple), "a list of instruments"
    assert isinstance(banned, list | tuple), "a list of instruments"
    return {
        **{name: str(limit) if limit is not None else "no limit" for name, limit in told.items()},
        "may trade": ", ".join(allowed) or "all",
        "must not trade": ", ".join(banned) or "-",
    }


def _amount(option: str, text: str) -> Decimal | None:
    try:
        return None if text == "none" else Decimal(text)
    except InvalidOperation:
        fail(f"{option} {text}: is neither an amount nor none. Nothing was changed.")


def _names(text: str, nothing: str) -> tuple[str, ...]:
    """The names of a list. An empty one lifts no restriction: that is asked for by its own word."""
    if text.strip() == nothing:
        return ()
    names = tuple(dict.fromkeys(filter(None, (name.strip() for name in text.split(",")))))
    if not names:
        fail(f"A list of instruments is empty. Nothing was changed. To lift the restriction write: {nothing}")
    return names
