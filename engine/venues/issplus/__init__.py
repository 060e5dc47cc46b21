"""Holds. ISS+ of the Moscow Exchange: a feed of prices, and ISS over HTTP behind it. Source: the ISS+ dossier.

Channels in a connection row: `securities:SBER/RUB`, `orderbooks:SBER/RUB`, `candles:SBER/RUB:M1`, or in the
exchange's own words, `MXSE.securities|TICKER="MXSE.TQBR.SBER"`, `SEARCH.ticker|pattern="SBER"`, `COMMON.news`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from accounts.model import Listener
from engine.core.venue import (
    PRICES_ONLY,
    Catalogue,
    Conversation,
    EndpointKind,
    Login,
    Places,
    RateRule,
    Transport,
    Venue,
)
from engine.venues.issplus.rest import IssRest, sign
from engine.venues.issplus.stream import Session

_STREAM = "wss://iss.moex.com/infocx/v3/websocket"


def _places(site: str, environment: str, host: str) -> Places:
    return Places(site=site, environment=environment, urls={"iss": f"https://{host}/iss", "feed": _STREAM})


def _converse(
    *,
    kind: str,
    channels: Sequence[str],
    logins: Sequence[Login],
    environment: str,
    catalogue: Catalogue,
    options: Mapping[str, str],
) -> Conversation:
    return Session(channels=channels, login=logins[0] if logins else None, catalogue=catalogue, options=options)


VENUE = Venue(
    name="issplus",
    title="MOEX ISS+",
    places=(
        _places("moex", "prod", "iss.moex.com"),
        _places("apim", "prod", "apim.moex.com"),  # for API keys
        _places("moex", "demo", "iss.moex.com"),  # for guests: their late prices stay apart from real ones
    ),
    endpoints=(
        EndpointKind(name="iss", transport=Transport.HTTP, listener=Listener.ACCOUNT, requires_auth=True),
        EndpointKind(name="feed", transport=Transport.STREAM, listener=Listener.ACCOUNT, requires_auth=True),
    ),
    credential_fields=("domain", "login", "passcode"),
    secret_names=("domain", "login", "passcode"),
    capabilities=msgspec.structs.replace(PRICES_ONLY, clock_resolution_ms=1000),
    # No number is official; 10 a second are reported as the limit, 5 are recommended (§10).
    rates=(RateRule(name="iss", limit=5, window_s=1, scope="address"),),
    opens=RateRule(name="opens", limit=1, window_s=1, scope="address"),
    converse=_converse,
    rest=lambda catalogue, *, ref, options: IssRest(catalogue, options),
    sign=sign,
    render_order_id=lambda identity: f"{identity:032x}",
    owns_order_id=lambda text: False,
    options={
        # The WebSocket subprotocol that is offered: "STOMP", "v12.stomp" or "none".
        "subprotocol": "STOMP",
        # What frames go out as: "binary" (the exchange's own client) or "text" (others).
        "opcode": "binary",
        # What packet numbers mean: "monotonic" (they ascend), "strict" (by one; anything else is a gap) or "off".
        "sequence": "monotonic",
        # So long a snapshot is waited for; three times in vain, and the connection is opened anew.
        "snapshot_ms": "10000",
        # So long a subscription may be silent while it says that it is being traded.
        "idle_resync_ms": "300000",
        # How old the stream's prices are taken for in the realm of guests, where a row does not bring its own time.
        "guest_delay_ms": "900000",
        # ISS over HTTP: "guest" asks as nobody; "login" as the login, whose domain is then "apikey" or "cookie".
        "iss_login": "guest",
        # The boards whose instruments and prices are read over HTTP.
        "boards": "TQBR,TQTF,CETS,RFUD",
        # What candles count their volume in: "units" (pieces) or "lots".
        "candle_volume": "units",
    },
)
