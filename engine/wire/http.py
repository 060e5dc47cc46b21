"""Does. HTTP: sends are attempted once; reads are repeated by policy. The only importer of httpx and tenacity."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy

import anyio
import httpx
import msgspec
import tenacity

from accounts.model import Credentials
from engine.core.instruments import Instrument
from engine.core.venue import (
    ACCESS_TOKEN,
    ErrorClass,
    Page,
    Priority,
    Read,
    Request,
    Response,
    Token,
    Venue,
    VenueError,
)
from engine.wire import rate, tls
from engine.wire.tokens import Issuer, Tokens
from scheduler import backoff
from scheduler.clock import Clock

_FIRST_RETRY_S, _LONGEST_RETRY_S = 0.25, 10.0
_LONGEST_PAUSE_S = 300.0
_MAX_PAGES = 10_000  # a walk that long goes in circles
_COMPARED_FOR_S = 900.0  # clocks drift: so long a comparison with the venue's is believed

_REPEATED = frozenset({ErrorClass.RATE, ErrorClass.RETRYABLE_READ, ErrorClass.UNKNOWN_OUTCOME})

# Raised before a byte of the request could leave.
_NOTHING_WRITTEN = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
    tls.InsecureEndpoint,
)


Transport = httpx.AsyncBaseTransport
"""What carries requests: the network, or what a test has in its place."""


Overhear = Callable[[str, str, Request, Response | None, str], None]
"""Venue, account, the request as it was signed, what came of it, and why nothing came."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where, and as whom, a venue is asked."""

    venue: Venue
    base_url: str
    account_id: str = ""  # "": nobody's; public reads
    credentials: Credentials | None = None
    login: str = ""  # the same for all accounts with the same credentials; tells nothing of them
    environment: str
    grant_url: str = ""  # where access tokens are issued, at a venue that has them
    options: Mapping[str, str] = {}


class NoAnswer(Exception):
    """No answer came. `written` false: provably not one byte of the request left us."""

    def __init__(self, reason: str, *, written: bool) -> None:
        super().__init__(reason)
        self.written = written


class _VenueTime(msgspec.Struct, frozen=True):
    """The venue's clock, held against our monotonic one, so that it stays right when our wall clock is set."""

    ahead_of_monotonic_ms: float
    uncertain_ms: float
    compared_s: float


class _NoInstruments:
    """Enough of a catalogue to ask for the time."""

    def by_name(self, name: str) -> Instrument | None:
        return None

    def listed(self) -> Collection[Instrument]:
        return ()


class Http:
    """One client per base URL; use as an async context manager."""

    def __init__(
        self,
        clock: Clock,
        budgets: rate.Budgets,
        rng: random.Random,
        *,
        timeout_s: float = 10.0,
        max_connections: int = 16,
        read_attempts: int = 5,
        ca_bundles: Mapping[str, str] | None = None,
        transport: Transport | None = None,
        overhear: Overhear | None = None,
    ) -> None:
        """`ca_bundles` by venue name, where not the system's; `transport` replaces the network in tests; `overhear` is
        told every exchange.
        """
        self._overhear = overhear
        self._clock, self._budgets, self._rng = clock, budgets, rng
        self._timeout_s, self._max_connections, self._read_attempts = timeout_s, max_connections, read_attempts
        self._ca_bundles, self._transport = dict(ca_bundles or {}), transport
        self._clients: dict[str, httpx.AsyncClient] = {}
        self._times: dict[tuple[str, str], _VenueTime] = {}
        self.tokens = Tokens(clock)

    async def __aenter__(self) -> Http:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()

    # ---- requests

    async def send(self, origin: Origin, request: Request, *, priority: Priority | None = None) -> Response:
        """One attempt, never repeated. Raises NoAnswer.

        With a priority, room in the request's budgets is waited for; without one the caller took it already.
        """
        if priority is not None:
            await self._budgets.take(self._ask(origin, request), priority, request.units)
        try:
            token = await self.token(origin) if request.signed else None
        except VenueError as error:
            raise NoAnswer(f"no access token: {error}", written=False) from error
        return await self._attempt(origin, request, token)

    async def read(self, origin: Origin, read: Read, *, priority: Priority) -> Page:
        """One page. Repeated by policy while that can help; then raises the last VenueError or NoAnswer."""
        clock_errors = token_errors = 0

        async def attempt() -> Page:
            nonlocal clock_errors, token_errors
            ask = self._ask(origin, read.request)
            await self._budgets.take(ask, priority)
            token = await self.token(origin) if read.request.signed else None
            response = await self._attempt(origin, read.request, token)
            try:
                return _page(read, response)
            except VenueError as error:
                if error.error_class is ErrorClass.RATE:
                    self._budgets.penalise(ask, _pause_s(ask, response))
                elif error.error_class is ErrorClass.CLOCK:
                    clock_errors += 1
                    if clock_errors == 1:
                        await self.compare_clocks(origin)
                elif error.error_class is ErrorClass.TOKEN:
                    token_errors += 1
                    self.tokens.refused(origin.login, token)
                raise

        def again(error: BaseException) -> bool:
            if isinstance(error, VenueError):
                once_more = (error.error_class is ErrorClass.CLOCK and clock_errors == 1) or (
                    error.error_class is ErrorClass.TOKEN and token_errors == 1
                )
                return once_more or error.error_class in _REPEATED
            return isinstance(error, NoAnswer)

        retrying = tenacity.AsyncRetrying(
            sleep=self._clock.sleep,
            stop=tenacity.stop_after_attempt(self._read_attempts),
            wait=self._wait_s,
            retry=tenacity.retry_if_exception(again),
            reraise=True,
        )
        return await retrying(attempt)

    async def walk(self, origin: Origin, read: Read, *, priority: Priority) -> AsyncIterator[Page]:
        """Page after page to the proven end. Raises like `read`; what was yielded before is then incomplete."""
        for _ in range(_MAX_PAGES):
            page = await self.read(origin, read, priority=priority)
            yield page
            if page.next is None:
                return
            if page.next.request == read.request:
                break
            read = page.next
        raise VenueError(ErrorClass.REFUSED, "endless", f"{read.request.path} does not come to an end")

    # ---- access tokens

    async def token(self, origin: Origin) -> Token | None:
        """The login's current access token; None where the venue has none. Raises VenueError or NoAnswer."""
        issuer = self.issuer(origin)
        return None if issuer is None else await self.tokens.current(issuer)

    def issuer(self, origin: Origin) -> Issuer | None:
        grant = origin.venue.grant
        if grant is None or origin.credentials is None:
            return None
        request = grant.request(origin.credentials, origin.options)
        asked = msgspec.structs.replace(origin, base_url=origin.grant_url)

        async def ask() -> Response:
            await self._budgets.take(self._ask(asked, request), Priority.LIVENESS)
            return await self._attempt(asked, request, None)

        return Issuer(login=origin.login, ask=ask, read=grant.read, renew_before_ms=grant.renew_before_ms)

    # ---- the venue's clock

    async def compare_clocks(self, origin: Origin) -> None:
        """Ask the venue for its time; signatures use it from then on. Raises VenueError or NoAnswer."""
        read = origin.venue.rest(_NoInstruments(), ref="", options=origin.options).server_time()
        await self._budgets.take(self._ask(origin, read.request), Priority.LIVENESS)
        token = await self.token(origin) if read.request.signed else None
        asked_s = self._clock.monotonic_s()
        page = _page(read, await self._attempt(origin, read.request, token))
        answered_s = self._clock.monotonic_s()
        assert page.server_time_ms is not None, "a read of the time tells the time"
        self._times[origin.venue.name, origin.environment] = _VenueTime(
            page.server_time_ms - (asked_s + answered_s) * 500,
            (answered_s - asked_s) * 500,
            answered_s,
        )

    async def know_time(self, origin: Origin) -> None:
        """From here on the venue's time is known, not guessed from our clock. Raises like `compare_clocks`."""
        if (origin.venue.name, origin.environment) not in self._times:
            await self.compare_clocks(origin)

    def venue_now_ms(self, venue: str, environment: str) -> int:
        """The venue's time as far as we know: our own until the clocks were compared."""
        time = self._times.get((venue, environment))
        if time is None:
            return self._clock.now_ms()
        return round(self._clock.monotonic_s() * 1000 + time.ahead_of_monotonic_ms)

    def clock_within(self, origin: Origin, tolerance_ms: float) -> bool:
        """Is our wall clock known to be that close to the venue's, as far as it tells its time at all?

        False also when nobody compared them lately.
        """
        time = self._times.get((origin.venue.name, origin.environment))
        if time is None or self._clock.monotonic_s() - time.compared_s > _COMPARED_FOR_S:
            return False
        apart_ms = abs(self.venue_now_ms(origin.venue.name, origin.environment) - self._clock.now_ms())
        return apart_ms + time.uncertain_ms <= tolerance_ms + origin.venue.capabilities.clock_resolution_ms

    # ---- one attempt

    async def _attempt(self, origin: Origin, request: Request, token: Token | None) -> Response:
        credentials = origin.credentials
        assert credentials is not None or not request.signed, "a signed request is somebody's"
        if token is not None and credentials is not None:
            credentials = credentials | {ACCESS_TOKEN: token.secret}
        now_ms = self.venue_now_ms(origin.venue.name, origin.environment)
        # Public requests too: they may have to say which environment they mean.
        request = origin.venue.sign(request, credentials, origin.environment, now_ms)
        try:
            client = self._client(origin)
            with anyio.fail_after(2 * self._timeout_s):  # the client's limits are for each step, not for all
                answer = await client.request(
                    request.method,
                    _url(origin.base_url, request.path),
                    content=request.body or None,
                    headers=request.headers,
                )
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, tls.InsecureEndpoint) as error:
            if self._overhear is not None:
                self._overhear(origin.venue.name, origin.account_id, request, None, _told(error))
            raise NoAnswer(_told(error), written=not isinstance(error, _NOTHING_WRITTEN)) from error
        response = Response(status=answer.status_code, body=answer.content, headers=answer.headers)
        if self._overhear is not None:
            self._overhear(origin.venue.name, origin.account_id, request, response, "")
        return response

    def _client(self, origin: Origin) -> httpx.AsyncClient:
        client = self._clients.get(origin.base_url)
        if client is None:
            ca_bundle = self._ca_bundles.get(origin.venue.name, "")
            client = self._clients[origin.base_url] = httpx.AsyncClient(
                verify=tls.context(origin.base_url, ca_bundle) or tls.trust(ca_bundle),
                http2=False,
                follow_redirects=False,
                trust_env=False,  # no proxy, no .netrc from outside
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # accounts share the client
                headers={"User-Agent": "unisono"},
                timeout=self._timeout_s,
                limits=httpx.Limits(
                    max_connections=self._max_connections, max_keepalive_connections=self._max_connections
                ),
                transport=self._transport,
            )
        return client

    def _ask(self, origin: Origin, request: Request) -> rate.Ask:
        rules = {rule.name: rule for rule in origin.venue.rates}
        return [
            rate.scope(rules[name], origin.venue.name, origin.account_id, request.rule_key, origin.login)
            for name in request.rules
        ]

    def _wait_s(self, state: tenacity.RetryCallState) -> float:
        return backoff.delay_s(
            state.attempt_number, first_s=_FIRST_RETRY_S, longest_s=_LONGEST_RETRY_S, chance=self._rng.random()
        )


def _page(read: Read, response: Response) -> Page:
    """The status goes first: in front of a venue stand machines that do not speak its dialect."""
    status = response.status
    if status == 429:
        raise VenueError(ErrorClass.RATE, "429", "too many requests")
    if status >= 500:
        raise VenueError(ErrorClass.RETRYABLE_READ, str(status), "the venue's server failed")
    if 300 <= status < 400:
        raise VenueError(ErrorClass.REFUSED, str(status), "redirects are not followed")
    try:
        return read.read(response)
    except VenueError:
        raise
    except Exception as error:
        raise VenueError(ErrorClass.RETRYABLE_READ, "unreadable", _told(error)) from error


def _url(base_url: str, path: str) -> httpx.URL:
    """The path goes out exactly as it was signed."""
    base, raw_path = httpx.URL(base_url), path.encode("ascii")
    url = base.copy_with(raw_path=base.raw_path.rstrip(b"/") + raw_path)
    if not url.raw_path.endswith(raw_path):
        raise httpx.InvalidURL(f"{path!r} would go out as {url.raw_path!r}")
    return url


def _pause_s(ask: rate.Ask, response: Response) -> float:
    """How long to leave the venue alone: as it asks, else until its longest window has passed."""
    asked = response.headers.get("Retry-After", "")
    if asked.isdecimal():
        return min(float(asked), _LONGEST_PAUSE_S)
    return max((rule.window_s for _, rule in ask), default=1.0)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
