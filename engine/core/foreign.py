"""Decides. What of an account's orders and fills is nobody's order here: the owner's own, or the venue's doing."""

from __future__ import annotations

EXTERNAL = "external"
"""Placed elsewhere by the owner: in the venue's own page, or by a program of his."""

# An action that a venue names and that the owner (or we) asked for all the same.
_ASKED_FOR = frozenset({"", "trigger", "tp_sl", "strategy", "trailing_stop", "chase", "replaced"})


def acted(venue_action: str) -> bool:
    """Did the venue do it by itself (liquidation, adl, delivery, margin, …)? A word nobody knows counts as such."""
    return venue_action not in _ASKED_FOR and not venue_action.startswith("source ")
