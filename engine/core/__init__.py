"""Nouns and decisions, all pure: nothing here awaits, reads a clock, logs or opens anything."""
