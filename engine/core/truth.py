"""Holds. What an account really has at a simulated venue, in our words: for judges, who must not ask the dialect.

A front tells it from its own state. `fill_id` and `venue_order_id` are spelt as the dialect spells them in facts.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import msgspec

from engine.core.facts import OrderStatus


class TrueOrder(msgspec.Struct, frozen=True, kw_only=True):
    venue_order_id: str
    client_order_id: str  # "" for one that was placed elsewhere
    status: OrderStatus
    filled: Decimal
    filled_before: Decimal = Decimal(0)  # what those got whose place it took


class TrueFill(msgspec.Struct, frozen=True, kw_only=True):
    """All that history tells under one id: a match that was booked in two rows is one."""

    fill_id: str
    venue_order_id: str
    instrument: str
    quantity: Decimal
    price: Decimal


class Truth(msgspec.Struct, frozen=True, kw_only=True):
    """Complete, at this instant. Positions are signed and by instrument; what is zero may be missing."""

    orders: Mapping[str, TrueOrder]
    fills: Mapping[str, TrueFill]
    positions: Mapping[str, Decimal]
    cash: Mapping[str, Decimal]
