"""Does. Writes the registry as TOML or CSV and brings such a file in; credentials go in, never out.

What a file does not mention stays as it is: nothing is removed, except that a group named in the file gets exactly
the file's weights. Bringing the same file in twice changes nothing the second time. For a diff first, bring it in
inside `registry.together(keep=False)` and look at the recorded changes.
"""

from __future__ import annotations

import csv
import io
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Protocol, TypeVar

import msgspec

from accounts.model import (
    MANDATE_LIMITS,
    Account,
    AccountState,
    Connection,
    Credentials,
    Group,
    Listener,
    Mandate,
    Secret,
    Trading,
    Weight,
)
from accounts.registry import Registry, RegistryError
from accounts.vault import Vault


class TransferError(RegistryError):
    """Everything that is wrong with a file; nothing of it was used."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join([*errors, "Nothing was changed."]))
        self.errors = list(errors)


class Profiles(Protocol):
    """What venues say of connections; given by the engine, because accounts knows no venue."""

    def compose(self, account: Account, urls: Mapping[str, str]) -> tuple[Connection, ...]:
        """The connections of a new account, or of one more kind named in `urls`."""

    def check(self, venue: str, environment: str, kind: str, url: str) -> None:
        """Raises when a connection must not point there."""

    def credential_fields(self, venue: str) -> tuple[str, ...]:
        """What a login at this venue consists of."""


class ConnectionPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    kind: str
    url: str
    keep_alive: bool | None = None
    channels: tuple[str, ...] | None = None


class SharedPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    venue: str
    site: str
    environment: str
    kind: str
    url: str
    keep_alive: bool | None = None
    channels: tuple[str, ...] | None = None


class MandatePart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    max_order_notional: Decimal | None = None
    max_plan_notional: Decimal | None = None
    max_day_notional: Decimal | None = None
    max_instrument_notional: Decimal | None = None
    max_daily_loss: Decimal | None = None
    allowed_instruments: tuple[str, ...] = ()
    do_not_trade: tuple[str, ...] = ()


class AccountPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    id: str
    venue: str
    site: str
    environment: str
    name: str | None = None
    ref: str | None = None  # the venue's own name of the account
    state: AccountState | None = None
    trading: Trading | None = None
    mandate: MandatePart | None = None
    connection: tuple[ConnectionPart, ...] = ()
    credentials: dict[str, Secret] = {}


class GroupPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    id: str
    name: str | None = None
    weights: dict[str, Decimal] | None = None


class Sheet(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says of who is under management. None and absent: the file says nothing of it."""

    accounts: tuple[AccountPart, ...] = ()
    shared: tuple[SharedPart, ...] = ()
    groups: tuple[GroupPart, ...] = ()

    @property
    def has_credentials(self) -> bool:
        return any(a.credentials for a in self.accounts)


# ---- Out


def sheet(registry: Registry) -> Sheet:
    """The whole registry, without credentials and history."""
    with registry.view():
        connections = registry.connections()
        mandates = {m.account_id: m for m in registry.mandates()}
        own: dict[str, list[ConnectionPart]] = {}
        for c in connections:
            if c.listener is Listener.ACCOUNT:
                part = ConnectionPart(kind=c.kind, url=c.url, keep_alive=c.keep_alive, channels=c.channels)
                own.setdefault(c.listener_id, []).append(part)
        return Sheet(
            accounts=tuple(
                AccountPart(
                    id=a.account_id,
                    name=a.name,
                    ref=a.venue_ref or None,
                    venue=a.venue,
                    site=a.site,
                    environment=a.environment,
                    state=a.state,
                    trading=a.trading if a.trading is not Trading.ACTIVE else None,
                    mandate=_mandate_part(mandates.get(a.account_id)),
                    connection=tuple(own.get(a.account_id, ())),
                )
                for a in registry.accounts()
            ),
            shared=tuple(
                SharedPart(
                    venue=c.venue,
                    site=c.site,
                    environment=c.environment,
                    kind=c.kind,
                    url=c.url,
                    keep_alive=c.keep_alive,
                    channels=c.channels,
                )
                for c in connections
                if c.listener is Listener.VENUE
            ),
            groups=tuple(
                GroupPart(id=g.group_id, name=g.name, weights={w.account_id: w.weight for w in g.weights})
                for g in registry.groups()
            ),
        )


def to_toml(content: Sheet) -> str:
    """TOML text; never a credential."""
    lines = ["# The registry of unisono. Credentials are never exported.", ""]
    for account in content.accounts:
        lines += ["[[account]]", *_pairs(account, "mandate", "connection", "credentials")]
        if account.mandate is not None:
            lines += ["[account.mandate]", *_pairs(account.mandate)]
        for connection in account.connection:
            lines += ["[[account.connection]]", *_pairs(connection)]
        lines.append("")
    for shared in content.shared:
        lines += ["[[shared]]", *_pairs(shared), ""]
    for group in content.groups:
        lines += ["[[group]]", *_pairs(group, "weights")]
        if group.weights is not None:
            lines += ["[group.weights]", *(f"{key} = {_toml(weight)}" for key, weight in group.weights.items())]
        lines.append("")
    return "\n".join(lines)


_PLAIN = ("id", "name", "venue", "site", "environment", "ref", "state", "trading")
_LIMITS = MANDATE_LIMITS
_LISTS = ("allowed_instruments", "do_not_trade")


def to_csv(content: Sheet) -> str:
    """One line per account: what it is, its mandate, its addresses (`url:KIND`) and weights (`weight:GROUP`).

    Channels, shared feeds and group names do not fit a line; TOML holds them.
    """
    kinds = sorted({c.kind for a in content.accounts for c in a.connection})
    groups = [g for g in content.groups if g.weights]
    columns = [*_PLAIN, *_LIMITS, *_LISTS, *(f"url:{k}" for k in kinds), *(f"weight:{g.id}" for g in groups)]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for account in content.accounts:
        mandate = account.mandate or MandatePart()
        line = {key: getattr(account, key) or "" for key in _PLAIN}
        line |= {key: _number(getattr(mandate, key)) for key in _LIMITS}
        line |= {key: " ".join(getattr(mandate, key)) for key in _LISTS}
        line |= {f"url:{c.kind}": c.url for c in account.connection}
        line |= {f"weight:{g.id}": _number((g.weights or {}).get(account.id)) for g in groups}
        writer.writerow(line)
    return text.getvalue()


# ---- In


def from_toml(text: str) -> Sheet:
    """Raises TransferError that lists every error; no message holds a credential."""
    try:
        raw = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise TransferError([f"The file is not TOML: {error}."]) from None
    errors = [f"{key} is no part of a registry file" for key in raw if key not in ("account", "shared", "group")]
    content = Sheet(
        accounts=_parts(raw, "account", AccountPart, errors),
        shared=_parts(raw, "shared", SharedPart, errors),
        groups=_parts(raw, "group", GroupPart, errors),
    )
    return _complete(content, errors)


def from_csv(text: str) -> Sheet:
    """Raises TransferError that lists every error. Credentials are not taken from CSV."""
    try:
        return _from_csv(text)
    except csv.Error as error:
        raise TransferError([f"The file is not CSV: {error}."]) from None


def _from_csv(text: str) -> Sheet:
    reader = csv.DictReader(io.StringIO(text))
    columns = list(reader.fieldnames or ())
    errors = [f"column {c!r} is not known" for c in columns if not _is_column(c)]
    errors += [f"column {c} is missing" for c in ("id", "venue", "site", "environment") if c not in columns]
    errors += [f"column {c} is there twice" for c in sorted({c for c in columns if columns.count(c) > 1})]
    if errors:
        raise TransferError(errors)
    accounts, weights = list[AccountPart](), dict[str, dict[str, Decimal]]()
    weights |= {c.removeprefix("weight:"): {} for c in columns if c.startswith("weight:")}
    for line in reader:
        where = f"line {reader.line_num}"
        if None in line or None in line.values():
            errors.append(f"{where}: has not as many fields as the header")
            continue
        cells = {column: cell.strip() for column, cell in line.items()}
        raw: dict[str, Any] = {key: cells[key] for key in _PLAIN if cells.get(key)}
        if any(key in cells for key in (*_LIMITS, *_LISTS)):
            raw["mandate"] = {key: _cell_number(cells, key, where, errors) for key in _LIMITS}
            raw["mandate"] |= {key: cells.get(key, "").split() for key in _LISTS}
        raw["connection"] = [
            {"kind": column.removeprefix("url:"), "url": cell}
            for column, cell in cells.items()
            if column.startswith("url:") and cell
        ]
        for group, members in weights.items():
            if (weight := _cell_number(cells, f"weight:{group}", where, errors)) is not None:
                members[cells["id"]] = weight
        if (part := _part(raw, AccountPart, where, errors)) is not None:
            accounts.append(part)
    groups = tuple(GroupPart(id=group, weights=members) for group, members in weights.items())
    return _complete(Sheet(accounts=tuple(accounts), groups=groups), errors)


def bring_in(
    registry: Registry,
    content: Sheet,
    profiles: Profiles,
    vault: Vault | None,
    *,
    by: str,
    why: str,
    each: Callable[[], None] = lambda: None,
) -> list[str]:
    """Make the registry say what the sheet says, all or nothing; returns what a person should know.

    `vault` is needed when the sheet holds credentials. `each` is called after every account.
    """
    notes = list[str]()
    with registry.together():
        known = {a.account_id: a for a in registry.accounts()}
        for part in content.accounts:
            if (account := known.get(part.id)) is None:
                _add(registry, part, profiles, vault, notes, by, why)
            else:
                _edit(registry, account, part, profiles, vault, notes, by, why)
            each()
        for shared in content.shared:
            _edit_shared(registry, shared, profiles, by, why)
        for group in content.groups:
            _set_group(registry, group, by, why)
    return notes


def same_credentials(registry: Registry, vault: Vault, account_id: str, credentials: Credentials) -> bool:
    """Is this what is sealed already? Sealing anew would look like a change."""
    sealed = registry.sealed(account_id)
    return sealed.keys() == credentials.keys() and vault.open(account_id, sealed) == credentials


def check_fields(account_id: str, venue_fields: Sequence[str], credentials: Credentials) -> None:
    """Raises unless exactly the venue's fields are given, none of them empty."""
    if wrong := set(venue_fields) ^ set(credentials):
        raise RegistryError(
            f"Credentials of {account_id}: a login has {', '.join(venue_fields)}; "
            f"missing or unknown: {', '.join(sorted(wrong))}. Nothing was changed."
        )
    if empty := [field for field, value in credentials.items() if not value.reveal().strip()]:
        raise RegistryError(f"Credentials of {account_id}: {', '.join(empty)} is empty. Nothing was changed.")


def _add(
    registry: Registry,
    part: AccountPart,
    profiles: Profiles,
    vault: Vault | None,
    notes: list[str],
    by: str,
    why: str,
) -> None:
    wanted = part.state or AccountState.ACTIVE
    account = Account(
        account_id=part.id,
        name=part.name or part.id,
        venue=part.venue,
        site=part.site,
        environment=part.environment,
        state=wanted,
        trading=part.trading or Trading.ACTIVE,
        venue_ref=part.ref or "",
    )
    connections = profiles.compose(account, {c.kind: c.url for c in part.connection})
    own = {c.kind: c for c in part.connection}
    connections = tuple(
        _with(c, own[c.kind]) if c.listener is Listener.ACCOUNT and c.kind in own else c for c in connections
    )
    sealed = {}
    if part.credentials and vault is not None:
        check_fields(part.id, profiles.credential_fields(part.venue), part.credentials)
        sealed = vault.seal(part.id, part.credentials)
    elif wanted is AccountState.ACTIVE and any(c.requires_auth for c in connections):
        account = msgspec.structs.replace(account, state=AccountState.PAUSED)
        notes.append(f"{part.id} has no credentials: it is added paused. Set them, then resume it.")
    registry.add_account(account, connections, sealed, by=by, why=why)
    if part.mandate is not None:
        registry.set_mandate(_mandate(part.id, part.mandate), by=by, why=why)


def _edit(
    registry: Registry,
    account: Account,
    part: AccountPart,
    profiles: Profiles,
    vault: Vault | None,
    notes: list[str],
    by: str,
    why: str,
) -> None:
    is_now, says = [account.venue, account.site, account.environment], [part.venue, part.site, part.environment]
    if part.ref and account.venue_ref:
        is_now.append(account.venue_ref)
        says.append(part.ref)
    if is_now != says:
        raise RegistryError(
            f"{part.id} is at {'/'.join(is_now)}, the file says {'/'.join(says)}: that is another account. "
            "Nothing was changed."
        )
    if part.name is not None:
        registry.edit_account(part.id, {"name": part.name}, by=by, why=why)
    if part.trading is not None:
        registry.set_trading(part.id, part.trading, by=by, why=why)
    own = {c.kind: c for c in registry.connections(part.id)}
    for connection in part.connection:
        if (row := own.get(connection.kind)) is not None:
            _edit_connection(registry, row, connection, profiles, by, why)
            continue
        made = profiles.compose(account, {connection.kind: connection.url})
        new = next(c for c in made if c.kind == connection.kind)
        if new.listener is Listener.VENUE:
            raise RegistryError(f"{part.id}: {new.kind} is shared; write it as [[shared]]. Nothing was changed.")
        registry.add_connection(part.id, _with(new, connection), by=by, why=why)
    if part.credentials and vault is not None:
        check_fields(part.id, profiles.credential_fields(part.venue), part.credentials)
        if not same_credentials(registry, vault, part.id, part.credentials):
            registry.set_credentials(part.id, vault.seal(part.id, part.credentials), by=by, why=why)
    if part.mandate is not None:
        registry.set_mandate(_mandate(part.id, part.mandate), by=by, why=why)
    _set_state(registry, account, part, notes, by, why)


def _set_state(registry: Registry, account: Account, part: AccountPart, notes: list[str], by: str, why: str) -> None:
    match part.state:
        case None:
            return
        case AccountState.PAUSED:
            registry.pause(part.id, by=by, why=why)
        case AccountState.CLOSED:
            registry.close(part.id, by=by, why=why)
        case AccountState.ACTIVE:
            needs = any(c.requires_auth for c in registry.connections(part.id))
            if account.state is AccountState.PAUSED and needs and not registry.sealed(part.id):
                notes.append(f"{part.id} has no credentials: it stays paused. Set them, then resume it.")
            else:
                registry.resume(part.id, by=by, why=why)


def _edit_connection(
    registry: Registry, row: Connection, part: ConnectionPart | SharedPart, profiles: Profiles, by: str, why: str
) -> None:
    after = _with(row, part)
    if after.url != row.url:
        profiles.check(row.venue, row.environment, row.kind, after.url)
    changes = {"url": after.url, "channels": after.channels, "keep_alive": after.keep_alive}
    registry.edit_connection(row.connection_key, changes, by=by, why=why)


def _edit_shared(registry: Registry, part: SharedPart, profiles: Profiles, by: str, why: str) -> None:
    wanted = (part.venue, part.site, part.environment, part.kind)
    for row in registry.connections():
        if row.listener is Listener.VENUE and (row.venue, row.site, row.environment, row.kind) == wanted:
            return _edit_connection(registry, row, part, profiles, by, why)
    raise RegistryError(
        f"There is no shared feed {'/'.join(wanted)}: it comes with the first account there. Nothing was changed."
    )


def _set_group(registry: Registry, part: GroupPart, by: str, why: str) -> None:
    weights = None if part.weights is None else tuple(Weight(a, w) for a, w in part.weights.items())
    if part.id not in {g.group_id for g in registry.groups()}:
        group = Group(group_id=part.id, name=part.name or part.id, weights=weights or ())
        registry.add_group(group, by=by, why=why)
        return
    if part.name is not None:
        registry.rename_group(part.id, part.name, by=by, why=why)
    if weights is not None:
        registry.set_weights(part.id, weights, by=by, why=why)


def _with(connection: Connection, part: ConnectionPart | SharedPart) -> Connection:
    return msgspec.structs.replace(
        connection,
        url=part.url,
        keep_alive=connection.keep_alive if part.keep_alive is None else part.keep_alive,
        channels=connection.channels if part.channels is None else part.channels,
    )


def _mandate(account_id: str, part: MandatePart) -> Mandate:
    return Mandate(account_id=account_id, **msgspec.structs.asdict(part))


def _mandate_part(mandate: Mandate | None) -> MandatePart | None:
    if mandate is None:
        return None
    return MandatePart(**{name: getattr(mandate, name) for name in MandatePart.__struct_fields__})


# ---- Texts


_T = TypeVar("_T", bound=msgspec.Struct)


def _parts(raw: dict[str, Any], key: str, kind: type[_T], errors: list[str]) -> tuple[_T, ...]:
    listed = raw.get(key, [])
    if not isinstance(listed, list):
        errors.append(f"{key} must be written as [[{key}]]")
        return ()
    found = (_part(part, kind, f"{key} {number}", errors) for number, part in enumerate(listed, start=1))
    return tuple(part for part in found if part is not None)


def _part(raw: Any, kind: type[_T], where: str, errors: list[str]) -> _T | None:
    name = raw.get("id") if isinstance(raw, dict) else None
    try:
        return msgspec.convert(raw, kind, dec_hook=_secret)
    except msgspec.ValidationError as error:
        errors.append(f"{where}{f' ({name})' if name else ''}: {error}")
        return None


def _secret(kind: type, value: Any) -> Any:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise TypeError("must be a text")  # and never says which


def _complete(content: Sheet, errors: list[str]) -> Sheet:
    for what, parts in (("account", content.accounts), ("group", content.groups)):
        ids = [part.id for part in parts]
        errors += [f"{what} {i} is there twice" for i in sorted({i for i in ids if ids.count(i) > 1})]
    if errors:
        raise TransferError(errors)
    return content


def _is_column(name: str) -> bool:
    return name in (*_PLAIN, *_LIMITS, *_LISTS) or name.startswith(("url:", "weight:"))


def _cell_number(cells: Mapping[str, str], column: str, where: str, errors: list[str]) -> Decimal | None:
    if not (cell := cells.get(column, "")):
        return None
    try:
        return Decimal(cell)
    except InvalidOperation:
        errors.append(f"{where}: {column} is {cell!r}, not a number")
        return None


def _pairs(part: msgspec.Struct, *without: str) -> list[str]:
    given = ((f, getattr(part, f)) for f in part.__struct_fields__ if f not in without)
    return [f"{field} = {_toml(value)}" for field, value in given if value is not None]


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(v) for v in value)}]"
    # A JSON text is a TOML text, but for the one control character that JSON leaves alone.
    text = _number(value) if isinstance(value, Decimal) else str(value)
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _number(value: Decimal | None) -> str:
    return "" if value is None else format(value, "f")
