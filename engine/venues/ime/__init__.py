"""Holds. Iran Mercantile Exchange through HedgeTech's data engine: a feed of prices. Source: the IME dossier.

Channels in a connection row are contracts: by name on `names` (`SAMPLE05F`, or in our spelling `SAMPLE05F/IRR`), by id
on `ids` (`012345`, or `012345:SAMPLE05F` with the name that it goes by).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
from engine.venues.ime.rest import GRANT, ImeRest, sign
from engine.venues.ime.stream import Session

_HOST = "core.hedgetech.ir"
_LIVE = f"wss://{_HOST}/data-engine/ime/live/data/websocket/contract"


def _places(environment: str) -> Places:
    return Places(
        site="hedgetech",
        environment=environment,
        urls={
            "token": f"https://{_HOST}/auth/user/token/issue",
            "rest": f"https://{_HOST}/data-engine/ime",
            "names": f"{_LIVE}/name",
            "ids": f"{_LIVE}/id",
        },
    )


def _stream(name: str, *, optional: bool = False) -> EndpointKind:
    return EndpointKind(
        name=name,
        transport=Transport.STREAM,
        listener=Listener.ACCOUNT,
        requires_auth=True,
        needs_channels=True,
        optional=optional,
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
    return Session(
        kind=kind, channels=channels, login=logins[0] if logins else None, catalogue=catalogue, options=options
    )


VENUE = Venue(
    name="ime",
    title="IME (HedgeTech)",
    # One service only; as `demo` it keeps a trial's prices apart.
    places=(_places("prod"), _places("demo")),
    endpoints=(
        EndpointKind(
            name="token", transport=Transport.HTTP, listener=Listener.ACCOUNT, requires_auth=True, grants=True
        ),
        EndpointKind(name="rest", transport=Transport.HTTP, listener=Listener.ACCOUNT, requires_auth=True),
        _stream("names"),
        _stream("ids", optional=True),  # the same prices by another name
    ),
    credential_fields=("username", "password"),
    secret_names=("username", "UserName_or_Email", "password", "token"),
    capabilities=PRICES_ONLY,
    # No limit is documented: at most one request a second (§8).
    rates=(
        RateRule(name="rest", limit=1, window_s=1, scope="address"),
        RateRule(name="token", limit=1, window_s=5, scope="login"),
    ),
    opens=RateRule(name="opens", limit=1, window_s=1, scope="address"),
    converse=_converse,
    rest=lambda catalogue, *, ref, options: ImeRest(options),
    sign=sign,
    grant=GRANT,
    render_order_id=lambda identity: f"{identity:032x}",
    owns_order_id=lambda text: False,
    options={
        # How the login's fields are called: "readme" (username, password), "sdk" (UserName_or_Email, Password), "both".
        "login_fields": "both",
        # How the token stands in the header Authorization: "bare" or "bearer".
        "authorization": "bare",
        # How `names` calls its contracts: "contract_names", "contract_name", or "both" at once.
        "parameter": "both",
        # The zone of the server's times: "tehran", "utc", or "auto": learnt from the first fresh message.
        "zone": "auto",
        # A connection that was not refused for so long is ready, though nothing was heard.
        "ready_ms": "2000",
        # Silence that ends a connection; "0": none does, as a quiet market and the night are silent, too.
        "silence_ms": "0",
        # What a search for every contract of a market says.
        "search": "",
    },
)
