"""What is kept of a frame holds no secret, and everything else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.masking import Masker

masker = Masker(["apiKey", "passphrase", "OK-ACCESS-SIGN", "token"])
mask = masker.mask


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ('{"apiKey":"CANARY","x":1}', '{"apiKey":"***","x":1}'),
        ('{"APIKEY" : "CANARY" }', '{"APIKEY" : "***" }'),
        ('{"passphrase":"a\\"CANARY\\\\"}', '{"passphrase":"***"}'),
        ('{"token":12345,"x":[1]}', '{"token":"***","x":[1]}'),
        (r'{"msg":"{\"apiKey\":\"CANARY\",\"x\":1}"}', r'{"msg":"{\"apiKey\":\"***\",\"x\":1}"}'),
        ("grant=x&token=CANARY&y=1", "grant=x&token=***&y=1"),
        ("GET /a?token=CANARY", "GET /a?token=***"),
        ("OK-ACCESS-SIGN: CAN ARY\nb: 1", "OK-ACCESS-SIGN: ***\nb: 1"),
        ('{"apiKey":"CANARY, and never an end', '{"apiKey":"***"'),
        (r'{"msg":"{\"apiKey\":\"CANARY"}', r'{"msg":"{\"apiKey\":\"***\"}'),
        ('{"tokens":"kept","mytoken":"kept"}', '{"tokens":"kept","mytoken":"kept"}'),
        ("ping", "ping"),
    ],
)
def test_only_the_values_of_secrets_are_missing(text: str, kept: str) -> None:
    assert mask(text) == kept


@given(
    secret=st.text(alphabet=st.characters() | st.sampled_from('\\"')),
    spaces=st.sampled_from([None, 1]),
    depth=st.integers(0, 3),
)
def test_no_secret_gets_through_however_it_is_written(secret: str, spaces: int | None, depth: int) -> None:
    secret = f"CANARY{secret}CANARY"
    text = json.dumps({"op": "login", "args": [{"apiKey": secret, "n": 1}]}, indent=spaces)
    for _ in range(depth):
        text = json.dumps({"said": text, "and": "so on"})
    shown = mask(text)
    assert "CANARY" not in shown
    for _ in range(depth):
        shown = json.loads(shown)["said"]
    assert json.loads(shown) == {"op": "login", "args": [{"apiKey": "***", "n": 1}]}, "and all else is whole"


def test_without_names_nothing_is_changed() -> None:
    assert Masker([]).mask('{"apiKey":"x"}') == '{"apiKey":"x"}'


def test_what_concerns_it_can_be_told_of_many_frames_at_once() -> None:
    assert masker.concerns('{"op":"ping"}\n{"args":[{"APIKEY":"x"}]}')
    assert not masker.concerns('{"op":"ping"}\n{"data":[]}')
