"""Holds. ALOR: its circuits, connections, limits and abilities. Source: the ALOR dossier; README.md in this folder.

Channels in a connection row: of the account `orders`, `stoporders`, `trades`, `positions`, `summaries`, `risks`; of
prices, after the first ':' an instrument in our spelling: `quotes:SBER/RUB`, `orderbook:SBER/RUB`,
`instruments:SBER/RUB`, and `bars:SBER/RUB@60` with its seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from accounts.model import Listener
from engine.core import spelling
from engine.core.orders import OrderType
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
from engine.venues.alor.commands import Orders
from engine.venues.alor.ids import owns, render
from engine.venues.alor.replacing import shared
from engine.venues.alor.rest import AlorRest
from engine.venues.alor.stream import CHANNELS, Facts
from engine.venues.alor.tokens import FIELD, GRANT, sign

_DAY_MS = 86_400_000


def _places(environment: str, suffix: str) -> Places:
    """Four addresses, none of which follows from another (§1): the same broker's other brand has others."""
    urls = {
        "oauth": f"https://oauth{suffix}.alor.ru",
        "api": f"https://api{suffix}.alor.ru",
        "cws": f"wss://api{suffix}.alor.ru/cws",
        "ws": f"wss://api{suffix}.alor.ru/ws",
    }
    return Places(site="alor", environment=environment, urls=urls)


def _converse(
    *,
    kind: str,
    channels: Sequence[str],
    logins: Sequence[Login],
    environment: str,
    catalogue: Catalogue,
    options: Mapping[str, str],
) -> Conversation:
    if kind == "cws":
        return Orders(logins=logins, replacing=shared(catalogue), options=options)
    return Facts(channels=channels, logins=logins, catalogue=catalogue, replacing=shared(catalogue), options=options)


VENUE = Venue(
    name="alor",
    title="ALOR",
    places=(_places("prod", ""), _places("demo", "dev")),
    endpoints=(
        EndpointKind(
            name="oauth", transport=Transport.HTTP, listener=Listener.ACCOUNT, requires_auth=True, grants=True
        ),
        EndpointKind(name="api", transport=Transport.HTTP, listener=Listener.ACCOUNT, requires_auth=True),
        EndpointKind(
            name="cws",
            transport=Transport.STREAM,
            listener=Listener.ACCOUNT,
            requires_auth=True,
            carries_orders=True,
            pack=20,  # authorised once, by one login: all of its portfolios
        ),
        EndpointKind(
            name="ws",
            transport=Transport.STREAM,
            listener=Listener.ACCOUNT,
            requires_auth=True,
            channels=CHANNELS,
            carries_facts=True,
            pack=10,
            pack_logins=True,
        ),
    ),
    credential_fields=(FIELD,),
    secret_names=(FIELD, "token", "AccessToken", "RefreshToken"),
    capabilities=Capabilities(
        order_types=frozenset(OrderType),
        orders_over=Transport.STREAM,
        # Over `/cws` an identifier counts for one connection only; over HTTP, X-REQID would be a response cache (§6.5).
        dedupe=Dedupe.NONE,
        lookup_by_client_id=True,
        request_expiry_ms=None,
        max_read_lag_ms=5_000,  # nowhere documented
        fills_history_ms=90 * _DAY_MS,  # no bound is documented; so far it is believed
        idle_limit_s=60.0,  # nothing is known of one
        amending=Amending.REPLACES,
        reduce_only=False,
        utc_offset_ms=3 * 3_600_000,
        iceberg=True,
        cash_history=False,
        clock_resolution_ms=1000,
        lookup_ms=1_800_000,  # orders are listed for the session only, and it may end at any moment
    ),
    rates=(
        # No numbers are published (§5.6): "not thousands in parallel", and tokens not several a second.
        RateRule(name="refresh", limit=1, window_s=1, scope="login"),
        RateRule(name="reads", limit=20, window_s=1, scope="login"),
        RateRule(name="orders", limit=20, window_s=1, scope="login"),
    ),
    opens=RateRule(name="opens", limit=5, window_s=1, scope="address"),
    converse=_converse,
    rest=lambda catalogue, *, ref, options: AlorRest(catalogue, ref, options),
    sign=sign,
    unlisted_ref=lambda name: f"{spelling.MOEX}||",
    render_order_id=render,
    owns_order_id=owns,
    grant=GRANT,
    account_ref=AccountRef(
        title="portfolio", example="MOEX:D10001", pattern=r"(MOEX|SPBX|UNITED):[0-9A-Za-z][0-9A-Za-z_-]{0,31}"
    ),
    options={
        # "opcode": a ping of the broker's own terminal, undocumented; "protocol": that of WebSocket.
        "ping": "protocol",
        # "older": the board beside the instrument, words in PascalCase; both are served.
        "order_shape": "newer",
        # "stoplimit" is what the broker's terminal sends.
        "stop_limit_opcode": "stopLimit",
        # Does the broker look for duplicates of commands?
        "check_duplicates": "true",
        # Clients of the initial risk level must agree to margin for futures, stop orders and uncovered positions.
        "allow_margin": "false",
        # Of limit orders in futures: "goodtillcancelled" outlives the day. All others last for it.
        "time_in_force": "oneday",
        # Does the quantity of a changed order count what it got before? "remainder": no; "total": yes.
        "amend_quantity": "remainder",
        # Per cent by which what an iceberg shows may vary; futures only.
        "iceberg_variance": "0",
        # So long a stop order's price must hold its condition, 1 to 300; "0": not at all.
        "protecting_seconds": "0",
        # "404": a list with nothing in it is answered so. "array": a 404 is an error.
        "empty_lists": "array",
        # Whose instruments are listed: MOEX, SPBX, with a comma between.
        "exchanges": "MOEX",
        # Instruments whose prices are read over HTTP, with commas between, in our spelling.
        "quoted": "",
    },
    default_fee_rate=Decimal("0.0006"),  # of a retail tariff, rounded up: previews must not promise less
)
