"""Does. `unisono accounts …`: who is under management, with which connections and keys."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from accounts import transfer
from accounts.model import Account, AccountState, Connection, Listener, LiveRow, Trading
from accounts.registry import Registry
from accounts.rotation import rotate
from accounts.vault import key_id_of
from engine.cli.context import CONFIG_DEFAULT, ConfigOption, JsonOption, console, errors, fail, print_json, show, who
from engine.cli.edits import (
    FOLLOWS,
    CredentialsOption,
    DryRunOption,
    LimitOption,
    WhyOption,
    composer_of,
    confirmed,
    editing,
    moment,
    opened,
    read_credentials,
    read_private,
    reason,
    tell,
    tell_history,
    vault_of,
)
from engine.cli.mandates import (
    AllowOption,
    DenyOption,
    MaxDayOption,
    MaxInstrumentOption,
    MaxLossOption,
    MaxOrderOption,
    MaxPlanOption,
    limit_lines,
    mandate_after,
)
from engine.core.register import Composer

app = typer.Typer(
    name="accounts",
    help="Accounts under management: list, add, edit, pause, resume, close, import, export.",
    no_args_is_help=True,
)

AccountArgument = Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account's id.")]
AccountsArgument = Annotated[list[str], typer.Argument(metavar="ACCOUNT…", help="One or more account ids.")]
EndpointOption = Annotated[
    list[str] | None,
    typer.Option("--endpoint", metavar="KIND=URL", help="The address of one kind of connection; may be repeated."),
]
ChannelsOption = Annotated[
    list[str] | None,
    typer.Option("--channels", metavar="KIND=A,B", help="The channels of one kind; may be repeated."),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command("list")
def list_accounts(
    config: ConfigOption = CONFIG_DEFAULT,
    json: JsonOption = False,
    group: Annotated[str, typer.Option("--group", help="Only members of this group.", show_default=False)] = "",
    state: Annotated[AccountState | None, typer.Option("--state", help="Only accounts in this state.")] = None,
) -> None:
    """Every account with its state, groups and live connections.

    Example: unisono accounts list --state paused --json
    """
    with opened(config) as (_, registry), registry.view():
        members = {w.account_id for w in registry.group(group).weights} if group else None
        views = [
            view
            for view in _views(registry)
            if (members is None or view["account_id"] in members) and (state is None or view["state"] == state.value)
        ]
    show(views, json, lambda: _accounts_table(views))


@app.command("show")
def show_account(account: AccountArgument, config: ConfigOption = CONFIG_DEFAULT, json: JsonOption = False) -> None:
    """One account: connections with their live state, mandate, groups, and which credentials are sealed.

    Example: unisono accounts show a007
    """
    with opened(config) as (_, registry), registry.view():
        view = _full_view(registry, registry.account(account))
    if json:
        print_json(view)
    else:
        _print_account(view)


@app.command("add")
def add_account(
    account: AccountArgument,
    venue: Annotated[str, typer.Option("--venue", help="Where the account lives, for example okx.")],
    environment: Annotated[str, typer.Option("--environment", "-e", help="prod or demo.")],
    site: Annotated[
        str, typer.Option("--site", help="The venue's site; needed where it has several.", show_default=False)
    ] = "",
    name: Annotated[str, typer.Option("--name", help="For people; the id when left out.", show_default=False)] = "",
    ref: Annotated[
        str,
        typer.Option(
            "--ref",
            help="The venue's own name of the account. Needed where a login may hold several; checked everywhere.",
            show_default=False,
        ),
    ] = "",
    credentials_file: CredentialsOption = None,
    endpoint: EndpointOption = None,
    optional: Annotated[
        list[str] | None, typer.Option("--with", metavar="KIND", help="Also this optional kind of connection.")
    ] = None,
    channels: ChannelsOption = None,
    paused: Annotated[bool, typer.Option("--paused", help="Add it paused: known, but not connected.")] = False,
    why: WhyOption = "",
    dry_run: DryRunOption = False,
    config: ConfigOption = CONFIG_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Put an account under management, or a login at a feed of prices.

    Its credentials are asked for unseen, or come from a private file.

    Examples:

    unisono accounts add a007 --venue okx --site global -e demo --name "Miller family" --why "new client"

    unisono accounts add a008 --venue okx --site eea -e prod --credentials-file a008.toml --why "new client"

    unisono accounts add a009 --venue alor -e prod --ref MOEX:D10001 --why "new client"
    """
    because, urls = reason(why), _pairs(endpoint, "--endpoint", "KIND=URL")
    with opened(config) as (settings, registry):
        composer = composer_of(settings)
        new = Account(
            account_id=account,
            name=name or account,
            venue=venue,
            site=site or _only_site(composer, venue),
            environment=environment,
            state=AccountState.PAUSED if paused else AccountState.ACTIVE,
            venue_ref=ref,
        )
        connections = composer.compose(new, urls, optional or (), _heard(channels))
        _refuse_other_feed(registry, connections, urls)
        if kinds := composer.without_channels(connections):
            fail(f"{venue} must be told what {kinds[0]} is to hear of: --channels {kinds[0]}=A,B. Nothing was changed.")
        sealed = {}
        if fields := composer.credential_fields(venue):
            vault = vault_of(settings, registry)
            credentials = read_credentials(credentials_file, fields)
            transfer.check_fields(account, fields, credentials)
            sealed = vault.seal(account, credentials)
        with editing(registry, dry_run, json):
            registry.add_account(new, connections, sealed, by=who(), why=because)


@app.command("edit")
def edit_account(
    account: AccountArgument,
    name: Annotated[str | None, typer.Option("--name", help="The new name.", show_default=False)] = None,
    endpoint: EndpointOption = None,
    channels: ChannelsOption = None,
    keep_alive: Annotated[
        list[str] | None,
        typer.Option("--keep-alive", metavar="KIND=yes|no", help="no: temporary, the pulse leaves it alone."),
    ] = None,
    credentials: Annotated[bool, typer.Option("--credentials", help="Ask for new credentials, unseen.")] = False,
    credentials_file: CredentialsOption = None,
    why: WhyOption = "",
    dry_run: DryRunOption = False,
    config: ConfigOption = CONFIG_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Change the name, addresses, channels or credentials of an account; its other connections stay open.

    Editing a shared kind of connection (for example public) changes it for every account of that place.

    Example: unisono accounts edit a007 --endpoint private=wss://ws.okx.com:8443/ws/v5/private --why "address moved"
    """
    because = reason(why)
    urls = _pairs(endpoint, "--endpoint", "KIND=URL")
    heard = _heard(channels)
    kept = {k: _yes(k, v) for k, v in _pairs(keep_alive, "--keep-alive", "KIND=yes|no").items()}
    with opened(config) as (settings, registry):
        composer, now = composer_of(settings), registry.account(account)
        fresh = None
        if credentials or credentials_file is not None:
            fields, vault = composer.credential_fields(now.venue), vault_of(settings, registry)
            fresh = read_credentials(credentials_file, fields)
            transfer.check_fields(account, fields, fresh)
            if transfer.same_credentials(registry, vault, account, fresh):
                fresh = None
        with editing(registry, dry_run, json):
            if name is not None:
                registry.edit_account(account, {"name": name}, by=who(), why=because)
            for kind in sorted(urls.keys() | heard.keys() | kept.keys()):
                key = _connection_key(registry, composer, now, kind, urls, because)
                changes: dict[str, object] = {}
                if kind in urls:
                    composer.check(now.venue, now.environment, kind, urls[kind])
                    changes["url"] = urls[kind]
                if kind in heard:
                    changes["channels"] = heard[kind]
                if kind in kept:
                    changes["keep_alive"] = kept[kind]
                registry.edit_connection(key, changes, by=who(), why=because)
            if fresh is not None:
                registry.set_credentials(account, vault.seal(account, fresh), by=who(), why=because)


@app.command("mandate")
def set_mandate(
    account: AccountArgument,
    max_order: MaxOrderOption = None,
    max_plan: MaxPlanOption = None,
    max_day: MaxDayOption = None,
    max_instrument: MaxInstrumentOption = None,
    max_loss: MaxLossOption = None,
    allow: AllowOption = None,
    deny: DenyOption = None,
    why: WhyOption = "",
    dry_run: DryRunOption = False,
    config: ConfigOption = CONFIG_DEFAULT,
    json: JsonOption = False,
) -> None:
    """What the account may do. What is left out stays as it is.

    Example: unisono accounts mandate a007 --max-order 5000 --deny DOGE/USDT --why "letter of 3 May"
    """
    because = reason(why)
    with opened(config) as (_, registry), editing(registry, dry_run, json):
        limits = {
            "--max-order": max_order,
            "--max-plan": max_plan,
            "--max-day": max_day,
            "--max-instrument": max_instrument,
            "--max-daily-loss": max_loss,
        }
        after = mandate_after(registry.mandate(account), limits, allow, deny)
        registry.set_mandate(after, by=who(), why=because)


@app.command("trading")
def set_trading(
    accounts: AccountsArgument,
    trading: Annotated[Trading, typer.Option("--to", help="What its orders may do.")],
    why: WhyOption = "",
    dry_run: DryRunOption = False,
    config: ConfigOption = CONFIG_DEFAULT,
    json: JsonOption = False,
) -> None:
    """What orders of accounts may do: active (open and close), reducing (only make positions smaller), halted.

    Example: unisono accounts trading a007 --to reducing --why "the client leaves in June"
    """
    because = reason(why)
    with opened(config) as (_, registry), editing(registry, dry_run, json):
        for account in accounts:
            registry.set_trading(account, trading, by=who(), why=because)


@app.command()
def pause(
    accounts: AccountsArgument,
    why: WhyOption = "",
    dry_run: DryRunOption = False,
    config: ConfigOption = CONFIG_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Close the connections of accounts and take them out of plans; they stay known.

    Example: unisono accounts pause a007 a008 --why "client asked"
    """
    _each(accounts, lambda registry: registry.pause, why, dry_run, config, json)


@app.command()
def resume(
    accounts: AccountsArgument,
    why: WhyOption = "",
    dry_run: DryRunOption = False,
    config: ConfigOption = CONFIG_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Connect paused accounts again; they take orders once they are read back.

    Example: unisono accounts resume a007 --why "client agreed"
    """
    _each(accounts, lambda registry: registry.resume, why, dry_run, config, json)


@app.command()
def close(
    accounts: AccountsArgument,
    drop_credentials: Annotated[
        bool, typer.Option("--drop-credentials", help="Also delete the sealed credentials.")
    ] = False,
    yes: YesOption = False,
    why: WhyOption = "",
    dry_run: DryRunOption = False,
    config: ConfigOption = CONFIG_DEFAULT,
    json: JsonOption = False,
) -> None:
    """End the management of accounts, for good: they leave their groups, their history stays.

    Example: unisono accounts close a007 --drop-credentials --why "contract ended"
    """
    because = reason(why)
    with opened(config) as (_, registry):
        if not dry_run:
            confirmed(f"Close {', '.join(accounts)} for good?", yes)
        with editing(registry, dry_run, json):
            for account in accounts:
                registry.close(account, by=who(), why=because, drop_credentials=drop_credentials)


@app.command()
def history(
    account: Annotated[
        str, typer.Argument(metavar="[ACCOUNT]", help="The account's id; all of them when left out.")
    ] = "",
    limit: LimitOption = 100,
    config: ConfigOption = CONFIG_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Who changed what, when and why; the latest first. Credentials show as field names only.

    Example: unisono accounts history a007
    """
    with opened(config) as (_, registry):
        changes = registry.account_changes(account, limit) if account else registry.changes(limit=limit)
    tell_history(changes, json)


@app.command("import")
def bring_in(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="TOML or CSV, as export writes it; - is standard input.")
    ],
    form: Annotated[str, typer.Option("--format", help="toml or csv; by the file's ending when left out.")] = "",
    yes: YesOption = False,
    why: WhyOption = "",
    dry_run: DryRunOption = False,
    config: ConfigOption = CONFIG_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Make the registry say what a file says: all of it or nothing. What the file does not mention stays.

    TOML may hold credentials (a table account.credentials); then the file must have mode 0600. They are sealed.

    It is one transaction: on SQLite a thousand new accounts hold the database for some seconds, in which a running
    engine sends no orders. Beside a running engine bring in a hundred at a time.

    Example: unisono accounts import clients.toml --dry-run --why "new clients of May"
    """
    because, content = reason(why), _read_sheet(file, form)
    with opened(config) as (settings, registry):
        composer = composer_of(settings)
        vault = vault_of(settings, registry) if content.has_credentials else None
        with registry.together(keep=False) as rehearsed:
            counter = registry.change_counter()
            notes = transfer.bring_in(registry, content, composer, vault, by=who(), why=because)
        if dry_run or not rehearsed.changes:
            tell(rehearsed.changes, dry_run, json, notes)
            return
        if sys.stdin.isatty() and not yes:
            tell(rehearsed.changes, True, False, notes)
            confirmed("Apply?", yes)
        columns = (TextColumn("importing"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=errors, transient=True, disable=json) as progress:
            bar = progress.add_task("", total=len(content.accounts))
            with registry.together(counter=counter) as recorded:
                transfer.bring_in(
                    registry,
                    content,
                    composer,
                    vault,
                    by=who(),
                    why=because,
                    each=lambda: progress.advance(bar),
                )
        tell(recorded.changes, False, json, notes)


@app.command("export")
def write_out(
    form: Annotated[str, typer.Option("--format", help="toml or csv; by --out's ending when left out.")] = "",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write to this new file.", show_default=False)] = None,
    config: ConfigOption = CONFIG_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Write the registry as TOML or CSV. Credentials are never exported.

    Example: unisono accounts export --out clients.csv
    """
    with opened(config) as (_, registry):
        content = transfer.sheet(registry)
    if json:
        print_json(content)
        return
    text = transfer.to_csv(content) if _form(out or Path("-.toml"), form) == "csv" else transfer.to_toml(content)
    if out is None:
        sys.stdout.write(text)
        return
    try:
        with out.open("x", encoding="utf-8") as target:
            target.write(text)
    except OSError as error:
        fail(f"{out} cannot be written: {error.strerror}.")
    console.print(f"[green]✓[/green] {len(content.accounts)} accounts written. Credentials are not in it.")


@app.command("rotate-key")
def rotate_key(
    yes: YesOption = False,
    why: WhyOption = "",
    dry_run: DryRunOption = False,
    config: ConfigOption = CONFIG_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Seal every credential under a new vault key; the old key stays beside it as .old until you delete it.

    Example: unisono accounts rotate-key --why "yearly rotation"
    """
    because = reason(why)
    with opened(config) as (settings, registry):
        path, count = Path(settings.vault.key_file), len(registry.credential_fields())
        if dry_run:
            vault_of(settings, registry)
            if json:
                print_json({"dry_run": True, "accounts": count})
            else:
                console.print(f"Dry run: nothing was changed. The credentials of {count} accounts would be resealed.")
            return
        confirmed(f"Reseal the credentials of {count} accounts under a new key?", yes)
        rotated = rotate(registry, path, by=who(), why=because)
    if json:
        print_json({"dry_run": False, **msgspec.to_builtins(rotated)})
        return
    earlier = " (an interrupted rotation was finished)" if rotated.finished_earlier else ""
    console.print(
        f"[green]✓[/green] {rotated.accounts} accounts are sealed by key {rotated.new_key_id}{earlier}. "
        f"The old key is in {rotated.old_key_file}: keep it as long as backups need it, then delete it. {FOLLOWS}",
        soft_wrap=True,
    )


# ---- What they share


def _each(
    accounts: Sequence[str],
    verb: Callable[[Registry], Callable[..., Account]],
    why: str,
    dry_run: bool,
    config: Path,
    as_json: bool,
) -> None:
    because = reason(why)
    with opened(config) as (_, registry), editing(registry, dry_run, as_json):
        for account in accounts:
            verb(registry)(account, by=who(), why=because)


def _connection_key(
    registry: Registry, composer: Composer, account: Account, kind: str, urls: dict[str, str], why: str
) -> str:
    """The row of that kind: the account's own, the shared one of its place, or a new one."""
    if (key := _find(registry, account, kind)) is not None:
        return key
    made = composer.compose(account, {k: v for k, v in urls.items() if k == kind}, [kind])
    new = next(c for c in made if c.kind == kind)
    registry.add_connection(account.account_id, new, by=who(), why=why)
    found = _find(registry, account, kind)
    assert found is not None, "just added"
    return found


def _find(registry: Registry, account: Account, kind: str) -> str | None:
    own = (c for c in registry.connections(account.account_id) if c.kind == kind)
    shared = (c for c in _shared(registry, account) if c.kind == kind)
    found = next(own, None) or next(shared, None)
    return found.connection_key if found else None


def _shared(registry: Registry, account: Account) -> list[Connection]:
    place = (account.venue, account.site, account.environment)
    return [
        c for c in registry.connections() if c.listener is Listener.VENUE and (c.venue, c.site, c.environment) == place
    ]


def _refuse_other_feed(registry: Registry, connections: Sequence[Connection], urls: dict[str, str]) -> None:
    """An address given for a shared feed that exists with another address would be ignored: say so instead."""
    there = {
        (c.venue, c.site, c.environment, c.kind): c.url for c in registry.connections() if c.listener is Listener.VENUE
    }
    for c in connections:
        known = there.get((c.venue, c.site, c.environment, c.kind))
        if c.listener is Listener.VENUE and c.kind in urls and known not in (None, c.url):
            fail(
                f"The {c.kind} feed is shared by all accounts of {c.venue}/{c.site}/{c.environment} and is at {known}. "
                "Nothing was changed. Add the account without this --endpoint; move the feed with: accounts edit"
            )


def _only_site(composer: Composer, venue: str) -> str:
    sites = sorted({place.site for place in composer.profile(venue).venue.places})
    if len(sites) != 1:
        fail(f"{venue} has several sites: {', '.join(sites)}. Say where the login was made with: --site SITE")
    return sites[0]


def _heard(channels: Sequence[str] | None) -> dict[str, tuple[str, ...]]:
    return {k: tuple(filter(None, v.split(","))) for k, v in _pairs(channels, "--channels", "KIND=A,B").items()}


def _pairs(given: Sequence[str] | None, option: str, form: str) -> dict[str, str]:
    pairs = dict[str, str]()
    for text in given or ():
        key, equals, value = text.partition("=")
        if not equals or not key or key in pairs:
            fail(f"{option} {text}: write it as {form}, each kind once. Nothing was changed.")
        pairs[key] = value
    return pairs


def _yes(kind: str, word: str) -> bool:
    if word not in ("yes", "no"):
        fail(f"--keep-alive {kind}={word}: say yes or no. Nothing was changed.")
    return word == "yes"


def _form(path: Path, form: str) -> str:
    chosen = form or path.suffix.removeprefix(".")
    if chosen not in ("toml", "csv"):
        fail(f"{path}: is it TOML or CSV? Say so with: --format toml or --format csv")
    return chosen


def _read_sheet(file: Path, form: str) -> transfer.Sheet:
    chosen = _form(file, form)
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{file} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}.")
    try:
        content = transfer.from_csv(text) if chosen == "csv" else transfer.from_toml(text)
    except transfer.TransferError as error:
        _refuse_sheet(error)
    if content.has_credentials and str(file) != "-":
        read_private(file, "credentials")
    return content


def _refuse_sheet(error: transfer.TransferError) -> NoReturn:
    for line in error.errors[:-1]:
        errors.print(Text(f"✗ {line}"), soft_wrap=True)
    fail(f"{error.errors[-1]}\nNothing was changed.")


# ---- Views


def _views(registry: Registry) -> list[dict[str, Any]]:
    fields, groups = registry.credential_fields(), _memberships(registry)
    own = [c for c in registry.connections() if c.listener is Listener.ACCOUNT and c.keep_alive]
    live = {row.connection_key for row in registry.live() if row.phase == "live"}
    kept, up = Counter(c.listener_id for c in own), Counter(c.listener_id for c in own if c.connection_key in live)
    return [
        msgspec.to_builtins(account)
        | {
            "groups": groups.get(account.account_id, []),
            "credential_fields": fields.get(account.account_id, ()),
            "connections": kept[account.account_id],
            "live": up[account.account_id],
        }
        for account in registry.accounts()
    ]


def _full_view(registry: Registry, account: Account) -> dict[str, Any]:
    live, sealed = {row.connection_key: row for row in registry.live()}, registry.sealed(account.account_id)

    def with_live(connections: Sequence[Connection]) -> list[dict[str, Any]]:
        return [msgspec.to_builtins(c) | {"live": _live(live.get(c.connection_key))} for c in connections]

    return msgspec.structs.asdict(account) | {
        "groups": _memberships(registry).get(account.account_id, []),
        "connections": with_live(registry.connections(account.account_id)),
        "shared": with_live(_shared(registry, account)),
        "credentials": {"fields": list(sealed), "key_id": key_id_of(next(iter(sealed.values())))} if sealed else None,
        "mandate": msgspec.to_builtins(registry.mandate(account.account_id)),
    }


def _live(row: LiveRow | None) -> dict[str, Any] | None:
    return None if row is None else msgspec.structs.asdict(row)


def _memberships(registry: Registry) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for group in registry.groups():
        for weight in group.weights:
            found.setdefault(weight.account_id, []).append(group.group_id)
    return found


_STYLES = {"active": "green", "paused": "yellow", "closed": "dim"}


def _accounts_table(views: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, caption=f"{len(views)} accounts", caption_justify="left")
    for column in ("account", "name", "venue", "state", "links", "login", "groups", "keys"):
        table.add_column(column, no_wrap=column in ("account", "state", "links"))
    for view in views:
        table.add_row(
            Text(view["account_id"], style="bold"),
            Text(view["name"]),
            Text(f"{view['venue']}/{view['site']}/{view['environment']}"),
            Text(view["state"], style=_STYLES[view["state"]]),
            Text(f"{view['live']}/{view['connections']}"),
            Text(view["venue_ref"] or "-"),
            Text(", ".join(view["groups"]) or "-"),
            Text("sealed", style="green") if view["credential_fields"] else Text("none", style="red"),
        )
    return table


def _print_account(view: dict[str, Any]) -> None:
    grid, sealed, mandate = Table.grid(padding=(0, 2)), view["credentials"], view["mandate"]
    lines = {
        "account": f"{view['account_id']} · {view['name']} · version {view['version']}",
        "place": f"{view['venue']}/{view['site']}/{view['environment']}",
        "state": view["state"],
        "trading": view["trading"],
        "login": view["venue_ref"] or "not known until it was connected",
        "groups": ", ".join(view["groups"]) or "-",
        "credentials": f"{', '.join(sealed['fields'])} sealed by key {sealed['key_id']}" if sealed else "none",
        **limit_lines(mandate),
    }
    for label, text in lines.items():
        grid.add_row(Text(label, style="dim"), Text(str(text)))
    table = Table(box=None, pad_edge=False)
    for column in ("connection", "kind", "state", "last heard (UTC)", "attempts", "address", "channels"):
        table.add_column(column, overflow="fold")
    for c in (*view["connections"], *view["shared"]):
        live = c["live"] or {}
        table.add_row(
            Text(c["connection_key"]),
            Text(c["kind"] + (" (shared)" if c["listener"] == Listener.VENUE.value else "")),
            Text(live.get("phase", "-")),
            Text(moment(live.get("last_heard_at_ms"))),
            Text(str(live.get("attempts", "-"))),
            Text(c["url"]),
            Text(" ".join(c["channels"]) or "-"),
        )
    console.print(grid)
    console.print()
    console.print(table)
