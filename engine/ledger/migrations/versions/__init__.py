"""Holds. The ledger's schema, release by release. A released revision is never edited."""
