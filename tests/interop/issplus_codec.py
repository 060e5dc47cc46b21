"""Does. Our codec of frames for whoever asks from another environment: JSON in and out, bytes in hexadecimal digits."""

from __future__ import annotations

import json
import sys
from typing import Any

from engine.venues.issplus.frames import Frames, encode


def _read(messages: list[str]) -> dict[str, Any]:
    """What comes out of messages in this order."""
    codec, found, wrong = Frames(), list[list[Any]](), list[str]()
    for message in messages:
        frames, complaint = codec.feed(bytes.fromhex(message))
        found += [[frame.command, dict(frame.headers), frame.body.hex()] for frame in frames]
        wrong += [complaint] if complaint else []
    return {"frames": found, "wrong": wrong}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    json.dump(
        {
            "written": [encode(c, headers, bytes.fromhex(body)).hex() for c, headers, body in asked["write"]],
            "read": [_read(messages) for messages in asked["read"]],
        },
        sys.stdout,
    )
