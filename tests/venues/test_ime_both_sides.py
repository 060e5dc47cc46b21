"""Our side of the IME feed against the other one, with every switch of what is unconfirmed."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from engine.core.facts import Side
from engine.core.venue import Call, ErrorClass, Notice, VenueError
from engine.venues.ime.front import STAGE, ImeSession
from engine.venues.ime.front_rules import CONTRACTS
from tests.venues.ime_talk import IDS, NAMES, START_MS, VENUE, Floor

SPELT = {
    "BULLION01": "BULLION01/IRR",
    "سکه نمونه": "سکه نمونه/IRR",
    "SAMPLE05F": "SAMPLE05F/IRR:IRR",
    "SAMPLE05C90": "SAMPLE05C90/IRR:IRR",
}


def agrees(floor: Floor) -> bool:
    """Is the last bid that we told of each contract the one at the top of its book, and as fresh as it was told?"""
    for contract in CONTRACTS:
        told = [m for m in floor.marks if m.instrument.startswith(f"{contract.name}/") and m.basis == "bid"]
        if told[-1].price != floor.front.exchange.books[contract.contract_id].best(Side.BUY):
            return False
    return True


def listed(floor: Floor) -> None:
    rest = VENUE.rest(floor.catalogue, ref="", options=floor.options)
    floor.catalogue |= {i.name: i for read in rest.instruments() for page in floor.walk(read) for i in page.instruments}


SWITCHES: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({}, {}),
    ({"login_status": 200}, {}),
    ({}, {"login_fields": "readme"}),
    ({}, {"login_fields": "sdk"}),
    ({"authorization": "bearer"}, {"authorization": "bearer"}),
    ({"authorization": "either"}, {"authorization": "bearer"}),
    ({"authorization": "either"}, {}),
    ({"parameter": "contract_name"}, {}),
    ({"parameter": "contract_name"}, {"parameter": "contract_name"}),
    ({"parameter": "either"}, {}),
    ({"first_snapshot": True}, {}),
    ({"token_tells": False}, {}),
    ({"bind_peer": True}, {}),
    ({"zone": "utc"}, {}),
    ({"zone": "utc", "suffix_z": True}, {}),
    ({"suffix_z": True}, {"zone": "tehran"}),
    ({"empty_aggregate": False}, {}),
]


@pytest.mark.parametrize(("rules", "options"), SWITCHES, ids=str)
def test_prices_agree_however_the_unconfirmed_goes(rules: dict[str, Any], options: dict[str, str]) -> None:
    floor = Floor(**rules)
    floor.options |= options
    floor.grant()
    listed(floor)
    assert floor.connect(*NAMES) == 0
    floor.seconds(4)
    assert floor.notices() == ["ready"]
    assert {mark.instrument for mark in floor.marks} == set(SPELT.values())
    assert agrees(floor)
    assert all(floor.now_ms - 5_000 <= m.at_ms <= floor.now_ms for m in floor.marks if m.basis == "bid")


@pytest.mark.parametrize("member", ["ContractId", "contractId"])
def test_the_ids_tell_the_same_under_the_names_that_go_with_them(member: str) -> None:
    floor = Floor(id_member=member)
    floor.grant()
    listed(floor)
    assert floor.connect(*IDS, kind="ids") == 0
    floor.seconds(3)
    assert {mark.instrument for mark in floor.marks} == set(SPELT.values())
    assert agrees(floor)


@pytest.mark.parametrize("seed", range(10))
def test_any_mixture_is_lived_with(seed: int) -> None:
    floor = Floor(either=random.Random(seed))
    floor.connect(*NAMES)
    floor.seconds(4)
    assert floor.notices() == ["ready"]
    assert agrees(floor)


def test_a_first_snapshot_comes_without_a_change_and_otherwise_none_does() -> None:
    for first in (True, False):
        floor = Floor(first_snapshot=first)
        floor.connect(*NAMES)
        floor.market.paused = True
        floor.seconds(3)
        assert bool(floor.marks) is first
        assert floor.notices() == ["ready"]


# ---- Refusals


@pytest.mark.parametrize(("refusal", "code"), [("403", "http_403"), ("1008", "close_1008")])
@pytest.mark.parametrize("cause", ["contract", "parameter", "token", "peer", "bearer", "fault"])
def test_a_refusal_halts_by_its_name_and_is_never_ready(refusal: str, code: str, cause: str) -> None:
    floor = Floor(
        refusal=refusal,
        token_s=1 if cause == "token" else 3600,
        bind_peer=cause == "peer",
        authorization="bearer" if cause == "bearer" else "bare",
        parameter="contract_name" if cause == "parameter" else "contract_names",
    )
    floor.grant()
    floor.peer = "10.0.0.9" if cause == "peer" else floor.peer
    floor.options["parameter"] = "contract_names" if cause == "parameter" else "both"
    if cause == "fault":
        floor.faults.begin("refuse", None, floor.now_ms)
    floor.connect(*NAMES, *(["NOBODY"] if cause == "contract" else []))
    floor.seconds(3)
    assert floor.notices() == [f"auth_refused {code}"]


def test_a_bad_contract_may_be_ignored_and_takes_no_other_with_it() -> None:
    floor = Floor(bad_contract="ignore")
    floor.connect(*NAMES, "NOBODY")
    floor.seconds(3)
    assert floor.notices() == ["ready"]
    assert agrees(floor)


def test_a_token_that_ends_closes_what_is_open_and_a_new_one_opens_again() -> None:
    floor = Floor(token_s=60)
    token = floor.grant()
    assert token.expires_at_ms == START_MS + 60_000
    floor.connect(*NAMES)
    floor.seconds(58)
    assert floor.notices() == ["ready"]
    floor.seconds(2)
    assert floor.notices() == ["ready", "auth_refused close_1008"]
    assert floor.connect(*NAMES) == 403
    floor.grant()
    assert floor.connect(*NAMES) == 0


def test_with_only_the_newest_token_good_an_older_one_is_refused() -> None:
    floor = Floor(newest_token_only=True)
    old = floor.grant()
    floor.grant()
    assert floor.connect(*NAMES) == 0
    floor.token = old
    assert floor.connect(*NAMES) == 403


@pytest.mark.parametrize(("cause", "code"), [("fault", "login_401"), ("approval", "login_403"), ("new", "login_401")])
def test_a_login_that_is_refused_halts(cause: str, code: str) -> None:
    floor = Floor(approved=cause != "approval")
    if cause == "fault":
        floor.faults.begin("refuse_login", None, floor.now_ms)
    if cause == "new":
        assert floor.front.command("new_key", ["ime"], {}, floor.now_ms) == 1
    with pytest.raises(VenueError) as raised:
        floor.grant()
    assert (raised.value.error_class, raised.value.code) == (ErrorClass.AUTH, code)


def test_a_login_that_is_killed_closes_everything() -> None:
    floor = Floor()
    floor.connect(*NAMES)
    floor.seconds(3)
    floor.front.command("kill_key", ["ime"], {}, floor.now_ms)
    floor.seconds(1)
    assert floor.notices(Notice.AUTH_REFUSED) == ["auth_refused close_1008"]
    assert floor.connect(*NAMES) == 403


def test_a_failed_stream_is_no_refusal() -> None:
    floor = Floor()
    floor.connect(*NAMES)
    floor.seconds(3)
    assert floor.front.command("notice", ["ime"], {}, floor.now_ms) == 1
    floor.seconds(1)
    assert floor.talk is None
    assert floor.notices() == ["ready"]


def test_repeated_and_overtaken_messages_change_nothing_for_good() -> None:
    floor = Floor()
    floor.connect(*NAMES)
    floor.seconds(2)
    floor.faults.begin("late", None, floor.now_ms, times=3)
    floor.faults.begin("duplicate", None, floor.now_ms, times=5)
    floor.seconds(4)
    assert floor.notices() == ["ready"]
    assert floor.faults.happened["duplicate"] == 5
    assert agrees(floor)


# ---- Over HTTP


def test_the_overview_restores_everything_as_of_the_servers_clock() -> None:
    floor = Floor()
    floor.seconds(20)
    floor.grant()
    rest = VENUE.rest(floor.catalogue, ref="", options=floor.options)
    marks = [fact for read in rest.marks() for page in floor.walk(read) for fact in page.facts]
    for contract in CONTRACTS:
        book = floor.front.exchange.books[contract.contract_id]
        told = {m.basis: m for m in marks if m.instrument == SPELT[contract.name]}  # type: ignore[union-attr]
        assert (told["bid"].price, told["ask"].price) == (book.best(Side.BUY), book.best(Side.SELL))  # type: ignore[union-attr]
        assert floor.now_ms - 10_000 <= told["bid"].at_ms <= floor.now_ms


def test_many_contracts_are_asked_for_by_the_batch() -> None:
    floor = Floor()
    floor.grant()
    (read, *_) = VENUE.rest(floor.catalogue, ref="", options=floor.options).marks()
    rows = [{"contractName": f"C{n}", "contractId": str(n)} for n in range(120)]
    status = {"State": True, "ServerTimeStamp": floor.now_ms / 1000}
    answer = floor.send(read.request)
    page = read.read(type(answer)(status=200, body=json.dumps({"Data": rows, "Status": status}).encode()))
    sizes = []
    while page.next is not None:
        sizes.append(page.next.request.path.count("contract_names="))
        page = page.next.read(floor.send(page.next.request))
    assert sizes == [50, 50, 20]


def test_a_refused_token_is_known_for_one() -> None:
    floor = Floor(token_s=1)
    floor.grant()
    with pytest.raises(VenueError) as raised:
        floor.walk(VENUE.rest(floor.catalogue, ref="", options=floor.options).server_time())
    assert (raised.value.error_class, raised.value.code) == (ErrorClass.TOKEN, "401")
    assert "expired" in raised.value.message


def test_the_time_is_the_servers() -> None:
    floor = Floor()
    floor.grant()
    at_ms = floor.now_ms
    (page,) = floor.walk(VENUE.rest(floor.catalogue, ref="", options=floor.options).server_time())
    assert page.server_time_ms == at_ms


# ---- The simulator by itself


def test_it_describes_itself_and_its_stage_is_set_from_that() -> None:
    made = Floor().front
    line = {"token": "x", "ws_name": "x", "ws_id": "x", "rest": "x", "control": "x", **made.describe()}
    assert set(line) == {"token", "ws_name", "ws_id", "rest", "control", "username", "password", "contracts"}
    assert {"name": "SAMPLE05F", "id": "012345"} in line["contracts"]  # type: ignore[operator]
    assert set(STAGE.doors.values()) == {*made.paths, *made.rests}
    assert [dict(e.credentials) | {"name": e.name} for e in STAGE.entries(line)] == [dict(a) for a in made.accounts()]
    assert made.symbol("SAMPLE05F/IRR:IRR") == made.symbol("012345") == "012345"
    with pytest.raises(KeyError):
        made.symbol("NOBODY/IRR")


def test_its_messages_are_consistent_wholes() -> None:
    floor = Floor()
    floor.seconds(60)
    for state in floor.front.states.values():
        told = state.sections()
        day, levels = told["Aggregate"], told["BestLimit"]
        assert set(levels) == {"1", "2", "3"}
        assert levels["1"]["buy_price"] > levels["2"]["buy_price"] > levels["3"]["buy_price"] > 0
        assert levels["1"]["sell_price"] < levels["2"]["sell_price"] < levels["3"]["sell_price"]
        assert day["low_price"] <= day["last_price"] <= day["high_price"]
        assert day["trade_count"] > 0
        if state.contract.banded:
            band = told["AllowedPriceRange"]
            assert band["minAllowedPrice"] < day["low_price"] <= day["high_price"] < band["maxAllowedPrice"]


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/auth/user/token/issue", 405),
        ("POST", "/auth/user/token/issue", 422),
        ("POST", "/data-engine/ime/live/data/overview/contract/name", 405),
        ("GET", "/data-engine/ime/live/data/overview/contract/name", 401),
    ],
)
def test_what_it_does_not_take(method: str, target: str, status: int) -> None:
    response = Floor().front.call(Call(method=method, target=target), START_MS)
    assert response is not None
    assert response.status == status
    assert "detail" in json.loads(response.body)


@pytest.mark.parametrize(
    ("path", "has"),
    [
        ("static/data/contract/name?contract_names=SAMPLE05F&contract_names=NO", "csize"),
        ("static/data/contract/id?contract_ids=012377", "optionType"),
        ("live/data/best-limit/contract/id?contract_ids=012377", "buy_price"),
        ("live/data/aggregate/contract/name?contract_names=SAMPLE05F", "trade_count"),
        ("live/data/contract-info/contract/name?contract_names=SAMPLE05F", "open_interest"),
        ("live/data/allowed-price-range/contract/name?contract_names=SAMPLE05F", "minAllowedPrice"),
    ],
)
def test_every_read_is_answered(path: str, has: str) -> None:
    floor = Floor()
    token = floor.grant().secret.reveal()
    call = Call(method="GET", target=f"/data-engine/ime/{path}", headers={"authorization": token})
    assert floor.front.caller(call) == "ime"
    response = floor.front.call(call, floor.now_ms)
    assert response is not None
    assert has in response.body.decode()
    assert ("NO" in path) == ("null" in response.body.decode())


def test_limits_and_failures_on_command() -> None:
    floor = Floor()
    call = Call(method="GET", target="/nothing")
    answers = [floor.front.call(call, START_MS) for _ in range(6)]
    assert [a.status for a in answers if a is not None] == [404] * 5 + [429]
    for fault, status in (("rate_429", 429), ("html_502", 502)):
        floor.faults.begin(fault, None, START_MS + 5_000, times=1)
        response = floor.front.call(call, START_MS + 5_000)
        assert response is not None
        assert response.status == status
    opened = [floor.front.accept(Call(method="GET", target=floor.front.paths["ws_id"]), START_MS) for _ in range(6)]
    assert opened == [403] * 5 + [429]
    assert floor.front.accept(Call(method="GET", target="/x"), START_MS) == 404


def test_it_tells_who_is_connected_and_holds_nothing() -> None:
    floor = Floor()
    floor.connect(*IDS, kind="ids")
    (row,) = floor.front.truth("connections", "ime")
    assert row["channels"] == [contract.contract_id for contract in CONTRACTS]
    assert isinstance(floor.accepted, ImeSession)
    floor.accepted.hear(b"anything", floor.now_ms)
    floor.accepted.gone()
    assert floor.front.truth("connections", "") == floor.front.truth("fills", "ime") == []
    with pytest.raises(ValueError, match="money"):
        floor.front.transfer("ime", "IRR", CONTRACTS[0].start, 0)
    with pytest.raises(KeyError):
        floor.front.command("funding", ["ime"], {}, 0)
