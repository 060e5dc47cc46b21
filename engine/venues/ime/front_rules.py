"""Holds. What the IME front goes by: its contracts, and a switch for all that is unconfirmed. Dossier §2, §11."""

from __future__ import annotations

import random
from decimal import Decimal

import msgspec

D = Decimal


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    contract_id: str
    name: str
    market: str
    path: str
    start: Decimal
    tick: Decimal = D(100)
    depth: int = 20
    size: int = 1
    strike: int | None = None
    banded: bool = True


CONTRACTS = (
    Contract(
        contract_id="000117",
        name="BULLION01",
        market="IMEDepositCertificate",
        path="XAU/IRR",
        start=D(9_500_000),
    ),
    Contract(
        contract_id="000245",
        name="سکه نمونه",  # names can be Persian
        market="IMEDepositCertificate",
        path="XAU/IRR",
        start=D(62_000_000),
        tick=D(1000),
        banded=False,
    ),
    Contract(
        contract_id="012345",
        name="SAMPLE05F",
        market="IMEFutures",
        path="XAU/IRR",
        start=D(9_700_000),
        size=10,
    ),
    Contract(
        contract_id="012377",
        name="SAMPLE05C90",
        market="IMEOption",
        path="XAU/IRR",
        start=D(700_000),
        size=10,
        strike=9_000_000,
    ),
)


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers, and the way the unconfirmed goes."""

    limits: bool = True
    opens_per_s: int = 5
    requests_per_s: int = 5
    push_ms: int = 200
    login_status: int = 201
    approved: bool = True  # false: the login is right, and an administrator has not let it in yet
    authorization: str = "bare"  # "bearer", "either"
    parameter: str = "contract_names"  # "contract_name", "either"
    id_member: str = "ContractId"  # "contractId"
    refusal: str = "403"  # before it is accepted; "1008": after
    bad_contract: str = "refuse"  # "ignore"
    first_snapshot: bool = False  # at once, not at the next change
    token_s: int = 3600
    token_tells: bool = True  # it has an end in it
    expiry_closes: bool = True  # also what is open
    bind_peer: bool = False
    newest_token_only: bool = False
    zone: str = "tehran"  # "utc"
    suffix_z: bool = False
    empty_aggregate: bool = True  # before the first deal


def drawn(chance: random.Random, *, limits: bool) -> Rules:
    """What is unconfirmed is one way or the other, as far as the dialect's defaults can live with it."""
    return Rules(
        limits=limits,
        login_status=chance.choice((200, 201)),
        parameter=chance.choice(("contract_names", "contract_name", "either")),
        id_member=chance.choice(("ContractId", "contractId")),
        authorization=chance.choice(("bare", "either")),
        refusal=chance.choice(("403", "1008")),
        bad_contract=chance.choice(("refuse", "ignore")),
        first_snapshot=chance.random() < 0.5,
        token_tells=chance.random() < 0.5,
        token_s=chance.choice((300, 3600)),
        expiry_closes=chance.random() < 0.5,
        bind_peer=chance.random() < 0.5,
        zone=chance.choice(("tehran", "utc")),
        suffix_z=chance.random() < 0.5,
    )
