"""Decides. Names as the subprotocol `json-proto` spells them, order_id, turned into orderId. T-Invest dossier §1.3."""

from __future__ import annotations

from typing import Any

import msgspec


def camel_name(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def camel(frame: bytes) -> bytes:
    """The same frame in the spelling of `json`."""
    return msgspec.json.encode(turned(msgspec.json.decode(frame)))


def turned(value: Any) -> Any:
    """Any value, in the spelling of `json`."""
    if isinstance(value, dict):
        return {camel_name(name): turned(inner) for name, inner in value.items()}
    return [turned(inner) for inner in value] if isinstance(value, list) else value
