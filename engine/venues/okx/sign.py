"""Decides. Signatures of OKX: REST requests and the WebSocket login. OKX dossier §2.2, §6.1."""

from __future__ import annotations

import base64
import hmac
from datetime import UTC, datetime

import msgspec

from accounts.model import Credentials
from engine.core.venue import Request

FIELDS = ("api_key", "secret", "passphrase")
SECRET_NAMES = ("apiKey", "passphrase", "sign", "OK-ACCESS-KEY", "OK-ACCESS-SIGN", "OK-ACCESS-PASSPHRASE")
"""In the login frame, and in the headers of a request."""


def sign(request: Request, credentials: Credentials | None, environment: str, now_ms: int) -> Request:
    """The request with the headers of its environment and, where it is to be signed, of its account.

    Demo trading shares its host with production: without its header a demo request, public ones included, would be
    answered by production (§1.2; the instIdCode of one instrument differs between the two).
    """
    headers = list(request.headers)
    if environment == "demo":
        headers.append(("x-simulated-trading", "1"))
    if request.body:
        headers.append(("Content-Type", "application/json"))
    if request.signed:
        if credentials is None:
            raise ValueError(f"{request.path.partition('?')[0]} needs credentials")
        timestamp = _iso(now_ms)
        signature = _hmac(credentials, f"{timestamp}{request.method}{request.path}".encode() + request.body)
        headers += (
            ("OK-ACCESS-KEY", credentials["api_key"].reveal()),
            ("OK-ACCESS-SIGN", signature),
            ("OK-ACCESS-TIMESTAMP", timestamp),
            ("OK-ACCESS-PASSPHRASE", credentials["passphrase"].reveal()),
        )
    return msgspec.structs.replace(request, headers=tuple(headers))


def login(credentials: Credentials, now_ms: int) -> str:
    """The login frame; valid for 30 s, so it is made anew for each connection."""
    timestamp = str(now_ms // 1000)  # seconds here, where REST has milliseconds
    args = {
        "apiKey": credentials["api_key"].reveal(),
        "passphrase": credentials["passphrase"].reveal(),
        "timestamp": timestamp,
        "sign": _hmac(credentials, f"{timestamp}GET/users/self/verify".encode()),
    }
    return msgspec.json.encode({"op": "login", "args": [args]}).decode()


def _hmac(credentials: Credentials, message: bytes) -> str:
    return base64.b64encode(hmac.digest(credentials["secret"].reveal().encode(), message, "sha256")).decode()


def _iso(now_ms: int) -> str:
    seconds, milliseconds = divmod(now_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, tz=UTC):%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"
