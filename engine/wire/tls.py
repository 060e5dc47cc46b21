"""Decides. How an endpoint is secured: one shared TLS context per trust store, plain only on loopback."""

from __future__ import annotations

import ipaddress
import ssl
from functools import cache
from urllib.parse import urlsplit

_TLS = {"wss": True, "https": True, "ws": False, "http": False}


class InsecureEndpoint(ValueError):
    """A URL that must not be connected to. Nothing was sent."""


@cache
def trust(ca_bundle: str) -> ssl.SSLContext:
    """The context that trusts this file of certificates; "" the system's. Made once: each costs 40 ms and memory."""
    return ssl.create_default_context(cafile=ca_bundle or None)


def context(url: str, ca_bundle: str) -> ssl.SSLContext | None:
    """What to connect to `url` with; None is plain, which only loopback may be. Raises InsecureEndpoint."""
    parts = urlsplit(url)
    secured = _TLS.get(parts.scheme)
    if secured is None:
        raise InsecureEndpoint(f"{url}: wss, https, and on loopback ws and http, nothing else")
    if secured:
        return trust(ca_bundle)
    if not _is_loopback(parts.hostname or ""):
        raise InsecureEndpoint(f"{url}: plain {parts.scheme} is for loopback only; use {parts.scheme}s")
    return None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
