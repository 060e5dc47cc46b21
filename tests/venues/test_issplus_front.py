"""The simulated ISS+ as a client sees it that knows nothing of our dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.core.spelling import MOEX
from engine.core.venue import Call, ErrorClass, Request, Response, Sent, VenueError
from engine.sim.faults import FaultPlan
from engine.venues import venues
from engine.venues.issplus.front import PATH, STAGE, IssSession, front
from engine.venues.issplus.front_rules import Rules
from engine.venues.issplus.rest import sign
from tests.venues.issplus_talk import START_MS, Floor

SBER = 'TICKER="MXSE.TQBR.SBER"'


class Client:
    """Writes frames by hand and keeps what comes back."""

    def __init__(self, **rules: Any) -> None:
        self.faults = FaultPlan()
        self.front = front(accounts=1, seed=1, now_ms=START_MS, faults=self.faults, rules=Rules(**rules))
        accepted = self.front.accept(Call(method="GET", target=PATH), START_MS)
        assert isinstance(accepted, IssSession)
        self.session, self.closed = accepted, list[int]()

    def says(self, raw: str) -> list[tuple[str, dict[str, str], str]]:
        self.session.hear(raw.encode(), START_MS)
        heard = []
        for out in self.front.drain():
            if out.sent is Sent.CLOSE:
                self.closed.append(out.code)
                continue
            assert isinstance(out.frame, bytes)
            head, _, body = out.frame.decode().rstrip("\0").partition("\n\n")
            command, *lines = head.split("\n")
            heard.append((command, dict(line.split(":", 1) for line in lines), body))
        return heard

    def login(self) -> None:
        ((command, _, body),) = self.says("CONNECT\ndomain:DEMO\nlogin:guest\npasscode:guest\n\n\0")
        assert command == "CONNECTED"
        assert set(json.loads(body)["structure"]) == {"MXSE", "MXCX", "FORTS"}


@pytest.fixture
def client() -> Client:
    made = Client()
    made.login()
    return made


def test_nothing_is_given_before_the_login() -> None:
    ((command, headers, _),) = Client().says("SUBSCRIBE\nid:1\ndestination:MXSE.securities\n\n\0")
    assert (command, headers["message"], headers["receipt-id"]) == ("ERROR", "gateway.not-connected", "1")


@pytest.mark.parametrize("closes", [True, False])
def test_a_wrong_login_is_refused_and_closed(closes: bool) -> None:
    client = Client(close_refused_login=closes)
    ((command, headers, body),) = client.says("CONNECT\ndomain:passport\nlogin:x\npasscode:x\n\n\0")
    assert (command, headers["message"], body) == ("ERROR", "gateway.access-denied", "Access denied")
    assert client.closed == ([1000] if closes else [])


@pytest.mark.parametrize("closes", [True, False])
def test_line_ends_of_others_are_not_liked(closes: bool) -> None:
    client = Client(crlf_closes=closes)
    heard = client.says("CONNECT\r\ndomain:DEMO\r\nlogin:guest\r\npasscode:guest\r\n\r\n\0")
    assert ([h[0] for h in heard], client.closed) == (([], [1002]) if closes else (["CONNECTED"], []))


def test_a_subscription_is_confirmed_and_told_whole(client: Client) -> None:
    receipt, message = client.says(f"SUBSCRIBE\nid:a\ndestination:MXSE.securities\nselector:{SBER}\nreceipt:a\n\n\0")
    assert receipt == ("RECEIPT", {"receipt-id": "a"}, "")
    told = json.loads(message[2])
    row = dict(zip(told["columns"], told["data"][0], strict=True))
    assert message[1] == {"subscription": "a", "destination": "MXSE.securities"}
    assert told["properties"] == {"type": "snapshot", "seqnum": 1, "timestamp": START_MS}
    assert (row["TICKER"], row["LCURRENTPRICE"], row["LOTSIZE"]) == ("MXSE.TQBR.SBER", [300, 0], 1)


def test_updates_tell_only_what_changed() -> None:
    floor = Floor()
    floor.connect()
    floor.accepted.hear(f"SUBSCRIBE\nid:a\ndestination:MXSE.securities\nselector:{SBER}\n\n\0".encode(), floor.now_ms)
    floor.front.drain()
    floor.market.tick(floor.now_ms + 600)
    floor.front.settle(floor.now_ms + 600)
    floor.front.tick(floor.now_ms + 600)
    (out,) = floor.front.drain()
    assert isinstance(out.frame, bytes)
    told = json.loads(out.frame.partition(b"\n\n")[2].rstrip(b"\0"))
    assert told["properties"]["type"] == "updates"
    assert "TICKER" in told["columns"]
    assert "CAPTION" not in told["columns"]


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("SEND\nid:1\ndestination:x\n\n\0", "gateway.notimplemented"),
        ("FETCH\nid:1\n\n\0", "gateway.invalidrequest"),
        ("UNSUBSCRIBE\nid:1\n\n\0", "gateway.invalidrequest"),
        (f"SUBSCRIBE\nid:1\ndestination:MXSE.trades\nselector:{SBER}\n\n\0", "gateway.invalidrequest"),
        (f"SUBSCRIBE\nid:1\ndestination:MXCX.securities\nselector:{SBER}\n\n\0", "gateway.invalidrequest"),
        ('SUBSCRIBE\nid:1\ndestination:MXSE.securities\nselector:TICKER="SBER"\n\n\0', "gateway.invalidrequest"),
        (f'SUBSCRIBE\nid:1\ndestination:MXSE.orderbooks\nselector:{SBER} and X="1"\n\n\0', "gateway.invalidrequest"),
        (f"SUBSCRIBE\nid:1\ndestination:MXSE.orderbooks\nselector:{SBER} or 1\n\n\0", "gateway.invalidrequest"),
        (f"SUBSCRIBE\ndestination:MXSE.securities\nselector:{SBER}\n\n\0", "gateway.invalidrequest"),
        ("REQUEST\nid:1\ndestination:SEARCH.nothing\n\n\0", "gateway.invalidrequest"),
        ("CONNECT\ndomain:DEMO\nlogin:guest\npasscode:guest\n\n\0", "gateway.access-denied"),
    ],
)
def test_what_it_does_not_take(client: Client, frame: str, code: str) -> None:
    ((command, headers, _),) = client.says(frame)
    assert (command, headers["message"]) == ("ERROR", code)


def test_names_are_compared_without_their_case_and_a_language_may_be_said(client: Client) -> None:
    heard = client.says(
        'SUBSCRIBE\nid:1\ndestination:MXSE.candles\nselector:ticker="MXSE.TQBR.SBER" and interval="H1"\n\n\0'
    )
    heard += client.says(f'SUBSCRIBE\nid:2\ndestination:MXSE.orderbooks\nselector:{SBER} and LANGUAGE="en"\n\n\0')
    assert [h[0] for h in heard] == ["MESSAGE", "MESSAGE"]
    assert client.says(f"SUBSCRIBE\nid:2\ndestination:MXSE.securities\nselector:{SBER}\n\n\0")[0][0] == "ERROR"


@pytest.mark.parametrize(
    ("destination", "selector", "rows"),
    [
        ("SEARCH.ticker", 'pattern="gaz*"', 1),
        ("COMMON.boards", 'pattern=""', 4),
        ("COMMON.engines", "", 3),
        ("COMMON.markets", "", 3),
    ],
)
def test_dictionaries_are_answered_once(client: Client, destination: str, selector: str, rows: int) -> None:
    ((command, headers, body),) = client.says(f"REQUEST\nid:r\ndestination:{destination}\nselector:{selector}\n\n\0")
    assert (command, headers) == ("REPLY", {"request-id": "r"})
    assert len(json.loads(body)["data"]) == rows


def test_goodbye_is_confirmed(client: Client) -> None:
    assert client.says("DISCONNECT\nreceipt:bye\n\n\0") == [("RECEIPT", {"receipt-id": "bye"}, "")]
    assert client.closed == [1000]


def test_it_describes_itself_and_its_stage_is_set_from_that() -> None:
    made = Client().front
    line = {"ws": "ws://x", "iss": "http://x", "control": "http://x", **made.describe()}
    assert set(line) == {"ws", "iss", "control", "domain", "login", "passcode"}
    (entry,) = STAGE.entries(line)
    assert [dict(entry.credentials) | {"name": entry.name}] == [dict(account) for account in made.accounts()]
    assert set(STAGE.doors.values()) <= {*made.paths, *made.rests}
    assert made.symbol("SR/RUB:RUB-2612") == made.symbol("SRZ6") == "FORTS.RFUD.SRZ6"
    with pytest.raises(KeyError):
        made.symbol("NONE/RUB")


def test_a_new_passcode_leaves_open_sessions_alone_and_a_feed_has_nothing_to_hold() -> None:
    floor = Floor()
    floor.connect("securities:SBER/RUB")
    floor.front.command("new_key", ["issplus"], {}, floor.now_ms)
    assert floor.front.truth("connections", "issplus")[0]["channels"] == [f"MXSE.securities|{SBER}"]
    assert floor.front.truth("orders", "issplus") == []
    with pytest.raises(KeyError):
        floor.front.truth("secrets", "")
    with pytest.raises(KeyError):
        floor.front.command("liquidate", ["issplus"], {}, floor.now_ms)
    with pytest.raises(ValueError, match="orders"):
        floor.front.place_elsewhere("issplus", {}, 0)
    floor.connect("securities:SBER/RUB")
    assert floor.notices()[-1] == "ready"
    assert all(mark.market == MOEX for mark in floor.marks)


# ---- ISS over HTTP


def ask(client: Client, target: str, **headers: str) -> Response:
    response = client.front.call(Call(method="GET", target=f"/iss{target}", headers=headers), START_MS)
    assert response is not None
    return response


def test_blocks_and_columns_are_narrowed_as_asked() -> None:
    told = json.loads(ask(Client(), "/index.json?iss.only=durations,engines&engines.columns=name").body)
    assert set(told) == {"durations", "engines"}
    assert told["engines"]["columns"] == ["name"]


def test_an_order_book_is_for_subscribers() -> None:
    client = Client()
    target = "/engines/stock/markets/shares/boards/TQBR/securities/SBER/orderbook.json"
    assert ask(client, target).headers["content-type"].startswith("text/html")
    told = ask(client, target, cookie=f"a=b; MicexPassportCert={client.front.cookie}")
    assert "orderbook" in json.loads(told.body)
    assert told.headers["x-micexpassport-marker"] == "granted"
    assert client.front.caller(Call(method="GET", target="/", headers={"authorization": "Bearer no"})) == ""


def test_columns_have_their_types_unless_nobody_wants_them() -> None:
    client = Client()
    target = "/engines/stock/markets/shares/boards/TQBR/securities/SBER/candles.json?interval=1"
    candles = json.loads(ask(client, target).body)["candles"]
    assert {name: column["type"] for name, column in candles["metadata"].items()} == {
        **dict.fromkeys(("open", "close", "high", "low", "value"), "double"),
        "volume": "int64",
        **dict.fromkeys(("begin", "end"), "datetime"),
    }
    assert "metadata" not in json.loads(ask(client, f"{target}&iss.meta=off").body)["candles"]
    told = json.loads(ask(client, "/engines/stock/markets/shares/boards/TQBR/securities.json").body)
    types = {name: column["type"] for block in told.values() for name, column in block["metadata"].items()}
    assert (types["SECID"], types["LAST"], types["TIME"]) == ("string", "double", "time")


@pytest.mark.parametrize(("fault", "status"), [("rate_429", 429), ("html_502", 502), ("refuse", 200)])
def test_it_fails_on_command(fault: str, status: int) -> None:
    client = Client()
    client.faults.begin(fault, None, START_MS, times=1)
    assert ask(client, "/index.json").status == status
    assert ask(client, "/index.json").headers["content-type"].startswith("application/json")


def test_too_many_requests_are_refused_and_strange_ones_not_found() -> None:
    client = Client()
    assert [ask(client, "/index.json").status for _ in range(11)] == [200] * 10 + [429]
    assert ask(Client(), "/engines/stock/nothing.json").status == 404
    assert ask(Client(), "/engines/stock/markets/shares/boards/TQBR/securities/X/candles.json").status == 404


# ---- How we sign


@pytest.mark.parametrize(
    ("domain", "header"),
    [("apikey", ("Authorization", "Bearer secret")), ("cookie", ("Cookie", "MicexPassportCert=secret"))],
)
def test_a_login_over_http_is_a_key_or_a_cookie(domain: str, header: tuple[str, str]) -> None:
    request = Request(method="GET", path="/index.json")
    credentials = Floor.keys(domain, "l", "secret")
    assert sign(request, credentials, "prod", 0).headers == (header,)
    with pytest.raises(ValueError, match="credentials"):
        sign(request, None, "prod", 0)


def test_the_passcode_of_a_stream_is_never_shown_over_http() -> None:
    with pytest.raises(VenueError) as raised:
        sign(Request(method="GET", path="/index.json"), Floor.keys("passport", "l", "secret"), "prod", 0)
    assert raised.value.error_class is ErrorClass.AUTH
    assert "secret" not in str(raised.value)
    assert venues()["issplus"].capabilities.trades is False
