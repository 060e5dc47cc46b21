"""Measures the engine against floors on the same machine in the same run. `make bench`, or `python -m bench`."""
