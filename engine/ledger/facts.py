"""Holds. What a fact looks like as a row, and back."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from engine.core.facts import (
    AccountFact,
    BalanceFact,
    CashFact,
    EquityFact,
    FillFact,
    OrderFact,
    PositionFact,
)

FactRow = tuple[str, str, str, str, int, int, str, str, str]
"""account_id, kind, key, instrument, at_ms, received_at_ms, source, connection_key, body"""


class Source(StrEnum):
    """How a fact came to us."""

    STREAM = "stream"
    HISTORY = "history"
    STATEMENT = "statement"
    OWN = "own"


KINDS: dict[type, str] = {
    OrderFact: "order",
    FillFact: "fill",
    PositionFact: "position",
    BalanceFact: "balance",
    EquityFact: "equity",
    CashFact: "cash",
}

_FEELESS = ":feeless"
_encode = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[AccountFact] = msgspec.json.Decoder(AccountFact)


def row(account_id: str, fact: AccountFact, *, received_at_ms: int, source: Source, connection_key: str) -> FactRow:
    """The row of a fact.

    A fill that was heard without its fee is stored beside the same fill with its fee, under a key of its own:
    otherwise the first to arrive would keep the fee out of the ledger for ever.
    """
    kind = type(fact)
    key = fact.key
    if kind is FillFact and fact.fee is None:  # type: ignore[union-attr]
        key += _FEELESS
    return (
        account_id,
        KINDS[kind],
        key,
        getattr(fact, "instrument", ""),
        fact.at_ms,
        received_at_ms,
        source,
        connection_key,
        _encode(fact).decode(),
    )


def other_key(kind: str, key: str) -> str:
    """Under which key the same fill may be stored, too: with its fee, or without."""
    if kind != KINDS[FillFact]:
        return key
    return key.removesuffix(_FEELESS) if key.endswith(_FEELESS) else key + _FEELESS


def read(body: str) -> AccountFact:
    """The fact that a row's body holds."""
    return _decoder.decode(body)
