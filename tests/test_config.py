"""The configuration: the example names every setting, and every error is told at once with its key and line."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.config import Config, ConfigError, VenueSettings, load, parse

EXAMPLE = Path(__file__).parent.parent / "config.example.toml"


def test_the_example_loads_and_holds_every_default() -> None:
    example = parse(EXAMPLE.read_text(encoding="utf-8"))
    assert msgspec.structs.replace(example, venues={}) == Config()
    assert example.venues["okx"] == VenueSettings()


def test_the_example_names_every_setting() -> None:
    raw = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))

    def names(kind: Any) -> set[str]:
        return {f.name for f in msgspec.structs.fields(kind)}

    assert set(raw) == names(Config)
    for field in msgspec.structs.fields(Config):
        section = raw[field.name]["okx"] if field.name == "venues" else raw[field.name]
        kind = VenueSettings if field.name == "venues" else field.type
        assert set(section) == names(kind), field.name


def test_all_errors_come_at_once_each_with_key_and_line() -> None:
    text = '[pulse]\nbeat = 25\nquiet_s = "often"\n[plan]\n[log]\nlevel = "loud"\n[backfill]\noverlap_s = 5.0\n'
    with pytest.raises(ConfigError) as caught:
        parse(text, name="u.toml")
    told = caught.value.errors
    assert len(told) == 5
    assert any("u.toml:2: pulse.beat is no setting (did you mean beat_s?)" in line for line in told)
    assert any("u.toml:3: pulse.quiet_s must be a number, not 'often'" in line for line in told)
    assert any("u.toml:4: plan is no section (did you mean plans?)" in line for line in told)
    assert any("u.toml:6: log.level" in line and "'loud'" in line for line in told)
    assert any("u.toml:8: backfill.overlap_s" in line for line in told)


def test_a_venue_nobody_knows_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"venues.okex is no venue \(did you mean okx\?\)"):
        parse("[venues.okex]\n", known_venues=frozenset({"okx"}))


def test_silence_timers_that_would_lose_the_connection_are_refused() -> None:
    with pytest.raises(ConfigError, match="within 28 s"):
        parse("[pulse]\nquiet_s = 25.0\n")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"= 1"])
def test_what_is_not_toml_is_told_and_nothing_else(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "u.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert len(caught.value.errors) == 1


def test_relative_paths_are_taken_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "u.toml"
    path.write_text('[database]\nurl = "sqlite:///a.sqlite"\n[vault]\nkey_file = "/etc/k"\n')
    config = load(path)
    assert config.database.url == f"sqlite:///{tmp_path}/a.sqlite"
    assert config.vault.key_file == "/etc/k"
    assert config.control.socket == str(tmp_path / "unisono.sock")
