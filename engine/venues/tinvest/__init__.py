"""Holds. T-Invest: its hosts, connections, limits and abilities. Source: the T-Invest dossier; README.md here.

Every stream has one base URL; which method a socket speaks is said by the rest of the path, in the handshake.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from uuid import UUID

from accounts.model import Listener
from engine.core.venue import (
    AccountRef,
    Amending,
    Capabilities,
    Catalogue,
    Conversation,
    Dedupe,
    EndpointKind,
    Login,
    Places,
    RateRule,
    Transport,
    Venue,
)
from engine.venues.tinvest.errors import COOL_DOWN_S
from engine.venues.tinvest.market import MarketTalk
from engine.venues.tinvest.names import VENUE as NAME
from engine.venues.tinvest.orders import ORDER_TYPES
from engine.venues.tinvest.rest import TInvestRest
from engine.venues.tinvest.sign import FIELDS, sign
from engine.venues.tinvest.stream import (
    METHODS,
    OperationsTalk,
    OrdersTalk,
    PortfolioTalk,
    PositionsTalk,
    Stream,
    TradesTalk,
)

_DAY_MS = 86_400_000
_OURS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")  # a version-5 UUID
_PACKED = 100  # accounts on one stream: more than a person has; how many the venue takes is nowhere told
_TALKS: Mapping[str, type[Stream]] = {
    talk.kind: talk for talk in (OrdersTalk, TradesTalk, PositionsTalk, PortfolioTalk, OperationsTalk, MarketTalk)
}


def _places(site: str, environment: str, host: str) -> Places:
    urls = {"rest": f"https://{host}/rest"} | dict.fromkeys(METHODS, f"wss://{host}/ws/")
    return Places(site=site, environment=environment, urls=urls)


def _stream(
    name: str, *channels: str, optional: bool = False, carries_facts: bool = False, pack: int = 1
) -> EndpointKind:
    return EndpointKind(
        name=name,
        transport=Transport.STREAM,
        listener=Listener.ACCOUNT,
        requires_auth=True,
        channels=channels,
        optional=optional,
        carries_facts=carries_facts,
        pack=pack,
    )


def _converse(
    *,
    kind: str,
    channels: Sequence[str],
    logins: Sequence[Login],
    environment: str,
    catalogue: Catalogue,
    options: Mapping[str, str],
) -> Conversation:
    return _TALKS[kind](channels=channels, logins=logins, catalogue=catalogue, options=options)


def _per_login(name: str, limit: int) -> RateRule:
    return RateRule(name=name, limit=limit, window_s=60, scope="login")


VENUE = Venue(
    name=NAME,
    title="T-Invest",
    places=(
        _places("tbank", "prod", "invest-public-api.tbank.ru"),
        _places("tbank", "demo", "sandbox-invest-public-api.tbank.ru"),
        _places("tinkoff", "prod", "invest-public-api.tinkoff.ru"),
        _places("tinkoff", "demo", "sandbox-invest-public-api.tinkoff.ru"),
    ),
    endpoints=(
        EndpointKind(name="rest", transport=Transport.HTTP, listener=Listener.ACCOUNT, requires_auth=True),
        _stream("orders", "orders", carries_facts=True, pack=_PACKED),
        _stream("positions", "positions", pack=_PACKED),
        _stream("trades", "trades", optional=True, pack=_PACKED),
        _stream("portfolio", "portfolio", optional=True, pack=_PACKED),
        _stream("operations", "operations", optional=True, pack=_PACKED),
        _stream("marketdata", optional=True),
    ),
    credential_fields=FIELDS,
    secret_names=FIELDS,
    capabilities=Capabilities(
        order_types=ORDER_TYPES,
        orders_over=Transport.HTTP,
        dedupe=Dedupe.DURABLE,  # about a month, without promise (§5.1)
        lookup_by_client_id=True,
        lookup_ms=20 * 3_600_000,  # "not guaranteed for orders older than one day" (§4.3)
        request_expiry_ms=None,
        max_read_lag_ms=15_000,  # positions a moment, operations seconds and, on bad days, hours (§7.1)
        fills_history_ms=365 * _DAY_MS,
        idle_limit_s=120.0,
        amending=Amending.REPLACES,
        reduce_only=False,
        utc_offset_ms=3 * 3_600_000,
        clock_resolution_ms=1000,
    ),
    rates=(
        # §6.3: per user and minute, the lower where two descriptions differ.
        _per_login("instruments", 200),
        _per_login("users", 100),
        _per_login("operations", 200),
        _per_login("market", 600),
        _per_login("orders", 100),
        _per_login("cancel", 100),
        _per_login("get-orders", 200),
        _per_login("post-order", 300),
        _per_login("post-order-async", 450),
        # Half of the venue's 50: so few that an engine which restarts, and counts anew, would pass them.
        _per_login("stop-orders", 25),
        RateRule(name="all", limit=50, window_s=1, scope="address"),
    ),
    opens=RateRule(name="opens", limit=5, window_s=1, scope="address"),  # nowhere told; reconnect storms fill quotas
    converse=_converse,
    rest=lambda catalogue, *, ref, options: TInvestRest(catalogue, ref=ref, options=options),
    sign=sign,
    render_order_id=lambda identity: str(UUID(int=identity)),
    owns_order_id=lambda text: _OURS.fullmatch(text) is not None,
    account_ref=AccountRef(title="account id", example="2000000001", pattern=r"[0-9A-Za-z-]{5,64}"),
    options={
        "token_in": "header",  # or "subprotocol"
        "subprotocol": "json",  # or "json-proto": the same in the contracts' own spelling
        "placing": "sync",  # or "async": answered after the broker's checks, before the exchange's
        "replacing": "off",  # "on": amendments are sent; whoever sends them has to follow the order that is made
        "confirm_margin": "no",  # "yes": orders may borrow
        "ping_ms": "5000",  # how often an idle stream is to speak; three missed and it is opened anew
        "cool_down_s": f"{COOL_DOWN_S:g}",  # after too many streams
        "initial_positions": "no",  # "yes": PositionsStream begins with all of them
        "book_depth": "1",  # of orderbook: 1, 10, 20, 30, 40 or 50
        "listed": "all",  # or "base": only what the API trades
        # Do operations number trades as the orders service does? "differ" never takes it for granted.
        "operation_trade_ids": "differ",  # or "same"
    },
    default_fee_rate=Decimal("0.003"),  # of the tariff without a monthly fee: previews must not promise less
)
