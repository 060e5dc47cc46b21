"""Decides. Our order ids as ALOR carries them: in the comment, which it repeats in every event. ALOR dossier §6.4."""

from __future__ import annotations

import re
from uuid import UUID

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LENGTH = 22  # of 128 bits
_OURS = re.compile(r"uni-([0-9A-Za-z]{22})")


def render(identity: int) -> str:
    digits = []
    for _ in range(_LENGTH):
        identity, digit = divmod(identity, len(_DIGITS))
        digits.append(_DIGITS[digit])
    assert identity == 0, "an identity has 128 bits"
    return "uni-" + "".join(reversed(digits))


def owns(text: str) -> bool:
    """Ours are made of version-5 UUIDs: people's own comments are not."""
    match = _OURS.fullmatch(text)
    if match is None:
        return False
    value = 0
    for digit in match[1]:
        value = value * len(_DIGITS) + _DIGITS.index(digit)
    return value < 2**128 and UUID(int=value).version == 5
