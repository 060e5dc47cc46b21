"""Decides. Tokens at the ALOR front: given for refresh tokens, good for half an hour (ALOR dossier §2)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable

import msgspec

from engine.venues.alor.front_state import Login


class Tokens:
    def __init__(self, logins: Iterable[Login], life_s: int, seed: int) -> None:
        self._by_refresh = {login.refresh_token: login for login in logins}
        self._issued: dict[str, tuple[Login, int, frozenset[str]]] = {}
        self._life_ms, self._key, self._count = life_s * 1000, f"alor front {seed}".encode(), 0

    def issue(self, refresh: str, portfolios: list[str] | None, now_ms: int) -> str | None:
        """None: the refresh token is unknown or revoked."""
        login = self._by_refresh.get(refresh)
        if login is None:
            return None
        self._count += 1
        allowed = [p for p in login.customers if portfolios is None or p in portfolios]
        ends_s = (now_ms + self._life_ms) // 1000
        claims = {
            "sub": login.login,
            "ein": str(70_000 + self._count),
            "clientid": "100200300",
            "portfolios": " ".join(allowed),
            "agreements": "39004",
            "iat": now_ms // 1000,
            "exp": ends_s,
        }
        parts = [_b64(msgspec.json.encode({"alg": "HS256", "typ": "JWT"})), _b64(msgspec.json.encode(claims))]
        parts.append(_b64(hmac.digest(self._key, ".".join(parts).encode(), hashlib.sha256)))
        token = ".".join(parts)
        self._issued = {t: held for t, held in self._issued.items() if held[1] > now_ms}
        self._issued[token] = login, ends_s * 1000, frozenset(allowed)
        return token

    def holder(self, token: str, now_ms: int) -> tuple[Login, int] | None:
        """Whose it is and when it ends; None for one that is unknown or has ended."""
        held = self._issued.get(token)
        return None if held is None or now_ms >= held[1] else held[:2]

    def may(self, token: str, portfolio: str) -> bool:
        held = self._issued.get(token)
        return held is not None and portfolio in held[2]

    def renew_refresh(self, login: Login, refresh: str) -> None:
        login.refresh_token = refresh
        self._by_refresh[refresh] = login

    def revoke(self, login: Login) -> None:
        """Nothing that it ever got is good any more."""
        self._by_refresh = {r: who for r, who in self._by_refresh.items() if who is not login}
        self._issued = {t: held for t, held in self._issued.items() if held[0] is not login}


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
