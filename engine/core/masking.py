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
    field = re.compile(rf'(\\*)"(?:{word})\1"\s*:\s*', re.IGNORECASE)
    pair = re.compile(rf"(?<![\w-])({word})(=|:[ \t]*)([^&\s\"\\]+(?:[ \t]+[^&\s\"\\]+)*)", re.IGNORECASE)

    def mask(text: str) -> str:
        lower = text.lower()
        for name in known:
            if name in lower:
                break
        else:  # nearly every frame
            return text
        parts, done = list[str](), 0
        for found in field.finditer(text):
            if found.start() < done:
                continue  # inside a value that is masked already
            parts += (text[done : found.end()], f'{found[1]}"{MASK}{found[1]}"')
            done = _end_of_value(text, found.end(), len(found[1]))
        return pair.sub(rf"\1\2{MASK}", "".join(parts) + text[done:])

    return mask


def _end_of_value(text: str, start: int, slashes: int) -> int:
    """Where a JSON value ends whose quotes are written with so many backslashes; the text's end where it never does.

    JSON inside a JSON text doubles what is escaped: at each depth a quote of the value itself carries an odd multiple.
    """
    if not text.startswith("\\" * slashes + '"', start):
        end = re.compile(r"[\s,}\]\"\\]").search(text, start)
        return len(text) if end is None else end.start()
    for quote in re.compile(r'(\\*)"').finditer(text, start + slashes + 1):
        deeper, rest = divmod(len(quote[1]) - slashes, slashes + 1)
        if deeper < 0 or (deeper % 2 == 0 and rest == 0):
            return quote.end()
    return len(text)
