"""Does. Many runs, side by side in forked processes: what is loaded once is loaded for all."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

J = TypeVar("J")
R = TypeVar("R")
_forked: list[Any] = []


def side_by_side(work: Callable[[J], R], jobs: Sequence[J], processes: int = 0) -> Iterator[R]:
    """In the order of the jobs. Jobs need not be picklable, results must be."""
    several = min(processes or os.cpu_count() or 1, len(jobs))
    if several == 1:
        yield from map(work, jobs)
        return
    fork = multiprocessing.get_context("fork")
    with fork.Pool(several, initializer=_forked.extend, initargs=([work, jobs],)) as pool:
        yield from pool.imap(_one, range(len(jobs)))


def _one(number: int) -> Any:
    work, jobs = _forked
    return work(jobs[number])
