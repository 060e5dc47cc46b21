"""Decides. What of a frame or request may be kept: everything but the values of secrets, wherever their names stand."""

from __future__ import annotations

import re
from collections.abc import Iterable

MASK = "***"


class Masker:
    """Makes a text without the values of these fields, in JSON (also JSON inside a JSON text), query, form or header.

    Names are compared without regard to case.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(name.lower() for name in names)
        # One that holds another need not be looked for.
        self._rarest = [n for n in sorted(self.names) if not any(o in n for o in self.names - {n})]
        word = "|".join(re.escape(name) for name in sorted(self.names)) or "(?!)"
        self._field = re.compile(rf'(\\*)"(?:{word})\1"\s*:\s*', re.IGNORECASE)
        self._pair = re.compile(rf"(?<![\w-])({word})(=|:[ \t]*)([^&\s\"\\]+(?:[ \t]+[^&\s\"\\]+)*)", re.IGNORECASE)

    def concerns(self, text: str) -> bool:
        """May there be anything to mask? Cheap, and so for many frames together: nearly none has."""
        lower = text.lower()
        return any(name in lower for name in self._rarest)

    def mask(self, text: str) -> str:
        parts, done = list[str](), 0
        for found in self._field.finditer(text):
            if found.start() < done:
                continue  # inside a value that is masked already
            parts += (text[done : found.end()], f'{found[1]}"{MASK}{found[1]}"')
            done = _end_of_value(text, found.end(), len(found[1]))
        return self._pair.sub(rf"\1\2{MASK}", "".join(parts) + text[done:])


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
