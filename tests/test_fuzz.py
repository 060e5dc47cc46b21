"""Whatever is sent to a parser: it is read, or refused with a sentence of ours. Nothing else ever comes out."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import anyio
import httpx
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accounts import transfer
from accounts.transfer import TransferError
from engine.config import ConfigError, parse
from engine.control.server import Rejected, application
from engine.core.drafts import PlanRefused, read_draft, read_plan_file
from engine.core.orders import Cancel, Outcome
from engine.core.venue import Response, Transport
from engine.venues import venues
from tests.fuzz.bent import bent
from tests.fuzz.targets import Target, targets
from tests.ledger import samples

MANY = settings(max_examples=60)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(max_size=8), v, max_size=4), max_leaves=12
)
SWAP = msgspec.structs.replace(samples.SWAP, venue_ref="SWAP|BTC-USDT-SWAP|10458")


def said(error: Exception) -> None:
    assert str(error).strip(), "a refusal says why"


def _json(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


# ---- Whatever the venues' folders read, and what people write: found by walking


@pytest.mark.parametrize("target", targets().values(), ids=lambda t: t.name)
@settings(max_examples=25)
@given(rng=st.randoms(use_true_random=False), noise=st.binary(max_size=40))
def test_a_target_reads_or_refuses_whatever_comes(target: Target, rng: random.Random, noise: bytes) -> None:
    target.read(noise)
    for seed in target.seeds:
        target.read(seed)
        for _ in range(3):
            target.read(bent(seed, rng))


def test_every_venue_is_fuzzed() -> None:
    for venue in venues().values():
        of_venue = [name for name in targets() if f"-{venue.name}-" in name]
        assert len(of_venue) >= len([e for e in venue.endpoints if e.transport is Transport.STREAM])
        assert any(targets()[name].seeds for name in of_venue)


# ---- What became of orders, over HTTP


class _Listing:
    def by_name(self, name: str) -> Any:
        return SWAP if name == SWAP.name else None


REST = venues()["okx"].rest(_Listing(), ref="", options={})


def spoilt(frame: Any, draw: st.DrawFn) -> Any:
    """The same answer with something in it that is anything, or gone."""
    if isinstance(frame, dict) and frame and draw(st.integers(0, 4)):
        key = draw(st.sampled_from(sorted(frame)))
        if draw(st.integers(0, 4)) == 0:
            return {k: v for k, v in frame.items() if k != key}
        return {**frame, key: spoilt(frame[key], draw)}
    if isinstance(frame, list) and frame and draw(st.integers(0, 4)):
        place = draw(st.integers(0, len(frame) - 1))
        return [*frame[:place], spoilt(frame[place], draw), *frame[place + 1 :]]
    return draw(values)


STATUSES = st.sampled_from([200, 200, 200, 400, 429, 502])


@MANY
@given(st.integers(1, 3), STATUSES, st.data())
def test_an_answer_to_orders_tells_an_outcome_for_each(count: int, status: int, data: st.DataObject) -> None:
    rows = [{"ordId": f"v{n}", "clOrdId": f"c{n}", "sCode": "0", "sMsg": ""} for n in range(count)]
    body = _json(data.draw(st.composite(lambda draw: spoilt({"code": "0", "msg": "", "data": rows}, draw))()))
    commands = [Cancel(client_order_id=f"c{n}", venue_order_id=f"v{n}", instrument=SWAP) for n in range(count)]
    outcomes = REST.read_outcomes(commands, Response(status=status, body=body))
    assert len(outcomes) == count
    assert all(isinstance(o, Outcome) for o in outcomes)


# ---- What people write


def lines(words: Sequence[str]) -> st.SearchStrategy[str]:
    """Text made of the words that mean something, and of noise."""
    return st.lists(st.sampled_from(words) | st.text(max_size=6), max_size=12).map("".join)


TOML = [*"[]=\n\"'.1-{}, ", "[[", "]]", "1.5", "true", "nan", "inf", "1e999"]
CONFIG = [*TOML, "[plans]\n", "[venues.okx]\n", "[pulse]\n", "beat_s", "url", "options", "quiet_s = 27\n", "at_par = ["]
PLAN = [*TOML, "[[legs]]\n", "title", "groups", "accounts", "method", '"equal"', "quantity", "units", "price", "side"]
SHEET = [*TOML, "[[account]]\n", "[[group]]\n", "id", "venue", "name", "weights", "mandate", "[[shared]]\n", "key"]


@MANY
@given(lines(CONFIG))
def test_a_configuration_is_read_or_its_errors_are_told(text: str) -> None:
    try:
        parse(text, known_venues=frozenset({"okx"}))
    except ConfigError as error:
        said(error)


@MANY
@given(lines(PLAN))
def test_a_plan_file_is_read_or_refused(text: str) -> None:
    try:
        read_draft(read_plan_file(text))
    except PlanRefused as error:
        said(error)


@MANY
@given(st.dictionaries(st.sampled_from(["title", "groups", "accounts", "legs", "expires_minutes", "by"]), values))
def test_a_draft_from_outside_is_read_or_refused(value: Any) -> None:
    try:
        read_draft(value)
    except PlanRefused as error:
        said(error)


@MANY
@given(lines(SHEET))
def test_a_sheet_of_accounts_is_read_or_refused(text: str) -> None:
    for read in (transfer.from_toml, transfer.from_csv):
        try:
            read(text)
        except TransferError as error:
            said(error)


CSV = [
    "id,venue,site,environment\n",
    "id,venue,site,environment,weight:g\n",
    "a,okx,global,demo\n",
    "name",
    ",",
    "\n",
    '"',
    ";",
    "\r\n",
    "\0",
    "x",
]


@MANY
@given(lines(CSV))
def test_a_csv_of_accounts_is_read_or_refused(text: str) -> None:
    try:
        transfer.from_csv(text)
    except TransferError as error:
        said(error)


# ---- The control door


class _Office:
    """Does nothing, but what it is asked must have passed the door."""

    def __getattr__(self, name: str) -> Any:
        async def verb(*arguments: Any, **more: Any) -> Any:
            if name == "draft_plan":
                try:
                    read_draft(arguments[0])
                except PlanRefused as error:
                    raise Rejected("; ".join(error.complaints)) from None
            return {}

        return verb


DOORS = [
    "/plans",
    "/plans/p/approve",
    "/plans/p/execute",
    "/plans/p/cancel",
    "/plans/p/amend",
    "/plans/p/discard",
    "/plans/p/override",
    "/rebalance",
    "/backfill",
    "/kill/on",
    "/kill/off",
    "/orphans/accept",
]
asked = st.dictionaries(
    st.sampled_from(
        ["by", "why", "scope", "price", "factor", "accounts", "kind", "code", "minutes", "model", "groups", "currency"]
    ),
    values,
)


async def _post(path: str, body: bytes) -> httpx.Response:
    door = httpx.ASGITransport(application(_Office()), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=door, base_url="http://engine") as client:
        return await client.post(path, content=body)


@MANY
@given(path=st.sampled_from(DOORS), body=st.binary(max_size=40) | values.map(_json) | asked.map(_json))
def test_whatever_is_sent_to_the_control_door_is_answered_in_its_own_words(path: str, body: bytes) -> None:
    answer = anyio.run(_post, path, body)
    assert answer.status_code in (200, 409), answer.text
    assert isinstance(answer.json(), dict)
