"""Who loses too much in a day may only reduce, until a person says otherwise; then the loss counts anew."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from accounts.model import Mandate, Trading
from engine.core.facts import CashFact, EquityFact
from engine.losses import Losses
from tests.engine_world import World, world

pytestmark = pytest.mark.anyio

HOUR_S = 3600


class Registry:
    """What the registry does of it: the pause shows in the roster, and a person lifts it."""

    def __init__(self, w: World) -> None:
        self.w, self.paused, self.lifted_ms = w, dict[str, str](), dict[str, int]()

    async def pause(self, account_id: str, why: str) -> None:
        self.paused[account_id] = why
        self._set(account_id, Trading.REDUCING)

    def lift(self, account_id: str) -> None:
        self.lifted_ms[account_id] = self.w.clock.now_ms()
        self._set(account_id, Trading.ACTIVE)

    async def lifted(self, since_ms: int) -> Mapping[str, int]:
        return {a: at_ms for a, at_ms in self.lifted_ms.items() if at_ms >= since_ms}

    def _set(self, account_id: str, trading: Trading) -> None:
        known = self.w.roster.accounts[account_id]
        self.w.roster.accounts[account_id] = msgspec.structs.replace(known, trading=trading)


def losses(w: World, registry: Registry) -> Losses:
    w.roster.mandates = {"ann": Mandate(account_id="ann", max_daily_loss=Decimal(100))}
    return Losses(
        ledger=w.ledger,
        sync=w.sync,
        http=w.http,  # type: ignore[arg-type]
        roster=w.roster,
        at_par=lambda one, other: one == other,
        pause=registry.pause,
        lifted=registry.lifted,
    )


async def worth(w: World, total: int, after_s: float = HOUR_S) -> None:
    """The venue values ann, so long after the last time."""
    await w.advance(after_s)
    w.hear("ann", EquityFact(currency="USDT", total=Decimal(total), updated_at_ms=w.clock.now_ms()))
    await w.advance(1)


async def test_at_the_limit_it_is_paused_once_with_the_numbers(tmp_path: Path) -> None:
    async with world(tmp_path, "ann", "bob") as w:
        registry = Registry(w)
        look = losses(w, registry)
        await worth(w, 1000)
        await worth(w, 901)
        await look.look()
        assert registry.paused == {}
        await worth(w, 900)
        await look.look()
        assert registry.paused == {"ann": "daily loss: 100 USDT lost, the mandate pauses it at 100"}
        registry.paused.clear()
        await look.look()
        assert registry.paused == {}


async def test_lifted_by_a_person_the_loss_counts_anew(tmp_path: Path) -> None:
    async with world(tmp_path, "ann") as w:
        registry = Registry(w)
        look = losses(w, registry)
        await worth(w, 1000)
        await worth(w, 800)
        await look.look()
        registry.lift("ann")
        registry.paused.clear()
        await worth(w, 701)
        await look.look()
        assert registry.paused == {}, "99 since then"
        await worth(w, 699)
        await look.look()
        assert "ann" in registry.paused


@pytest.mark.parametrize(("utc_offset_h", "paused"), [(0, False), (3, True)])
async def test_the_day_begins_at_the_venues_midnight(tmp_path: Path, utc_offset_h: int, paused: bool) -> None:
    async with world(tmp_path, "ann") as w:
        okx: Any = w.roster.venues["okx"]
        there = msgspec.structs.replace(okx.capabilities, utc_offset_ms=utc_offset_h * HOUR_S * 1000)
        w.roster.venues["okx"] = msgspec.structs.replace(okx, capabilities=there)
        registry = Registry(w)
        look = losses(w, registry)
        await worth(w, 1000, 20 * HOUR_S)  # 20:00 UTC, 23:00 there
        await worth(w, 850, 3.5 * HOUR_S)  # 23:30 UTC: another day there
        await worth(w, 850, HOUR_S)  # 00:30 UTC
        await look.look()
        assert bool(registry.paused) is paused


async def test_what_was_paid_out_is_no_loss_and_what_is_not_known_pauses_nobody(tmp_path: Path) -> None:
    async with world(tmp_path, "ann") as w:
        registry = Registry(w)
        look = losses(w, registry)
        await look.look()
        await worth(w, 1000)
        paid = CashFact(
            cash_id="c1", currency="USDT", amount=Decimal(-500), kind="transfer", booked_at_ms=w.clock.now_ms()
        )
        w.hear("ann", paid)
        await worth(w, 500)
        await look.look()
        assert registry.paused == {}
