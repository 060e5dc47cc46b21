"""Holds. Every code of OKX that the dossier names, with its class and one sentence. OKX dossier §2, §5, §10.

One class per code serves reads and orders, because the two differ only in these ways: a read has no outcome, so
UNKNOWN_OUTCOME lets a read be repeated; an order is never repeated, so RATE, CLOCK and RETRYABLE_READ, all of which
mean "was not executed", refuse it.
"""

from __future__ import annotations

from engine.core.venue import ErrorClass

_E = ErrorClass

# class -> {sentence: codes}
_TABLE: dict[ErrorClass, dict[str, str]] = {
    _E.RATE: {
        "too many requests": "50011 60014",
        "too many orders of this account": "50061",
        "too frequent: locked for a while": "50040",
        "too many bulk logins": "60023",
        "too many requests at this order book": "51113 51115",
    },
    _E.RETRYABLE_READ: {
        "the service is not available for the moment": "50001",
        "the system is busy": "50013 50057 50064",
        "paused while funding or settlement runs": "51029 51030",
        "an internal error of the venue": "63999 64007",
    },
    _E.UNKNOWN_OUTCOME: {
        "the venue's own time-out: neither done nor not done": "50004 51054 51149",
        "a system error: it may have been done": "50026",
        "the cancellation timed out, or came too late": "51412",
        "the client order id is in use: an order with it exists": "51016 50071 51065",
        "the venue saw this request before": "50042",
    },
    _E.CLOCK: {
        "the timestamp is too old or too new": "50102 60006",
        "the timestamp is malformed": "50112 60004",
    },
    _E.AUTH: {
        "the request carries no proper authentication": "50100 50103 50104 50106 50107 50108 50109 50114",
        "the passphrase is wrong": "50105 60024",
        "the address is not on the key's list": "50110",
        "the key is not valid": "50111 60005",
        "the signature is wrong": "50113 60007",
        "the key belongs to the other environment": "50101",
        "the key does not exist on this site": "50119 60032",
        "the key lacks the permission": "50120",
        "the region or address may not use it": "50121 50035",
        "the key may not do this": "50030",
        "the login failed": "60009",
        "the login mixes two kinds": "60026",
    },
    _E.NOT_FOUND: {
        "there is no such order": "51603",
    },
    _E.TARGET_GONE: {
        "the order is filled, cancelled or unknown": "51400 51401 51402 51405",
        "the order is already being cancelled": "51410",
        "the order to amend is filled or cancelled": "51503 51509 51510",
    },
    _E.REFUSED: {
        "a parameter is missing": "50014 50015 60027",
        "a parameter does not fit": "50016 50024 50025 51000 51003 51407 51204 60033",
        "the quantity is off the lot": "51121",
        "the quantity is below the minimum": "51020 51120",
        "too many decimals": "51150",
        "too many orders in one batch": "51111",
        "the same order twice in one batch of amendments": "51512",
        "the instrument does not exist or is not tradable": "51001 51015 51021 51022 51027 51028 51087 50033",
        "the instrument is not open to this account": "51155",
        "the price is outside the venue's limits": "51006 51116 51122 51135 51136 51137 51138 51031",
        "not enough funds": "51008 51131 51127 51502",
        "the quantity is above a limit": "51004 51005 51101 51201 51202 51203 51112",
        "too many working orders": "51025 51102 51103 51174 51182",
        "a reduce-only order that would not reduce": "51169 51170 51148 51171 51205 51206 51521 51522",
        "the account's mode does not allow it": "51010 50072 51128 51041 51094 59000",
        "the post-only order would take": "51511",
        "too many amendments of this order in flight": "51513",
        "this order cannot be amended": "51506 51508",
        "expired before it arrived": "50036",
        "expired before it was worked on": "50037",
        "the account is blocked": "50007 50008 50009 50012 50017 50018 50019 50020 50021 50022 50023 50027 50028 50029"
        " 50032 50041 50059 50060 51024 51009",
        "the person behind the account is not verified": "59113",
        "market-maker protection holds it": "51034 54008",
        "the slippage does not fit": "54084 54085",
        "options take no market orders": "51066",
        "a leverage has no meaning here": "59111",
        "too many timers": "51071",
        "demo trading lacks this": "50038",
        "only demo trading has this": "50053",
        "before cannot be combined with a time here": "50039",
        "this address lacks the channel": "60008",
        "sent before the login was over": "60011",
        "the request cannot be read": "60012",
        "the arguments do not fit": "60013",
        "wrong address, or no such channel or instrument": "60018",
        "no such operation": "60019",
        "not allowed at this address": "60028",
        "the fee tier is too low for this channel": "60029 60030 64003",
        "logged in already": "60031",
        "the argument uly is retired": "64000",
        "the channel moved to the other address": "64001 64002",
        "depth subscriptions contradict each other": "64004",
    },
}

MEANINGS: dict[str, tuple[ErrorClass, str]] = {
    code: (error_class, sentence)
    for error_class, sentences in _TABLE.items()
    for sentence, codes in sentences.items()
    for code in codes.split()
}

DUPLICATE_ID = frozenset({"51016", "50071", "51065"})
ORDER_GONE = frozenset({_E.TARGET_GONE, _E.NOT_FOUND})
ASK_AGAIN = frozenset({_E.RATE, _E.RETRYABLE_READ, _E.CLOCK})  # not done, and not for what was asked


def reason(code: str, message: str) -> str:
    """Our sentence, with the venue's own words where it has some."""
    sentence = MEANINGS.get(code, (None, ""))[1]
    words = message.strip()[:300]
    if sentence and words:
        return f"{sentence} ({words})"
    return sentence or words or "no reason given"


def of_row(code: str) -> ErrorClass:
    """One order's own answer (`sCode`): an unknown 5xxxx refuses that order; anything stranger tells nothing."""
    if code in MEANINGS:
        return MEANINGS[code][0]
    return _E.REFUSED if _is_venue_code(code) else _E.UNKNOWN_OUTCOME


def of_request(code: str) -> ErrorClass:
    """The answer to an order request as a whole: an unknown code leaves the outcome unknown."""
    return MEANINGS[code][0] if code in MEANINGS else _E.UNKNOWN_OUTCOME


def of_read(status: int, code: str) -> ErrorClass:
    """A read that failed. The HTTP status goes first: a 5xx may carry any body, or a page for people."""
    if status == 429:
        return _E.RATE
    if status >= 500:
        return _E.RETRYABLE_READ
    error_class = MEANINGS[code][0] if code in MEANINGS else _E.REFUSED
    return _E.RETRYABLE_READ if error_class is _E.UNKNOWN_OUTCOME else error_class


def _is_venue_code(code: str) -> bool:
    return len(code) == 5 and code.isascii() and code.isdecimal() and code[0] == "5"


CANCEL_SOURCES = {
    "0": "by the system",
    "1": "by the user",
    "2": "reduce-only, or not enough margin",
    "3": "risk control",
    "4": "borrowing limit",
    "6": "auto-deleveraging",
    "7": "delivery of the future",
    "9": "funding fee took the balance",
    "10": "expiry of the option",
    "13": "FOK not fully fillable",
    "14": "rest of an IOC",
    "15": "price outside the limits",
    "17": "position closed at market",
    "20": "dead-man timer",
    "21": "TP/SL: the position is closed",
    "22": "conflict with reduce-only",
    "23": "conflict with reduce-only",
    "27": "5 % price protection",
    "31": "post-only would have taken",
    "32": "self-trade prevention",
    "33": "would match more than 1000 makers",
    "36": "TP limit order and stop exclude each other",
    "37": "TP limit order and stop exclude each other",
    "38": "market-maker protection",
    "39": "market-maker protection",
    "42": "chased too far",
    "43": "index price not ready",
    "44": "automatic conversion",
    "45": "price check of ELP/RPI",
    "46": "delta reducing",
}


def cancel_reason(source: str) -> str:
    """`13: FOK not fully fillable`; a source that we do not know stays bare, "" is no reason."""
    words = CANCEL_SOURCES.get(source)
    return f"{source}: {words}" if words else source


CLOSE_CODES = {
    1009: "a frame was too long",
    4001: "the login failed",
    4002: "a request was invalid",
    4003: "this key has too many subscriptions",
    4004: "nothing was sent or heard for 30 s",
    4005: "we read too slowly: the venue's send buffer was full",
    4006: "the venue lost the connection",
    4007: "the API key was changed or deleted",
    4008: "too many channels",
    4009: "too many channels on this connection",
}
