"""Decides. Bytes made strange: bits turned, ends cut off, depth and size beyond all sense, another type anywhere."""

from __future__ import annotations

import json
import random
from typing import Any

_STRANGE = (
    None, True, 0, -1, 0.5, 10**40, 2**63, "", " ", "-", "NaN", "Infinity", "1e9999", "-0", "9" * 70, "0x10", "\x00",
    "٣", [], {}, [[]], {"": None}, "2026-02-30T25:61:00Z", "1970-01-01",
)  # fmt: skip
_DEEP = 3000


def bent(seed: bytes, rng: random.Random) -> bytes:
    """The seed with something wrong in it; the bytes that choose the sample stay what they are or become any."""
    way = rng.randrange(7)
    if way == 0 and seed:
        return seed[: rng.randrange(len(seed))]
    if way == 1 and seed:
        spoilt = bytearray(seed)
        for _ in range(rng.randint(1, 8)):
            spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
        return bytes(spoilt)
    if way == 2 and seed:
        start, end = sorted(rng.randrange(len(seed) + 1) for _ in range(2))
        return seed[:end] + seed[start:end] * rng.randint(0, 3) + seed[end:]
    if way == 3:
        return seed[:2] + rng.choice((b"[", b'{"a":', b'[{"data":')) * _DEEP
    begins = next((n for n in range(min(3, len(seed))) if seed[n : n + 1] in b"{["), None)
    try:
        value = json.loads(seed[begins:]) if begins is not None else None
    except ValueError:
        return seed[::-1]
    if begins is None:
        return seed[::-1]
    return seed[:begins] + json.dumps(_changed(value, rng)).encode()


def _changed(value: Any, rng: random.Random) -> Any:
    """The same with one place of it strange, or gone."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        if rng.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: _changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        return [*value[:place], _changed(value[place], rng), *value[place + 1 :]]
    return rng.choice(_STRANGE)
