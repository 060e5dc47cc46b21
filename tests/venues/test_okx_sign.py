"""OKX's signatures against vectors computed outside this code, and what a signed request carries."""

from __future__ import annotations

import json

import pytest

from accounts.model import Secret
from engine.core.venue import Request
from engine.venues.okx.sign import login, sign

NOW_MS = 1_767_225_600_000  # 2026-01-01T00:00:00.000Z
CREDENTIALS = {
    "api_key": Secret("k-acct-7"),
    "secret": Secret("dossier-secret-01"),
    "passphrase": Secret("pp"),
}
ORDER = (
    b'{"instId":"BTC-USDT-SWAP","tdMode":"cross","side":"buy","ordType":"limit","px":"50000","sz":"1",'
    b'"clOrdId":"dossier0001"}'
)


def test_the_login_is_signed_over_whole_seconds() -> None:
    assert json.loads(login(CREDENTIALS, NOW_MS + 999)) == {
        "op": "login",
        "args": [
            {
                "apiKey": "k-acct-7",
                "passphrase": "pp",
                "timestamp": "1767225600",
                "sign": "DOymXBEwVUC93HranaLjCe67soltHO+w4xt+x9fNieE=",
            }
        ],
    }


@pytest.mark.parametrize(
    ("request_", "signature"),
    [
        (
            Request(method="GET", path="/api/v5/trade/orders-pending?instType=SWAP&limit=100"),
            "HwrCFbA8UyjiLe7S5jk9OB6+tj2yMHBtKJdbHkaIaTg=",
        ),
        (
            Request(method="POST", path="/api/v5/trade/order", body=ORDER),
            "/pVWjgoZuen8hlaPwl4WDak1EOdDrZ2Ld77bLIo7qNU=",
        ),
    ],
    ids=["get", "post"],
)
def test_requests_are_signed_over_time_method_path_and_body(request_: Request, signature: str) -> None:
    headers = dict(sign(request_, CREDENTIALS, "prod", NOW_MS).headers)
    assert headers["OK-ACCESS-SIGN"] == signature
    assert headers["OK-ACCESS-TIMESTAMP"] == "2026-01-01T00:00:00.000Z"
    assert headers["OK-ACCESS-KEY"] == "k-acct-7"
    assert headers["OK-ACCESS-PASSPHRASE"] == "pp"
    assert ("Content-Type" in headers) is bool(request_.body)


def test_milliseconds_keep_their_leading_zeros() -> None:
    headers = dict(sign(Request(method="GET", path="/x"), CREDENTIALS, "prod", NOW_MS + 7).headers)
    assert headers["OK-ACCESS-TIMESTAMP"] == "2026-01-01T00:00:00.007Z"


@pytest.mark.parametrize("signed", [True, False])
def test_demo_requests_say_so_public_ones_too_and_production_ones_never(signed: bool) -> None:
    request = Request(method="GET", path="/x", signed=signed)
    assert ("x-simulated-trading", "1") in sign(request, CREDENTIALS, "demo", NOW_MS).headers
    assert "x-simulated-trading" not in dict(sign(request, CREDENTIALS, "prod", NOW_MS).headers)


def test_public_requests_carry_nothing_of_the_account() -> None:
    assert sign(Request(method="GET", path="/x", signed=False), CREDENTIALS, "prod", NOW_MS).headers == ()


def test_headers_of_the_request_stay() -> None:
    request = Request(method="POST", path="/x", body=b"{}", headers=(("expTime", "1767225605000"),))
    assert ("expTime", "1767225605000") in sign(request, CREDENTIALS, "prod", NOW_MS).headers
