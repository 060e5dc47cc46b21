"""Holds. Every code of T-Invest that the dossier names, with its class and one sentence. T-Invest dossier §2.4, §6.

The five-digit code decides; where there is none the gRPC code does, and last the HTTP status (§6.2).
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from engine.core.venue import ErrorClass

_E = ErrorClass
_CODE = re.compile(r"(?<![0-9])[1-9][0-9]{4}(?![0-9])")

# class -> {sentence: codes}
_TABLE: dict[ErrorClass, dict[str, str]] = {
    _E.AUTH: {
        "the token is not valid": "40003",
        "the token's rights do not reach so far": "40002",
        "orders are not allowed on this account": "40004",
    },
    _E.RATE: {
        "too many open streams": "80001",
        "too many requests": "80002",
        "too many messages to the owner's phone": "80003",
        "a stream without subscriptions": "80004",
        "the stream lived too long": "80005",
    },
    _E.UNKNOWN_OUTCOME: {
        "an internal error of the venue": "70001 70002 70003",
        "an order with this key was sent before, and is not found": "30057",
    },
    _E.RETRYABLE_READ: {"the report is not ready": "30058"},
    _E.NOT_FOUND: {
        "there is no such exchange": "50001",
        "there is no such instrument": "50002",
        "there is no such account for this token": "50004",
        "there is no such order": "50005",
        "there is no such stop order": "50006",
        "there is no such task": "50007",
    },
    _E.TARGET_GONE: {
        "the order could not be cancelled": "30059",
        "the stop order could not be cancelled": "30060",
    },
    _E.REFUSED: {
        "only limit orders now": "30068",
        "not available for trading now": "30079 30098",
        "not on weekends": "30092",
        "the exchange did not execute it": "30095",
        "refused by the exchange": "30096",
        "not in this trading session": "30097",
        "only orders at the best price now": "30103",
        "cancelled by the exchange or the broker": "30227",
        "the price cannot be converted now": "30229 30236",
        "not enough money": "30034",
        "not enough assets for a margin trade": "30042",
        "margin trading is off": "30051",
        "a margin trade has to be confirmed": "30240",
        "the order is too large": "30109 90003",
        "the owner has to confirm it": "90001",
        "for qualified investors only": "90002",
        "the account may not do it": "30255",
        "not tradable through the API": "30052 30077 30094 30101",
        "the account is closed or blocked": "30081 30082",
        "the quantity does not fit": "30015 30016 30080",
        "the price does not fit": "30017 30018 30078 30099 30100",
        "the direction does not fit": "30019 30020",
        "the account is missing or wrong": "30021 30022",
        "the kind of order does not fit": "30025 30026 30083 30085 30104 30245 30254",
        "the order id does not fit": "30027 30028 30029 30030 30055 30221",
        "the instrument is missing": "30093 30237",
        "something is missing": "30102",
        "the order was refused": "30049 30053",
        "the period does not fit": "30001 30004 30009 30010 30012 30061 30062 30064 30070 30084 30244",
        "the state does not fit": "30023",
        "too many rows asked for": "30069 30218",
        "nothing in this period": "30238",
        "not built by the venue": "12001 12002",
        "too many sandbox accounts": "35001",
    },
}

MEANINGS: dict[str, tuple[ErrorClass, str]] = {
    code: (error_class, sentence)
    for error_class, sentences in _TABLE.items()
    for sentence, codes in sentences.items()
    for code in codes.split()
}

DUPLICATE = "30057"
STREAMS_FULL = "80001"
COOL_DOWN_S = 125.0  # ghosts of lost streams hold their places for about two minutes (§2.6)

_GRPC: dict[int, ErrorClass] = {
    2: _E.UNKNOWN_OUTCOME,
    3: _E.REFUSED,
    4: _E.UNKNOWN_OUTCOME,
    5: _E.NOT_FOUND,
    7: _E.AUTH,
    8: _E.RATE,
    9: _E.REFUSED,
    12: _E.REFUSED,
    13: _E.UNKNOWN_OUTCOME,
    14: _E.UNKNOWN_OUTCOME,
    16: _E.AUTH,
}
_STATUSES: dict[int, ErrorClass] = {
    400: _E.REFUSED,
    401: _E.AUTH,
    403: _E.AUTH,
    404: _E.REFUSED,  # a wrong address: what is missing has a code
    405: _E.REFUSED,
    415: _E.REFUSED,
    429: _E.RATE,
}


class Status(msgspec.Struct, gc=False):
    """An error, over HTTP or as a frame. `description` is the five-digit code, as a text or a number (§6.1)."""

    code: int | str | None = None  # of gRPC; in an acknowledgement the five digits, as a text
    message: str | None = None
    description: str | int | None = None
    details: Any = None

    def vendor_code(self) -> str:
        """Where it stands in a frame is unconfirmed: it is looked for (§2.4)."""
        for text in (str(self.description or ""), str(self.code or ""), self.message or "", str(self.details)[:500]):
            if found := _CODE.search(text):
                return found[0]
        return ""


class Trouble(msgspec.Struct, frozen=True):
    """What an error means."""

    error_class: ErrorClass
    code: str
    reason: str


def trouble(status: Status, http_status: int = 0) -> Trouble:
    """UNKNOWN_OUTCOME for whatever tells nothing."""
    code = status.vendor_code()
    known = MEANINGS.get(code)
    words = (status.message or "").strip()[:200]
    if known is not None:
        return Trouble(known[0], code, f"{known[1]} ({words})" if words and words != code else known[1])
    grpc = status.code
    if isinstance(grpc, int) and 0 < grpc < 100:
        error_class = _GRPC.get(grpc, _E.UNKNOWN_OUTCOME)
        return Trouble(error_class, code or f"gRPC {grpc}", words or "no reason given")
    error_class = _STATUSES.get(http_status, _E.UNKNOWN_OUTCOME)
    return Trouble(error_class, code or f"HTTP {http_status}", words or "no reason given")


def code_in(text: str) -> str:
    """The five-digit code in the reason of a close."""
    found = _CODE.search(text)
    return found[0] if found else ""


CLOSES = {
    4003: "the request was invalid",
    4005: "what was asked for does not exist",
    4007: "the token may not do this",
    4016: "the token is not valid",
    4008: "too many streams or requests",
}
"""4000 and the gRPC code; 4005 and 4007 are inferred (§2.4)."""
