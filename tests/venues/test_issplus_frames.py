"""The codec of frames: written strictly, read leniently, and never confused by where messages are cut."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from engine.venues.issplus.frames import LONGEST, Frames, StompFrame, encode

COMMANDS = ["CONNECTED", "ERROR", "RECEIPT", "MESSAGE", "REPLY", "CLOSED", "REQUEST"]
names = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12).filter(lambda name: name != "content-length")
values = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0\\"), max_size=20)
# JSON never holds a raw NUL, and a body never begins another frame.
bodies = st.binary(max_size=60).map(lambda body: body.replace(b"\0", b"").replace(b"\r", b"").replace(b"\n", b""))
frames = st.builds(StompFrame, st.sampled_from(COMMANDS), st.dictionaries(names, values, max_size=5), bodies)


def read(*messages: bytes) -> tuple[list[StompFrame], list[str]]:
    codec, found, wrong = Frames(), list[StompFrame](), list[str]()
    for message in messages:
        cut, complaint = codec.feed(message)
        found += cut
        wrong += [complaint] if complaint else []
    return found, wrong


def wire(frame: StompFrame) -> bytes:
    return encode(frame.command, frame.headers, frame.body)


@given(frames)
def test_what_is_written_is_read(frame: StompFrame) -> None:
    assert read(wire(frame)) == ([frame], [])


@given(st.lists(frames, max_size=4), st.data())
@settings(max_examples=50)
def test_it_does_not_matter_where_messages_are_cut(several: list[StompFrame], data: st.DataObject) -> None:
    stream = b"".join(wire(frame) + data.draw(st.sampled_from([b"", b"\n", b"\r\n\n"])) for frame in several)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    messages = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert read(*messages) == (several, [])


@given(frames)
def test_a_declared_length_is_believed_even_over_nuls(frame: StompFrame) -> None:
    told = StompFrame(frame.command, {**frame.headers, "content-length": str(len(frame.body) + 1)}, frame.body + b"\0")
    assert read(wire(told)) == ([told], [])


def test_a_length_that_is_wrong_is_not_believed() -> None:
    found, wrong = read(b"MESSAGE\ncontent-length:2\n\n[1,2]\0")
    assert (found[0].body, wrong) == (b"[1,2]", [])


@given(frames, frames)
@settings(max_examples=50)
def test_a_forgotten_nul_loses_nothing(first: StompFrame, second: StompFrame) -> None:
    assume(second.command != "REQUEST")  # no server sends it
    assert read(wire(first)[:-1], wire(second)) == ([first, second], [])


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b"a:1", "1"),
        (b"a: 1 ", "1"),
        (b'a:till="2026-01-22 10:00:00"', 'till="2026-01-22 10:00:00"'),
        (b"a:one\\ctwo\\nthree\\rfour\\\\", "one:two\nthree\rfour\\"),
        (b"a:kept\\t as it is", "kept\\t as it is"),
        (b"a:1\na:2", "1"),
        (b"b:1", ""),
        ("a:Сбер".encode(), "Сбер"),
    ],
)
def test_headers_are_read_as_clients_of_the_exchange_read_them(line: bytes, value: str) -> None:
    assert read(b"MESSAGE\n" + line + b"\n\n\0")[0][0].header("a") == value


def test_what_greets_is_not_unescaped() -> None:
    assert read(b"CONNECTED\nserver:a\\nb\n\n\0")[0][0].header("server") == "a\\nb"


def test_line_ends_of_others_are_understood() -> None:
    assert read(b"MESSAGE\r\na:1\r\n\r\n{}\0") == ([StompFrame("MESSAGE", {"a": "1"}, b"{}")], [])


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\0b", "a:b"])
def test_a_header_that_would_become_two_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="header"):
        encode("SUBSCRIBE", {name: "1"})
    if ":" not in name:
        with pytest.raises(ValueError, match="header"):
            encode("SUBSCRIBE", {"selector": name})


@pytest.mark.parametrize(
    "message", [b"{}", b"null", b"\xff\xfe", b"message\n\n\0", b"MESSAGE:\n\n\0", b"MESSAGE\na\0b\n\n"]
)
def test_what_begins_no_frame_is_told_and_what_follows_is_read(message: bytes) -> None:
    found, wrong = read(message + b"\0", wire(StompFrame("RECEIPT", {}, b"")))
    assert wrong
    assert found[-1:] == [StompFrame("RECEIPT", {}, b"")]


def test_a_frame_without_an_end_is_given_up() -> None:
    codec = Frames()
    codec.feed(b"MESSAGE\n\n")
    assert codec.feed(b"x" * LONGEST)[1]
    assert codec.feed(b"RECEIPT\n\n\0") == ([StompFrame("RECEIPT", {}, b"")], "")


@given(st.lists(st.binary(max_size=40), max_size=8))
@example([b"MESSAGE\ncontent-length:99999999\n\n", b"\0"])
def test_no_bytes_are_too_much(messages: list[bytes]) -> None:
    for frame in read(*messages)[0]:
        assert frame.command.isupper()
