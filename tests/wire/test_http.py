"""HTTP against a transport that plays the venue: what is repeated, what never."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import anyio
import httpx
import msgspec
import pytest

from accounts.model import Credentials, Secret
from engine.core.orders import OrderType
from engine.core.venue import (
    Capabilities,
    Catalogue,
    Dedupe,
    ErrorClass,
    Page,
    Priority,
    RateRule,
    Read,
    Request,
    Response,
    Rest,
    Transport,
    Venue,
    VenueError,
)
from engine.wire.http import Http, NoAnswer, Origin
from engine.wire.rate import Budgets
from tests.fakes import FakeClock

pytestmark = pytest.mark.anyio

RULE = RateRule(name="reads", limit=10, window_s=2.0, scope="account")
URL = "http://127.0.0.1:1"
Answer = httpx.Response | Exception


class VenueTime:
    """Enough of a REST dialect: the time, from the body."""

    def server_time(self) -> Read:
        return Read(
            request=Request(method="GET", path="/time", signed=False, rules=("reads",)),
            read=lambda response: Page(server_time_ms=int(response.body)),
        )


def sign(request: Request, credentials: Credentials, environment: str, now_ms: int) -> Request:
    signature = f"{credentials['key'].reveal()}@{now_ms}"
    return msgspec.structs.replace(request, headers=(*request.headers, ("X-Sign", signature)))


def rest(catalogue: Catalogue, *, ref: str, options: Mapping[str, str]) -> Rest:
    return VenueTime()  # type: ignore[return-value]


VENUE = Venue(
    name="v",
    title="A venue",
    places=(),
    endpoints=(),
    credential_fields=("key",),
    capabilities=Capabilities(
        order_types=frozenset(OrderType),
        orders_over=Transport.HTTP,
        dedupe=Dedupe.NONE,
        lookup_by_client_id=True,
        request_expiry_ms=None,
        max_read_lag_ms=0,
        fills_history_ms=0,
        idle_limit_s=30,
    ),
    rates=(RULE,),
    opens=RateRule(name="opens", limit=3, window_s=1.0, scope="address"),
    converse=lambda **_: pytest.fail("nobody talks here"),
    rest=rest,
    sign=sign,
    render_order_id=str,
    owns_order_id=lambda _: True,
)
ORIGIN = Origin(venue=VENUE, base_url=URL, account_id="acc", credentials={"key": Secret("k")}, environment="demo")


class Wire(httpx.AsyncBaseTransport):
    """Answers as told, one after the other; the last answer is repeated."""

    def __init__(self, *answers: Answer) -> None:
        self.answers, self.asked = list(answers), list[httpx.Request]()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, content=answer.content, headers=answer.headers)


def ok(body: str = "ok", status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, text=body, headers={k.replace("_", "-"): v for k, v in headers.items()})


def http(clock: FakeClock, wire: Wire, *, attempts: int = 5) -> Http:
    return Http(clock, Budgets(clock), random.Random(7), read_attempts=attempts, transport=wire)


def reading(read: Callable[[Response], Page] = lambda response: Page(), path: str = "/x") -> Read:
    return Read(request=Request(method="GET", path=path, rules=("reads",)), read=read)


def failing(error_class: ErrorClass, times: int = 1_000) -> Read:
    """A read whose first answers the dialect calls an error of this class."""
    left = [times]

    def read(response: Response) -> Page:
        left[0] -= 1
        if left[0] >= 0:
            raise VenueError(error_class, "1", "no")
        return Page()

    return reading(read)


async def outcome(clock: FakeClock, http: Http, read: Read, priority: Priority = Priority.HISTORY) -> object:
    """What the read ended in, with the clock moved as far as it needs."""
    ended: list[object] = []

    async def run() -> None:
        try:
            ended.append(await http.read(ORIGIN, read, priority=priority))
        except (VenueError, NoAnswer) as error:
            ended.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        for _ in range(600):
            await clock.advance(0.1)
            if ended:
                break
        group.cancel_scope.cancel()
    return ended[0]


# ---- sends


async def test_what_is_signed_goes_out_byte_for_byte(clock: FakeClock) -> None:
    wire = Wire(ok("yes", 201, X_Seen="1"))
    path = "/api/v5/x?instId=BTC-USDT&list=a%2Cb,c&q=%7B%22a%22:1%7D"
    async with http(clock, wire) as client:
        response = await client.send(ORIGIN, Request(method="POST", path=path, body=b'{"a": 1}'))
    asked = wire.asked[0]
    assert (asked.method, asked.url.raw_path.decode(), asked.content) == ("POST", path, b'{"a": 1}')
    assert asked.headers["X-Sign"] == f"k@{clock.now_ms()}"
    assert (response.status, response.body, response.headers["x-seen"]) == (201, b"yes", "1")


async def test_a_path_that_would_be_changed_on_its_way_is_not_sent(clock: FakeClock) -> None:
    wire = Wire(ok())
    async with http(clock, wire) as client:
        with pytest.raises(NoAnswer) as error:
            await client.send(ORIGIN, Request(method="GET", path="/x?a=b c"))
    assert not error.value.written
    assert wire.asked == []


@pytest.mark.parametrize(
    ("failure", "written"),
    [
        (httpx.ConnectError("refused"), False),
        (httpx.ConnectTimeout("slow"), False),
        (httpx.PoolTimeout("busy"), False),
        (httpx.ReadTimeout("slow"), True),
        (httpx.WriteError("reset"), True),
        (httpx.WriteTimeout("slow"), True),
        (httpx.ReadError("reset"), True),
        (httpx.RemoteProtocolError("gone"), True),
    ],
)
async def test_a_send_is_attempted_once_and_says_whether_it_may_have_left(
    clock: FakeClock, failure: Exception, written: bool
) -> None:
    wire = Wire(failure)
    async with http(clock, wire) as client:
        with pytest.raises(NoAnswer) as error:
            await client.send(ORIGIN, Request(method="POST", path="/order"))
    assert error.value.written is written
    assert len(wire.asked) == 1


async def test_a_failed_send_is_an_answer_and_not_repeated(clock: FakeClock) -> None:
    wire = Wire(ok("busy", 503))
    async with http(clock, wire) as client:
        assert (await client.send(ORIGIN, Request(method="POST", path="/order"))).status == 503
    assert len(wire.asked) == 1


async def test_redirects_are_not_followed_and_cookies_not_kept(clock: FakeClock) -> None:
    wire = Wire(ok("", 302, Location="https://elsewhere.example", Set_Cookie="session=acc; Path=/"))
    async with http(clock, wire) as client:
        for _ in range(2):
            assert (await client.send(ORIGIN, Request(method="GET", path="/x"))).status == 302
    assert [str(r.url) for r in wire.asked] == [f"{URL}/x"] * 2
    assert "Cookie" not in wire.asked[1].headers


async def test_plain_to_a_host_that_is_not_loopback_is_not_sent(clock: FakeClock) -> None:
    wire = Wire(ok())
    async with http(clock, wire) as client:
        with pytest.raises(NoAnswer, match="loopback only") as error:
            await client.send(
                msgspec.structs.replace(ORIGIN, base_url="http://venue.example"), Request(method="GET", path="/x")
            )
    assert not error.value.written
    assert wire.asked == []


# ---- reads


@pytest.mark.parametrize(
    "first",
    [ok("", 502), ok("", 429), httpx.ReadTimeout("slow"), httpx.ConnectError("refused"), ok("", 503)],
    ids=["502", "429", "timeout", "connect", "503"],
)
async def test_a_read_is_repeated_while_that_can_help(clock: FakeClock, first: Answer) -> None:
    wire = Wire(first, first, ok())
    async with http(clock, wire) as client:
        assert isinstance(await outcome(clock, client, reading()), Page)
    assert len(wire.asked) == 3
    assert len({r.headers["X-Sign"] for r in wire.asked}) == 3, "each attempt is signed anew"


@pytest.mark.parametrize(
    ("error_class", "attempts"),
    [
        (ErrorClass.RETRYABLE_READ, 4),
        (ErrorClass.RATE, 4),
        (ErrorClass.UNKNOWN_OUTCOME, 4),
        (ErrorClass.AUTH, 1),
        (ErrorClass.TOKEN, 2),
        (ErrorClass.REFUSED, 1),
        (ErrorClass.NOT_FOUND, 1),
        (ErrorClass.TARGET_GONE, 1),
    ],
)
async def test_each_error_class_is_repeated_as_the_policy_says(
    clock: FakeClock, error_class: ErrorClass, attempts: int
) -> None:
    wire = Wire(ok())
    async with http(clock, wire, attempts=4) as client:
        error = await outcome(clock, client, failing(error_class))
    assert isinstance(error, VenueError)
    assert error.error_class is error_class
    assert len(wire.asked) == attempts


async def test_an_answer_that_the_dialect_stumbles_over_is_repeated_and_then_an_error(clock: FakeClock) -> None:
    def stumble(response: Response) -> Page:
        raise KeyError("data")

    wire = Wire(ok("<html>"))
    async with http(clock, wire, attempts=2) as client:
        error = await outcome(clock, client, reading(stumble))
    assert isinstance(error, VenueError)
    assert error.code == "unreadable"
    assert len(wire.asked) == 2


@pytest.mark.parametrize(("asks_for", "pause_s"), [({}, 2.0), ({"Retry_After": "9"}, 9.0)])
async def test_too_many_requests_stops_the_bucket_for_everybody(
    clock: FakeClock, asks_for: dict[str, str], pause_s: float
) -> None:
    wire = Wire(ok("", 429, **asks_for), ok())
    async with http(clock, wire) as client:
        started_s = clock.monotonic_s()
        async with anyio.create_task_group() as group:
            group.start_soon(outcome, clock, client, reading())
        assert clock.monotonic_s() - started_s == pytest.approx(pause_s, abs=0.3)


async def test_an_expired_signature_sets_the_clock_and_is_tried_once_more(clock: FakeClock) -> None:
    venue_ms = clock.now_ms() + 40_000
    wire = Wire(ok(), ok(str(venue_ms)), ok())
    async with http(clock, wire) as client:
        assert isinstance(await outcome(clock, client, failing(ErrorClass.CLOCK, times=1)), Page)
        stamp_ms = int(wire.asked[2].headers["X-Sign"].removeprefix("k@"))
        assert stamp_ms - venue_ms == pytest.approx(0, abs=300)
    assert [r.url.path for r in wire.asked] == ["/x", "/time", "/x"]


async def test_a_second_expired_signature_is_an_error(clock: FakeClock) -> None:
    wire = Wire(ok(str(clock.now_ms())))
    async with http(clock, wire) as client:
        error = await outcome(clock, client, failing(ErrorClass.CLOCK))
    assert isinstance(error, VenueError)
    assert [r.url.path for r in wire.asked] == ["/x", "/time", "/x"]


async def test_reads_keep_within_the_budget(clock: FakeClock) -> None:
    wire, done = Wire(ok()), list[int]()
    async with http(clock, wire) as client, anyio.create_task_group() as group:
        for number in range(16):

            async def one(number: int = number) -> None:
                await client.read(ORIGIN, reading(), priority=Priority.PLACE)
                done.append(number)

            group.start_soon(one)
        await clock.advance(1.9)
        assert len(done) == 8, "80 % of 10 in 2 s"
        await clock.advance(0.2)
        assert len(done) == 16


# ---- walks


async def test_a_walk_goes_on_to_the_proven_end(clock: FakeClock) -> None:
    def page(number: int) -> Read:
        following = page(number + 1) if number < 3 else None
        return reading(lambda response: Page(next=following), path=f"/x?page={number}")

    wire = Wire(ok())
    async with http(clock, wire) as client:
        pages = [p async for p in client.walk(ORIGIN, page(1), priority=Priority.PLACE)]
    assert [r.url.raw_path for r in wire.asked] == [b"/x?page=1", b"/x?page=2", b"/x?page=3"]
    assert [p.next is None for p in pages] == [False, False, True]


async def test_a_walk_that_stands_still_is_an_error_and_no_end(clock: FakeClock) -> None:
    again: list[Read] = []
    again.append(reading(lambda response: Page(next=again[0])))
    wire = Wire(ok())
    async with http(clock, wire) as client:
        with pytest.raises(VenueError, match="end"):
            [p async for p in client.walk(ORIGIN, again[0], priority=Priority.PLACE)]
    assert len(wire.asked) == 1


# ---- the venue's clock


async def test_our_clock_is_not_known_to_be_right_before_it_was_compared_nor_long_after(clock: FakeClock) -> None:
    wire = Wire(ok(str(clock.now_ms() + 300)))
    async with http(clock, wire) as client:
        assert not client.clock_within(ORIGIN, 500)
        await client.compare_clocks(ORIGIN)
        assert client.clock_within(ORIGIN, 500)
        assert not client.clock_within(ORIGIN, 200)
        await clock.advance(901)
        assert not client.clock_within(ORIGIN, 500)


async def test_a_slow_comparison_is_a_vague_one(clock: FakeClock) -> None:
    class Slow(Wire):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await clock.sleep(1.0)
            return await super().handle_async_request(request)

    async with http(clock, Slow(ok(str(clock.now_ms() + 500)))) as client, anyio.create_task_group() as group:
        group.start_soon(client.compare_clocks, ORIGIN)
        await clock.advance(1.0)
        assert not client.clock_within(ORIGIN, 400)
        assert client.clock_within(ORIGIN, 600)


async def test_setting_our_wall_clock_does_not_move_the_venues(clock: FakeClock) -> None:
    wire = Wire(ok(str(clock.now_ms())))
    async with http(clock, wire) as client:
        await client.compare_clocks(ORIGIN)
        before_ms = client.venue_now_ms("v", "demo")
        clock.shift(-60_000)
        assert client.venue_now_ms("v", "demo") == before_ms
        assert not client.clock_within(ORIGIN, 500)
