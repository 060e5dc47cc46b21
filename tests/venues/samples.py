"""Holds. The samples of every venue, and how one is replayed: what a venue's folder must understand.

One JSON object a line. Of a stream: `kind` (the endpoint), `channels` (the endpoint's own when absent), `before`
(frames heard first), `say` (commands sent first) and `says` (how), `frame`, and what must be heard of it: `channel`,
`facts`, `said` as [notice, code], `replies`, `instruments`, `sends`. Of a read (`kind` that of the endpoint over
HTTP): `call`, `args`, `nth` read of it, its `path`, the answer (`status`, `frame`, `headers`), and its `facts`,
`instruments`, `candles`, `identity`, `server_time_ms`, whether the walk `goes_on`, or `error` as [class, code].
Options that differ from the venue's defaults stand under `options`. Credentials are "x" each, the account is the
example of the venue's reference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

import engine.venues
from accounts.model import Secret
from engine.core.instruments import Instrument
from engine.core.orders import Amend, Cancel, Command, Place
from engine.core.venue import ACCESS_TOKEN, Conversation, Login, Read, Rest, Venue
from engine.venues import venues

NOW_MS = 1_767_225_600_000
_COMMANDS: dict[str, type[Command]] = {"place": Place, "amend": Amend, "cancel": Cancel}

Sample = dict[str, Any]


class NoInstruments:
    """A catalogue in which nothing is listed: samples bring their instruments along."""

    def by_name(self, name: str) -> Instrument | None:
        return None

    def listed(self) -> tuple[Instrument, ...]:
        return ()


def samples_of(venue: str) -> Iterator[Sample]:
    for path in sorted((Path(engine.venues.__path__[0]) / venue / "samples").glob("*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            yield {"venue": venue, "where": f"{venue}/{path.name}:{number}", **json.loads(line)}


def all_samples() -> list[Sample]:
    return [sample for name in venues() for sample in samples_of(name)]


def wire(frame: Any) -> bytes:
    """A frame as it comes in: texts are sent as they stand, everything else as JSON."""
    return (
        frame.encode(errors="surrogatepass")
        if isinstance(frame, str)
        else json.dumps(frame, separators=(",", ":")).encode()
    )


def unwired(frame: str | bytes) -> Any:
    """A frame that goes out, as samples write it."""
    text = frame.decode() if isinstance(frame, bytes) else frame
    try:
        return json.loads(text)
    except ValueError:
        return text


def converse(venue: Venue, kind: str, channels: list[str] | None = None, **options: str) -> Conversation:
    return venue.converse(
        kind=kind,
        channels=venue.endpoint(kind).channels if channels is None else channels,
        logins=[Login(ref_of(venue), {field: Secret("x") for field in (*venue.credential_fields, ACCESS_TOKEN)})],
        environment="demo",
        catalogue=NoInstruments(),
        options={**venue.options, **options},
    )


def ref_of(venue: Venue) -> str:
    """The account that samples are about."""
    return venue.account_ref.example if venue.account_ref is not None else ""


def rest_of(venue: Venue, **options: str) -> Rest:
    return venue.rest(NoInstruments(), ref=ref_of(venue), options={**venue.options, **options})


def command(written: dict[str, Any]) -> Command:
    ((kind, fields),) = written.items()
    return msgspec.convert(fields, _COMMANDS[kind], strict=False)


def read_of(venue: Venue, sample: Sample) -> Read:
    args = dict(sample["args"])
    if isinstance(args.get("instrument"), dict):  # a name is one already
        args["instrument"] = msgspec.convert(args["instrument"], Instrument, strict=False)
    found = getattr(rest_of(venue, **sample.get("options", {})), sample["call"])(**args)
    return found if sample["nth"] is None else found[sample["nth"]]
