"""Decides. What goes wrong, for whom, from when to when; and counts how often it really did.

Kinds that happen between the venue and the account are carried out by the world (`world.py`), the others by the
venue's front, which asks here. A fault that never struck proves nothing: look at the counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from engine.core.venue import Fault

LINE_KINDS = frozenset({"cut", "silence", "half_open", "delay", "slow", "garbage", "refuse_connect"})
FRONT_KINDS = frozenset(
    {
        "refuse",
        "refuse_login",
        "duplicate",
        "drop_ack",
        "drop_request",
        "late",
        "html_502",
        "rate_429",
        "read_lag",
        "amend_fails",
    }
)
AT_ONCE = frozenset({"notice", "kill_key", "new_key", "liquidate", "funding"})  # the venue does it, and that is that

_BY_MS = {"delay": 1000, "slow": 2000, "late": 2000, "read_lag": 2000}
_SECONDS = 10.0


class Planned(msgspec.Struct, kw_only=True):
    """One fault under way. `accounts` None means everybody; `times` None means as often as it can."""

    fault: Fault
    accounts: frozenset[str] | None
    from_ms: int
    until_ms: int
    times: int | None

    def meets(self, account: str, now_ms: int) -> bool:
        return (
            self.from_ms <= now_ms < self.until_ms
            and (self.accounts is None or account in self.accounts)
            and (self.times is None or self.times > 0)
        )


class FaultPlan:
    """The faults of one world."""

    def __init__(self) -> None:
        self._planned: dict[str, list[Planned]] = {}
        self.happened: Counter[str] = Counter()
        self.happened_to: dict[str, Counter[str]] = {}

    def begin(
        self,
        kind: str,
        accounts: Iterable[str] | None,
        now_ms: int,
        *,
        seconds: float | None = None,
        times: int | None = None,
        by_ms: int | None = None,
        code: str = "",
        what: str = "",
    ) -> Planned:
        """Start a fault now. Raises KeyError for an unknown kind."""
        if kind == "refuse" and what in ("connect", "login"):
            kind = f"refuse_{what}"
        if kind not in LINE_KINDS | FRONT_KINDS:
            raise KeyError(kind)
        lasts_ms = round((seconds if seconds is not None else _SECONDS) * 1000)
        planned = Planned(
            fault=Fault(kind=kind, by_ms=by_ms if by_ms is not None else _BY_MS.get(kind, 0), code=code, what=what),
            accounts=None if accounts is None else frozenset(accounts),
            from_ms=now_ms,
            until_ms=now_ms + lasts_ms,
            times=times,
        )
        self._planned.setdefault(kind, []).append(planned)
        return planned

    def strikes(self, kind: str, account: str, now_ms: int) -> Fault | None:
        planned = self._meeting(kind, account, now_ms)
        if planned is None:
            return None
        if planned.times is not None:
            planned.times -= 1
        self.count(kind, account)
        return planned.fault

    def active(self, kind: str, account: str, now_ms: int) -> Planned | None:
        """Like `strikes`, but only looks."""
        return self._meeting(kind, account, now_ms)

    def count(self, kind: str, account: str) -> None:
        self.happened[kind] += 1
        self.happened_to.setdefault(kind, Counter())[account] += 1

    def clear(self) -> None:
        """Everything that goes wrong ends now; the counts stay."""
        self._planned.clear()

    def report(self, now_ms: int) -> dict[str, Any]:
        under_way = [p for several in self._planned.values() for p in several if now_ms < p.until_ms]
        return {
            "happened": dict(self.happened),
            "happened_to": {kind: dict(counts) for kind, counts in self.happened_to.items()},
            "under_way": [
                {
                    "kind": p.fault.kind,
                    "accounts": "all" if p.accounts is None else sorted(p.accounts),
                    "ends_in_s": (p.until_ms - now_ms) / 1000,
                    "times": p.times,
                }
                for p in under_way
            ],
        }

    def _meeting(self, kind: str, account: str, now_ms: int) -> Planned | None:
        several = self._planned.get(kind)
        if not several:
            return None
        if several[0].until_ms <= now_ms:
            several[:] = [p for p in several if p.until_ms > now_ms]
        return next((p for p in several if p.meets(account, now_ms)), None)
