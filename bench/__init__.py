"""Measures the engine against floors that run on the same machine in the same run. `make bench`, or `python -m bench`."""
