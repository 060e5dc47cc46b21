"""Decides. Access tokens of ALOR: how one is had, when it ends, and how requests carry it. ALOR dossier §2."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

import msgspec

from accounts.model import Credentials, Secret
from engine.core.venue import ACCESS_TOKEN, ErrorClass, Grant, Request, Response, Token, VenueError
from engine.venues.alor.errors import meaning, reason

FIELD = "refresh_token"
_LIFE_MS = 1_800_000
_RENEW_BEFORE_MS = 300_000


class _Answer(msgspec.Struct):
    AccessToken: str = ""
    message: str = ""


class _Claims(msgspec.Struct):
    exp: int | float | None = None


_answer = msgspec.json.Decoder(_Answer).decode
_claims = msgspec.json.Decoder(_Claims).decode
_encode = msgspec.json.encode


def _request(credentials: Credentials, options: Mapping[str, str]) -> Request:
    """In the body: what stands in an address is written down on the way."""
    return Request(
        method="POST",
        path="/refresh",
        body=_encode({"token": credentials[FIELD].reveal()}),
        rules=("refresh",),
        signed=False,
    )


def _read(response: Response, asked_ms: int) -> Token:
    """Whatever the status: without a token it is a failure (§2.2)."""
    try:
        answer = _answer(response.body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        answer = _Answer()
    if response.status == 200 and answer.AccessToken:
        return Token(Secret(answer.AccessToken), _ends_ms(answer.AccessToken, asked_ms))
    code = str(response.status)
    if response.status in (401, 403):
        raise VenueError(ErrorClass.AUTH, code, reason("the refresh token is unknown, expired or revoked", ""))
    raise VenueError(ErrorClass.RETRYABLE_READ, code, reason(meaning(response.status, "")[1], answer.message))


def _ends_ms(token: str, asked_ms: int) -> int:
    """The token's own word, but never later than its known life after it was asked for: clocks may differ."""
    longest_ms = asked_ms + _LIFE_MS
    try:
        middle = token.split(".")[1]
        exp = _claims(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4))).exp
        return longest_ms if exp is None else min(longest_ms, int(exp * 1000))
    except (IndexError, ValueError, binascii.Error, msgspec.MsgspecError, OverflowError, RecursionError):
        return longest_ms


GRANT = Grant(request=_request, read=_read, renew_before_ms=_RENEW_BEFORE_MS)


def sign(request: Request, credentials: Credentials | None, environment: str, now_ms: int) -> Request:
    headers = list(request.headers)
    if request.body:
        headers.append(("Content-Type", "application/json"))
    if request.signed:
        if credentials is None or ACCESS_TOKEN not in credentials:
            raise ValueError(f"{request.path.partition('?')[0]} needs credentials with an access token")
        headers.append(("Authorization", f"Bearer {credentials[ACCESS_TOKEN].reveal()}"))
    return msgspec.structs.replace(request, headers=tuple(headers))
