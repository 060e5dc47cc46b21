"""Does. `python -m tests.fuzz.one TARGET CORPUS [libFuzzer's flags]`: one target under atheris, guided by coverage.

Runs in the fuzzers' own environment, which sees the project's libraries beside its own.
"""

from __future__ import annotations

import sys

import atheris


def main() -> None:
    with atheris.instrument_imports(include=["accounts", "engine"]):
        from tests.fuzz.targets import targets

        target = targets()[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target.read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
