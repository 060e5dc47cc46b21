"""Decides. What of a frame or request may be kept: everything but the values of secrets, wherever their names stand."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

MASK = "***"


def masker(names: Iterable[str]) -> Callable[[str], str]:
    """Makes a text without the values of these fields, in JSON (also JSON inside a JSON text), query, form or header.

    Names are compared without regard to case.
    """
    known = sorted({name.lower() for name in names})
    if not known:
        return lambda text: text
    word = "|".join(re.escape(name) for name in known)
    # A value: a quoted text with whatever is escaped in it, one that never ends, or what stands there up to the next
    # separator.
    value = r'(?:\1"(?:(?!\1")(?:\\.|[^\\]))*\1"|\1".*|[^\s,}\]"]+)'
    fields = re.compile(rf'(\\*)"({word})\1"\s*:\s*{value}', re.IGNORECASE | re.DOTALL)
    pairs = re.compile(rf"(?<![\w-])({word})(=|:[ \t]*)([^&\s\"\\]+(?:[ \t]+[^&\s\"\\]+)*)", re.IGNORECASE)

    def mask(text: str) -> str:
        lower = text.lower()
        for name in known:
            if name in lower:
                break
        else:  # nearly every frame
            return text
        text = fields.sub(rf'\1"\2\1":\1"{MASK}\1"', text)
        return pairs.sub(rf"\1\2{MASK}", text)

    return mask
