"""The simulator over real sockets on loopback, and its command."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest
from typer.testing import CliRunner
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from engine.cli import app
from engine.sim.server import Running, describe, running
from tests.venues.okx_talk import ACCOUNT, ORDERS, POSITIONS, SWAP, order, signature

pytestmark = pytest.mark.anyio


@pytest.fixture
async def served() -> AsyncIterator[Running]:
    async with running("okx", accounts=3, seed=7, limits=False) as box:
        yield box


class Line:
    """A client's WebSocket."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def say(self, frame: Any) -> None:
        await self.socket.send(frame if isinstance(frame, str) else json.dumps(frame))

    async def until(self, wanted: str) -> list[Any]:
        """Everything heard until a frame that holds `wanted`."""
        heard = []
        with anyio.fail_after(5):
            while True:
                text = await self.socket.recv()
                heard.append(text if text == "pong" else json.loads(text))
                if wanted in str(text):
                    return heard

    async def login(self, account: dict[str, str]) -> None:
        stamp = str(int(time.time()))
        sign = signature(account["secret"], f"{stamp}GET/users/self/verify")
        arg = {"apiKey": account["api_key"], "passphrase": account["passphrase"], "timestamp": stamp, "sign": sign}
        await self.say({"op": "login", "args": [arg]})
        await self.until('"event":"login"')


def private(served: Running) -> Any:
    return connect(served.description["ws_private"], ping_interval=None, compression=None, proxy=None)


async def test_log_in_subscribe_trade_and_read_it_all_back(served: Running) -> None:
    assert set(describe([served])["okx"]) == {"rest", "ws_public", "ws_private", "ws_business", "control", "accounts"}
    account = served.description["accounts"][0]
    async with private(served) as socket, httpx.AsyncClient(base_url=served.description["control"]) as control:
        line = Line(socket)
        await line.login(account)
        await line.say({"op": "subscribe", "args": [ORDERS, POSITIONS, ACCOUNT]})
        await line.say({"id": "p1", "op": "order", "args": [order(ordType="market", sz="2", clOrdId="mine")]})
        heard = await line.until('"event_update"')
        assert [f["data"][0]["sCode"] for f in heard if f.get("op") == "order"] == ["0"]
        assert "filled" in [
            f["data"][0]["state"] for f in heard if f.get("arg", {}).get("channel") == "orders" and "data" in f
        ]
        await line.say("ping")
        assert (await line.until("pong"))[-1] == "pong"

        fills = (await control.get("/truth/fills", params={"account": account["name"]})).json()
        assert [(f["clOrdId"], f["fillSz"]) for f in fills] == [("mine", "2")]
        (connection,) = (await control.get("/truth/connections")).json()
        assert connection["channels"] == ["account", "orders", "positions"]

    async with httpx.AsyncClient(base_url=served.description["rest"]) as rest:
        assert (await rest.get("/api/v5/public/time")).json()["code"] == "0"
        assert (await rest.get("/api/v5/account/balance")).status_code == 401


async def test_the_control_door_cuts_moves_places_and_tells_the_truth(served: Running) -> None:
    account = served.description["accounts"][0]
    async with (
        httpx.AsyncClient(base_url=served.description["control"]) as control,
        httpx.AsyncClient(base_url=served.description["rest"]) as rest,
    ):
        async with private(served) as socket:
            line = Line(socket)
            await line.login(account)
            ask = {"id": "p1", "op": "order", "args": [order(px="2300", sz="5")]}
            await line.say(ask)
            await line.until('"sCode":"0"')
            met = await control.post("/faults", json={"kind": "cut", "accounts": ["demo-01"], "seconds": 60})
            assert met.json() == {"kind": "cut", "met": 1}
            with anyio.fail_after(5), pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is None, "a cut line says no goodbye"
        with pytest.raises(httpx.RemoteProtocolError):
            await rest.get("/api/v5/account/balance", headers={"OK-ACCESS-KEY": account["api_key"]})
        marks = (await control.post("/market", json={"instrument": SWAP, "price": "2300", "paused": True})).json()
        assert marks[SWAP] == "2300.00"
        (position,) = (await control.get("/truth/positions", params={"account": "demo-01"})).json()
        assert position["pos"] == "5", "the market filled it while the line was cut"

        elsewhere = {"account": "demo-02", "instrument": SWAP, "side": "sell", "quantity": "3"}
        assert (await control.post("/orders", json=elsewhere)).json()["sCode"] == "0"
        await control.post("/transfer", json={"account": "demo-02", "currency": "USDT", "amount": "-500"})
        report = (await control.get("/faults")).json()
        assert report["happened"] == {"cut": 2}
        assert report["under_way"][0]["accounts"] == ["demo-01"]
        await control.delete("/faults")
        assert (await control.get("/faults")).json()["under_way"] == []
        headers = {"OK-ACCESS-KEY": account["api_key"]}
        assert (await rest.get("/api/v5/account/balance", headers=headers)).status_code == 401, "the line is back"


async def test_new_keys_are_told_in_the_answer(served: Running) -> None:
    old = {row["name"]: row["api_key"] for row in served.description["accounts"]}
    async with httpx.AsyncClient(base_url=served.description["control"]) as control:
        answer = (await control.post("/faults", json={"kind": "new_key", "accounts": ["demo-01"]})).json()
    (row,) = answer["accounts"]
    assert (answer["met"], row["name"]) == (1, "demo-01")
    assert row["api_key"] != old["demo-01"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/faults", {"kind": "earthquake"}, 404),
        ("/faults", {"kind": "cut", "accounts": ["nobody"]}, 404),
        ("/faults", {}, 404),
        ("/orders", {"account": "nobody"}, 404),
        ("/market", {"instrument": "NO-ONE", "price": "1"}, 404),
        ("/market", {"instrument": SWAP, "price": "much"}, 422),
        ("/market", {"instrument": SWAP, "price": "-1"}, 422),
        ("/transfer", {"account": "demo-01", "amount": "much"}, 422),
        ("/truth/nothing", None, 404),
    ],
)
async def test_a_wrong_command_is_answered_and_changes_nothing(
    served: Running, path: str, body: dict[str, Any] | None, status: int
) -> None:
    async with httpx.AsyncClient(base_url=served.description["control"]) as control:
        answer = await (control.get(path) if body is None else control.post(path, json=body))
    assert answer.status_code == status
    assert answer.json()["error"]


async def test_a_frozen_line_stays_open_and_silent_and_then_breaks(served: Running) -> None:
    async with private(served) as socket:
        line = Line(socket)
        await line.login(served.description["accounts"][0])
        served.world.trouble("half_open", ["demo-01"], {"seconds": 0.3}, served.now_ms())
        served.flush()
        await line.say("ping")
        with anyio.fail_after(5), pytest.raises(ConnectionClosed):
            await socket.recv()


async def test_wrong_addresses_and_long_frames_are_refused(served: Running) -> None:
    url = served.description["ws_private"]
    with pytest.raises(InvalidStatus) as refused:
        await connect(url.replace("/v5/", "/v6/"), proxy=None)
    assert refused.value.response.status_code == 404
    async with private(served) as socket:
        await socket.send("x" * 70_000)
        with anyio.fail_after(5), pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


async def test_the_fourth_connection_within_a_second_is_refused() -> None:
    async with running("okx", accounts=1, seed=1) as box:
        opened = [await connect(box.description["ws_public"], proxy=None) for _ in range(3)]
        with pytest.raises(InvalidStatus) as refused:
            await connect(box.description["ws_public"], proxy=None)
        assert refused.value.response.status_code == 429
        for socket in opened:
            await socket.close()


async def test_a_shifted_clock_makes_honest_logins_stale(served: Running) -> None:
    async with httpx.AsyncClient(base_url=served.description["control"]) as control:
        await control.post("/clock", json={"shift_ms": 40_000})
    async with private(served) as socket:
        line = Line(socket)
        with pytest.raises(ConnectionClosed) as closed:
            await line.login(served.description["accounts"][0])
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4001


def test_the_command_prints_one_line_runs_until_told_and_ends_well() -> None:
    command = [sys.executable, "-m", "engine.cli", "sim", "--accounts", "2", "--seed", "5", "--json"]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "NO_COLOR": "1"})
    try:
        assert started.stdout is not None
        printed = json.loads(started.stdout.readline())["okx"]
        assert [a["name"] for a in printed["accounts"]] == ["demo-01", "demo-02"]
        assert all(set(a) == {"name", "api_key", "secret", "passphrase"} for a in printed["accounts"])
        assert httpx.get(printed["rest"] + "/api/v5/public/time").json()["code"] == "0"
        started.send_signal(signal.SIGTERM)
        rest, _ = started.communicate(timeout=10)
        assert (rest, started.returncode) == ("", 0)
    finally:
        started.kill()
        started.wait()


def test_a_venue_without_a_front_and_a_taken_port_are_told_in_a_sentence() -> None:
    nowhere = CliRunner().invoke(app, ["sim", "--venue", "atlantis"])
    assert (nowhere.exit_code, "okx" in nowhere.stderr) == (3, True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = CliRunner().invoke(app, ["sim", "--port-base", str(port)])
    assert (refused.exit_code, str(port) in refused.stderr) == (3, True)
