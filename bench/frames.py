"""Decides. Frames of the bench's venue: order pushes of full size, and what the small REST answers say."""

from __future__ import annotations

import json
from typing import Any

INSTRUMENTS = [f"B{number:02}-USDT-SWAP" for number in range(60)]
SPOT = "B00-USDT"
PRICE = "2500"

# Every field of the channel, in the order in which the venue sends them. % marks what is filled in per frame.
_ORDER: dict[str, Any] = {
    "instType": "SWAP", "instId": INSTRUMENTS[0], "ordId": "%d", "clOrdId": "%s", "tag": "", "ccy": "USDT",
    "px": "2500.5", "sz": "4", "ordType": "limit", "side": "buy", "posSide": "net", "tdMode": "cross", "tgtCcy": "",
    "state": "%s", "accFillSz": "0", "fillSz": "0", "fillPx": "", "tradeId": "", "fillTime": "", "execType": "",
    "fillFee": "0", "fillFeeCcy": "", "fillPnl": "0", "fillNotionalUsd": "", "notionalUsd": "1000.2", "avgPx": "0",
    "fee": "0", "feeCcy": "USDT", "rebate": "0", "rebateCcy": "USDT", "pnl": "0", "lever": "5", "reduceOnly": "false",
    "category": "normal", "source": "", "cancelSource": "", "amendSource": "", "reqId": "", "amendResult": "",
    "code": "0", "msg": "", "stpId": "", "stpMode": "cancel_maker", "algoId": "", "algoClOrdId": "",
    "attachAlgoOrds": [], "attachAlgoClOrdId": "", "tpTriggerPx": "", "tpTriggerPxType": "", "tpOrdPx": "",
    "slTriggerPx": "", "slTriggerPxType": "", "slOrdPx": "", "linkedAlgoOrd": {"algoId": ""}, "lastPx": "2500.1",
    "pxType": "", "pxUsd": "", "pxVol": "", "fillPxVol": "", "fillPxUsd": "", "fillMarkVol": "", "fillFwdPx": "",
    "fillMarkPx": "", "fillIdxPx": "", "quickMgnType": "", "isTpLimit": "false", "tradeQuoteCcy": "USDT",
    "cTime": "%d", "uTime": "%d",
}  # fmt: skip
FIELDS = len(_ORDER)


def _template(**changes: str) -> bytes:
    frame = {"arg": {"channel": "orders", "instType": "ANY", "uid": "1"}, "data": [{**_ORDER, **changes}]}
    return json.dumps(frame, separators=(",", ":")).encode()


_PUSH = _template()
_FILL = _template(
    instType="SPOT", instId=SPOT, tdMode="cash", clOrdId="elsewhere", state="filled", accFillSz="4", fillSz="4",
    fillPx="2500.4", avgPx="2500.4", tradeId="%d", fillTime="1767225601200", execType="M", fillFee="-0.7",
    fillFeeCcy="USDT", fillNotionalUsd="1000.2",
)  # fmt: skip


def push(order: int, client: bytes, state: bytes, made_ms: int, changed_ms: int) -> bytes:
    """One order update of 69 fields, about 1.4 kB; without a fill."""
    return _PUSH % (order, client, state, made_ms, changed_ms)


def fill_push(order: int, trade: int, made_ms: int, changed_ms: int) -> bytes:
    """A filled spot order: an order and a fill in one frame."""
    return _FILL % (order, trade, made_ms, changed_ms)


def text_frame(payload: bytes) -> bytes:
    """A WebSocket text frame as a server sends it, ready to be written."""
    length = len(payload)
    if length < 126:
        return bytes((0x81, length)) + payload
    if length < 1 << 16:
        return b"\x81\x7e" + length.to_bytes(2, "big") + payload
    return b"\x81\x7f" + length.to_bytes(8, "big") + payload


# ---- REST


def rows(path: str, query: dict[str, str], key: str, now_ms: int, positions: int) -> list[dict[str, Any]]:
    """What the venue answers. Everything of which there is none is an empty list."""
    kind = query.get("instType")
    match path:
        case "public/time":
            return [{"ts": str(now_ms)}]
        case "public/instruments":
            return [_instrument(name, code) for code, name in enumerate((SPOT, *INSTRUMENTS)) if kind_of(name) == kind]
        case "public/mark-price" if kind == "SWAP":
            return [{"instType": "SWAP", "instId": name, "markPx": PRICE, "ts": str(now_ms)} for name in INSTRUMENTS]
        case "market/tickers":
            prices = {"last": PRICE, "bidPx": PRICE, "askPx": PRICE}
            return [{"instType": "SPOT", "instId": SPOT, "ts": str(now_ms), **prices}]
        case "account/config":
            return [{"uid": key, "acctLv": "2", "posMode": "net_mode", "perm": "read_only,trade", "ip": "127.0.0.1"}]
        case "account/positions":
            return [_position(name, now_ms) for name in INSTRUMENTS[:positions]]
        case "account/balance":
            return [_balance(now_ms)]
    return []


def kind_of(symbol: str) -> str:
    return "SWAP" if symbol.endswith("SWAP") else "SPOT"


def _instrument(symbol: str, code: int) -> dict[str, Any]:
    base = symbol.partition("-")[0]
    common = {"instId": symbol, "instIdCode": code, "lotSz": "0.01", "minSz": "0.01", "tickSz": "0.01", "state": "live"}
    if kind_of(symbol) == "SPOT":
        return {"instType": "SPOT", "baseCcy": base, "quoteCcy": "USDT", **common}
    contract = {"settleCcy": "USDT", "ctVal": "0.1", "ctMult": "1", "ctValCcy": base, "ctType": "linear"}
    return {"instType": "SWAP", **contract, **common}


def _position(symbol: str, now_ms: int) -> dict[str, Any]:
    value = {"pos": "3", "avgPx": "2400", "upl": "30", "mgnMode": "cross", "posId": symbol, "tradeId": "1"}
    return {"instType": "SWAP", "instId": symbol, "posSide": "net", "uTime": "1767225600000", **value}


def _balance(now_ms: int) -> dict[str, Any]:
    cash = {"ccy": "USDT", "cashBal": "10000000", "availBal": "10000000", "eq": "10000000", "uTime": "1767225600000"}
    return {"uTime": str(now_ms), "totalEq": "10000000", "availEq": "10000000", "details": [cash]}
