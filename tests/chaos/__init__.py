"""Kills a real engine with -9, over and over, and compares what its ledger says with the venue's own truth."""
