"""Holds. What ALOR's refusals mean: by status, and by words, which are all that tells them apart. Dossier §3.8, §5.4.

Words come in two languages and change: they are searched for, never compared whole. Where none is known, a plain 400
or another 4xx is a definite refusal; a 5xx and a broken line tell nothing of the outcome.
"""

from __future__ import annotations

from engine.core.venue import ErrorClass

_E = ErrorClass

_ALREADY = "already handled"

_WORDS: tuple[tuple[str, ErrorClass, str], ...] = (
    ("command timeout", _E.UNKNOWN_OUTCOME, "the broker got no answer in time: it may have been done"),
    (_ALREADY, _E.UNKNOWN_OUTCOME, "the broker has seen this request before"),
    ("order to cancel not found", _E.TARGET_GONE, "there is no such order at work"),
    ("ordertocancelnotfound", _E.TARGET_GONE, "there is no such order at work"),
    ("order to update not found", _E.TARGET_GONE, "there is no such order at work"),
    ("orders to cancel not found", _E.TARGET_GONE, "there are no orders at work"),
    ("too many", _E.RATE, "too many requests at once"),
    ("invalid jwt token", _E.TOKEN, "the access token is not accepted"),
    ("нехватка средств", _E.REFUSED, "not enough funds"),
    ("price may not be 0", _E.REFUSED, "a limit order needs a price"),
    ("halt_instrument", _E.REFUSED, "the instrument is halted"),
    ("instr_notrade", _E.REFUSED, "the instrument is not traded now"),
    ("in break period", _E.REFUSED, "trading has a break"),
    ("not currently trading", _E.REFUSED, "the instrument is not traded now"),
    ("сессия не идет", _E.REFUSED, "the session is not running"),
    ("bad_price_limits", _E.REFUSED, "the price is outside the exchange's limits"),
    ("вне лимита", _E.REFUSED, "the price is outside the exchange's limits"),
    ("prohibition_ch", _E.REFUSED, "the client may not do this"),
    ("bad_instrument", _E.REFUSED, "the instrument is not known"),
    ("неизвестный инструмент", _E.REFUSED, "the instrument is not known"),
    ("canceled before it was posted", _E.REFUSED, "cancelled before it reached the exchange"),
    ("bad_flags", _E.REFUSED, "these attributes do not go together"),
    ("bad_amount", _E.REFUSED, "the quantity does not fit"),
    ("unsupported quantity", _E.REFUSED, "the quantity does not fit"),
    ("invalid quantity", _E.REFUSED, "the quantity does not fit"),
    ("minimum available value", _E.REFUSED, "the quantity does not fit"),
    ("minimum price step", _E.REFUSED, "the price is off its step"),
    ("can not be less than", _E.REFUSED, "a value is too small"),
    ("greater than", _E.REFUSED, "a value is too large"),
)

_STATUSES = {
    401: (_E.TOKEN, "the access token is missing, expired, or of the other circuit"),
    403: (_E.AUTH, "the token has no right to this account"),
    404: (_E.NOT_FOUND, "there is no such thing"),
    405: (_E.REFUSED, "not to be asked this way"),
    408: (_E.UNKNOWN_OUTCOME, "the broker got no answer in time"),
    429: (_E.RATE, "too many requests at once"),
}


def meaning(status: int, words: str) -> tuple[ErrorClass, str]:
    """The class of an answer that is no success, and our sentence for it ("" where we have none)."""
    if status >= 500:
        return _E.UNKNOWN_OUTCOME, "the broker's server failed"
    if status in _STATUSES:
        return _STATUSES[status]
    told = words.lower()
    for part, error_class, sentence in _WORDS:
        if part in told:
            return error_class, sentence
    return (_E.REFUSED if 400 <= status < 500 else _E.UNKNOWN_OUTCOME), ""


def is_repeated(words: str) -> bool:
    """The answer to an identifier that was used before: the connection is closed after it."""
    return _ALREADY in words.lower()


def reason(sentence: str, words: str) -> str:
    """Our sentence, with the broker's own words where it has some."""
    words = words.strip()[:300]
    if sentence and words:
        return f"{sentence} ({words})"
    return sentence or words or "no reason given"
