"""Does. T-Invest's own contracts, compiled, as judges of everything that our dialect and our front say to each other.

JSON is judged by protobuf's own reader, strictly: a field that a message does not have is a mistake, unless it is
newer than these contracts and named here.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message, message_factory
from google.rpc import status_pb2
from grpc_tools import protoc

from tests.interop.steps import OUR_PYTHON, Steps

PACKAGE = "tinkoff.public.invest.api.contract.v1"
PROTOS = Path(sys.prefix) / "tinkoff-sdk-grpc-js@1.19.5" / "package" / "protos"
GENERATED = Path(sys.prefix) / "tinkoff-sdk-grpc-js@1.19.6" / "package" / "dist" / "generated"
"""The last package that ships the contracts themselves, and the next one, which ships newer ones as code only."""

MESSAGE = re.compile(
    r"^exports\.(\w+) = \{\n    encode\(.*?^    fromJSON\(\w*\) \{\n        return \{(.*?)\};", re.S | re.M
)
FIELD = re.compile(r"^            (\w+): (.*?)(?=^            \w+: |\Z)", re.S | re.M)
INNER = re.compile(r"\b(?:exports|\w+_\d+)\.(\w+)\.fromJSON")
WORDS = re.compile(r"^function (\w+)FromJSON\(object\) \{(.*?)^\}", re.S | re.M)
WORD = re.compile(r"\b(\w+)FromJSON\b")
METHOD = re.compile(
    r"name: '(\w+)',\s+requestType: (?:exports|\w+)\.(\w+),.*?responseType: (?:exports|\w+)\.(\w+),", re.S
)


NEWEST = {
    ("OrderStateStreamResponse", "stopOrderState"): "since 1.44 of the contracts (T-Invest dossier §3.1)",
}
"""By message and field: what no package has yet, and where from it is known."""


class Contracts:
    """The contracts, compiled: the strict judge."""

    def __init__(self) -> None:
        compiled = Path(sys.prefix) / "contracts.bin"
        names = sorted(path.name for path in PROTOS.glob("*.proto"))
        command = ["protoc", f"-I{PROTOS}", f"-I{Path(protoc.__file__).parent / '_proto'}", "--include_imports"]
        assert protoc.main([*command, f"--descriptor_set_out={compiled}", *names]) == 0, names
        self._pool = descriptor_pool.DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes()).file:
            self._pool.Add(file)

    def messages(self, method: str) -> tuple[type[message.Message], type[message.Message]] | None:
        """What is asked, and what is answered; None for a method that they do not have yet."""
        service, _, name = method.removeprefix(f"{PACKAGE}.").partition("/")
        found = self._pool.FindServiceByName(f"{PACKAGE}.{service}").methods_by_name.get(name)
        if found is None:
            return None
        return message_factory.GetMessageClass(found.input_type), message_factory.GetMessageClass(found.output_type)


class Newer:
    """What the newer contracts call things, read off the code that was generated from them: names and words only."""

    def __init__(self) -> None:
        code = [path.read_text() for path in GENERATED.glob("*.js")]
        self.fields = {name: dict(FIELD.findall(body)) for text in code for name, body in MESSAGE.findall(text)}
        self._words = {
            name: set(re.findall(r"case '(\w+)'", body)) for text in code for name, body in WORDS.findall(text)
        }
        self.methods = {name: (asked, told) for text in code for name, asked, told in METHOD.findall(text)}
        self.count = sum(text.count(" = {\n    encode(") for text in code)
        self.used = set[str]()

    def has(self, kind: str, field: str) -> bool:
        return camel(field) in self.fields.get(kind, {}) or (kind, camel(field)) in NEWEST

    def misnamed(self, said: Any, kind: str) -> Iterator[str]:
        """Names that these contracts do not know."""
        for name, value in said.items():
            how = self.fields[kind].get(camel(name))
            if how is None:
                if not self.has(kind, name):
                    yield f"{kind} has no {name}"
                continue
            inner, word = INNER.search(how), WORD.search(how)
            for one in value if isinstance(value, list) else [value]:
                if inner and isinstance(one, dict):
                    yield from self.misnamed(one, inner[1])
                elif not inner and word and word[1] in self._words and one not in (None, *self._words[word[1]]):
                    yield f"{kind}.{name} is never {one!r}"


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


UNKNOWN = re.compile(rf'type "{re.escape(PACKAGE)}\.([\w.]+)" has no field named "(\w+)"')


def read(said: Any, kind: type[message.Message], newer: Newer) -> message.Message:
    """Raises json_format.ParseError for what does not fit."""
    while True:
        try:
            return json_format.ParseDict(said, kind())
        except json_format.ParseError as error:
            found = UNKNOWN.search(str(error))
            if found is None or not newer.has(found[1].replace(".", "_"), found[2]):
                raise
            newer.used.add(f"{found[1]}.{camel(found[2])}")
            said = without(said, found[2])


def without(said: Any, field: str) -> Any:
    if isinstance(said, dict):
        return {name: without(value, field) for name, value in said.items() if name != field}
    return [without(value, field) for value in said] if isinstance(said, list) else said


def strayed(said: Any, meant: Any, path: str = "") -> Iterator[str]:
    """What was read, but is not written so by the contracts' own rules: numbers for words, or words for numbers."""
    if isinstance(said, dict) and isinstance(meant, dict):
        for name, value in said.items():
            if name in meant:
                yield from strayed(value, meant[name], f"{path}.{name}")
    elif isinstance(said, list) and isinstance(meant, list):
        for n, (one, other) in enumerate(zip(said, meant, strict=True)):
            yield from strayed(one, other, f"{path}[{n}]")
    elif isinstance(said, bool | int | float) != isinstance(meant, bool | int | float):
        yield f"{path}: {said!r} is written {meant!r}"


def wrong(said: str, kind: type[message.Message], newer: Newer, *, ours: bool) -> str:
    """Why it does not fit, "" when it does. What a server says is also to be spelled as servers spell it."""
    try:
        frame = json.loads(said)
        told = read(frame, kind, newer)
    except (ValueError, json_format.ParseError) as error:
        return f"{kind.DESCRIPTOR.name}: {error}: {said[:300]}"
    if ours:
        return ""
    for names in (False, True):
        meant = json_format.MessageToDict(told, preserving_proto_field_name=names)
        if astray := next(strayed(frame, meant), ""):
            return f"{kind.DESCRIPTOR.name}{astray}"
    return ""


def failed(said: dict[str, Any]) -> str:
    """An error is a google.rpc.Status; over HTTP with the venue's own code beside it (`description`).

    Details are of types that no contract of the venue has: all there is to see is that they name one.
    """
    details = said.get("details") or []
    try:
        plain = {name: value for name, value in said.items() if name not in ("description", "details")}
        json_format.ParseDict(plain, status_pb2.Status())
    except json_format.ParseError as error:
        return f"{error}: {said}"
    says = said.get("code") and said.get("message") and all("@type" in one for one in details)
    return "" if says else f"an error that says nothing: {said}"


def ended(said: dict[str, Any]) -> bool:
    """Is it the last frame of a stream that fails? The proxy's own, and no message of the contracts."""
    return bool(said.keys() & {"error", "code", "rpcStatus"}) and not said.keys() & {"subscription", "ping"}


def lines_of(script: str) -> list[bytes]:
    """All that a script of ours says."""
    command = [os.environ[OUR_PYTHON], "-m", script]
    return subprocess.run(command, stdout=subprocess.PIPE, timeout=100, check=True).stdout.splitlines()


async def converse(steps: Steps) -> None:
    async with steps("the contracts are compiled"):
        contracts, newer = Contracts(), Newer()
        assert len(newer.fields) == newer.count > 300, "every message was understood"
    session = list(map(json.loads, lines_of("tests.interop.tinvest_session")))
    known = [line for line in session if "NoService" not in line["method"]]

    def judge(kind: str, *, ours: bool) -> None:
        lines = [line for line in known if line["kind"] == kind and line.get("status", 200) == 200]
        assert lines, f"nothing was {kind}"
        reasons = dict[str, str]()
        for line in lines:
            said, name = json.loads(line["said"]), line["method"].rpartition("/")[2]
            if kind == "frame" and ended(said):
                continue
            reason = next(newer.misnamed(said, newer.methods[name][0 if ours else 1]), "")
            if messages := contracts.messages(line["method"]):
                reason = reason or wrong(line["said"], messages[0 if ours else 1], newer, ours=ours)
            if reason:
                reasons.setdefault(f"{name} {reason[:120]}", reason)
        assert not reasons, f"{len(reasons)} kinds of mistakes in {len(lines)}: " + " | ".join(reasons.values())

    async with steps("what we ask over HTTP"):
        judge("asked", ours=True)
    async with steps("what our simulator answers"):
        judge("answered", ours=False)
    async with steps("its errors"):
        errors = [line for line in session if line["kind"] == "answered" and line["status"] != 200]
        assert {line["status"] for line in errors} >= {400, 404}
        last = [json.loads(line["said"]) for line in known if line["kind"] == "frame"]
        last = [said.get("error", said) for said in last if ended(said)]
        assert last, "no stream failed"
        reasons = {failed(said) for said in [*(json.loads(line["said"]) for line in errors), *last]} - {""}
        assert not reasons, reasons
    async with steps("what we say on streams"):
        judge("request", ours=True)
    async with steps("what our simulator says there"):
        judge("frame", ours=False)
    async with steps("nothing was left out"):
        said = {(line["kind"], line["method"].removeprefix(f"{PACKAGE}.")) for line in known}
        asked = {method for kind, method in said if kind in ("asked", "request")}
        told = {method for kind, method in said if kind in ("answered", "frame")}
        assert asked == told, asked ^ told
        assert len(asked) == 27, sorted(asked)
        print("newer than the contracts themselves:", *sorted(newer.used), file=sys.stderr)


if __name__ == "__main__":
    json.load(sys.stdin)
    asyncio.run(converse(Steps("tinvest")))
