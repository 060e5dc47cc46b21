"""Does. Adds, edits, pauses, closes, groups and lists accounts; every edit is one attributed change in one transaction.

A running engine follows by polling `change_counter()`. An edit that changes nothing records nothing.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, cast

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select

from accounts import chain
from accounts.database import Database, DatabaseDown, RegistryError, SchemaMissing, SchemaTooNew
from accounts.model import (
    MANDATE_LIMITS,
    Account,
    AccountState,
    Change,
    Connection,
    Group,
    Listener,
    LiveRow,
    Mandate,
    Model,
    ModelLine,
    Trading,
    Weight,
    tightest,
)
from accounts.tables import (
    SEALED,
    AccountRow,
    CanaryRow,
    ChangeRow,
    ConnectionLiveRow,
    ConnectionRow,
    CredentialRow,
    GroupMandateRow,
    GroupRow,
    MandateRow,
    ModelLineRow,
    ModelRow,
    WeightRow,
    account_of,
    change_of,
    connection_of,
    connection_row,
    live_of,
    mandate_of,
    mandate_row,
    texts,
)
from accounts.vault import SealedValue, Vault, key_id_of

__all__ = [
    "Change",
    "Conflict",
    "DatabaseDown",
    "LiveRow",
    "NotFound",
    "Recorded",
    "Registry",
    "RegistryError",
    "SchemaMissing",
    "SchemaTooNew",
]

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_TEXT_LIMIT = 500
_WHOLE = Decimal(100)


class NotFound(RegistryError):
    """There is no such account, connection or group."""


class Conflict(RegistryError):
    """It exists already, or somebody else changed it in the meantime."""


_LATEST = sa.select(sa.func.max(ChangeRow.change_id))
_HEAD = select(ChangeRow.seal).order_by(col(ChangeRow.change_id).desc()).limit(1)


class Recorded:
    """One edit going on, and what it recorded, complete once it has ended."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.head = session.exec(_HEAD).first() or chain.BEGINNING  # what the next change follows
        self.rows: list[ChangeRow] = []
        self.changes: list[Change] = []


class Registry:
    def __init__(
        self,
        url: str,
        *,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        suffix: Callable[[], str] = lambda: secrets.token_hex(2),
        wait_s: float = 5.0,
    ) -> None:
        self._database = Database(url, wait_s=wait_s)
        self._now_ms, self._suffix = now_ms, suffix
        self._thread = threading.local()

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.dispose()

    def dispose(self) -> None:
        """Give the database's connections back; `close` is for accounts."""
        self._database.close()

    def upgrade(self) -> None:
        """Make the tables, or bring them to this version. Raises SchemaTooNew."""
        self._database.upgrade()

    def check(self) -> None:
        """Raises SchemaMissing or SchemaTooNew unless the tables are this version's."""
        self._database.check()

    @contextmanager
    def together(self, *, keep: bool = True, counter: int | None = None) -> Iterator[Recorded]:
        """Every edit inside is one transaction: all or nothing. Edits outside of it are one transaction each.

        `keep=False` rehearses: the changes are recorded for the caller to see, then undone. `counter` is the
        `change_counter()` that the caller's decision rests on; Conflict when something was changed since.
        """
        if (outer := self._recorded()) is not None:
            yield outer
            return
        with self._database.edits() as session:
            self._thread.recorded = recorded = Recorded(session)
            try:
                if counter is not None and self.change_counter() != counter:
                    raise Conflict(
                        "The registry was changed by somebody else in the meantime. Look again, then repeat."
                    )
                yield recorded
                session.flush()
                recorded.changes = [change_of(row) for row in recorded.rows]
                if not keep:
                    session.rollback()
            finally:
                self._thread.recorded = None

    # ---- Reading

    @contextmanager
    def view(self) -> Iterator[None]:
        """Every read inside sees the same moment."""
        with self._reads():
            yield

    def accounts(self) -> list[Account]:
        with self._reads() as session:
            return [account_of(r) for r in session.exec(select(AccountRow).order_by(col(AccountRow.account_id)))]

    def account(self, account_id: str) -> Account:
        with self._reads() as session:
            return account_of(self._account_row(session, account_id))

    def connections(self, account_id: str | None = None) -> list[Connection]:
        """Every row of the register, or those of one account (shared feeds are the venue's, not the account's)."""
        query = select(ConnectionRow).order_by(col(ConnectionRow.client_key))
        if account_id is not None:
            query = query.where(_owned_by(account_id))
        with self._reads() as session:
            return [connection_of(r) for r in session.exec(query)]

    def wanted(self) -> list[Connection]:
        """The connections that ought to be open: those of active accounts, and the shared feeds they need."""
        with self._reads():
            active = [a for a in self.accounts() if a.state is AccountState.ACTIVE]
            ids = {a.account_id for a in active}
            places = {(a.venue, a.site, a.environment) for a in active}
            return [
                c
                for c in self.connections()
                if (c.listener_id in ids if c.listener is Listener.ACCOUNT else _place(c) in places)
            ]

    def groups(self) -> list[Group]:
        with self._reads() as session:
            weights: dict[str, list[Weight]] = {}
            for row in session.exec(select(WeightRow).order_by(col(WeightRow.account_id))):
                weights.setdefault(row.group_id, []).append(Weight(row.account_id, row.weight))
            return [
                Group(group_id=row.group_id, name=row.name, weights=tuple(weights.get(row.group_id, ())))
                for row in session.exec(select(GroupRow).order_by(col(GroupRow.group_id)))
            ]

    def group(self, group_id: str) -> Group:
        with self._reads() as session:
            return self._group(session, group_id)

    def mandates(self) -> list[Mandate]:
        """Those that were set; an account without one has no limits."""
        with self._reads() as session:
            return [mandate_of(r) for r in session.exec(select(MandateRow).order_by(col(MandateRow.account_id)))]

    def mandates_in_force(self) -> list[Mandate]:
        """Of each account that has any limit what its own mandate and those of its groups allow together."""
        with self._reads():
            own = {m.account_id: [m] for m in self.mandates()}
            of_groups = {m.group_id: m for m in self.group_mandates()}
            for group in self.groups():
                if (mandate := of_groups.get(group.group_id)) is not None:
                    for weight in group.weights:
                        own.setdefault(weight.account_id, []).append(mandate)
        found = {account_id: tightest(mandates) for account_id, mandates in sorted(own.items())}
        return [
            msgspec.structs.replace(one, account_id=account_id, group_id="")
            for account_id, one in found.items()
            if one is not None
        ]

    def group_mandates(self) -> list[Mandate]:
        """Those that were set for groups."""
        with self._reads() as session:
            return [
                mandate_of(r) for r in session.exec(select(GroupMandateRow).order_by(col(GroupMandateRow.group_id)))
            ]

    def group_mandate(self, group_id: str) -> Mandate:
        with self._reads() as session:
            row = session.get(GroupMandateRow, self._group(session, group_id).group_id)
            return mandate_of(row) if row else Mandate(group_id=group_id)

    def models(self) -> list[Model]:
        """Every model portfolio with its lines."""
        with self._reads() as session:
            lines: dict[str, list[ModelLine]] = {}
            for line in session.exec(select(ModelLineRow).order_by(col(ModelLineRow.instrument))):
                told = ModelLine(instrument=line.instrument, weight=line.weight, band=line.band)
                lines.setdefault(line.model_id, []).append(told)
            return [
                Model(model_id=row.model_id, name=row.name, cash=row.cash, lines=tuple(lines.get(row.model_id, ())))
                for row in session.exec(select(ModelRow).order_by(col(ModelRow.model_id)))
            ]

    def model(self, model_id: str) -> Model:
        for model in self.models():
            if model.model_id == model_id:
                return model
        raise NotFound(f"There is no model {model_id}.")

    def mandate(self, account_id: str) -> Mandate:
        with self._reads() as session:
            row = session.get(MandateRow, self._account_row(session, account_id).account_id)
            return mandate_of(row) if row else Mandate(account_id=account_id)

    def sealed(self, account_id: str) -> dict[str, SealedValue]:
        query = select(CredentialRow).where(CredentialRow.account_id == account_id).order_by(col(CredentialRow.field))
        with self._reads() as session:
            return {row.field: SealedValue(row.sealed) for row in session.exec(query)}

    def credential_fields(self) -> dict[str, tuple[str, ...]]:
        """Which fields are sealed for which account; an account without credentials is not in it."""
        query = select(CredentialRow.account_id, CredentialRow.field).order_by(
            col(CredentialRow.account_id), col(CredentialRow.field)
        )
        found: dict[str, tuple[str, ...]] = {}
        with self._reads() as session:
            for account_id, field in session.exec(query):
                found[account_id] = (*found.get(account_id, ()), field)
        return found

    def canary(self) -> SealedValue | None:
        """What the right vault key opens; None before `unisono init`."""
        with self._reads() as session:
            row = session.get(CanaryRow, 1)
            return SealedValue(row.sealed) if row else None

    def changes(
        self,
        *,
        subjects: Collection[tuple[str, str]] | None = None,
        limit: int = 100,
        since_ms: int = 0,
        by: str = "",
        subject_id: str = "",
    ) -> list[Change]:
        """The latest first; `subjects` are pairs of kind and subject id; `by` and `subject_id` where they are given."""
        query = select(ChangeRow).where(col(ChangeRow.at_ms) >= since_ms)
        for column, wanted in ((ChangeRow.by_whom, by), (ChangeRow.subject_id, subject_id)):
            if wanted:
                query = query.where(col(column) == wanted)
        if subjects is not None:
            query = query.where(sa.tuple_(col(ChangeRow.kind), col(ChangeRow.subject_id)).in_(subjects))
        query = query.order_by(col(ChangeRow.change_id).desc()).limit(limit)
        with self._reads() as session:
            return [change_of(row) for row in session.exec(query)]

    def account_changes(self, account_id: str, limit: int = 100) -> list[Change]:
        """What happened to an account, its connections, credentials and mandate; the latest first."""
        with self._reads():
            own = [("connection", c.connection_key) for c in self.connections(self.account(account_id).account_id)]
            kinds = ("account", "credentials", "mandate")
            return self.changes(subjects=[*((kind, account_id) for kind in kinds), *own], limit=limit)

    def verify_changes(self) -> chain.Chain:
        """Is every change as it was recorded, and in its place? Reads them all."""
        columns = [col(getattr(ChangeRow, name)) for name in ("change_id", "previous", "seal", *SEALED)]
        query = sa.select(*columns).order_by(col(ChangeRow.change_id)).execution_options(yield_per=1000)
        with self._reads() as session, session.connection().execute(query) as found:
            return chain.check(chain.Sealed(number, before, seal, row) for number, before, seal, *row in found)

    def has_seal(self, seal: str) -> bool:
        """Does a change carry it?"""
        with self._reads() as session:
            return session.exec(select(ChangeRow.change_id).where(ChangeRow.seal == seal)).first() is not None

    def change_counter(self) -> int:
        """Grows with every recorded change; 0 when there is none."""
        with self._reads() as session:  # asked twice a second, so without the way round the mapper
            return session.connection().execute(_LATEST).scalar() or 0

    # ---- Accounts

    def add_account(
        self,
        account: Account,
        connections: Sequence[Connection],
        sealed: Mapping[str, SealedValue],
        *,
        by: str,
        why: str,
    ) -> Account:
        """A new account with its connections, and the shared feeds of its place unless they are there already.

        The connections come without keys, which are assigned here.
        """
        _check_id("An account id", account.account_id)
        _check_name(account.name)
        with self.together() as recorded:
            session = recorded.session
            if session.get(AccountRow, account.account_id) is not None:
                raise Conflict(f"There is an account {account.account_id} already. Nothing was changed.")
            account = msgspec.structs.replace(account, version=1)
            self._refuse_same_login(session, account, account.venue_ref)
            session.add(AccountRow(**msgspec.to_builtins(account)))
            session.flush()
            self._record(recorded, "account", account.account_id, "add", None, account, by, why)
            self._add_connections(recorded, account, connections, by, why)
            if sealed:
                self._replace_credentials(recorded, account.account_id, {}, sealed, by, why)
            elif account.state is AccountState.ACTIVE:
                self._require_credentials(session, account.account_id)
        return account

    def edit_account(
        self, account_id: str, changes: Mapping[str, object], *, by: str, why: str, version: int | None = None
    ) -> Account:
        """Change the name. What an account is (venue, site, environment) never changes: that is another account."""
        if unknown := set(changes) - {"name"}:
            raise RegistryError(f"{', '.join(sorted(unknown))} of an account cannot be edited.")
        if "name" in changes:
            _check_name(changes["name"])
        return self._change_account(account_id, "edit", changes, by, why, version)

    def set_venue_ref(self, account_id: str, venue_ref: str, *, by: str, why: str) -> Account:
        """What the venue calls the account. Conflict when another account is the same login: orders would double."""
        with self.together() as recorded:
            account = self.account(account_id)
            self._refuse_same_login(recorded.session, account, venue_ref)
            return self._change_account(account_id, "identify", {"venue_ref": venue_ref}, by, why, None)

    def pause(self, account_id: str, *, by: str, why: str, version: int | None = None) -> Account:
        """Close its connections and take it out of plans; it stays known."""
        return self._set_state(account_id, "pause", AccountState.PAUSED, by, why, version)

    def resume(self, account_id: str, *, by: str, why: str, version: int | None = None) -> Account:
        with self.together() as recorded:
            account = self._set_state(account_id, "resume", AccountState.ACTIVE, by, why, version)
            self._require_credentials(recorded.session, account_id)
        return account

    def close(
        self, account_id: str, *, by: str, why: str, drop_credentials: bool = False, version: int | None = None
    ) -> Account:
        """No longer under management, for good: it leaves its groups. History and, unless dropped, keys stay."""
        with self.together() as recorded:
            account = self._set_state(account_id, "close", AccountState.CLOSED, by, why, version)
            for group in self.groups():
                rest = [w for w in group.weights if w.account_id != account_id]
                self.set_weights(group.group_id, rest, by=by, why=why)
            if drop_credentials:
                self._replace_credentials(recorded, account_id, self.sealed(account_id), {}, by, why)
        return account

    def edit_connection(
        self, connection_key: str, changes: Mapping[str, object], *, by: str, why: str, version: int | None = None
    ) -> Connection:
        """Change url, channels or keep_alive of one row. `version` is that of the account that owns it."""
        if unknown := set(changes) - {"url", "channels", "keep_alive"}:
            raise RegistryError(f"{', '.join(sorted(unknown))} of a connection cannot be edited.")
        with self.together() as recorded:
            session = recorded.session
            if (row := session.get(ConnectionRow, connection_key)) is None:
                raise NotFound(f"There is no connection {connection_key}.")
            before = connection_of(row)
            # A TypeError or ValidationError of a wrongly typed value names the field, and nothing was changed.
            after = msgspec.convert(msgspec.to_builtins(before) | msgspec.to_builtins(dict(changes)), Connection)
            if before.listener is Listener.ACCOUNT:
                self._account_row(session, before.listener_id, version)
            if after != before:
                row.url, row.keep_alive, row.channels = after.url, after.keep_alive, texts(after.channels)
                self._record(recorded, "connection", connection_key, "edit", before, after, by, why)
                if before.listener is Listener.ACCOUNT:
                    self._account_row(session, before.listener_id).version += 1
        return after

    def add_connection(self, account_id: str, connection: Connection, *, by: str, why: str) -> None:
        """One more endpoint kind for an account; a shared feed that exists already is left as it is."""
        with self.together() as recorded:
            row = self._account_row(recorded.session, account_id)
            if self._add_connections(recorded, account_of(row), [connection], by, why):
                row.version += 1

    def set_trading(
        self, account_id: str, trading: Trading, *, by: str, why: str, version: int | None = None
    ) -> Account:
        """What the account's orders may do from now on."""
        return self._change_account(account_id, "trading", {"trading": trading}, by, why, version)

    def set_mandate(self, mandate: Mandate, *, by: str, why: str, version: int | None = None) -> Mandate:
        """What the account may do from now on."""
        _check_limits(mandate)
        with self.together() as recorded:
            session = recorded.session
            account = self._account_row(session, mandate.account_id, version)
            before = self.mandate(mandate.account_id)
            if mandate != before:
                session.merge(mandate_row(mandate))
                self._record(recorded, "mandate", mandate.account_id, "set", before, mandate, by, why)
                account.version += 1
        return mandate

    def set_group_mandate(self, mandate: Mandate, *, by: str, why: str) -> Mandate:
        """What each account of the group may do from now on, beside its own mandate."""
        _check_limits(mandate)
        with self.together() as recorded:
            before = self.group_mandate(mandate.group_id)
            if mandate != before:
                recorded.session.merge(mandate_row(mandate))
                self._record(recorded, "mandate", mandate.group_id, "set", before, mandate, by, why)
        return mandate

    # ---- Credentials

    def set_credentials(
        self,
        account_id: str,
        sealed: Mapping[str, SealedValue],
        *,
        by: str,
        why: str,
        version: int | None = None,
    ) -> Account:
        """Replace all sealed fields of an account."""
        with self.together() as recorded:
            row = self._account_row(recorded.session, account_id, version)
            if row.state == AccountState.CLOSED.value:
                raise RegistryError(f"Account {account_id} is closed: it needs no credentials. Nothing was changed.")
            self._replace_credentials(recorded, account_id, self.sealed(account_id), sealed, by, why)
            if row.state == AccountState.ACTIVE.value:
                self._require_credentials(recorded.session, account_id)
            row.version += 1
            return account_of(row)

    def set_canary(self, canary: SealedValue, *, by: str, why: str) -> None:
        """Once, at init: the key that this registry's credentials are sealed with."""
        with self.together() as recorded:
            if recorded.session.get(CanaryRow, 1) is not None:
                raise Conflict("This registry has a vault key already. Nothing was changed.")
            recorded.session.add(CanaryRow(canary_id=1, sealed=canary))
            self._record(recorded, "vault", "", "add", None, {"key_id": key_id_of(canary)}, by, why)

    def reseal(self, old: Vault, new: Vault, *, by: str, why: str) -> int:
        """Open everything with one key and seal it with another, all or nothing; how many accounts it was."""
        with self.together() as recorded:
            session = recorded.session
            if (canary := session.get(CanaryRow, 1)) is None:
                raise NotFound("This registry has no vault key yet. Make one with: unisono init")
            old.check(SealedValue(canary.sealed))
            accounts = self.credential_fields()
            for account_id in accounts:
                for field, value in new.seal(account_id, old.open(account_id, self.sealed(account_id))).items():
                    session.merge(CredentialRow(account_id=account_id, field=field, sealed=value))
            canary.sealed = new.canary()
            after = {"key_id": new.key_id, "accounts": len(accounts)}
            self._record(recorded, "vault", "", "rotate", {"key_id": old.key_id}, after, by, why)
        return len(accounts)

    # ---- Groups

    def add_group(self, group: Group, *, by: str, why: str) -> Group:
        _check_id("A group id", group.group_id)
        _check_name(group.name)
        with self.together() as recorded:
            if recorded.session.get(GroupRow, group.group_id) is not None:
                raise Conflict(f"There is a group {group.group_id} already. Nothing was changed.")
            weights = self._checked_weights(recorded.session, group.weights)
            recorded.session.add(GroupRow(group_id=group.group_id, name=group.name))
            recorded.session.flush()
            recorded.session.add_all(_weight_rows(group.group_id, weights))
            group = msgspec.structs.replace(group, weights=weights)
            self._record(recorded, "group", group.group_id, "add", None, group, by, why)
        return group

    def rename_group(self, group_id: str, name: str, *, by: str, why: str) -> Group:
        _check_name(name)
        with self.together() as recorded:
            before = self.group(group_id)
            after = msgspec.structs.replace(before, name=name)
            if after != before:
                _row(recorded.session, GroupRow, group_id).name = name
                self._record(recorded, "group", group_id, "rename", before, after, by, why)
        return after

    def set_weights(self, group_id: str, weights: Iterable[Weight], *, by: str, why: str) -> Group:
        """Who is in the group and with what weight, from now on: the whole list."""
        with self.together() as recorded:
            session = recorded.session
            before = self.group(group_id)
            after = msgspec.structs.replace(before, weights=self._checked_weights(session, weights))
            if after != before:
                session.exec(sa.delete(WeightRow).where(col(WeightRow.group_id) == group_id))
                session.add_all(_weight_rows(group_id, after.weights))
                self._record(recorded, "group", group_id, "weights", before, after, by, why)
        return after

    def remove_group(self, group_id: str, *, by: str, why: str) -> None:
        with self.together() as recorded:
            before = self.group(group_id)
            recorded.session.exec(sa.delete(WeightRow).where(col(WeightRow.group_id) == group_id))
            recorded.session.exec(sa.delete(GroupMandateRow).where(col(GroupMandateRow.group_id) == group_id))
            recorded.session.exec(sa.delete(GroupRow).where(col(GroupRow.group_id) == group_id))
            self._record(recorded, "group", group_id, "remove", before, None, by, why)

    # ---- Models

    def set_model(self, model: Model, *, by: str, why: str) -> Model:
        """The whole model, from now on; a new one where there is none of that id."""
        _check_id("A model id", model.model_id)
        _check_name(model.name)
        model = msgspec.structs.replace(model, lines=_checked_lines(model))
        with self.together() as recorded:
            session = recorded.session
            row = session.get(ModelRow, model.model_id)
            before = self.model(model.model_id) if row is not None else None
            if model != before:
                session.exec(sa.delete(ModelLineRow).where(col(ModelLineRow.model_id) == model.model_id))
                session.merge(ModelRow(model_id=model.model_id, name=model.name, cash=model.cash))
                session.flush()
                session.add_all(
                    ModelLineRow(model_id=model.model_id, instrument=x.instrument, weight=x.weight, band=x.band)
                    for x in model.lines
                )
                action = "add" if before is None else "set"
                self._record(recorded, "model", model.model_id, action, before, model, by, why)
        return model

    def remove_model(self, model_id: str, *, by: str, why: str) -> None:
        with self.together() as recorded:
            before = self.model(model_id)
            recorded.session.exec(sa.delete(ModelLineRow).where(col(ModelLineRow.model_id) == model_id))
            recorded.session.exec(sa.delete(ModelRow).where(col(ModelRow.model_id) == model_id))
            self._record(recorded, "model", model_id, "remove", before, None, by, why)

    # ---- Live state, written by the running engine

    def live(self) -> list[LiveRow]:
        with self._reads() as session:
            rows = session.exec(select(ConnectionLiveRow).order_by(col(ConnectionLiveRow.connection_key)))
            return [live_of(row) for row in rows]

    @staticmethod
    def save_live(connection: sa.Connection, rows: Sequence[LiveRow]) -> None:
        """Write the state of these connections in the caller's transaction; no edit, so no change is recorded."""
        if not rows:
            return
        insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        statement = insert(cast(sa.Table, sa.inspect(ConnectionLiveRow).local_table))
        new = {c.name: c for c in statement.excluded if c.name != "connection_key"}
        connection.execute(
            statement.on_conflict_do_update(index_elements=["connection_key"], set_=new),
            [msgspec.structs.asdict(row) | {"last_error": row.last_error[:_TEXT_LIMIT]} for row in rows],
        )

    # ---- Within one transaction

    def _recorded(self) -> Recorded | None:
        return getattr(self._thread, "recorded", None)

    @contextmanager
    def _reads(self) -> Iterator[Session]:
        """The session of the edit that is going on in this thread, or of the read; else a new one."""
        if (recorded := self._recorded()) is not None:
            yield recorded.session
        elif (session := getattr(self._thread, "session", None)) is not None:
            yield session
        else:
            with self._database.reads() as session:
                self._thread.session = session
                try:
                    yield session
                finally:
                    self._thread.session = None

    def _account_row(self, session: Session, account_id: str, version: int | None = None) -> AccountRow:
        if (row := session.get(AccountRow, account_id)) is None:
            raise NotFound(f"There is no account {account_id}.")
        if version is not None and row.version != version:
            raise Conflict(
                f"Account {account_id} was changed by somebody else: it is at version {row.version}, this edit was "
                f"made for version {version}. Nothing was changed. Look again, then repeat."
            )
        return row

    def _group(self, session: Session, group_id: str) -> Group:
        if (row := session.get(GroupRow, group_id)) is None:
            raise NotFound(f"There is no group {group_id}.")
        query = select(WeightRow).where(WeightRow.group_id == group_id).order_by(col(WeightRow.account_id))
        weights = tuple(Weight(w.account_id, w.weight) for w in session.exec(query))
        return Group(group_id=group_id, name=row.name, weights=weights)

    def _set_state(
        self, account_id: str, action: str, state: AccountState, by: str, why: str, version: int | None
    ) -> Account:
        with self.together():
            if self.account(account_id).state is AccountState.CLOSED and state is not AccountState.CLOSED:
                raise RegistryError(
                    f"Account {account_id} is closed, and closed is for good. Nothing was changed. "
                    "Add the login again under a new id."
                )
            return self._change_account(account_id, action, {"state": state}, by, why, version)

    def _change_account(
        self, account_id: str, action: str, changes: Mapping[str, object], by: str, why: str, version: int | None
    ) -> Account:
        with self.together() as recorded:
            row = self._account_row(recorded.session, account_id, version)
            before = account_of(row)
            after = msgspec.structs.replace(before, **changes)
            if after != before:
                after = msgspec.structs.replace(after, version=before.version + 1)
                for field, value in msgspec.to_builtins(after).items():
                    setattr(row, field, value)
                self._record(recorded, "account", account_id, action, before, after, by, why)
        return after

    def _add_connections(
        self, recorded: Recorded, account: Account, connections: Sequence[Connection], by: str, why: str
    ) -> int:
        """How many were new: a shared feed may be there already."""
        new: dict[str, Connection] = {}
        for connection in connections:
            shared = connection.listener is Listener.VENUE
            owner = f"{account.site}-{account.environment}" if shared else account.account_id
            client_key = f"{account.venue}-{owner}-{connection.kind}"
            new[client_key] = msgspec.structs.replace(
                connection,
                client_key=client_key,
                connection_key=f"{client_key}-{self._suffix()}",
                listener_id=account.venue if shared else account.account_id,
                venue=account.venue,
                site=account.site,
                environment=account.environment,
            )
        known = select(ConnectionRow.client_key).where(col(ConnectionRow.client_key).in_(new))
        for client_key in recorded.session.exec(known):
            if (there := new.pop(client_key)).listener is Listener.ACCOUNT:
                raise Conflict(f"Account {account.account_id} has a {there.kind} connection already.")
        for connection in new.values():
            recorded.session.add(connection_row(connection))
            self._record(recorded, "connection", connection.connection_key, "add", None, connection, by, why)
        return len(new)

    def _replace_credentials(
        self,
        recorded: Recorded,
        account_id: str,
        before: Mapping[str, SealedValue],
        sealed: Mapping[str, SealedValue],
        by: str,
        why: str,
    ) -> None:
        session = recorded.session
        if before:
            session.exec(sa.delete(CredentialRow).where(col(CredentialRow.account_id) == account_id))
        if sealed:
            canary = self.canary()
            if canary is None or {key_id_of(v) for v in sealed.values()} != {key_id_of(canary)}:
                raise Conflict(
                    "These credentials were sealed by another vault key than this registry's. Nothing was changed."
                )
            session.add_all(CredentialRow(account_id=account_id, field=f, sealed=v) for f, v in sealed.items())
        if before or sealed:
            action = "set" if sealed else "drop"
            self._record(recorded, "credentials", account_id, action, _named(before), _named(sealed), by, why)

    def _require_credentials(self, session: Session, account_id: str) -> None:
        needs = select(ConnectionRow.kind).where(_owned_by(account_id), col(ConnectionRow.requires_auth))
        if session.exec(needs).first() is not None and not self.sealed(account_id):
            raise RegistryError(
                f"Account {account_id} has no credentials, so it cannot be active. Nothing was changed. "
                f"Set them with: unisono accounts edit {account_id} --credentials-file FILE"
            )

    def _refuse_same_login(self, session: Session, account: Account, venue_ref: str) -> None:
        for other in self._same_login(session, account, venue_ref):
            raise Conflict(
                f"{account.account_id} is the login {venue_ref} at {account.venue}, which is already under management "
                f"as {other}: every order would be placed twice. Close one of the two."
            )

    def _same_login(self, session: Session, account: Account, venue_ref: str) -> Sequence[str]:
        query = select(AccountRow.account_id).where(
            AccountRow.account_id != account.account_id,
            AccountRow.venue == account.venue,
            AccountRow.environment == account.environment,
            AccountRow.venue_ref == venue_ref,
            AccountRow.state != AccountState.CLOSED.value,
        )
        return session.exec(query).all() if venue_ref else ()

    def _checked_weights(self, session: Session, weights: Iterable[Weight]) -> tuple[Weight, ...]:
        ordered, seen = sorted(weights, key=lambda w: w.account_id), set[str]()
        for weight in ordered:
            row = self._account_row(session, weight.account_id)
            if row.state == AccountState.CLOSED.value:
                raise RegistryError(f"Account {weight.account_id} is closed: it joins no group. Nothing was changed.")
            if weight.account_id in seen:
                raise RegistryError(f"Account {weight.account_id} is named twice. Nothing was changed.")
            if not weight.weight.is_finite() or weight.weight < 0:
                raise RegistryError(
                    f"The weight of {weight.account_id} is {weight.weight}; it must be 0 or more. Nothing was changed."
                )
            seen.add(weight.account_id)
        return tuple(ordered)

    def _record(
        self,
        recorded: Recorded,
        kind: str,
        subject_id: str,
        action: str,
        before: object,
        after: object,
        by: str,
        why: str,
    ) -> None:
        if not why.strip():
            raise RegistryError("Every edit says why. Nothing was changed.")
        if len(why) > _TEXT_LIMIT:
            raise RegistryError(f"A reason has at most {_TEXT_LIMIT} characters. Nothing was changed.")
        row = ChangeRow(
            at_ms=self._now_ms(),
            by_whom=by[:100],
            why=why,
            kind=kind,
            subject_id=subject_id,
            action=action,
            before=None if before is None else msgspec.json.encode(before).decode(),
            after=None if after is None else msgspec.json.encode(after).decode(),
            previous=recorded.head,
            seal="",
        )
        row.seal = recorded.head = chain.seal(recorded.head, [getattr(row, name) for name in SEALED])
        recorded.session.add(row)
        recorded.rows.append(row)


def _row(session: Session, table: type[GroupRow], key: str) -> GroupRow:
    found = session.get(table, key)
    assert found is not None, "read in this transaction"
    return found


def _owned_by(account_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(col(ConnectionRow.listener) == Listener.ACCOUNT.value, col(ConnectionRow.listener_id) == account_id)


def _place(connection: Connection) -> tuple[str, str, str]:
    return connection.venue, connection.site, connection.environment


def _weight_rows(group_id: str, weights: Iterable[Weight]) -> list[WeightRow]:
    return [WeightRow(group_id=group_id, account_id=w.account_id, weight=w.weight) for w in weights]


def _named(sealed: Mapping[str, SealedValue]) -> dict[str, Any] | None:
    """What may be told of credentials: their fields and the key that sealed them."""
    if not sealed:
        return None
    return {"fields": sorted(sealed), "key_id": key_id_of(next(iter(sealed.values())))}


def _check_limits(mandate: Mandate) -> None:
    for limit in (getattr(mandate, name) for name in MANDATE_LIMITS):
        if limit is not None and not (limit.is_finite() and limit > 0):
            raise RegistryError(f"A limit is an amount above 0, not {limit}. Nothing was changed.")


def _checked_lines(model: Model) -> tuple[ModelLine, ...]:
    """In the order of their instruments."""
    ordered, seen = sorted(model.lines, key=lambda line: line.instrument), set[str]()
    for line in ordered:
        if not line.instrument or line.instrument in seen:
            raise RegistryError(f"Instrument {line.instrument!r} is named twice or not at all. Nothing was changed.")
        for what, number in (("weight", line.weight), ("band", line.band)):
            if not (number.is_finite() and 0 <= number <= _WHOLE):
                raise RegistryError(
                    f"The {what} of {line.instrument} is {number}; it must lie between 0 and 100. Nothing was changed."
                )
        seen.add(line.instrument)
    if not (model.cash.is_finite() and 0 <= model.cash <= _WHOLE):
        raise RegistryError(f"The cash line is {model.cash}; it must lie between 0 and 100. Nothing was changed.")
    whole = sum((line.weight for line in ordered), model.cash)
    if whole != _WHOLE:
        raise RegistryError(f"The weights and the cash line sum to {whole:f}, not to 100. Nothing was changed.")
    return tuple(ordered)


def _check_id(what: str, value: str) -> None:
    if not _ID.fullmatch(value):
        raise RegistryError(
            f"{what} has a-z, 0-9 and '-', begins with a letter or digit and has at most 32 characters; "
            f"{value!r} does not. Nothing was changed."
        )


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not 1 <= len(name.strip()) == len(name) <= 100 or not name.isprintable():
        raise RegistryError(f"A name has 1 to 100 printable characters, {name!r} does not. Nothing was changed.")
    if name[0] in "=+-@":
        raise RegistryError(f"A name must not begin with {name[0]!r}: a spreadsheet would calculate it.")
