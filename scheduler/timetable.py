"""Holds. What runs when: the entries of a timetable."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One recurring piece of work. A run that is not done after `deadline_s` is cancelled."""

    name: str
    every_s: float
    deadline_s: float
    run: Callable[[], Awaitable[object]]
