"""Decides. Everything that reads bytes from outside, found by walking the venues: name, reader, what to begin with.

A target takes any bytes and returns; whatever it raises is a mistake of ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from accounts import transfer
from accounts.transfer import TransferError
from engine import config
from engine.config import ConfigError
from engine.core.drafts import PlanRefused, read_draft, read_plan_file
from engine.core.venue import Page, Response, Transport, Venue, VenueError
from engine.venues import venues
from tests.venues.samples import NOW_MS, Sample, command, converse, read_of, samples_of, wire

STATUSES = (200, 200, 200, 400, 401, 404, 429, 500, 502)


class Target(NamedTuple):
    name: str
    read: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


def targets() -> dict[str, Target]:
    found = [t for venue in venues().values() for t in (*_streams(venue), *_reads(venue))]
    return {t.name: t for t in (*found, *_texts())}


# ---- Venues. The first bytes choose the sample (and the status), the rest is what comes in.


def _streams(venue: Venue) -> Iterable[Target]:
    for endpoint in venue.endpoints:
        if endpoint.transport is Transport.STREAM:
            samples = [s for s in samples_of(venue.name) if s["kind"] == endpoint.name]
            seeds = tuple(bytes([n % 256]) + wire(s["frame"]) for n, s in enumerate(samples))
            yield Target(f"frame-{venue.name}-{endpoint.name}", _hearer(venue, endpoint.name, samples), seeds)


def _hearer(venue: Venue, kind: str, samples: list[Sample]) -> Callable[[bytes], None]:
    def hear(told: bytes) -> None:
        sample: Sample = samples[told[0] % len(samples)] if samples and told else {}
        conversation = converse(venue, kind, sample.get("channels"), **sample.get("options", {}))
        conversation.open(NOW_MS)
        if "say" in sample:
            conversation.say([command(c) for c in sample["say"]["commands"]], sample["say"]["request_id"], NOW_MS)
        for frame in sample.get("before", ()):
            conversation.hear(wire(frame), NOW_MS)
        heard = conversation.hear(told[1:], NOW_MS)
        for fact in heard.facts:
            assert fact.key
            msgspec.json.encode(fact)  # the ledger keeps it so

    return hear


def _reads(venue: Venue) -> Iterable[Target]:
    by_call: dict[str, list[Sample]] = {}
    for sample in samples_of(venue.name):
        if "call" in sample:
            by_call.setdefault(sample["call"], []).append(sample)
    for call, samples in by_call.items():
        seeds = tuple(bytes([n % 256, 0]) + wire(s["frame"]) for n, s in enumerate(samples))
        yield Target(f"read-{venue.name}-{call}", _reader(venue, samples), seeds)


def _reader(venue: Venue, samples: list[Sample]) -> Callable[[bytes], None]:
    reads = [read_of(venue, sample) for sample in samples]

    def read(told: bytes) -> None:
        if len(told) < 2:
            return
        response = Response(status=STATUSES[told[1] % len(STATUSES)], body=told[2:])
        with suppress(VenueError):
            page = reads[told[0] % len(reads)].read(response)
            assert isinstance(page, Page)
            for fact in page.facts:
                msgspec.json.encode(fact)

    return read


# ---- What people write


def _texts() -> Iterable[Target]:
    known = frozenset(venues())
    yield _text("config", lambda t: config.parse(t, known_venues=known), (ConfigError,), _CONFIGS)
    yield _text("plan-file", lambda t: read_draft(read_plan_file(t)), (PlanRefused,), _PLANS)
    yield _text("plan-body", _draft, (PlanRefused,), tuple(json.dumps(body) for body in _BODIES))
    yield _text("accounts-toml", transfer.from_toml, (TransferError,), _SHEETS)
    yield _text("accounts-csv", transfer.from_csv, (TransferError,), _CSVS)


def _text(
    name: str, read: Callable[[str], object], refusals: tuple[type[Exception], ...], seeds: Iterable[str]
) -> Target:
    def take(told: bytes) -> None:
        try:
            read(told.decode("utf-8", "replace"))
        except refusals as error:
            if not str(error).strip():
                raise AssertionError("a refusal says why") from error

    return Target(name, take, tuple(seed.encode() for seed in seeds))


def _draft(text: str) -> None:
    """As the control door does: JSON that is an object."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(body, Mapping):
        read_draft(dict[str, Any](body))


_CONFIGS = (
    '[database]\nurl = "sqlite:///x.sqlite"\n[pulse]\nbeat_s = 25.0\nquiet_s = 20\n',
    '[plans]\nat_par = ["USD"]\nmax_drift_percent = 2.5\n[venues.okx]\nbudget_percent = 80\noptions = {a = "b"}\n',
)
_LEG = {
    "instrument": "BTC/USDT:USDT",
    "method": "equal",
    "side": "buy",
    "order_type": "limit",
    "quantity": "4",
    "price": "1",
}
_BODIES: tuple[dict[str, Any], ...] = (
    {"title": "t", "groups": ["g"], "legs": [_LEG], "by": "p"},
    {"title": "t", "accounts": ["a"], "legs": [{**_LEG, "method": "units", "units": {"a": "1"}}], "expires_minutes": 5},
)
_PLANS = (
    'title = "t"\ngroups = ["g"]\n[[legs]]\ninstrument = "BTC/USDT:USDT"\nmethod = "equal"\nside = "buy"\n'
    'order_type = "limit"\nquantity = "4"\nprice = "1"\n',
)
_SHEETS = (
    '[[account]]\nid = "a"\nvenue = "okx"\nsite = "global"\nenvironment = "demo"\nname = "A"\n'
    '[[group]]\nid = "g"\nweights = {a = "100"}\n',
)
_CSVS = ("id,venue,site,environment,weight:g\na,okx,global,demo,1\n", 'id,venue\n"a\nb",okx\n')
