"""Does. `unisono fills | positions | balances`: what the ledger knows, with or without an engine running."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import sqlalchemy as sa
import typer

from accounts.model import Account
from engine.cli.context import (
    CONFIG_DEFAULT,
    AccountOption,
    ConfigOption,
    JsonOption,
    fail,
    ledger_of,
    read_config,
    registry_of,
    show,
)
from engine.config import Config
from engine.control.client import Control, NoEngine
from engine.core.book import Book
from engine.core.instruments import Instrument
from engine.core.standing import Standing, standings
from engine.ledger import books, questions
from engine.ledger import instruments as listings
from engine.ledger.questions import moved_elsewhere
from engine.reports.tables import (
    BalanceRow,
    FillRow,
    balances_table,
    fills_table,
    positions_table,
)

HoursOption = Annotated[float, typer.Option(help="How far back, in hours.")]
LimitOption = Annotated[int, typer.Option(min=1, help="At most so many rows, the latest first.")]


def fills(
    account: AccountOption = "",
    hours: HoursOption = 24.0,
    limit: LimitOption = 200,
    config: ConfigOption = CONFIG_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Executions, the latest first, each once however often it was heard.

    [bold]Example[/bold]

      unisono fills --account okx-007 --json
    """
    with known_ledger(config, account) as conn:
        told = questions.fills(conn, account or None, since_ms=since_ms(hours), limit=limit)
        plans = questions.plans_of(conn, [(row.account_id, row.fill) for row in told])
        found = [
            FillRow(
                account_id=row.account_id,
                instrument=row.fill.instrument,
                side=row.fill.side.value,
                quantity=row.fill.quantity,
                price=row.fill.price,
                fee=row.fill.fee,
                fee_currency=row.fill.fee_currency,
                liquidity=row.fill.liquidity,
                venue_action=row.fill.venue_action,
                plan_id=plans.get((row.account_id, row.fill.fill_id), ""),
                external=(row.account_id, row.fill.fill_id) not in plans,
                source=row.source,
                fill_id=row.fill.fill_id,
                venue_order_id=row.fill.venue_order_id,
                traded_at_ms=row.fill.traded_at_ms,
            )
            for row in told
        ]
    show(found, as_json, lambda: fills_table(found, limit=limit))


def positions(account: AccountOption = "", config: ConfigOption = CONFIG_DEFAULT, as_json: JsonOption = False) -> None:
    """What each account holds: quantity, average cost, price, unrealised and realised result.

    Folded from its opening and every fill since. Prices, with their source and age, and unrealised results are the
    running engine's; without one they are left out. The average is average cost; what was had at a cost that nobody
    told (an opening balance, a transfer) is said to be not known. Where a number comes from: unisono explain.

    [bold]Example[/bold]

      unisono positions
    """
    settings = read_config(config)
    ids = _known(settings, account)
    priced = _asked(settings, ids)
    with ledger_of(settings) as conn:
        moved = moved_elsewhere(conn, ids, since_ms(24.0))
        by_account = priced if priced is not None else {}
        listed = listings.load(conn)
        for one in _accounts(settings):
            if one.account_id in ids and one.account_id not in by_account:
                here = listed.get((one.venue, one.environment), [])
                book = books.load(conn, one.account_id, {i.name: i for i in here}.get)
                by_account[one.account_id] = standings(book, here)
    found = [
        msgspec.structs.replace(row, elsewhere=moved.get((account_id, row.instrument), {}))
        for account_id in ids
        for row in by_account.get(account_id, [])
    ]
    now_ms = None if priced is None else since_ms(0)
    show(found, as_json, lambda: positions_table(found, now_ms=now_ms, limit=len(found) or 1))


def _asked(settings: Config, ids: list[str]) -> dict[str, list[Standing]] | None:
    """What the running engine says of these accounts; None: none runs."""
    try:
        with Control(settings.control.socket) as control:
            told = control.post("/positions", {"accounts": ids})
    except NoEngine:
        return None
    return msgspec.convert(told, dict[str, list[Standing]], strict=False)


def balances(account: AccountOption = "", config: ConfigOption = CONFIG_DEFAULT, as_json: JsonOption = False) -> None:
    """Cash of each account by currency, folded from its opening, fills, fees, funding and transfers.

    [bold]Example[/bold]

      unisono balances --account okx-007
    """
    found = [
        BalanceRow(
            account_id=book.account_id,
            currency=currency,
            cash=cash,
            available=stated.available if (stated := book.stated_balances.get(currency)) else None,
            equity=stated.equity if stated else None,
            updated_at_ms=book.cash_changed_ms.get(currency),
        )
        for book in _books(config, account)
        for currency, cash in sorted(book.cash.items())
    ]
    show(found, as_json, lambda: balances_table(found, limit=len(found) or 1))


@contextmanager
def known_ledger(path: Path, account: str) -> Iterator[sa.Connection]:
    settings = read_config(path)
    _known(settings, account)
    with ledger_of(settings) as conn:
        yield conn


def _books(path: Path, account: str) -> list[Book]:
    settings = read_config(path)
    ids = _known(settings, account)
    with ledger_of(settings) as conn:
        return [books.load(conn, account_id, _unknown) for account_id in ids]


def _accounts(settings: Config) -> Sequence[Account]:
    with registry_of(settings) as registry:
        return registry.accounts()


def _known(settings: Config, account: str) -> list[str]:
    """The accounts asked for; a name that is not in the registry is an error and not an empty table."""
    ids = [a.account_id for a in _accounts(settings)]
    if account and account not in ids:
        fail(f"there is no account {account}. List them with: unisono accounts list")
    return [account] if account else ids


def _unknown(name: str) -> Instrument | None:
    """Without an engine only what the checkpoint carries along is known; fills of other instruments wait."""
    return None


def since_ms(hours: float) -> int:
    return time.time_ns() // 1_000_000 - round(hours * 3_600_000)
