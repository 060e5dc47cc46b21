"""Does. Serves the control door: HTTP on a Unix socket that only its owner may open."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Protocol

import msgspec
import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

log = structlog.get_logger("control")


class Office(Protocol):
    """What a running engine can be asked for. Every method raises `Rejected` with a sentence when it will not."""

    def status(self) -> Any: ...
    def connections(self) -> Any: ...
    def findings(self) -> Any: ...
    def prices(self, instrument: str) -> Any: ...
    def nav(self, accounts: list[str], groups: list[str], currency: str) -> Any: ...
    def positions(self, accounts: list[str]) -> Any: ...
    async def draft_plan(self, body: dict[str, Any]) -> Any: ...
    async def preview_plan(self, plan_id: str) -> Any: ...
    async def approve_plan(self, plan_id: str, by: str) -> Any: ...
    async def execute_plan(self, plan_id: str, by: str) -> Any: ...
    def watch_plan(self, plan_id: str) -> AsyncIterator[Any]: ...
    async def cancel_plan(self, plan_id: str, by: str) -> Any: ...
    async def amend_plan(self, plan_id: str, *, price: Decimal | None, factor: Decimal | None, by: str) -> Any: ...
    async def discard_plan(self, plan_id: str, by: str) -> Any: ...
    async def override_plan(
        self, plan_id: str, code: str, account_id: str, *, by: str, why: str, minutes: int
    ) -> Any: ...
    async def rebalance(self, model: Any, groups: list[str], accounts: list[str], *, currency: str, by: str) -> Any: ...
    async def deviations(
        self, group: str, against: str, *, hours: Decimal, band: Decimal, currency: str, by: str
    ) -> Any: ...
    async def backfill(self, accounts: list[str]) -> Any: ...
    def reconcile(self, accounts: list[str], kind: str) -> AsyncIterator[Any]: ...
    async def kill_on(self, scope: str, by: str, why: str, *, flat: bool = False) -> Any: ...
    async def kill_off(self, scope: str, by: str, why: str, *, accept: Sequence[str] = ()) -> Any: ...
    def kill_status(self) -> Any: ...
    async def accept_orphans(self, by: str, why: str) -> Any: ...
    async def settle_order(
        self, order_id: str, word: str, venue_order_id: str, *, by: str, why: str, unasked: bool, rehearse: bool
    ) -> Any: ...


class Rejected(Exception):
    """The engine will not: the sentence says what happened, what was not done and what to do next."""

    def __init__(self, message: str, code: str = "rejected") -> None:
        super().__init__(message)
        self.code = code


def application(office: Office) -> Starlette:
    """The routes; each body and answer is JSON, long work is one JSON object a line."""

    async def get_status(request: Request) -> Any:
        return office.status()

    async def get_connections(request: Request) -> Any:
        return office.connections()

    async def get_findings(request: Request) -> Any:
        return office.findings()

    async def post_plan(request: Request) -> Any:
        return await office.draft_plan(await _body(request))

    async def post_preview(request: Request) -> Any:
        return await office.preview_plan(request.path_params["plan_id"])

    async def post_approve(request: Request) -> Any:
        return await office.approve_plan(request.path_params["plan_id"], _text(await _body(request), "by"))

    async def post_execute(request: Request) -> Any:
        return await office.execute_plan(request.path_params["plan_id"], _text(await _body(request), "by"))

    async def get_progress(request: Request) -> Any:
        return office.watch_plan(request.path_params["plan_id"])

    async def post_cancel(request: Request) -> Any:
        return await office.cancel_plan(request.path_params["plan_id"], _text(await _body(request), "by"))

    async def post_amend(request: Request) -> Any:
        body = await _body(request)
        return await office.amend_plan(
            request.path_params["plan_id"],
            price=_decimal(body, "price"),
            factor=_decimal(body, "factor"),
            by=_text(body, "by"),
        )

    async def post_discard(request: Request) -> Any:
        return await office.discard_plan(request.path_params["plan_id"], _text(await _body(request), "by"))

    async def post_override(request: Request) -> Any:
        body = await _body(request)
        minutes = body.get("minutes")
        if not isinstance(minutes, int) or isinstance(minutes, bool):
            raise Rejected("minutes must be a whole number; nothing was done")
        return await office.override_plan(
            request.path_params["plan_id"],
            _text(body, "code"),
            str(body.get("account_id", "")),
            by=_text(body, "by"),
            why=_text(body, "why"),
            minutes=minutes,
        )

    async def post_rebalance(request: Request) -> Any:
        body = await _body(request)
        return await office.rebalance(
            body.get("model"),
            _texts(body, "groups"),
            _texts(body, "accounts"),
            currency=_text(body, "currency"),
            by=str(body.get("by", "")),
        )

    async def post_deviations(request: Request) -> Any:
        body = await _body(request)
        hours, band = _decimal(body, "hours"), _decimal(body, "band")
        return await office.deviations(
            _text(body, "group"),
            _text(body, "against"),
            hours=Decimal(24) if hours is None else hours,
            band=Decimal(1) if band is None else band,
            currency=_text(body, "currency"),
            by=str(body.get("by", "")),
        )

    async def post_backfill(request: Request) -> Any:
        return await office.backfill(_texts(await _body(request), "accounts"))

    async def post_reconcile(request: Request) -> Any:
        body = await _body(request)
        return office.reconcile(_texts(body, "accounts"), str(body.get("kind", "ADHOC")))

    async def get_prices(request: Request) -> Any:
        return office.prices(request.query_params.get("instrument", ""))

    async def get_nav(request: Request) -> Any:
        asked = request.query_params
        return office.nav(asked.getlist("account"), asked.getlist("group"), asked.get("currency", "USD"))

    async def post_positions(request: Request) -> Any:
        return office.positions(_texts(await _body(request), "accounts"))

    async def post_kill_on(request: Request) -> Any:
        body = await _body(request)
        flat = body.get("flat", False)
        if not isinstance(flat, bool):
            raise Rejected("flat must be true or false; nothing was changed")
        return await office.kill_on(_text(body, "scope"), _text(body, "by"), _text(body, "why"), flat=flat)

    async def post_kill_off(request: Request) -> Any:
        body = await _body(request)
        accept = _texts(body, "accept")
        return await office.kill_off(_text(body, "scope"), _text(body, "by"), _text(body, "why"), accept=accept)

    async def get_kill(request: Request) -> Any:
        return office.kill_status()

    async def post_accept(request: Request) -> Any:
        body = await _body(request)
        return await office.accept_orphans(_text(body, "by"), _text(body, "why"))

    async def post_settle(request: Request) -> Any:
        body = await _body(request)
        return await office.settle_order(
            _text(body, "order_id"),
            _text(body, "word"),
            str(body.get("venue_order_id", "")),
            by=_text(body, "by"),
            why=_text(body, "why"),
            unasked=body.get("unasked") is True,
            rehearse=body.get("rehearse") is True,
        )

    def get(path: str, verb: Callable[[Request], Awaitable[Any]]) -> Route:
        return Route(path, _answering(verb), methods=["GET"])

    def post(path: str, verb: Callable[[Request], Awaitable[Any]]) -> Route:
        return Route(path, _answering(verb), methods=["POST"])

    return Starlette(
        routes=[
            get("/status", get_status),
            get("/connections", get_connections),
            get("/findings", get_findings),
            get("/prices", get_prices),
            get("/nav", get_nav),
            post("/positions", post_positions),
            post("/plans", post_plan),
            post("/plans/{plan_id}/preview", post_preview),
            post("/plans/{plan_id}/approve", post_approve),
            post("/plans/{plan_id}/execute", post_execute),
            get("/plans/{plan_id}/progress", get_progress),
            post("/plans/{plan_id}/cancel", post_cancel),
            post("/plans/{plan_id}/amend", post_amend),
            post("/plans/{plan_id}/discard", post_discard),
            post("/plans/{plan_id}/override", post_override),
            post("/rebalance", post_rebalance),
            post("/deviations", post_deviations),
            post("/backfill", post_backfill),
            post("/reconcile", post_reconcile),
            get("/kill", get_kill),
            post("/kill/on", post_kill_on),
            post("/kill/off", post_kill_off),
            post("/orphans/accept", post_accept),
            post("/orders/settle", post_settle),
        ]
    )


async def serve(office: Office, path: str) -> None:
    """Until cancelled."""
    config = uvicorn.Config(application(office), log_config=None, lifespan="off", timeout_graceful_shutdown=2)
    door = listen(Path(path))
    try:
        await _Server(config).serve(sockets=[door])
    finally:
        door.close()


def listen(path: Path) -> socket.socket:
    """A listening Unix socket at `path`, its owner's alone from its first moment on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        door.bind(str(path))
    finally:
        os.umask(mask)
    door.listen(128)
    return door


class _Server(uvicorn.Server):
    """Signals belong to the engine: the door closes when the engine's task group ends."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _answering(verb: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            told = await verb(request)
        except Rejected as error:
            return _json({"error": str(error), "code": error.code}, 409)
        except Exception as error:
            log.exception("control_failed", path=request.url.path)
            return _json({"error": f"the engine failed at this: {error!r}. See its log", "code": "failed"}, 500)
        if hasattr(told, "__aiter__"):
            return StreamingResponse(_lines(told), media_type="application/x-ndjson")
        return _json(told)

    return answer


async def _lines(told: AsyncIterator[Any]) -> AsyncIterator[bytes]:
    try:
        async for value in told:
            yield msgspec.json.encode(value) + b"\n"
    except Rejected as error:
        yield msgspec.json.encode({"error": str(error), "code": error.code}) + b"\n"
    except Exception as error:
        log.exception("control_failed")
        yield msgspec.json.encode({"error": f"the engine failed at this: {error!r}", "code": "failed"}) + b"\n"


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json")


async def _body(request: Request) -> dict[str, Any]:
    raw = await request.body()
    try:
        body = msgspec.json.decode(raw) if raw else {}
    except msgspec.DecodeError:
        body = None
    if not isinstance(body, dict):
        raise Rejected("the request's body is not a JSON object; nothing was done", "bad-request")
    return body


def _text(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not value:
        raise Rejected(f"the request lacks {key!r}; nothing was done", "bad-request")
    return value


def _texts(body: dict[str, Any], key: str) -> list[str]:
    value = body.get(key) or []
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise Rejected(f"{key!r} is a list of texts; nothing was done", "bad-request")
    return value


def _decimal(body: dict[str, Any], key: str) -> Decimal | None:
    value = body.get(key)
    if value is None:
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        raise Rejected(f"{key!r} is no number: {value!r}; nothing was done", "bad-request")
    return number
