"""Decides. How the ALOR front reads an order request, over `/cws` or HTTP, and carries it out (ALOR dossier §3, §5.4).

Both shapes of a request are understood: the board beside the instrument or within it, words in any case, numbers of
orders as texts or numbers. Opcodes are compared exactly, but for the two spellings of the stop-limit ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from engine.core.facts import Side
from engine.core.venue import Faults
from engine.core.windows import Windows
from engine.venues.alor.front_rules import NO_MONEY, UNREADABLE, Rules, Turned
from engine.venues.alor.front_state import Customer, Login
from engine.venues.alor.front_trading import Ask, Trading

Body = Mapping[str, Any]

KINDS = ("market", "limit", "stop", "stopLimit", "stoplimit")
OPCODES = {f"{action}:{kind}": (action, kind.lower()) for action in ("create", "update", "delete") for kind in KINDS}
_TIMES = frozenset({"oneday", "immediateorcancel", "fillorkill", "attheclose", "goodtillcancelled", "bookorcancel"})
_CONDITIONS = frozenset({"more", "less", "moreorequal", "lessorequal"})

decode = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode


class Commands:
    """Carries out one command of a login at a time."""

    def __init__(self, trading: Trading, rules: Rules, windows: Windows, faults: Faults) -> None:
        self.trading, self.rules, self.windows, self.faults = trading, rules, windows, faults

    def whose(self, login: Login, body: Body) -> Customer:
        user = body.get("user")
        portfolio = user.get("portfolio") if isinstance(user, dict) else body.get("portfolio")
        customer = login.customers.get(str(portfolio))
        if customer is None:
            raise Turned(403, f"No rights for portfolio {portfolio}")
        return customer

    def carry_out(
        self, customer: Customer, action: str, kind: str, order_id: str, body: Body, now_ms: int
    ) -> tuple[str, str]:
        """The order's number and what is said of it. Raises Turned."""
        login = customer.login.login
        if self.rules.limits and not self.windows.admit("orders", login, self.rules.orders_per_s, 1000, now_ms):
            raise Turned(429, "Too many requests")
        if action == "create":
            refusal = self.faults.strikes("refuse", customer.name, now_ms)
            if refusal is not None:
                raise Turned(400, refusal.code or NO_MONEY)
            number = self.trading.place(customer, self._ask(kind, body), now_ms)
            return number, f"An order '{number}' has been created."
        if action == "update":
            if self.faults.strikes("amend_fails", customer.name, now_ms):
                raise Turned(400, "Order to update not found")
            number = self.trading.update(customer, order_id, self._ask(kind, body), now_ms)
            return number, f"An order has been updated. New order Id is '{number}'."
        self.trading.cancel(customer, order_id, kind in ("stop", "stoplimit"), now_ms)
        return order_id, f"An order '{order_id}' has been deleted."

    def _ask(self, kind: str, body: Body) -> Ask:
        instrument = body.get("instrument")
        if not isinstance(instrument, dict):
            raise Turned(400, UNREADABLE)
        listing = self.trading.listings.get(str(instrument.get("symbol")))
        board = body.get("board") or instrument.get("instrumentGroup")
        if listing is None or instrument.get("exchange") != "MOEX" or board not in (None, "", listing.board):
            raise Turned(400, "BAD_INSTRUMENT: Неизвестный инструмент в заявке")
        quantity = body.get("quantity")
        if not isinstance(quantity, int) or isinstance(quantity, bool) or quantity <= 0:
            raise Turned(400, "Invalid or unsupported quantity")
        tif = _word(body, "timeInForce", "oneday", _TIMES)
        if tif == "goodtillcancelled" and not listing.future:
            raise Turned(400, "BAD_FLAGS")
        if tif == "attheclose":
            tif = "fillorkill"  # on this exchange it silently becomes that (§3.5)
        limited, stop = kind in ("limit", "stoplimit"), kind in ("stop", "stoplimit")
        comment = body.get("comment")
        if comment is not None and (not isinstance(comment, str) or len(comment) > 100):
            raise Turned(400, UNREADABLE)
        visible = body.get("icebergFixed")
        if visible is not None and (not isinstance(visible, int) or not 0 < visible <= quantity):
            raise Turned(400, "Invalid or unsupported quantity")
        protecting = int(body.get("protectingSeconds") or 0)
        if not 0 <= protecting <= 300:
            raise Turned(400, "protectingSeconds can not be greater than 300")
        ends = int(body.get("stopEndUnixTime") or 0)
        return Ask(
            listing=listing,
            side=_side(body),
            kind=kind,
            quantity=Decimal(quantity),
            price=_number(body, "price") if limited else None,
            comment=comment,
            tif=tif,
            visible=None if visible is None else Decimal(visible),
            variance=int(body.get("icebergVariance") or 0),
            trigger=_number(body, "triggerPrice") if stop else None,
            condition=_word(body, "condition", "", _CONDITIONS) if stop else "",
            ends_ms=ends * 1000 if ends else None,
            protecting_ms=protecting * 1000,
            active=body.get("activate") is not False,
        )


def order_number(value: Any) -> str:
    """Of an order that exists already: a text, and a number is taken, too."""
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise Turned(400, UNREADABLE)
    return str(value)


def _side(body: Body) -> Side:
    try:
        return Side(str(body.get("side")).lower())
    except ValueError:
        raise Turned(400, UNREADABLE) from None


def _word(body: Body, name: str, default: str, known: frozenset[str]) -> str:
    word = str(body.get(name) or default).lower()
    if word not in known:
        raise Turned(400, UNREADABLE)
    return word


def _number(body: Body, name: str) -> Decimal:
    value = body.get(name)
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise Turned(400, UNREADABLE)
    return Decimal(value)
