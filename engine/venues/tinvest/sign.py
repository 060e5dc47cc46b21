"""Decides. The token on a request. T-Invest dossier §1.2, §4.1."""

from __future__ import annotations

import msgspec

from accounts.model import Credentials
from engine.core.venue import Request

FIELDS = ("token",)


def bearer(credentials: Credentials) -> str:
    return f"Bearer {credentials['token'].reveal()}"


def sign(request: Request, credentials: Credentials | None, environment: str, now_ms: int) -> Request:
    """The environment is a matter of the host alone."""
    headers = [*request.headers, ("Content-Type", "application/json")]
    if request.signed:
        if credentials is None:
            raise ValueError("a signed request needs credentials")
        headers.append(("Authorization", bearer(credentials)))
    return msgspec.structs.replace(request, headers=tuple(headers))
