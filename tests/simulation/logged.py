"""Decides. What the engine may log in trouble; anything else is a mistake of ours, though it was survived."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog

from tests.simulation.truth import Verdict

# What a person is told in trouble; "cancel_impossible": before the venue's instruments are read, and tried again.
_EXPECTED_ERRORS = frozenset(
    {
        "ledger_down",
        "halted",
        "credentials_refused",
        "order_unknown",
        "late",
        "no_progress",
        "cancel_impossible",
        "not_written",
        "venue_action",  # it liquidates now and then
    }
)


@contextmanager
def logged(verdict: Verdict, verbose: bool) -> Iterator[None]:
    """A mistake of ours that the engine survived and logged is one all the same."""
    before = structlog.get_config()

    def keep(logger: Any, method: str, event: MutableMapping[str, Any]) -> Any:
        if verbose and method in ("warning", "error"):
            print("   log", {k: v for k, v in event.items() if k != "exc_info"})
        if event.get("exc_info"):
            trouble = event["exc_info"]
            told = traceback.format_exc() if trouble is True else "".join(traceback.format_exception(trouble))
            if "Died" not in told:
                verdict.broken.append(f"logged: {event.get('event')} {told[-1500:]}")
        elif method == "error" and not _expected(event):
            verdict.broken.append(f"logged: {dict(event)}")
        raise structlog.DropEvent

    structlog.configure(
        processors=[keep], wrapper_class=structlog.make_filtering_bound_logger(30), cache_logger_on_first_use=False
    )
    try:
        yield
    finally:
        structlog.configure(**before)


def _expected(event: Mapping[str, Any]) -> bool:
    if event["event"] == "step_not_taken":
        # Cancelled while the claim was being written: the claim goes first, and the executor takes it back.
        return (event["was"], event["step"]) == ("planned", "skip")
    return event["event"] in _EXPECTED_ERRORS
