"""Holds. The contract of a venue: what a folder in `engine/venues/` gives, and what it may ask for.

A venue is a translator. Nothing in its folder opens a socket, reads a clock or knows an account: bytes and times
come in, values go out. `VENUE` in the folder's `__init__` is all that the engine knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Protocol

import msgspec

from accounts.model import Credentials, Listener
from engine.core.facts import Fact
from engine.core.instruments import Instrument
from engine.core.matching import Exchange
from engine.core.orders import Command, OrderType, Outcome

Frame = str | bytes
"""One WebSocket message. str goes out as a text frame, bytes as a binary one; what comes in is always bytes."""


# ---- What a venue declares


class Transport(StrEnum):
    STREAM = "stream"
    HTTP = "http"


class EndpointKind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of connection and what a new row of it looks like."""

    name: str
    transport: Transport
    listener: Listener
    requires_auth: bool
    channels: tuple[str, ...] = ()
    optional: bool = False  # made only when asked for
    carries_orders: bool = False  # orders over the stream go out here
    carries_facts: bool = False  # an account's orders and fills arrive here: its loss opens a gap


class Priority(IntEnum):
    """Who goes first when a limit is short; the lower number wins."""

    RISK = 0  # cancels, kill switch
    PLACE = 1
    RESOLVE = 2  # what became of an unknown order
    LIVENESS = 3  # logins, opens
    STATEMENT = 4
    HISTORY = 5
    REPORT = 6


class RateRule(msgspec.Struct, frozen=True, kw_only=True):
    """`limit` requests in any `window_s` seconds, counted per `scope`: "account", "account_instrument", "address"."""

    name: str
    limit: int
    window_s: float
    scope: str


class Dedupe(StrEnum):
    """What the venue does with a client order id that it has seen before."""

    DURABLE = "durable"
    OPEN_ONLY = "open_only"  # unique among open orders only: a blind resend can execute twice
    RESPONSE_CACHE = "response_cache"
    NONE = "none"


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine may ask of the venue. The engine asks this, never the venue's name."""

    order_types: frozenset[OrderType]
    orders_over: Transport  # chosen before an order is sent and never switched after
    dedupe: Dedupe
    lookup_by_client_id: bool
    request_expiry_ms: int | None  # how long a placement stays valid when we set its expiry; None: no such thing
    max_read_lag_ms: int  # how far its reads may stand behind its stream
    fills_history_ms: int  # how far back fills can be read
    idle_limit_s: float  # the venue drops a connection that was silent for so long
    max_batch: int = 1


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """URLs of one site and environment by endpoint kind. Each may be overridden per connection row."""

    site: str
    environment: str
    urls: Mapping[str, str]


# ---- Calls described, then made elsewhere


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request, described. `path` holds the exact query string; `rules` name the limits it counts against."""

    method: str
    path: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    rules: tuple[str, ...] = ()
    rule_key: str = ""  # what a per-instrument rule is counted by
    units: int = 1  # how much of each rule it takes: a batch counts its orders
    signed: bool = True


class Response(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    body: bytes
    headers: Mapping[str, str] = {}


class ErrorClass(StrEnum):
    """What an answer that is not a success means for the caller."""

    REFUSED = "refused"  # definite: not done, do not repeat unchanged
    RATE = "rate"  # not done: too fast
    AUTH = "auth"  # not done: this key will not do; a person is needed
    CLOCK = "clock"  # not done: our time is off; set it and try once more
    UNKNOWN_OUTCOME = "unknown_outcome"  # may have been done
    RETRYABLE_READ = "retryable_read"  # a read that may be tried again
    NOT_FOUND = "not_found"  # the venue answered: there is no such thing
    TARGET_GONE = "target_gone"  # of a cancel or amend: not at work any more


class VenueError(Exception):
    """The venue answered a read, or a login, with an error."""

    def __init__(self, error_class: ErrorClass, code: str, message: str) -> None:
        super().__init__(f"{error_class.value} {code}: {message}")
        self.error_class, self.code, self.message = error_class, code, message


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who the venue says the key belongs to, and what it may do."""

    venue_ref: str
    may_trade: bool
    may_withdraw: bool
    address_bound: bool  # the key is tied to a list of IP addresses
    account_mode: str = ""
    hedged: bool = False  # long and short positions side by side: orders need a position side
    spot_margin_mode: str = "cash"  # how a spot order is paid in an account of this mode


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """What one answer of a walk through history held. `next is None` is the proven end of the walk."""

    facts: tuple[Fact, ...] = ()
    instruments: tuple[Instrument, ...] = ()
    identity: Identity | None = None
    server_time_ms: int | None = None
    next: Read | None = None


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """A read described: the request, and how to read its answer. `read` raises VenueError."""

    request: Request
    read: Callable[[Response], Page]


# ---- Conversations: one per connection, sans I/O


class Notice(StrEnum):
    READY = "ready"  # logged in where needed and every channel acknowledged
    PONG = "pong"
    AUTH_REFUSED = "auth_refused"  # the key will not do; do not reconnect
    REFUSED = "refused"  # a channel or request was refused; the link goes on
    RETRY = "retry"  # close and come back later (venue busy)
    CLOSING_SOON = "closing_soon"  # open a replacement first, then close this one
    CHANNEL_LOST = "channel_lost"  # a channel is not delivered here any more, though the connection lives
    UNREADABLE = "unreadable"  # nobody could read this frame; quarantine it
    INFO = "info"


class Said(msgspec.Struct, frozen=True):
    """Something a connection said that is not a fact."""

    notice: Notice
    detail: str = ""
    code: str = ""


class Reply(msgspec.Struct, frozen=True):
    """The answer to one `say`: outcomes in the order of its commands."""

    request_id: str
    outcomes: tuple[Outcome, ...]


class Heard(msgspec.Struct):
    """What one frame held. Most frames hold only facts, so the other fields are empty tuples by default."""

    facts: Sequence[Fact] = ()
    channel: str = ""  # the channel the facts came on
    replies: Sequence[Reply] = ()
    said: Sequence[Said] = ()
    frames: Sequence[Frame] = ()  # to be sent back now
    instruments: Sequence[Instrument] = ()  # new or changed ones


class Conversation(Protocol):
    """One connection's side of the talk, sans I/O. Times are wall milliseconds."""

    def open(self, now_ms: int) -> Sequence[Frame]:
        """What to send once the socket is open."""

    def hear(self, frame: bytes, now_ms: int) -> Heard:
        """Read one incoming message. Never raises for what the venue sent: what cannot be read is said UNREADABLE."""

    def beat(self, now_ms: int) -> Sequence[Frame]:
        """A ping in the venue's own manner; empty where a protocol ping is to be used."""

    def say(self, commands: Sequence[Command], request_id: str, now_ms: int) -> Frame:
        """Orders over the stream: commands of one kind, at most `max_batch`, answered by a Reply with that id."""

    def closed(self, code: int, reason: str) -> Said | None:
        """What a close frame means, when it means more than 'come back'."""


class Rest(Protocol):
    """The venue over HTTP. Every method describes; nobody sends here. Times are wall milliseconds, inclusive."""

    def server_time(self) -> Read: ...
    def identity(self) -> Read: ...
    def instruments(self) -> Sequence[Read]: ...
    def marks(self) -> Sequence[Read]: ...

    def fills(self, since_ms: int, now_ms: int) -> Sequence[Read]:
        """Walks that together hold every fill recorded at or after `since_ms`."""

    def orders(self, since_ms: int, now_ms: int) -> Sequence[Read]:
        """Walks over ended orders created at or after `since_ms`."""

    def open_orders(self) -> Sequence[Read]: ...

    def order(self, instrument: Instrument, client_order_id: str, venue_order_id: str) -> Read:
        """One order by either id; its `read` raises VenueError NOT_FOUND when the venue has none."""

    def statement(self) -> Sequence[Read]:
        """Positions, balances and equity: complete, what is absent is zero."""

    def cash(self, since_ms: int, now_ms: int) -> Sequence[Read]:
        """Walks over cash movements booked at or after `since_ms`."""

    def orders_request(self, commands: Sequence[Command]) -> Request:
        """The same orders over HTTP: commands of one kind."""

    def read_outcomes(self, commands: Sequence[Command], response: Response) -> tuple[Outcome, ...]: ...


class Signer(Protocol):
    """Gives a request the headers of its environment, and its signature where `request.signed`.

    Called for every request: public ones too may have to say which environment they mean. ValueError where a
    signed request has no credentials.
    """

    def __call__(self, request: Request, credentials: Credentials | None, environment: str, now_ms: int) -> Request: ...


class Catalogue(Protocol):
    """Instruments of one venue and environment by our name; filled by the engine, asked by dialects."""

    def by_name(self, name: str) -> Instrument | None: ...


class Converse(Protocol):
    """Makes the conversation of a new connection."""

    def __call__(
        self,
        *,
        kind: str,
        channels: Sequence[str],
        credentials: Credentials | None,
        environment: str,
        catalogue: Catalogue,
        options: Mapping[str, str],
    ) -> Conversation: ...


class Venue(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the engine knows of a venue."""

    name: str
    title: str
    places: tuple[Places, ...]
    endpoints: tuple[EndpointKind, ...]
    credential_fields: tuple[str, ...]
    capabilities: Capabilities
    rates: tuple[RateRule, ...]
    opens: RateRule  # how many connections may be opened per address
    converse: Converse
    rest: Callable[[Catalogue], Rest]
    sign: Signer
    render_order_id: Callable[[int], str]  # a 128-bit identity in the venue's alphabet and length
    owns_order_id: Callable[[str], bool]  # could this client order id be one of ours?
    options: Mapping[str, str] = {}  # settings for what the dossier leaves unconfirmed, with their defaults
    default_fee_rate: Decimal = Decimal(0)  # for estimates in previews, as a fraction of notional

    def endpoint(self, kind: str) -> EndpointKind:
        return next(e for e in self.endpoints if e.name == kind)

    def url(self, site: str, environment: str, kind: str) -> str:
        """The venue's own URL of an endpoint; KeyError names what is not known."""
        for places in self.places:
            if (places.site, places.environment) == (site, environment):
                return places.urls[kind]
        raise KeyError(f"{self.name} has no {environment} environment on its site {site}")


# ---- The other side: what the venue's server says, sans I/O. `engine.sim` serves it over real sockets.


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request as a server receives it. `target` is the path with its exact query string."""

    method: str
    target: str
    headers: Mapping[str, str] = {}  # names in lower case
    body: bytes = b""
    peer: str = "127.0.0.1"


class Sent(StrEnum):
    """What a front sends, so that a fault can stop pushes and let pongs through."""

    PUSH = "push"
    REPLY = "reply"
    PONG = "pong"
    SAID = "said"  # acknowledgements, notices, errors
    CLOSE = "close"
    ABORT = "abort"  # the connection breaks without a close frame
    FREEZE = "freeze"  # it stays open, and nothing is read from it or written to it any more


class Session(Protocol):
    """One accepted WebSocket at the venue."""

    account: str  # its name once logged in, "" before

    def hear(self, frame: bytes, now_ms: int) -> None: ...

    def gone(self) -> None:
        """The client's side is closed or lost."""


class Outgoing(msgspec.Struct, frozen=True):
    session: Session
    sent: Sent
    frame: Frame = ""
    code: int = 0  # of a close
    reason: str = ""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Something that goes wrong on command. What `by_ms`, `code` and `what` mean depends on the kind."""

    kind: str
    by_ms: int = 0
    code: str = ""
    what: str = ""


class Faults(Protocol):
    def strikes(self, kind: str, account: str, now_ms: int) -> Fault | None:
        """Does it go wrong here and now? Each yes is counted as one time that it really happened."""


class Quoted(msgspec.Struct, frozen=True, kw_only=True):
    """How a simulated market quotes a symbol."""

    symbol: str
    path: str  # symbols with the same path move together
    start: Decimal
    tick: Decimal
    depth: Decimal  # quantity per price level
    lot: Decimal


class Front(Protocol):
    """A venue's server. Everything follows from the seed it was made with and the times it is given (wall ms)."""

    exchange: Exchange
    quoted: Sequence[Quoted]
    paths: Mapping[str, str]  # name of a WebSocket URL in the simulator's JSON line -> its path

    def accounts(self) -> Sequence[Mapping[str, str]]:
        """Of each account: name, and its credentials by the dialect's field names."""

    def accept(self, path: str, peer: str, now_ms: int) -> Session | int:
        """A WebSocket wants in; an int is the HTTP status of a refusal."""

    def call(self, call: Call, now_ms: int) -> Response | None:
        """Answer an HTTP request; None: no answer ever comes."""

    def caller(self, call: Call) -> str:
        """Which account's key the request carries; "" for none."""

    def settle(self, now_ms: int) -> None:
        """Book what the exchange's log holds: to be called whenever others than the front have traded on it."""

    def tick(self, now_ms: int) -> None:
        """Do what has fallen due: aggregated pushes, idle closes, late executions."""

    def drain(self) -> list[Outgoing]:
        """What is to be sent, in order."""

    def command(self, kind: str, accounts: Sequence[str], detail: Mapping[str, str], now_ms: int) -> int:
        """Something the venue does at once (a notice, a deleted key, …); returns how often it was done."""

    def symbol(self, instrument: str) -> str:
        """The venue's symbol for its own or our spelling. Raises KeyError for what it does not list."""

    def place_elsewhere(self, account: str, order: Mapping[str, object], now_ms: int) -> Mapping[str, object]:
        """An order that the account's owner places on the venue's own page."""

    def transfer(self, account: str, currency: str, amount: Decimal, now_ms: int) -> None: ...

    def truth(self, kind: str, account: str) -> list[dict[str, object]]:
        """The venue's own view, complete and at this instant: orders, fills, positions, balances, connections."""
