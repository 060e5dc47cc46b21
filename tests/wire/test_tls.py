"""How endpoints are secured."""

from __future__ import annotations

import ssl

import pytest

from engine.wire.tls import InsecureEndpoint, context, trust


@pytest.mark.parametrize("url", ["ws://127.0.0.1:1/x", "http://localhost:1", "ws://[::1]:1/x", "http://127.0.0.9"])
def test_plain_is_for_loopback(url: str) -> None:
    assert context(url, "") is None


@pytest.mark.parametrize(
    "url",
    ["ws://venue.example/x", "http://10.0.0.1", "http://127.0.0.1.example", "ftp://127.0.0.1", "127.0.0.1:80", ""],
)
def test_plain_to_anywhere_else_is_refused(url: str) -> None:
    with pytest.raises(InsecureEndpoint):
        context(url, "")


def test_all_endpoints_of_one_trust_store_share_one_context() -> None:
    shared = context("wss://venue.example", "")
    assert shared is context("https://other.example:8443/path", "") is trust("")
    assert shared is not None
    assert shared.verify_mode is ssl.CERT_REQUIRED
    assert shared.check_hostname
