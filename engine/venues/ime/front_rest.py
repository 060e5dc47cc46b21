"""Decides. The IME data engine over HTTP from the other side: the token, static data, the overview. Dossier §3, §8."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec

from engine.core.venue import Call, Response
from engine.venues.ime.front_rules import CONTRACTS, Contract

if TYPE_CHECKING:
    from engine.venues.ime.front import ImeFront

_TOKEN = "/auth/user/token/issue"  # noqa: S105  a path
_BASE = "/data-engine/ime"
_MARKETS = ("IMEDepositCertificate", "IMEFutures", "IMEOption")
_LIVE = {
    "best-limit": "BestLimit",
    "aggregate": "Aggregate",
    "contract-info": "ContractInfo",
    "allowed-price-range": "AllowedPriceRange",
}
_encode = msgspec.json.Encoder(decimal_format="number").encode


def answer(front: ImeFront, call: Call, now_ms: int) -> Response | None:
    path, _, query_text = call.target.partition("?")
    if front.faults.strikes("rate_429", "ime", now_ms):
        return _refused(429, "Too many requests")
    if front.faults.strikes("html_502", "ime", now_ms):
        return Response(status=502, body=b"<html>Bad Gateway</html>", headers={"content-type": "text/html"})
    rules = front.rules
    if rules.limits and not front.windows.admit("rest", call.peer, rules.requests_per_s, 1000, now_ms):
        return _refused(429, "Too many requests")
    if path == _TOKEN:
        return _issue(front, call, now_ms)
    if not path.startswith(f"{_BASE}/"):
        return _refused(404, "Not Found")
    if call.method != "GET":
        return _refused(405, "Method Not Allowed")
    if front.entitled(call, now_ms) is None:
        return _refused(401, {"Status": {"Description": {"fa": "", "en": "Invalid or expired token"}}})
    told = _told(front, path.removeprefix(f"{_BASE}/").split("/"), parse_qsl(query_text))
    if told is None:
        return _refused(404, "Not Found")
    lag = front.faults.strikes("read_lag", "ime", now_ms)
    at_s = (now_ms - (lag.by_ms if lag else 0)) / 1000
    status = {
        "State": True,
        "ServerTimeStamp": at_s,
        "Version": "1.0",
        "Author": "sim",
        "Description": {"fa": "", "en": "OK"},
        "StatusCode": 200,
    }
    return _json(200, {"Data": told, "Status": status})


def _issue(front: ImeFront, call: Call, now_ms: int) -> Response:
    """Either pair of fields is understood; others are ignored."""
    if call.method != "POST":
        return _refused(405, "Method Not Allowed")
    form = dict(parse_qsl(call.body.decode(errors="replace")))
    username = form.get("username", form.get("UserName_or_Email"))
    password = form.get("password", form.get("Password"))
    if username is None or password is None:
        return _refused(422, [{"type": "missing", "loc": ["body", "username"]}])
    if (username, password) != (front.username, front.password) or front.faults.strikes("refuse_login", "ime", now_ms):
        return _refused(401, "Incorrect username or password")
    if not front.rules.approved:
        return _refused(403, {"Status": {"Description": {"fa": "", "en": "The account is not approved yet"}}})
    return _json(front.rules.login_status, {"Authorization": front.issue(call.peer, now_ms)})


def _told(front: ImeFront, parts: Sequence[str], query: Sequence[tuple[str, str]]) -> Any:
    match parts:
        case ["static", "data", "contract", "search"]:
            wanted = dict(query)
            if wanted.get("market") not in _MARKETS:
                return None
            text = wanted.get("Search_char", "")
            return [_static(x) for x in CONTRACTS if x.market == wanted["market"] and text in x.name]
        case ["static", "data", "contract", "name" | "id" as by]:
            return [None if x is None else _static(x) for _, x in _named(by, query)]
        case ["live", "data", "overview", "contract", "name" | "id" as by]:
            return {
                key: None if x is None else {**_static(x), **front.states[x.contract_id].sections()}
                for key, x in _named(by, query)
            }
        case ["live", "data", kind, "contract", "name" | "id" as by] if kind in _LIVE:
            return {
                key: None if x is None else front.states[x.contract_id].sections()[_LIVE[kind]]
                for key, x in _named(by, query)
            }
        case _:
            return None


def _named(by: str, query: Sequence[tuple[str, str]]) -> list[tuple[str, Contract | None]]:
    known = {x.name if by == "name" else x.contract_id: x for x in CONTRACTS}
    return [(value, known.get(value)) for name, value in query if name == f"contract_{by}s"]


def _static(contract: Contract) -> dict[str, Any]:
    row: dict[str, Any] = {
        "contractId": contract.contract_id,
        "title": contract.name,
        "contractName": contract.name,
        "minPriceChangeRate": -25,
        "maxPriceChangeRate": 25,
        "owner": "sim",
        "buyCommission": 0.0025,
        "sellCommission": 0.0025,
        "canBuy": True,
        "canSell": True,
        "minValidBuyVolume": 1,
        "maxValidBuyVolume": 100,
        "minValidSellVolume": 1,
        "maxValidSellVolume": 100,
        "dataClass": contract.market,
    }
    if contract.market == "IMEDepositCertificate":
        return row | {"StorageCost": 12}
    row |= {"initialMargin": 1_000_000, "maintenanceMargin": 700_000, "csize": contract.size, "DaysToExpiration": 40}
    if contract.strike is not None:
        row |= {"optionType": "Call", "strikePrice": contract.strike, "requiredMargin": 500_000}
    return row


def _refused(status: int, detail: Any) -> Response:
    return _json(status, {"detail": detail})


def _json(status: int, told: Any) -> Response:
    return Response(status=status, body=_encode(told), headers={"content-type": "application/json"})
