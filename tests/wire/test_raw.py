"""Frames are kept as they were, less the secrets; whoever tells one never waits, and nothing depends on it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from accounts.model import Connection, Listener, Secret
from engine.core.venue import Frame, Login, Request, Response
from engine.venues import venues
from engine.wire import archive
from engine.wire.archive import Line
from engine.wire.raw import ALWAYS_SECRET, Raw
from engine.wire.stream import NotSent
from tests.fakes import FakeClock

pytestmark = pytest.mark.anyio
CONNECTION = Connection(
    connection_key="ann-private",
    client_key="private",
    listener=Listener.ACCOUNT,
    listener_id="ann",
    venue="okx",
    environment="demo",
    kind="private",
    url="ws://127.0.0.1:1",
    requires_auth=True,
    keep_alive=True,
)


NO_SECRETS = {"domain": "apikey"}  # one of a few words that everybody knows


class FakeSocket:
    def __init__(self, *frames: bytes) -> None:
        self.frames, self.sent, self.fails = list(frames), list[Frame](), ""

    async def recv(self) -> bytes:
        return self.frames.pop(0)

    def send(self, frame: Frame) -> None:
        if self.fails:
            raise NotSent("broken", written=self.fails == "maybe")
        self.sent.append(frame)

    async def ping(self) -> None: ...
    async def close(self) -> None: ...
    def abort(self) -> None: ...


def keeper(folder: Path, *, queue_mb: int = 1, max_mb: int = 100, hush: Callable[[], bool] = lambda: False) -> Raw:
    secrets = {name: (*venue.secret_names, *ALWAYS_SECRET) for name, venue in venues().items()}
    return Raw(folder, FakeClock(), secrets, max_mb=max_mb, max_days=1, queue_mb=queue_mb, hush=hush)


def kept(raw: Raw, folder: Path) -> list[Line]:
    raw.start()
    raw.close()
    return [line for _, line in archive.lines(folder)]


async def test_what_goes_over_a_socket_is_kept_both_ways(tmp_path: Path) -> None:
    raw, inner = keeper(tmp_path), FakeSocket(b"heard", b"\xff\x00")
    socket = raw.socket(inner, CONNECTION)
    socket.send("said")
    assert [await socket.recv(), await socket.recv()] == [b"heard", b"\xff\x00"]
    assert inner.sent == ["said"]
    assert [(line.source, line.way, line.frame) for line in kept(raw, tmp_path)] == [
        ("ann-private", "out", "said"),
        ("ann-private", "in", "heard"),
        ("ann-private", "in", "\\xff\x00"),
    ]


@pytest.mark.parametrize(("fails", "ways"), [("surely", []), ("maybe", ["out, maybe"])])
async def test_what_did_not_go_out_is_not_kept_as_said(tmp_path: Path, fails: str, ways: list[str]) -> None:
    raw, inner = keeper(tmp_path), FakeSocket()
    inner.fails = fails
    with pytest.raises(NotSent):
        raw.socket(inner, CONNECTION).send("said")
    assert [line.way for line in kept(raw, tmp_path)] == ways


def test_an_exchange_over_http_is_kept_with_its_status(tmp_path: Path) -> None:
    raw = keeper(tmp_path)
    request = Request(method="POST", path="/a?b=1", body=b'{"c":1}', headers=(("OK-ACCESS-KEY", "CANARY"), ("x", "y")))
    raw.exchange("okx", "ann", request, Response(status=200, body=b'{"code":"0"}'), "")
    raw.exchange("okx", "ann", request, None, "ReadTimeout")
    told = [(line.way, line.frame) for line in kept(raw, tmp_path)]
    asked = 'POST /a?b=1\nOK-ACCESS-KEY: ***\nx: y\n\n{"c":1}'
    assert told == [
        ("asked", asked),
        ("answered", '200\n{"code":"0"}'),
        ("asked", asked),
        ("unanswered", "ReadTimeout"),
    ]


@pytest.mark.parametrize("name", [name for name, venue in venues().items() if venue.credential_fields])
def test_no_credential_of_any_venue_gets_into_a_file(tmp_path: Path, name: str) -> None:
    """By the dialect's own declaration: what it sends to log in and with each request, and its echo."""
    venue, raw = venues()[name], keeper(tmp_path)
    canaries = {field: f"CANARY{number}of{field}" for number, field in enumerate(venue.credential_fields)} | {
        field: word for field, word in NO_SECRETS.items() if field in venue.credential_fields
    }
    credentials = {field: Secret(canary) for field, canary in canaries.items()}
    login = {**credentials, "access_token": Secret("CANARYtoken")}
    assert venue.secret_names, "a venue with credentials names what must not be kept"
    for kind in venue.endpoints:
        if not kind.requires_auth or kind.transport.value != "stream":
            continue
        talk = venue.converse(
            kind=kind.name,
            channels=kind.channels,
            logins=[Login(venue.account_ref.example if venue.account_ref else "ref", login)],
            environment="prod",
            catalogue={}.get,  # type: ignore[arg-type]
            options=venue.options,
        )
        for frame in talk.open(1_767_225_600_000):
            raw.tell(name, "ann", "out", frame)
            raw.tell(name, "ann", "in", frame)
    signed = venue.sign(Request(method="GET", path="/a"), login, "prod", 1_767_225_600_000)
    raw.exchange(name, "ann", signed, Response(status=401, body=json.dumps(dict(signed.headers)).encode()), "")
    if venue.grant is not None:
        request = venue.grant.request(credentials, venue.options)
        raw.exchange(name, "ann", request, Response(status=200, body=b'{"access_token":"CANARYgranted"}'), "")
    lines = kept(raw, tmp_path)
    assert lines
    assert [line.frame for line in lines if "CANARY" in line.frame] == []
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"CANARY" not in everything


def test_more_than_the_queue_holds_is_counted_and_not_kept(tmp_path: Path) -> None:
    raw = keeper(tmp_path)
    for _ in range(30):
        raw.tell("okx", "ann", "in", bytes(100_000))
    assert raw.not_kept == 19
    assert len(kept(raw, tmp_path)) == 11


def test_a_very_long_frame_is_kept_in_part_and_says_so(tmp_path: Path) -> None:
    raw = keeper(tmp_path)
    raw.tell("okx", "ann", "in", b"x" * 70_000)
    (line,) = kept(raw, tmp_path)
    assert (len(line.frame), line.cut) == (65_536, 70_000 - 65_536)


def test_a_folder_that_cannot_be_written_costs_the_frames_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.write_text("a file where the folder should be")
    raw = keeper(folder)
    raw.tell("okx", "ann", "in", b"heard")
    raw.start()
    raw.close()
    assert raw.not_kept == 1


def test_a_file_that_grows_too_long_is_followed_by_another(tmp_path: Path) -> None:
    raw = keeper(tmp_path, max_mb=1)
    noise = random.Random(1)
    for _ in range(65):  # more than one slice
        raw.tell("okx", "ann", "in", noise.randbytes(6000).hex())
    assert len(kept(raw, tmp_path)) == 65
    assert [file.number for file in archive.files(tmp_path)] == [1, 2]
