"""Decides. Rows in, documents out: terminal tables and pages. Nothing here reads or writes anything else."""
