"""What is installed is what was built: everything the program needs at run time is in the wheel, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
IMPORT_NAMES = {"accounts", "engine", "scheduler"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--quiet", "--wheel-dir", str(folder)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=110)
    if done.returncode:
        pytest.skip(f"the wheel's builder could not be fetched: {done.stderr.strip()[-200:]}")
    (built,) = folder.glob("unisono-*.whl")
    return zipfile.Path(built)


@pytest.fixture(scope="module")
def installed(wheel: zipfile.Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the wheel's own content is imported, not this folder's."""
    site = tmp_path_factory.mktemp("site")
    wheel.root.extractall(site)
    return {**os.environ, "PYTHONPATH": str(site)}


def run(environment: dict[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", *arguments]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=60)


def unisono(environment: dict[str, str], folder: Path, *arguments: str) -> str:
    done = run(environment, folder, "-m", "engine.cli", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_the_three_packages_with_what_they_read_at_run_time(wheel: zipfile.Path) -> None:
    names = wheel.root.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == IMPORT_NAMES
    for package in IMPORT_NAMES:
        assert f"{package}/py.typed" in names
    for needed in ("html", "css"):
        assert any(n.startswith("engine/reports/templates/") and n.endswith(needed) for n in names)
    for room in ("accounts", "engine/ledger"):
        assert any(n.startswith(f"{room}/migrations/versions/") for n in names)


def test_the_wheel_holds_no_samples_tests_or_state(wheel: zipfile.Path) -> None:
    for name in wheel.root.namelist():
        assert "/samples/" not in name
        assert not name.endswith((".jsonl", ".sqlite", ".key", ".pyc"))


def test_each_import_name_belongs_to_one_distribution() -> None:
    owners = packages_distributions()  # knows no owner of what is installed editably
    for name in IMPORT_NAMES:
        assert set(owners.get(name, ())) <= {"unisono"}, f"another distribution has a package {name}"


def test_the_wheel_runs_from_an_empty_folder(installed: dict[str, str], tmp_path: Path) -> None:
    where = run(installed, tmp_path, "-c", "import engine; print(engine.__file__)").stdout
    assert str(ROOT) not in where, "the wheel's content is what is tried here"
    assert "reconcile" in unisono(installed, tmp_path, "--help")
    assert not any(tmp_path.iterdir()), "asking for help makes nothing"


def test_the_wheel_can_set_itself_up(installed: dict[str, str], tmp_path: Path) -> None:
    unisono(installed, tmp_path, "init")
    made = {path.name for path in tmp_path.iterdir()}
    assert {"unisono.toml", "vault.key", "unisono.sqlite"} <= made
    assert unisono(installed, tmp_path, "accounts", "list", "--json").strip() == "[]"


def test_the_shell_can_complete_commands(tmp_path: Path) -> None:
    program = str(Path(sys.executable).with_name("unisono"))

    def ask(**variables: str) -> str:
        environment = {**os.environ, **variables}
        return subprocess.run(
            [program], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=30
        ).stdout

    assert "complete -o default -F _unisono_completion unisono" in ask(_UNISONO_COMPLETE="source_bash")
    told = ask(_UNISONO_COMPLETE="complete_bash", COMP_WORDS="unisono plan ex", COMP_CWORD="2")
    assert told.split() == ["execute"]
