"""Holds. Which orders are about to be replaced: those who send amendments know it, those who hear of orders must.

ALOR changes an order by cancelling it and making a new one (dossier §6.3). The two come as events of their own, the
old one's end first, on another connection than the one that asked; and an order's end must not be taken for the end of
what was wanted. So the conversations of one engine share what they ask for: they know each other by the catalogue that
all of them were given.
"""

from __future__ import annotations

from collections import OrderedDict
from weakref import WeakKeyDictionary

from engine.core.venue import Catalogue

_MOST = 10_000


class Replacing:
    """Orders for which a replacement was asked and not refused, by account and the broker's number; bounded."""

    def __init__(self) -> None:
        self._asked: OrderedDict[tuple[str, str], None] = OrderedDict()

    def asked(self, account_ref: str, venue_order_id: str) -> None:
        self._asked[account_ref, venue_order_id] = None
        if len(self._asked) > _MOST:
            self._asked.popitem(last=False)

    def refused(self, account_ref: str, venue_order_id: str) -> None:
        self._asked.pop((account_ref, venue_order_id), None)

    def concerns(self, account_ref: str, venue_order_id: str) -> bool:
        return (account_ref, venue_order_id) in self._asked


_of_catalogue: WeakKeyDictionary[Catalogue, Replacing] = WeakKeyDictionary()


def shared(catalogue: Catalogue) -> Replacing:
    """The one of everybody with this catalogue."""
    known = _of_catalogue.get(catalogue)
    if known is None:
        known = _of_catalogue[catalogue] = Replacing()
    return known
