"""Decides. TOML text -> one frozen Config, or every error at once, each with its key and line.

`config.example.toml` names every setting with its default; a test holds the two together.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec


class Database(msgspec.Struct, frozen=True):
    url: str = "sqlite:///unisono.sqlite"  # or postgresql+psycopg://…


class Vault(msgspec.Struct, frozen=True):
    key_file: str = "vault.key"  # systemd's credentials directory goes first when it holds `vault.key`


class Control(msgspec.Struct, frozen=True):
    socket: str = "unisono.sock"


class Pulse(msgspec.Struct, frozen=True):
    """When connections are pinged, reopened and given up. Seconds."""

    beat_s: float = 25.0
    quiet_s: float = 20.0  # idle for so long: ping, without waiting for the beat
    pong_wait_s: float = 8.0  # nothing heard for so long after a ping: the connection is dead
    open_timeout_s: float = 10.0
    first_retry_s: float = 0.5
    longest_retry_s: float = 30.0
    stable_s: float = 60.0  # a link that lived so long starts over with the first retry


class Plans(msgspec.Struct, frozen=True):
    expiry_minutes: int = 30
    max_drift_percent: float = 2.0
    price_collar_percent: float = 10.0
    max_price_age_s: float = 30.0
    send_timeout_s: float = 5.0  # no answer for so long: the outcome is unknown
    request_expiry_s: float = 10.0  # the venue must refuse an order that reaches it later, where it can be told so
    duplicate_window_s: float = 60.0
    margin_percent: float = 10.0  # what a derivative is taken to bind of its notional, for the check of buying power
    at_par: tuple[str, ...] = ("USD", "USDT", "USDC")  # counted one to one when an account's NAV is told in one of them
    four_eyes_notional: float = 0.0  # above it another person must approve; 0: never asked
    orders_a_minute: int = 0  # so many of one account are let out; 0: no limit but the venue's
    attempts: int = 2  # an order that provably never arrived is sent anew, so often in all; 1: never
    abort_refused_percent: float = 0.0  # these stop a plan at work that does not say it itself; 0: no such rule
    abort_unknown: int = 0
    abort_slippage_percent: float = 0.0
    abort_dispersion_percent: float = 0.0
    abort_after_s: float = 0.0
    abort_cancels: bool = False  # and cancel what is at work


class Backfill(msgspec.Struct, frozen=True):
    overlap_s: float = 300.0
    at_once: int = 8  # accounts read back at the same time
    hold_limit: int = 20_000  # streamed facts kept aside while one account is read back
    crosscheck_s: float = 60.0  # accounts with open orders
    idle_crosscheck_s: float = 600.0  # all others
    night_hour: int = 3  # UTC; from then on each account's whole day is read once and held against the ledger


class Reconcile(msgspec.Struct, frozen=True):
    in_flight_guard_s: float = 5.0
    at_once: int = 8


class Ledger(msgspec.Struct, frozen=True):
    group_jobs: int = 100
    group_wait_ms: float = 2.0
    queue_limit: int = 50_000
    busy_timeout_s: float = 5.0


class Http(msgspec.Struct, frozen=True):
    timeout_s: float = 10.0
    max_connections: int = 16
    read_attempts: int = 5


class Log(msgspec.Struct, frozen=True):
    level: str = "info"
    form: str = "auto"  # auto: lines for people on a terminal, JSON elsewhere


class Raw(msgspec.Struct, frozen=True):
    """What was heard and said, as it was, secrets masked. The size goes first, then the age; pinned hours stay."""

    keep: bool = True
    folder: str = "raw"
    max_mb: int = 2000
    max_days: int = 14
    queue_mb: int = 16  # what waits to be written; more is not kept, and counted


class Reports(msgspec.Struct, frozen=True):
    folder: str = "reports"


class VenueSettings(msgspec.Struct, frozen=True):
    """Per venue. `endpoints` overrides URLs by "site.environment.kind"; `options` settle what is unconfirmed."""

    endpoints: dict[str, str] = {}
    options: dict[str, str] = {}
    ca_bundle: str = ""  # trust this file of certificates instead of the system's
    allow_hosts: list[str] = []  # further hosts an endpoint may point to
    budget_percent: float = 80.0  # how much of the venue's limits is used
    orders_over: str = ""  # "stream" or "http"; empty: what the venue is best at
    overlap_s: float = 0.0  # instead of [backfill] overlap_s; 0: that


class Config(msgspec.Struct, frozen=True):
    database: Database = Database()
    vault: Vault = Vault()
    control: Control = Control()
    pulse: Pulse = Pulse()
    plans: Plans = Plans()
    backfill: Backfill = Backfill()
    reconcile: Reconcile = Reconcile()
    ledger: Ledger = Ledger()
    http: Http = Http()
    log: Log = Log()
    raw: Raw = Raw()
    reports: Reports = Reports()
    venues: dict[str, VenueSettings] = {}


class ConfigError(Exception):
    """Everything that is wrong with a configuration; nothing of it was used."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


# What a value must obey beyond its type: (section, key) -> (test, sentence)
_LIMITS: dict[tuple[str, str], tuple[Any, str]] = {
    ("pulse", "beat_s"): (lambda v: 1 <= v <= 300, "must lie between 1 and 300 seconds"),
    ("pulse", "quiet_s"): (lambda v: 1 <= v <= 300, "must lie between 1 and 300 seconds"),
    ("pulse", "pong_wait_s"): (lambda v: 0.5 <= v <= 60, "must lie between 0.5 and 60 seconds"),
    ("plans", "expiry_minutes"): (lambda v: v >= 1, "must be at least 1"),
    ("plans", "max_drift_percent"): (lambda v: 0 < v <= 100, "must be above 0 and at most 100"),
    ("plans", "price_collar_percent"): (lambda v: 0 < v <= 100, "must be above 0 and at most 100"),
    ("plans", "margin_percent"): (lambda v: 0 <= v <= 100, "must lie between 0 and 100"),
    ("plans", "send_timeout_s"): (lambda v: 0.1 <= v <= 60, "must lie between 0.1 and 60 seconds"),
    ("plans", "request_expiry_s"): (lambda v: 1 <= v <= 60, "must lie between 1 and 60 seconds"),
    ("plans", "four_eyes_notional"): (lambda v: v >= 0, "must not be negative"),
    ("plans", "orders_a_minute"): (lambda v: v >= 0, "must not be negative"),
    ("plans", "attempts"): (lambda v: 1 <= v <= 5, "must lie between 1 and 5"),
    ("plans", "abort_refused_percent"): (lambda v: 0 <= v < 100, "must be at least 0 and below 100"),
    ("plans", "abort_unknown"): (lambda v: v >= 0, "must not be negative"),
    ("plans", "abort_slippage_percent"): (lambda v: 0 <= v < 100, "must be at least 0 and below 100"),
    ("plans", "abort_dispersion_percent"): (lambda v: 0 <= v < 100, "must be at least 0 and below 100"),
    ("plans", "abort_after_s"): (lambda v: v >= 0, "must not be negative"),
    ("backfill", "overlap_s"): (
        lambda v: v >= 30,
        "must be at least 30 seconds: shorter overlaps lose fills",
    ),
    ("backfill", "night_hour"): (lambda v: 0 <= v <= 23, "must lie between 0 and 23"),
    ("venues", "overlap_s"): (lambda v: v == 0 or v >= 30, "must be 0 or at least 30 seconds: shorter ones lose fills"),
    ("backfill", "at_once"): (lambda v: v >= 1, "must be at least 1"),
    ("backfill", "hold_limit"): (lambda v: v >= 100, "must be at least 100"),
    ("reconcile", "at_once"): (lambda v: v >= 1, "must be at least 1"),
    ("ledger", "group_jobs"): (lambda v: v >= 1, "must be at least 1"),
    ("ledger", "queue_limit"): (lambda v: v >= 1000, "must be at least 1000"),
    ("http", "max_connections"): (lambda v: v >= 1, "must be at least 1"),
    ("http", "read_attempts"): (lambda v: v >= 1, "must be at least 1"),
    ("raw", "max_mb"): (lambda v: v >= 1, "must be at least 1"),
    ("raw", "max_days"): (lambda v: v >= 1, "must be at least 1"),
    ("raw", "queue_mb"): (lambda v: v >= 1, "must be at least 1"),
    ("log", "level"): (
        lambda v: v in ("debug", "info", "warning", "error"),
        "is debug, info, warning or error",
    ),
    ("log", "form"): (lambda v: v in ("auto", "text", "json"), "is auto, text or json"),
}


def load(path: Path, *, known_venues: frozenset[str] | None = None) -> Config:
    """Read and check a file; relative paths in it are taken from its folder. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read ({error.strerror}). Make one with: unisono init"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})"]) from None
    return _rooted(parse(text, name=str(path), known_venues=known_venues), path.resolve().parent)


def parse(text: str, *, name: str = "config", known_venues: frozenset[str] | None = None) -> Config:
    """Check TOML text. Raises ConfigError that lists every error with its key and line."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{name}: is not TOML: {error}"]) from None
    lines, errors = _lines(text), list[str]()

    def complain(key: str, what: str) -> None:
        line = lines.get(key)
        errors.append(f"{name}{f':{line}' if line else ''}: {key} {what}")

    sections: dict[str, Any] = {}
    for section, value in raw.items():
        field = _fields(Config).get(section)
        if field is None:
            complain(section, f"is no section{_meant(section, _fields(Config))}")
        elif not isinstance(value, dict):
            complain(section, "is a section: write it as [" + section + "]")
        elif section == "venues":
            venues: dict[str, VenueSettings] = {}
            for venue, settings in value.items():
                if known_venues is not None and venue not in known_venues:
                    complain(f"venues.{venue}", f"is no venue{_meant(venue, known_venues)}")
                elif isinstance(settings, dict):
                    venues[venue] = _section(VenueSettings, f"venues.{venue}", settings, complain)
                else:
                    complain(f"venues.{venue}", f"is a section: write it as [venues.{venue}]")
            sections["venues"] = venues
        else:
            sections[section] = _section(field, section, value, complain)
    config = Config(**sections)
    if not errors and config.pulse.quiet_s + config.pulse.pong_wait_s > 28:
        complain(
            "pulse.quiet_s",
            "and pulse.pong_wait_s together must stay within 28 s: venues drop at 30 s of silence",
        )
    if errors:
        raise ConfigError(errors)
    return config


def _section(kind: Any, prefix: str, raw: dict[str, Any], complain: Any) -> Any:
    fields, good = _fields(kind), dict[str, Any]()
    for key, value in raw.items():
        if key not in fields:
            complain(f"{prefix}.{key}", f"is no setting{_meant(key, fields)}")
            continue
        try:
            good[key] = msgspec.convert(value, fields[key])
        except msgspec.ValidationError:
            complain(f"{prefix}.{key}", f"must be {_type_name(fields[key])}, not {value!r}")
            continue
        test, sentence = _LIMITS.get((prefix.partition(".")[0], key), (None, ""))
        if test is not None and not test(good[key]):
            complain(f"{prefix}.{key}", f"{sentence}, not {value!r}")
    return kind(**good)


def _fields(kind: Any) -> dict[str, Any]:
    return {f.name: f.type for f in msgspec.structs.fields(kind)}


def _type_name(kind: Any) -> str:
    if get_origin(kind) is dict:
        return "a table of texts"
    if get_origin(kind) in (list, tuple):
        return f"a list of {_type_name(get_args(kind)[0])}s"
    return {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}[kind]


def _meant(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _lines(text: str) -> dict[str, int]:
    """Where each section and key stands, for messages."""
    found, section = dict[str, int](), ""
    for number, line in enumerate(text.splitlines(), start=1):
        if match := re.match(r"\s*\[\s*([^\]]+?)\s*\]", line):
            section = match[1]
            found.setdefault(section, number)
            found.setdefault(section.split(".")[0], number)
        elif match := re.match(r"\s*([\w\"'.-]+)\s*=", line):
            key = match[1].strip("\"'")
            found.setdefault(f"{section}.{key}" if section else key, number)
    return found


def _rooted(config: Config, folder: Path) -> Config:
    """The same config with its relative paths made absolute."""
    replace = msgspec.structs.replace

    def at(path: str) -> str:
        return str(folder / path) if path else path

    database = config.database
    if database.url.startswith("sqlite:///") and not database.url.startswith("sqlite:////"):
        database = replace(database, url="sqlite:///" + at(database.url.removeprefix("sqlite:///")))
    return replace(
        config,
        database=database,
        vault=replace(config.vault, key_file=at(config.vault.key_file)),
        control=replace(config.control, socket=at(config.control.socket)),
        raw=replace(config.raw, folder=at(config.raw.folder)),
        reports=replace(config.reports, folder=at(config.reports.folder)),
    )
