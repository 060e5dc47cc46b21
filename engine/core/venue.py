"""Holds. The contract of a venue: what a folder in `engine/venues/` gives, and what it may ask for.

A venue is a translator. Nothing in its folder opens a socket, reads a clock or knows an account: bytes and times
come in, values go out. `VENUE` in the folder's `__init__` is all that the engine knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any, Protocol

import msgspec

from accounts.model import Credentials, Listener, Secret
from engine.core.facts import Candle, Fact
from engine.core.instruments import Instrument
from engine.core.matching import Exchange
from engine.core.orders import Command, OrderType, Outcome
from engine.core.truth import Truth
from engine.core.windows import Windows

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
    needs_channels: bool = False  # without any it is refused there: it is not even dialled
    optional: bool = False  # made only when asked for
    carries_orders: bool = False  # orders over the stream go out here
    carries_facts: bool = False  # an account's orders and fills arrive here: its loss opens a gap
    grants: bool = False  # over HTTP: access tokens are issued here, nothing else is asked
    pack: int = 1  # so many accounts may share one connection; facts then name theirs by `account_ref`
    pack_logins: bool = False  # also accounts of different logins; otherwise only those of the same one


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
    """`limit` requests in any `window_s` seconds, counted per `scope`.

    Scopes: "account", "account_instrument", "login" (all accounts with the same credentials), "address" (ours).
    """

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


class Amending(StrEnum):
    """What an amendment does to an order's venue id."""

    IN_PLACE = "in_place"  # it keeps it
    REPLACES = "replaces"  # the order is cancelled and a new one, with an id of its own, takes its place
    NONE = "none"  # there are no amendments


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
    amending: Amending = Amending.IN_PLACE
    iceberg: bool = False  # orders that show a part of their quantity
    reduce_only: bool = True  # orders that may only make a position smaller; where not, only their size sees to it
    cash_history: bool = True  # movements of cash can be read; where not, cash is known from statements only
    utc_offset_ms: int = 0  # its days begin at midnight by a clock that is ahead of UTC by so much
    clock_resolution_ms: int = 0  # the venue tells its time in steps of so much
    lookup_ms: int | None = None  # an order older than this may be missing from a look-up by our id; None: never

    @property
    def trades(self) -> bool:
        """Accounts at this venue hold money and take orders; where not, it is a feed of prices."""
        return bool(self.order_types)


PRICES_ONLY = Capabilities(
    order_types=frozenset(),
    orders_over=Transport.HTTP,
    dedupe=Dedupe.NONE,
    lookup_by_client_id=False,
    request_expiry_ms=None,
    max_read_lag_ms=0,
    fills_history_ms=0,
    idle_limit_s=60.0,
    amending=Amending.NONE,
    cash_history=False,
)
"""Those of a feed."""


class AccountRef(msgspec.Struct, frozen=True, kw_only=True):
    """What a person must tell of an account because its key alone does not: which of the login's accounts it is."""

    title: str  # for prompts: "portfolio"
    example: str
    pattern: str  # a regular expression that the whole of it fits


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
    TOKEN = "token"  # noqa: S105  not done: the access token will not do; a new one may
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
    address_bound: bool | None  # the key is tied to a list of IP addresses; None: there is no such thing here
    account_mode: str = ""
    hedged: bool = False  # long and short positions side by side: orders need a position side
    spot_margin_mode: str = "cash"  # how a spot order is paid in an account of this mode


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """What one answer of a walk through history held. `next is None` is the proven end of the walk."""

    facts: tuple[Fact, ...] = ()
    instruments: tuple[Instrument, ...] = ()
    identity: Identity | None = None
    server_time_ms: int | None = None
    candles: tuple[Candle, ...] = ()
    next: Read | None = None


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """A read described: the request, and how to read its answer. `read` raises VenueError."""

    request: Request
    read: Callable[[Response], Page]


# ---- Who asks


class Login(msgspec.Struct, frozen=True):
    """One account on a connection: the venue's own name of it, and its credentials.

    Where the venue issues access tokens, the current one is among the credentials as `access_token`.
    """

    ref: str
    credentials: Credentials


class Token(msgspec.Struct, frozen=True):
    """An access token, and when it ends; None: the venue does not say, it is renewed when it is refused."""

    secret: Secret
    expires_at_ms: int | None


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """How an access token is had for a login's credentials, at the endpoint that `grants`.

    `read` raises VenueError: AUTH when the credentials will not do, RETRYABLE_READ when it may be tried again.
    """

    request: Callable[[Credentials, Mapping[str, str]], Request]  # credentials and options
    read: Callable[[Response, int], Token]  # the answer, and when it was asked
    renew_before_ms: int  # so long before its end a token is renewed


ACCESS_TOKEN = "access_token"  # noqa: S105  a name, no value
"""Under this name the current token stands among a login's credentials."""


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


class Trouble(StrEnum):
    """What keeps a connection from being as it should: each asks something else of a person."""

    REFUSED = "refused"  # the venue does not let us in, or not there: the key, its rights, what is paid for
    LIMIT = "limit"  # too much, too fast, or too many at once; it passes by itself
    EXPIRY = "expiry"  # what we were let in with has ended, and a new one is to be had
    NETWORK = "network"  # nobody answers there, or the line broke
    SILENT = "silent"  # it is open, and what should come does not
    VENUE = "venue"  # the venue is busy, closed or at fault, by its own word
    OURS = "ours"  # our clock, our reading, or a mistake of ours


TROUBLES: Mapping[ErrorClass, Trouble] = {
    ErrorClass.REFUSED: Trouble.REFUSED,
    ErrorClass.AUTH: Trouble.REFUSED,
    ErrorClass.RATE: Trouble.LIMIT,
    ErrorClass.TOKEN: Trouble.EXPIRY,
    ErrorClass.CLOCK: Trouble.OURS,
}
"""The trouble behind an error; one that is not here is the venue's own."""


class Said(msgspec.Struct, frozen=True):
    """Something a connection said that is not a fact."""

    notice: Notice
    detail: str = ""
    code: str = ""
    ref: str = ""  # which of several accounts on the connection it is about; "" for all
    after_s: float = 0.0  # of what ends a connection: no new one is to be opened sooner
    trouble: Trouble | None = None  # where it is another one than its notice says: see `troubled`

    @property
    def troubled(self) -> Trouble:
        """What it means for the connection where it keeps it from working."""
        refused = self.notice in (Notice.AUTH_REFUSED, Notice.REFUSED)
        return self.trouble or (Trouble.REFUSED if refused else Trouble.VENUE)


class Reply(msgspec.Struct, frozen=True):
    """The answer to one `say`: outcomes in the order of its commands."""

    request_id: str
    outcomes: tuple[Outcome, ...]


class Heard(msgspec.Struct):
    """What one frame held. Most frames hold only facts, so the other fields are empty tuples by default.

    Facts are either all prices or all about accounts.
    """

    facts: Sequence[Fact] = ()
    channel: str = ""  # the channel the facts came on
    replies: Sequence[Reply] = ()
    said: Sequence[Said] = ()
    frames: Sequence[Frame] = ()  # to be sent back now
    instruments: Sequence[Instrument] = ()  # new or changed ones


class Handshake(msgspec.Struct, frozen=True, kw_only=True):
    """What the opening of a WebSocket says beside its URL."""

    suffix: str = ""  # what is put behind the URL: a path, a query; exactly as it goes out
    headers: tuple[tuple[str, str], ...] = ()
    subprotocols: tuple[str, ...] = ()


class Conversation(Protocol):
    """One connection's side of the talk, sans I/O. Times are wall milliseconds."""

    def handshake(self, now_ms: int) -> Handshake:
        return Handshake()

    def refused(self, status: int, now_ms: int) -> Said | None:
        """What it means that the WebSocket was refused with this HTTP status, when more than 'come back later'."""
        return None

    def renew(self, logins: Sequence[Login], now_ms: int) -> Sequence[Frame]:
        """The access tokens are new: what to send on the open connection. Later messages use them."""
        return ()

    def open(self, now_ms: int) -> Sequence[Frame]:
        """What to send once the socket is open."""

    def hear(self, frame: bytes, now_ms: int) -> Heard:
        """Read one incoming message. Never raises for what the venue sent: what cannot be read is said UNREADABLE."""

    def beat(self, now_ms: int) -> Sequence[Frame]:
        """A ping in the venue's own manner; empty where a protocol ping is to be used."""

    def tick(self, now_ms: int) -> Heard | None:
        """What time alone brings about, asked each second of an open socket: frames and words, no facts."""
        return None

    def say(self, commands: Sequence[Command], request_id: str, now_ms: int) -> Frame:
        """Orders over the stream: commands of one kind, at most `max_batch`, answered by a Reply with that id."""

    def closed(self, code: int, reason: str) -> Said | None:
        """What a close frame means, when it means more than 'come back'."""
        return None


class Rest(Protocol):
    """The venue over HTTP, for one account. Every method describes; nobody sends here.

    Times are wall milliseconds, inclusive. Reads of what is common to all accounts are asked without credentials
    where the venue allows it (`signed=False`), else as whoever is at hand.
    """

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
        """One order by either id, maybe over several requests; VenueError NOT_FOUND when the venue has none."""

    def statement(self) -> Sequence[Read]:
        """Positions, balances and equity: complete, what is absent is zero."""

    def cash(self, since_ms: int, now_ms: int) -> Sequence[Read]:
        """Walks over cash movements booked at or after `since_ms`."""

    def orders_request(self, commands: Sequence[Command]) -> Request:
        """The same orders over HTTP: commands of one kind."""

    def read_outcomes(self, commands: Sequence[Command], response: Response) -> tuple[Outcome, ...]: ...

    def candles(self, instrument: str, interval_s: int, since_ms: int, now_ms: int) -> Sequence[Read]:
        """Walks over the candles that begin at or after `since_ms`; none where the venue has no such history."""
        return ()


class FeedRest(Rest, Protocol):
    """That of a feed: no accounts, no orders."""

    def fills(self, since_ms: int, now_ms: int) -> Sequence[Read]:
        return ()

    def orders(self, since_ms: int, now_ms: int) -> Sequence[Read]:
        return ()

    def open_orders(self) -> Sequence[Read]:
        return ()

    def order(self, instrument: Instrument, client_order_id: str, venue_order_id: str) -> Read:
        raise ValueError("a feed knows no orders")

    def statement(self) -> Sequence[Read]:
        return ()

    def cash(self, since_ms: int, now_ms: int) -> Sequence[Read]:
        return ()

    def orders_request(self, commands: Sequence[Command]) -> Request:
        raise ValueError("a feed takes no orders")

    def read_outcomes(self, commands: Sequence[Command], response: Response) -> tuple[Outcome, ...]:
        raise ValueError("a feed takes no orders")


class MakeRest(Protocol):
    """Makes the HTTP side for one account (`ref`: the venue's own name of it, "" for what is common to all)."""

    def __call__(self, catalogue: Catalogue, *, ref: str, options: Mapping[str, str]) -> Rest: ...


class Signer(Protocol):
    """Gives a request the headers of its environment, and its signature where `request.signed`.

    Called for every request: public ones too may have to say which environment they mean. ValueError where a
    signed request has no credentials.
    """

    def __call__(self, request: Request, credentials: Credentials | None, environment: str, now_ms: int) -> Request: ...


class Catalogue(Protocol):
    """Instruments of one venue and environment by our name; filled by the engine, asked by dialects."""

    def by_name(self, name: str) -> Instrument | None: ...
    def listed(self) -> Collection[Instrument]:
        """All of them: a dialect may need one by the venue's own name of it."""


class Converse(Protocol):
    """Makes the conversation of a new connection: no login for a public one, several for a packed one."""

    def __call__(
        self,
        *,
        kind: str,
        channels: Sequence[str],
        logins: Sequence[Login],
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
    rest: MakeRest
    sign: Signer
    render_order_id: Callable[[int], str]  # a 128-bit identity in the venue's alphabet and length
    owns_order_id: Callable[[str], bool]  # could this client order id be one of ours?
    grant: Grant | None = None  # where requests carry access tokens
    account_ref: AccountRef | None = None  # None: the venue tells who a key belongs to
    secret_names: tuple[str, ...] = ()  # fields and headers whose values are kept nowhere: keys, tokens, signatures
    options: Mapping[str, str] = {}  # settings for what the dossier leaves unconfirmed, with their defaults
    default_fee_rate: Decimal = Decimal(0)  # for estimates in previews, as a fraction of notional
    unlisted_ref: Callable[[str], str] = lambda name: ""  # venue_ref of an instrument that is not listed: for cancels

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

    accounts: Sequence[str]  # whose it is once that is known: their names; empty before
    subprotocol: str  # the one that was agreed on; "" for none

    def hear(self, frame: bytes, now_ms: int) -> None: ...

    def gone(self) -> None:
        """The client's side is closed or lost."""


class Outgoing(msgspec.Struct, frozen=True):
    session: Session
    sent: Sent
    frame: Frame = ""
    code: int = 0  # of a close
    reason: str = ""
    account: str = ""  # whom it is about, where several share the connection


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


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One login at a simulated venue, as a registry takes it."""

    name: str
    ref: str = ""
    credentials: Mapping[str, str]


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """How an office is set up at a simulated venue: `STAGE` of the module with its front."""

    doors: Mapping[str, str]  # endpoint kind -> name of its URL in the simulator's JSON line
    entries: Callable[[Mapping[str, Any]], Sequence[Entry]]  # whom the JSON line lets in
    instrument: str  # what a demonstration trades, or watches, here
    channels: Mapping[str, tuple[str, ...]] = {}  # by endpoint kind, where other than its own are wanted


class Front(Protocol):
    """A venue's server. Everything follows from the seed it was made with and the times it is given (wall ms).

    Made by `front(accounts=, seed=, now_ms=, faults=, limits=True, either=None)` in the venue's `front.py`: `either`,
    a source of chance, decides what the dossier leaves unconfirmed.
    """

    exchange: Exchange
    windows: Windows  # every limit is counted here, under the name of its rule where the dialect has one
    codes: Mapping[str, Sequence[str]]  # by kind of fault: the venue's codes or words for it, to choose from
    quoted: Sequence[Quoted]
    paths: Mapping[str, str]  # name of a WebSocket URL in the simulator's JSON line -> its path
    rests: Mapping[str, str]  # name of an HTTP URL there -> its path, "" for none

    def describe(self) -> Mapping[str, object]:
        """What else the JSON line holds: the accounts, logins and contracts that there are."""

    def accounts(self) -> Sequence[Mapping[str, str]]:
        """Of each account: name, and its credentials by the dialect's field names."""

    def accept(self, call: Call, now_ms: int) -> Session | int:
        """A WebSocket wants in; an int is the HTTP status of a refusal.

        A subprotocol is agreed on where `session.subprotocol` names one.
        """

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
        """Something the venue does at once; returns how often it was done. KeyError for what it never does.

        Kinds: notice, kill_key, new_key (then in `accounts()`), liquidate, funding, cancel_all.
        """

    def symbol(self, instrument: str) -> str:
        """The venue's symbol for its own or our spelling. Raises KeyError for what it does not list."""

    def place_elsewhere(self, account: str, order: Mapping[str, object], now_ms: int) -> Mapping[str, object]:
        """An order that the account's owner places on the venue's own page."""

    def transfer(self, account: str, currency: str, amount: Decimal, now_ms: int) -> None: ...

    def account(self, name: str) -> Truth:
        """All that an account has, in our words."""

    def truth(self, kind: str, account: str) -> list[dict[str, object]]:
        """The venue's own view, complete and at this instant: orders, fills, positions, balances, connections."""
