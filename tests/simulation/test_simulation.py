"""The whole engine on virtual time: nothing lost, nothing doubled, nothing wrongly final, whatever goes wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from msgspec.structs import replace

from engine.config import Config, VenueSettings
from engine.core.venue import Read, Rest, Venue
from engine.venues import venues
from tests.simulation.courses import flood, long_day, office_day
from tests.simulation.many import side_by_side
from tests.simulation.misfortune import Misfortune
from tests.simulation.run import Report, simulate

SEEDS = 6  # `make soak` has 200
HOURS = 0.025


def settled(reports: Sequence[Report]) -> None:
    complaints = [f"{c}\nreplay: {r.replay}" for r in reports for c in r.verdict.complaints()[:12]]
    assert not complaints, "\n".join(complaints)


def test_whatever_goes_wrong_the_venue_and_the_ledger_agree_in_the_end() -> None:
    reports = list(side_by_side(simulate, [office_day(seed, hours=HOURS) for seed in range(1, SEEDS + 1)]))
    settled(reports)
    happened = sum((report.happened for report in reports), Counter[str]())
    assert sum(report.verdict.intents for report in reports) > 10 * SEEDS, "orders really went out"
    assert sum(report.verdict.fills for report in reports) > 8 * SEEDS, "and were filled"
    assert len(happened & Counter(Misfortune.expected())) >= 20, f"hardly anything went wrong: {dict(happened)}"


def test_the_same_seed_gives_the_same_trace() -> None:
    first, second, other = (simulate(office_day(seed, hours=HOURS)) for seed in (7, 7, 8))
    assert (first.trace, first.events) == (second.trace, second.events)
    assert other.trace != first.trace


def test_in_a_flood_no_fill_is_lost_or_doubled() -> None:
    report = simulate(flood(1, fills=2000))
    settled([report])
    assert report.verdict.fills >= 2000
    assert report.gaps > 8, "beside the first read of each account"
    assert len(report.happened) >= 5, f"hardly anything went wrong: {report.happened}"


def test_who_reads_history_since_what_was_seen_last_loses_fills() -> None:
    """So the judge can find it: most fills that were booked while nobody listened are older than the last second."""

    class LastSecond:
        def __init__(self, inner: Rest) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> object:
            return getattr(self._inner, name)

        def fills(self, since_ms: int, now_ms: int) -> Sequence[Read]:
            return self._inner.fills(max(since_ms, now_ms - 1000), now_ms)

    def naive(venue: Venue) -> Venue:
        return replace(venue, rest=lambda *about, **asked: LastSecond(venue.rest(*about, **asked)))

    verdict = simulate(replace(flood(1, fills=1000), dialect=naive, settle_s=60.0)).verdict
    print(f"a naive reader lost {len(verdict.lost)} of {verdict.fills} fills")
    assert len(verdict.lost) > verdict.fills // 100
    assert any("did not settle" in complaint for complaint in verdict.broken), "and the engine calls nothing proven"


def test_a_big_office_in_a_hurry_stays_within_every_limit_and_comes_near() -> None:
    report = simulate(long_day(1, hours=0.2, accounts=6))
    settled([report])
    assert max(use.peak / use.limit for use in report.uses.values()) > 0.7, "budgets were short"


def test_who_takes_more_than_a_limit_is_found_out() -> None:
    def greedy(config: Config) -> Config:
        return replace(config, venues={name: VenueSettings(budget_percent=1000.0) for name in venues()})

    report = simulate(replace(long_day(1, hours=0.2, accounts=6), configured=greedy))
    assert sum(use.refused for use in report.uses.values()) > 0
    assert any("above the limit" in complaint for complaint in report.verdict.broken)
