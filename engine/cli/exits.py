"""Holds. Exit codes, the same for every command; scripts may rely on them."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    OK = 0
    FINDINGS = 1  # it ran, and something disagrees, was refused or is denied
    UNKNOWN = 2  # it ran, and something could not be known
    ERROR = 3  # it did not run: a bad call, no engine, an unexpected failure
    VAULT = 64  # the vault key is missing, too open, or not the one that sealed the credentials
    LOCKED = 75  # another engine owns this database
    CONFIG = 78  # the configuration is wrong
