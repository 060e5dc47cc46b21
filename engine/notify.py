"""Does. Tells systemd how the engine is: READY, STATUS, WATCHDOG, STOPPING. Silent where no systemd asks."""

from __future__ import annotations

import os
import socket


class Notifier:
    """The sd_notify protocol: one datagram a message to the socket that systemd names in NOTIFY_SOCKET."""

    def __init__(self, address: str | None = None) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "") if address is None else address
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def ready(self, status: str) -> None:
        self._tell(f"READY=1\nSTATUS={status}")

    def alive(self, status: str) -> None:
        """Feeds the watchdog: called only after progress was proven, never from a bare timer."""
        self._tell(f"WATCHDOG=1\nSTATUS={status}")

    def stopping(self) -> None:
        self._tell("STOPPING=1\nSTATUS=stopping: no new orders, waiting for answers on their way")

    def _tell(self, message: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as door:
            door.setblocking(False)
            try:
                door.sendto(message.encode(), self._address)
            except OSError:
                return  # systemd not listening must never stop the engine
