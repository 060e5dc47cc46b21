"""The engine's only SQL: facts, intents and what became of them, written once, durably, in order."""

from engine.ledger.facts import FactRow, Source, row
from engine.ledger.ledger import Ledger, reader
from engine.ledger.lock import AlreadyOwned, Ownership, own
from engine.ledger.upgrade import SchemaTooNew, upgrade
from engine.ledger.writer import Health, LedgerDown, LedgerFull, Writer

__all__ = [
    "AlreadyOwned",
    "FactRow",
    "Health",
    "Ledger",
    "LedgerDown",
    "LedgerFull",
    "Ownership",
    "SchemaTooNew",
    "Source",
    "Writer",
    "own",
    "reader",
    "row",
    "upgrade",
]
