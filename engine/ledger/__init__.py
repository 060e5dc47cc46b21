"""The engine's only SQL: facts, intents and what became of them, written once, durably, in order."""

from engine.ledger.facts import FactRow, Source, row
from engine.ledger.ledger import Ledger, reader
from engine.ledger.upgrade import SchemaTooNew, upgrade
from engine.ledger.writer import Health, LedgerDown, LedgerFull

__all__ = [
    "FactRow",
    "Health",
    "Ledger",
    "LedgerDown",
    "LedgerFull",
    "SchemaTooNew",
    "Source",
    "reader",
    "row",
    "upgrade",
]
