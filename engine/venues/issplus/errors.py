"""Holds. The codes of an ERROR, what each means for us, and how one is found. ISS+ dossier §4."""

from __future__ import annotations

import re
from enum import StrEnum

from engine.venues.issplus.frames import StompFrame


class Meaning(StrEnum):
    LATER = "later"  # ask again, each time after a longer pause
    NEVER = "never"  # asked in vain, however often
    LOST = "lost"  # the session is not there: a new connection is needed


DENIED = "gateway.access-denied"
EXCEPTION = "gateway.exception"

MEANINGS = {
    EXCEPTION: (Meaning.LATER, "the access server failed"),
    "gateway.timeout": (Meaning.LATER, "the access server took too long"),
    "gateway.transport": (Meaning.LATER, "the access server lost its link to what it passes on"),
    DENIED: (Meaning.NEVER, "refused: this login may not have it"),
    "gateway.invalidrequest": (Meaning.NEVER, "unknown, not permitted, or asked wrongly"),
    "gateway.notimplemented": (Meaning.NEVER, "not implemented there"),
    "gateway.not-connected": (Meaning.LOST, "asked before the login, or after its end"),
}

_CODE = re.compile(r"gateway\.[a-z][a-z-]*")
_LONGEST = 200


def code_of(error: StompFrame) -> str:
    """Where the code stands is not documented: in `message`, another header or the body, or only in words."""
    body = error.body[:4096].decode(errors="replace")
    message = error.header("message")
    for text in (message, *error.headers.values(), body):
        if (found := _CODE.search(text)) is not None:
            return found[0]
    return DENIED if "access denied" in f"{message} {body}".lower() else EXCEPTION


def meaning(code: str) -> Meaning:
    """A code that nobody knows is taken for a failure that may pass."""
    return MEANINGS.get(code, (Meaning.LATER, ""))[0]


def sentence(error: StompFrame, code: str) -> str:
    """For people: what the code means, and the server's own words."""
    told = " ".join(f"{error.header('message')} {error.body[:400].decode(errors='replace')}".split())
    return f"{MEANINGS.get(code, (None, 'unknown to us'))[1]}: {told}"[:_LONGEST]
