"""Holds. OKX: its sites, connections, limits and abilities. Source: the OKX dossier; README.md in this folder.

Channels in a connection row: the channel's own name, and after the first ':' what narrows it: `orders` (all types),
`orders:SWAP`, `fills:BTC/USDT`, `mark-price:BTC/USDT:USDT`, `tickers:BTC/USDT`, `instruments:SWAP`, `account:USDT`.
Instruments are in our spelling.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal

from accounts.model import Listener
from engine.core.orders import OrderType
from engine.core.venue import (
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
from engine.venues.okx.orders import MAX_BATCH
from engine.venues.okx.rest import OkxRest
from engine.venues.okx.sign import FIELDS, SECRET_NAMES, sign
from engine.venues.okx.stream import Session
from engine.venues.okx.symbols import symbol_of

_DAY_MS = 86_400_000
_WS_KINDS = ("public", "private", "business")
_OURS = re.compile(r"[0-9a-f]{12}5[0-9a-f]{3}[89ab][0-9a-f]{15}")  # a version-5 UUID without its dashes


def _places(site: str, environment: str, rest: str, stream: str) -> Places:
    urls = {"rest": rest} | {kind: f"{stream}/ws/v5/{kind}" for kind in _WS_KINDS}
    return Places(site=site, environment=environment, urls=urls)


def _converse(
    *,
    kind: str,
    channels: Sequence[str],
    logins: Sequence[Login],
    environment: str,
    catalogue: Catalogue,
    options: Mapping[str, str],
) -> Conversation:
    return Session(kind=kind, channels=channels, credentials=logins[0].credentials if logins else None, options=options)


def _per_account(name: str, limit: int, window_s: float) -> RateRule:
    return RateRule(name=name, limit=limit, window_s=window_s, scope="account")


def _per_instrument(name: str, limit: int) -> RateRule:
    return RateRule(name=name, limit=limit, window_s=2, scope="account_instrument")


def _per_address(name: str, limit: int, window_s: float = 2) -> RateRule:
    return RateRule(name=name, limit=limit, window_s=window_s, scope="address")


VENUE = Venue(
    name="okx",
    title="OKX",
    places=(
        _places("global", "prod", "https://www.okx.com", "wss://ws.okx.com:8443"),
        _places("global", "demo", "https://www.okx.com", "wss://wspap.okx.com:8443"),
        _places("eea", "prod", "https://eea.okx.com", "wss://wseea.okx.com:8443"),
        _places("eea", "demo", "https://eea.okx.com", "wss://wseeapap.okx.com:8443"),
        _places("us", "prod", "https://us.okx.com", "wss://wsus.okx.com:8443"),
        _places("us", "demo", "https://us.okx.com", "wss://wsuspap.okx.com:8443"),
        _places("aws", "prod", "https://aws.okx.com", "wss://wsaws.okx.com:8443"),
    ),
    endpoints=(
        EndpointKind(name="rest", transport=Transport.HTTP, listener=Listener.ACCOUNT, requires_auth=True),
        EndpointKind(
            name="private",
            transport=Transport.STREAM,
            listener=Listener.ACCOUNT,
            requires_auth=True,
            channels=("orders", "positions", "balance_and_position", "account"),
            carries_orders=True,
            carries_facts=True,
        ),
        EndpointKind(
            name="business",
            transport=Transport.STREAM,
            listener=Listener.ACCOUNT,
            requires_auth=True,
            channels=("orders-algo",),
            optional=True,
        ),
        EndpointKind(
            name="public",
            transport=Transport.STREAM,
            listener=Listener.VENUE,
            requires_auth=False,
            channels=("instruments:SPOT", "instruments:SWAP", "instruments:FUTURES"),
        ),
    ),
    credential_fields=FIELDS,
    secret_names=SECRET_NAMES,
    capabilities=Capabilities(
        # Stop orders are algo orders here, with ids and a channel of their own; they are not placed yet.
        order_types=frozenset(OrderType) - {OrderType.STOP, OrderType.STOP_LIMIT},
        orders_over=Transport.STREAM,
        dedupe=Dedupe.OPEN_ONLY,
        lookup_by_client_id=True,
        request_expiry_ms=10_000,
        max_read_lag_ms=5_000,  # "a few seconds", nowhere documented (§15.9)
        fills_history_ms=89 * _DAY_MS,  # three months, the shortest ones
        idle_limit_s=30.0,
        max_batch=MAX_BATCH,
    ),
    rates=(
        # Orders, §5.5: shared between the stream and HTTP; a batch counts each of its orders.
        _per_instrument("place", 60),
        _per_instrument("amend", 60),
        _per_instrument("cancel", 60),
        _per_instrument("place-batch", 300),
        _per_instrument("amend-batch", 300),
        _per_instrument("cancel-batch", 300),
        _per_account("orders-all", 1000, 2),
        # Reads of one account, §6.3 and §6.4.
        _per_account("order", 60, 2),
        _per_account("orders-pending", 60, 2),
        _per_account("orders-history", 40, 2),
        _per_account("orders-history-archive", 20, 2),
        _per_account("fills", 60, 2),
        _per_account("fills-history", 10, 2),
        _per_account("balance", 10, 2),
        _per_account("positions", 10, 2),
        _per_account("bills", 5, 1),
        _per_account("bills-archive", 5, 2),
        _per_account("config", 5, 2),
        # Public reads, §6.5. Some count per type or instrument as well; one count for all stays below each.
        _per_address("time", 10),
        _per_address("instruments", 20),
        _per_address("mark-price", 10),
        _per_address("tickers", 20),
    ),
    opens=_per_address("opens", 3, 1),
    converse=_converse,
    rest=lambda catalogue, *, ref, options: OkxRest(catalogue),
    sign=sign,
    unlisted_ref=lambda name: f"|{symbol_of(name)}|",
    render_order_id=lambda identity: f"{identity:032x}",
    owns_order_id=lambda text: _OURS.fullmatch(text) is not None,
    options={
        # "0": positions and account are pushed on change only; "2000", "3000", "4000": also every so many ms.
        "update_interval_ms": "0",
        # What a login answered with the generic 60009 means: "stop" halts the account, "retry" comes back later.
        "generic_login_failure": "stop",
    },
    default_fee_rate=Decimal("0.001"),  # spot taker of the lowest tier, rounded up: previews must not promise less
)
