"""Does. stomp.py's frames against our codec, both ways, and then on a connection to the simulator."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from typing import Any

from stomp.utils import Frame, convert_frame, parse_frame
from websockets.asyncio.client import ClientConnection, connect

from tests.interop.steps import Simulator, Steps, ours

SENT = ("CONNECT", "SUBSCRIBE", "UNSUBSCRIBE", "REQUEST", "SEND", "DISCONNECT")
COMMANDS = (*SENT, "CONNECTED", "MESSAGE", "REPLY", "RECEIPT", "ERROR", "CLOSED")
LETTERS = "abcXYZ019-_.,:;=\"'/ *яЖ€😀"
FRAMES = 1000

Plain = tuple[str, dict[str, str], str]
"""A command, its headers, its body in hexadecimal digits."""


def some_frames(rng: random.Random) -> list[Plain]:
    """What both are to mean the same by: no escapes (we write none), no line ends and no NULs in a body."""

    def word(letters: str, most: int) -> str:
        return "".join(rng.choices(letters, k=rng.randint(1, most)))

    frames = list[Plain]()
    for n in range(FRAMES):
        headers = {word("abcdefgh-", 10): word(LETTERS, 30).strip() or "x" for _ in range(rng.randint(0, 5))}
        body = json.dumps({"data": word(LETTERS, 40)}, ensure_ascii=False) if rng.random() < 0.7 else ""
        frames.append((COMMANDS[n % len(COMMANDS)], headers, body.encode().hex()))
    return frames


def as_others_read(frame: bytes) -> Plain:
    """stomp.py leaves the NUL in the body: whoever uses it cuts it off."""
    told = parse_frame(frame)
    return told.cmd, told.headers, told.body.removesuffix(b"\0").hex()


def as_others_write(frame: Plain) -> bytes:
    return b"".join(convert_frame(Frame(frame[0], frame[1], bytes.fromhex(frame[2]))))


class Line:
    """One connection, spoken with stomp.py's frames."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def say(self, command: str, body: bytes = b"", **headers: str) -> None:
        await self._socket.send(as_others_write((command, headers, body.hex())))

    async def hear(self) -> tuple[str, dict[str, str], bytes]:
        message = await self._socket.recv()
        assert isinstance(message, bytes)
        command, headers, body = as_others_read(message)
        return command, headers, bytes.fromhex(body)

    async def hear_one(self, command: str) -> tuple[dict[str, str], bytes]:
        """The next of this kind; what else comes is let pass."""
        while (heard := await self.hear())[0] != command:
            pass
        return heard[1], heard[2]


async def converse(doors: dict[str, Any], steps: Steps) -> None:
    venue, frames = Simulator(doors, "issplus"), some_frames(random.Random(1))
    keys = {name: doors[name] for name in ("domain", "login", "passcode")}
    async with steps("our frames are read by others"):
        written = ours("issplus_codec", {"write": frames, "read": []})["written"]
        assert [as_others_read(bytes.fromhex(frame)) for frame in written] == frames
    async with steps("others' frames are read by us"):
        theirs = [as_others_write(frame) for frame in frames]
        lengths = [as_others_write((c, {**h, "content-length": "0"}, b)) for c, h, b in frames if b]
        stream, rng = b"\n".join(theirs), random.Random(2)
        cuts = sorted(rng.sample(range(len(stream)), 3 * FRAMES))
        pieces = [stream[a:b].hex() for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        asked = [*([one.hex()] for one in theirs), *([one.hex()] for one in lengths), pieces]
        read = ours("issplus_codec", {"write": [], "read": asked})["read"]
        assert not [one for one in read if one["wrong"]]
        whole = [list(frame) for frame in frames]
        assert [one["frames"] for one in read[:FRAMES]] == [[frame] for frame in whole]
        assert read[-1]["frames"] == whole, "cut anywhere"
        bodies = [one["frames"][0][2] for one in read[FRAMES:-1]]
        assert bodies == [body for _, _, body in frames if body], "with the length that stomp.py declares"
    async with steps("what only we can read"):
        frame = b"MESSAGE\na:1\n\n"
        asked = [
            [b"\n".hex()],
            [(frame + b"[1]\0" + frame + b"[2]\0").hex()],
            [(b"MESSAGE\ncontent-length:3\n\n[\0]\0").hex()],
            [frame.hex(), b"[1]\0".hex()],
        ]
        alone, two, inner, parts = (
            one["frames"] for one in ours("issplus_codec", {"write": [], "read": asked})["read"]
        )
        assert (alone, parse_frame(b"\n")) == ([], None)
        assert [bytes.fromhex(body) for _, _, body in two] == [b"[1]", b"[2]"]
        assert b"MESSAGE" in parse_frame(bytes.fromhex(asked[1][0])).body, "stomp.py takes one frame a message"
        assert bytes.fromhex(inner[0][2]) == b"[\0]"
        assert [bytes.fromhex(body) for _, _, body in parts] == [b"[1]"]

    async with connect(doors["ws"], subprotocols=["STOMP"], proxy=None) as socket:  # type: ignore[list-item]
        line = Line(socket)
        async with steps("log in"):
            await line.say("SUBSCRIBE", id="s0", destination="MXSE.securities", selector='TICKER="MXSE.TQBR.SBER"')
            headers, _ = await line.hear_one("ERROR")
            assert headers["message"] == "gateway.not-connected"
            await line.say("CONNECT", **keys)
            _, body = await line.hear_one("CONNECTED")
            assert set(json.loads(body)["structure"]) == {"MXSE", "MXCX", "FORTS"}
            assert socket.subprotocol == "STOMP"
            assert len(venue.truth("connections")) == 1
        async with steps("a query and its reply"):
            await line.say("REQUEST", id="r1", destination="SEARCH.ticker", selector='pattern="SBER"')
            headers, body = await line.hear_one("REPLY")
            assert headers["request-id"] == "r1"
            told = json.loads(body)
            assert "MXSE.TQBR.SBER" in [row[told["columns"].index("ticker")] for row in told["data"]]
        async with steps("what is refused, and why"):
            await line.say("REQUEST", id="r2", destination="SEARCH.nothing", selector='pattern="SBER"')
            headers, _ = await line.hear_one("ERROR")
            assert (headers["request-id"], headers["message"]) == ("r2", "gateway.invalidrequest")
            await line.say("SEND", destination="MXSE.securities", id="x")
            headers, _ = await line.hear_one("ERROR")
            assert headers["message"] == "gateway.notimplemented"
        async with steps("snapshot and updates"):
            selector = 'TICKER="MXSE.TQBR.SBER"'
            await line.say("SUBSCRIBE", id="s1", receipt="s1", destination="MXSE.securities", selector=selector)
            headers, _ = await line.hear_one("RECEIPT")
            assert headers["receipt-id"] == "s1"
            headers, body = await line.hear_one("MESSAGE")
            assert (headers["subscription"], json.loads(body)["properties"]["type"]) == ("s1", "snapshot")
            venue.post("/faults", kind="notice", accounts=["issplus"])
            headers, _ = await line.hear_one("CLOSED")
            assert headers["subscription"] == "s1"
        async with steps("unsubscribe"):
            await line.say("SUBSCRIBE", id="s2", receipt="s2", destination="MXSE.securities", selector=selector)
            await line.hear_one("MESSAGE")
            await line.say("UNSUBSCRIBE", id="s2")
            await line.say("DISCONNECT", receipt="bye")
            headers, _ = await line.hear_one("RECEIPT")
            assert headers["receipt-id"] == "bye"
            await asyncio.wait_for(socket.wait_closed(), 5)
            assert socket.close_code == 1000


if __name__ == "__main__":
    asyncio.run(converse(json.load(sys.stdin), Steps("issplus")))
