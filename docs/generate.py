"""Does. Writes the reference pages that come from the code: `make docs`. A test holds the committed pages to it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.cli import COMMANDS, command
from engine.cli.exits import Exit
from engine.core.limits import reference_page
from engine.core.orders import TERMINAL, TRANSITIONS, OrderState
from engine.core.plans import PLAN_STEPS, PlanState

REFERENCE = Path(__file__).parent / "reference"
_MADE = "<!-- Made from the code by `make docs`; edit the code, not this page. -->\n"


def pages() -> dict[str, str]:
    """Every generated page by its file name."""
    return {"denials.md": reference_page(), "commands.md": _commands(), "orders.md": _orders()}


def _commands() -> str:
    lines = ["# Commands", "", _MADE, "## Exit codes", "", "| code | name |", "|---|---|"]
    lines += [f"| {code.value} | {code.name} |" for code in Exit]
    for path, told in (found for name in sorted(COMMANDS) for found in _walk(command(name), f"unisono {name}")):
        lines += [
            "",
            f"## `{path}`",
            "",
            inspect.cleandoc(told.help or "").replace("[bold]", "**").replace("[/bold]", "**"),
        ]
        options = [p for p in told.params if p.name not in ("help", "install_completion", "show_completion")]
        if options:
            lines += ["", "| option | default | what |", "|---|---|---|"]
            lines += [_option(p) for p in options]
    return "\n".join(lines) + "\n"


def _walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if not children:
        yield path, command
        return
    if getattr(command, "invoke_without_command", False):
        yield path, command
    for name, child in sorted(children.items()):
        yield from _walk(child, f"{path} {name}")


def _option(parameter: Any) -> str:
    names = ", ".join(f"`{o}`" for o in (*parameter.opts, *parameter.secondary_opts) if o != parameter.name)
    default = parameter.default
    shown = "" if default in (None, "", (), False, []) or callable(default) else f"`{default}`"
    what = (getattr(parameter, "help", "") or "").replace("|", "\\|").replace("\n", " ")
    return f"| {names or f'`{parameter.name.upper()}`'} | {shown} | {what} |"


def _orders() -> str:
    def diagram(first: str, steps: list[tuple[str, str, str]], ends: list[str]) -> list[str]:
        drawn = ["```mermaid", "stateDiagram-v2", f"    [*] --> {first}"]
        drawn += [f"    {a} --> {b}{f': {label}' if label else ''}" for a, b, label in steps]
        return [*drawn, *(f"    {end} --> [*]" for end in ends), "```"]

    order_steps = [
        (state.value, after.value, event.value)
        for state, steps in TRANSITIONS.items()
        for event, after in steps.items()
    ]
    plan_steps = [
        (state.value, after.value, "") for state, steps in PLAN_STEPS.items() for after in sorted(steps, key=str)
    ]
    return "\n".join(
        [
            "# The life of an order and of a plan",
            "",
            _MADE,
            "## Child order",
            "",
            "A partial fill is a quantity, not a state. An order that is seen or filled after it ended is accepted and",
            "marked late. Any step that is not drawn here is refused and changes nothing.",
            "",
            *diagram(OrderState.PLANNED.value, order_steps, [s.value for s in OrderState if s in TERMINAL]),
            "",
            "## Plan",
            "",
            *diagram(PlanState.DRAFT.value, plan_steps, [s.value for s in PlanState if s.ended]),
            "",
        ]
    )


if __name__ == "__main__":
    for file, text in pages().items():
        (REFERENCE / file).write_text(text, encoding="utf-8")
