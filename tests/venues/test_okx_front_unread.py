"""Whatever a client sends, the OKX front answers and lives on, and its money stays conserved. No sockets."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.venues.okx.front_orders import OPERATIONS
from tests.venues.okx_talk import ACCOUNT, BOTH, CODES, ORDERS, POSITIONS, SWAP, Floor, order

D = Decimal

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("instIdCode", "instId", "tdMode", "side", "ordType", "px", "sz", "clOrdId", "ordId", "newSz", "newPx", "tag")
ASKS = st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=6).map(lambda odd: order() | odd)
FRAMES = st.one_of(
    ANYTHING,
    st.fixed_dictionaries({"op": ANYTHING, "args": ANYTHING}),
    st.fixed_dictionaries({"op": st.just("login"), "args": st.lists(ANYTHING, max_size=2)}),
    st.fixed_dictionaries(
        {
            "op": st.sampled_from(["subscribe", "unsubscribe"]),
            "args": st.lists(
                st.dictionaries(st.sampled_from(["channel", "instType", "instId", "extraParams"]), ANYTHING)
            ),
        }
    ),
    st.fixed_dictionaries(
        {
            "id": st.just("p1") | ANYTHING,
            "op": st.sampled_from(list(OPERATIONS)),
            "args": st.lists(ASKS, max_size=3) | ANYTHING,
            "expTime": ANYTHING,
        }
    ),
)


@settings(max_examples=200, deadline=None)
@given(FRAMES)
def test_a_session_outlives_every_frame(frame: Any) -> None:
    floor = Floor()
    floor.quote()
    talk = floor.member()
    talk.say(json.dumps(frame))
    assert talk.closed is None
    talk.say("ping")
    assert talk.frames[-1] == "pong"


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40))
def test_a_session_outlives_every_byte(frame: bytes) -> None:
    floor = Floor()
    talk = floor.connect()
    talk.session.hear(frame, floor.now_ms)
    floor.carry()
    assert len(talk.frames) == 1


PATHS = (
    "trade/order",
    "trade/batch-orders",
    "trade/cancel-order",
    "trade/amend-batch-orders",
    "account/set-leverage",
    "trade/cancel-all-after",
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(PATHS), ANYTHING | ASKS | st.lists(ASKS, max_size=3))
def test_every_body_is_answered(path: str, body: Any) -> None:
    floor = Floor()
    floor.quote()
    status, answer = floor.call("POST", path, body)
    assert status in (200, 400)
    assert answer["code"]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["demo-01", "demo-02"]),
        st.sampled_from(["buy", "sell"]),
        st.sampled_from(["market", "limit", "ioc", "fok", "post_only", "cancel", "amend"]),
        st.integers(1, 30),
        st.integers(2495, 2505),
        st.booleans(),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_orders_fills_positions_cash_and_pushes_always_tell_the_same(
    steps: list[tuple[str, str, str, int, int, bool]],
) -> None:
    floor = Floor(limits=False)
    floor.quote(size="40")
    talks = {name: floor.member(name, ORDERS, POSITIONS, ACCOUNT, BOTH) for name in ("demo-01", "demo-02")}
    for account, side, kind, size, price, reduce in steps:
        floor.now_ms += 10
        talk, target = talks[account], {"instIdCode": CODES[SWAP], "clOrdId": "last"}
        if kind == "cancel":
            talk.operate("cancel-order", target)
        elif kind == "amend":
            talk.operate("amend-order", {**target, "newSz": str(size), "newPx": str(price)})
        else:
            ask = {"side": side, "ordType": kind, "sz": str(size), "px": str(price), "reduceOnly": reduce}
            talk.operate("order", order(**ask, clOrdId="last"))
    floor.pass_ms(100)

    for account, talk in talks.items():
        frames = [f for f in talk.heard() if "data" in f and "arg" in f]
        pushed = {row["ordId"]: row for f in frames if f["arg"]["channel"] == "orders" for row in f["data"]}
        fills = floor.front.truth("fills", account)
        for row in floor.front.truth("orders", account):
            own = [f for f in fills if f["ordId"] == row["ordId"]]
            assert sum(D(f["fillSz"]) for f in own) == D(row["accFillSz"]) <= D(row["sz"])
            assert sum(D(f["fee"]) for f in own) == D(row["fee"])
            assert (row["state"] == "filled") == (row["accFillSz"] == row["sz"])
            last = pushed[row["ordId"]]
            assert (last["state"], last["accFillSz"], last["sz"]) == (row["state"], row["accFillSz"], row["sz"])
        signed = sum(D(f["fillSz"]) * (1 if f["side"] == "buy" else -1) for f in fills)
        positions = floor.front.truth("positions", account)
        assert sum((D(p["pos"]) for p in positions), D(0)) == signed
        last_position = [r for f in frames if f["arg"]["channel"] == "positions" for r in f["data"]][-1:]
        assert all(D(r["pos"]) == signed for r in last_position)

        balances = {b["ccy"]: b for b in floor.front.truth("balances", account)}
        bills = floor.rows("account/bills?ccy=USDT", account)
        assert sum(D(b["balChg"]) for b in bills) == D(balances["USDT"]["cashBal"])
        if not [r for r in floor.front.truth("orders", account) if r["state"] in ("live", "partially_filled")]:
            assert balances["USDT"]["held"] == "0"
