"""Does. Speaks to a running engine over its Unix socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

_TIMEOUT = httpx.Timeout(60.0, connect=3.0)
_STREAM_TIMEOUT = httpx.Timeout(300.0, connect=3.0)


class NoEngine(Exception):
    """Nobody answers on the control socket."""


class ControlError(Exception):
    """The engine answered with an error: what happened, what was not done, what to do next."""

    def __init__(self, message: str, code: str = "error") -> None:
        super().__init__(message)
        self.code = code


class Control:
    """One client per command. `path` starts with '/'; answers are parsed JSON."""

    def __init__(self, path: str | Path) -> None:
        self._socket = str(path)
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=self._socket, verify=False),  # no TLS there, and 95 ms saved
            base_url="http://engine",
            timeout=_TIMEOUT,
        )

    def get(self, path: str) -> Any:
        return self._ask("GET", path, None)

    def post(self, path: str, body: Any = None) -> Any:
        return self._ask("POST", path, {} if body is None else body)

    def stream(self, path: str, body: Any = None) -> Iterator[dict[str, Any]]:
        """One JSON object a line, as they come. GET without a body, POST with one."""
        method = "GET" if body is None else "POST"
        self._check_door()
        try:
            with self._http.stream(method, path, json=body, timeout=_STREAM_TIMEOUT) as response:
                if response.status_code >= 400:
                    response.read()
                    raise _error_of(response)
                for line in response.iter_lines():
                    if line:
                        told = json.loads(line)
                        if "error" in told:
                            raise ControlError(told["error"], told.get("code", "error"))
                        yield told
        except httpx.TransportError as error:
            raise self._no_engine(error) from None

    def alive(self) -> bool:
        try:
            self.get("/status")
        except (NoEngine, ControlError):
            return False
        return True

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Control:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _ask(self, method: str, path: str, body: Any) -> Any:
        self._check_door()
        try:
            response = self._http.request(method, path, json=body)
        except httpx.TransportError as error:
            raise self._no_engine(error) from None
        if response.status_code >= 400:
            raise _error_of(response)
        return response.json()

    def _check_door(self) -> None:
        """Knock first: the HTTP library leaks its socket when nobody opens."""
        with socket.socket(socket.AF_UNIX) as knock:
            knock.settimeout(3.0)
            try:
                knock.connect(self._socket)
            except OSError:
                raise NoEngine(
                    f"no engine answers on {self._socket}; nothing was done. Start it with: unisono run "
                    "(or name its configuration with --config)"
                ) from None

    def _no_engine(self, error: httpx.TransportError) -> NoEngine:
        return NoEngine(
            f"the engine on {self._socket} stopped answering ({type(error).__name__}); whether it did what was asked "
            "is not known. Look with: unisono doctor"
        )


def _error_of(response: httpx.Response) -> ControlError:
    try:
        told = response.json()
        return ControlError(told["error"], told.get("code", "error"))
    except (ValueError, KeyError, TypeError):
        return ControlError(f"the engine answered {response.status_code} without saying why", "error")
