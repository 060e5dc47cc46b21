"""Does. The network between engine and venue, in memory: it takes its time, keeps the order of each connection, and
breaks in ways of its own beside the faults of the world."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence

import anyio
import httpx

from engine.core.orders import Command
from engine.core.venue import Call, Frame, Handshake, Response, Sent, Session
from engine.sim.world import DEAD_LINE, World
from engine.wire.stream import PLAIN, Closed, NotOpened, NotSent
from tests.simulation.life import Life
from tests.simulation.loop import VirtualClock, VirtualLoop
from tests.simulation.spoken import Spoken
from tests.simulation.trace import Trace

_SHORT_S, _LONG_S = 0.002, 0.03
_SLACK_MS = 1000


class Network:
    """All lines to one venue."""

    def __init__(
        self,
        world: World,
        loop: VirtualLoop,
        clock: VirtualClock,
        rng: random.Random,
        trace: Trace,
        on_send: Callable[[Sequence[Command]], None],
        idle_limit_s: float,
    ) -> None:
        """`on_send` is told the commands that leave the engine, before they leave."""
        self.world, self.loop, self.clock, self.rng, self.trace = world, loop, clock, rng, trace
        self.on_send, self.spoken, self._idle_limit_ms = on_send, Spoken(), round(idle_limit_s * 1000)
        self.lines: dict[Session, Line] = {}
        self.happened: Counter[str] = Counter()
        self.lossy_until_ms = self.shuffled_until_ms = 0
        """Until then, now and then, a push is lost, or overtaken by later ones."""
        self.torn_until_ms = 0
        """Until then, now and then, a write fails though its bytes may have left."""
        self.idle_closes: list[str] = []
        """Connections that the venue closed after it had heard nothing of us for as long as it bears."""

    def true_ms(self) -> int:
        return self.clock.true_ms()

    def delay_s(self) -> float:
        return self.rng.uniform(_SHORT_S, _LONG_S)

    def flush(self) -> None:
        """Carry what the venue has said."""
        for outgoing in self.world.drain(self.true_ms()):
            line = self.lines.get(outgoing.session)
            if line is None:
                if outgoing.sent is Sent.CLOSE:
                    self.world.gone(outgoing.session)
                continue
            match outgoing.sent:
                case Sent.FREEZE:
                    line.frozen = True
                case Sent.ABORT:
                    line.come(Closed(1006, ""))
                case Sent.CLOSE:
                    silent_ms = self.true_ms() - line.heard_ms
                    if silent_ms >= self._idle_limit_ms - _SLACK_MS:
                        self.idle_closes.append(f"{line.name}: closed with {outgoing.code} after {silent_ms} ms")
                    line.come(Closed(outgoing.code, outgoing.reason))
                case _:
                    frame = outgoing.frame.encode() if isinstance(outgoing.frame, str) else outgoing.frame
                    if outgoing.sent is Sent.PUSH:
                        self._push(line, frame)
                    else:
                        line.come(frame)

    def _push(self, line: Line, frame: bytes) -> None:
        now_ms = self.true_ms()
        if now_ms < self.lossy_until_ms and self.rng.random() < 0.2:
            self.happened["push_lost"] += 1
        elif now_ms < self.shuffled_until_ms and self.rng.random() < 0.3:
            self.happened["push_overtaken"] += 1
            self.loop.call_later(self.rng.uniform(0.05, 2.0), line.come, frame)
        else:
            line.come(frame)

    def tick(self) -> None:
        self.world.tick(self.true_ms())
        self.flush()

    def dialler(self, life: Life) -> Dialler:
        return Dialler(self, life)

    def forget(self, session: Session) -> None:
        if self.lines.pop(session, None) is not None:
            self.world.gone(session)


class Dialler:
    """The port `engine.wire.stream.Dial` of one life."""

    def __init__(self, network: Network, life: Life) -> None:
        self._network, self._life = network, life

    async def __call__(self, url: str, venue: str, handshake: Handshake = PLAIN) -> Line:
        network = self._network
        path = "/" + (url + handshake.suffix).split("://", 1)[1].partition("/")[2]
        await anyio.sleep(network.delay_s())
        headers = {name.lower(): value for name, value in handshake.headers}
        if handshake.subprotocols:
            headers["sec-websocket-protocol"] = ", ".join(handshake.subprotocols)
        call = Call(method="GET", target=path, headers=headers)
        session = network.world.accept(call, network.true_ms())
        network.trace.note("dial", f"{path} {session if isinstance(session, int) else 'open'}")
        if isinstance(session, int):
            await anyio.sleep(network.delay_s())
            raise NotOpened("refused" if session == DEAD_LINE else f"HTTP {session}", status=session)
        line = Line(network, self._life, session)
        network.lines[session] = line
        try:
            await anyio.sleep(network.delay_s())
        except BaseException:
            line.abort()
            raise
        return line


class Line:
    """The port `engine.wire.stream.Socket`: one connection, both ways in order."""

    def __init__(self, network: Network, life: Life, session: Session) -> None:
        self._network, self._life, self._session = network, life, session
        self.frozen = False
        self.opened_ms = self.moved_ms = self.heard_ms = network.true_ms()
        self._there: deque[tuple[float, Frame]] = deque()
        self._back: deque[tuple[float, bytes | Closed]] = deque()
        self._inbox: deque[bytes] = deque()
        self._ended: Closed | None = None
        self._woken = asyncio.Event()
        self._last_there_s = self._last_back_s = 0.0
        life.at_death.append(self._cut_by_death)

    @property
    def name(self) -> str:
        return f"{', '.join(self._session.accounts) or 'public'} since {self.opened_ms}"

    @property
    def session(self) -> Session:
        return self._session

    # ---- the engine's side

    async def recv(self) -> bytes:
        while not self._inbox:
            if self._ended is not None:
                raise self._ended
            self._woken.clear()
            await self._woken.wait()
        return self._inbox.popleft()

    def send(self, frame: Frame) -> None:
        network = self._network
        if self._life.dead:
            raise NotSent("dead", written=True)
        if self._ended is not None:
            raise NotSent("the socket is closing", written=False)
        if commands := network.spoken.commands(frame):
            network.on_send(commands)
            self._life.point("before send")
        torn = network.true_ms() < network.torn_until_ms and network.rng.random() < 0.2
        network.trace.note("there", frame)
        if not torn or network.rng.random() < 0.5:
            self._last_there_s = max(self._last_there_s, network.loop.now_s + network.delay_s())
            self._there.append((self._last_there_s, frame))
            network.loop.call_at(self._last_there_s, self._arrive)
        if torn:
            network.happened["torn_write"] += 1
            self.abort()
            raise NotSent("writing failed", written=True)
        self._life.point("after send")

    async def ping(self) -> None:
        await anyio.sleep(2 * self._network.delay_s())

    async def close(self) -> None:
        self.abort()
        await anyio.lowlevel.checkpoint()

    def abort(self) -> None:
        if self._ended is None:
            self._ended = Closed(1006, "")
            self._woken.set()
            self._hang_up()

    def _cut_by_death(self) -> None:
        if self._ended is None:
            self._ended = Closed(1006, "dead")
            self._hang_up()

    def _hang_up(self) -> None:
        """The venue learns of it after whatever was sent before."""
        self._last_there_s = max(self._last_there_s, self._network.loop.now_s + self._network.delay_s())
        self._network.loop.call_at(self._last_there_s + 0.001, self._network.forget, self._session)

    # ---- the venue's side

    def come(self, what: bytes | Closed) -> None:
        """The venue has said it; it is heard later."""
        if self.frozen and not isinstance(what, Closed):
            return
        network = self._network
        self._last_back_s = max(self._last_back_s, network.loop.now_s + network.delay_s())
        self._back.append((self._last_back_s, what))
        network.loop.call_at(self._last_back_s, self._hear)

    def _arrive(self) -> None:
        network = self._network
        while self._there and self._there[0][0] <= network.loop.now_s:
            frame = self._there.popleft()[1]
            if self._session not in network.lines:
                continue
            self.moved_ms = self.heard_ms = network.true_ms()
            network.world.hear(self._session, frame if isinstance(frame, bytes) else frame.encode(), self.moved_ms)
        network.flush()

    def _hear(self) -> None:
        network = self._network
        while self._back and self._back[0][0] <= network.loop.now_s:
            what = self._back.popleft()[1]
            self.moved_ms = network.true_ms()
            if isinstance(what, Closed):
                network.trace.note("back", f"{self.name} closed {what.code}")
                network.forget(self._session)
                if self._ended is None:
                    self._ended = what
            else:
                network.trace.note("back", what)
                self._inbox.append(what)
            self._woken.set()


class MemoryTransport(httpx.AsyncBaseTransport):
    """HTTP of one life."""

    def __init__(self, network: Network, life: Life) -> None:
        self._network, self._life = network, life

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        network, life = self._network, self._life
        if life.dead:
            raise httpx.ReadError("dead")
        body = request.content
        target = request.url.raw_path.decode()
        if commands := network.spoken.commands(body):
            network.on_send(commands)
            life.point("before post")
        network.trace.note("ask", f"{request.method} {target} {body.decode()}")
        limit_s = network.loop.now_s + float(request.extensions.get("timeout", {}).get("read") or 10.0)
        call = Call(
            method=request.method,
            target=target,
            headers={k.decode().lower(): v.decode() for k, v in request.headers.raw},
            body=body,
        )
        there_s = network.delay_s()
        if body:
            # What has left arrives, whatever becomes of who asked.
            arrived = asyncio.Event()
            told: list[tuple[Response | None, int]] = []

            def arrive() -> None:
                told.append(self._carry(call))
                arrived.set()

            network.loop.call_later(there_s, arrive)
            if commands:
                life.point("after post")
            await arrived.wait()
            response, due_ms = told[0]
        else:
            await anyio.sleep(there_s)
            response, due_ms = self._carry(call)
        wait_s = max(0.0, (due_ms - network.true_ms()) / 1000) + network.delay_s()
        if network.loop.now_s + wait_s > limit_s:
            await anyio.sleep(max(0.0, limit_s - network.loop.now_s))
            raise httpx.ReadTimeout("no answer in time")
        await anyio.sleep(wait_s)
        if response is None:
            network.trace.note("answer", "broken")
            raise httpx.ReadError("the connection broke")
        network.trace.note("answer", f"{response.status} " + response.body.decode("utf-8", "replace"))
        return httpx.Response(response.status, headers=dict(response.headers), content=response.body)

    def _carry(self, call: Call) -> tuple[Response | None, int]:
        network = self._network
        answer = network.world.call(call, network.true_ms())
        network.flush()
        return answer

    async def aclose(self) -> None: ...
