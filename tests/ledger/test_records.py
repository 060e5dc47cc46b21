from __future__ import annotations

import random

import sqlalchemy as sa
from msgspec.structs import replace

from engine.core.breaks import Break, Cause, Code, Severity
from engine.core.runs import Checked, Run, RunKind, Verdict, complaints, whole_run
from engine.core.tolerances import RULES
from engine.ledger import audit, gaps, kills, quarantine, runs
from engine.ledger.gaps import Gap, GapState
from engine.ledger.kills import Kill

OPEN = Gap(gap_id="g1", account_id="ann", connection_key="c1", since_ms=1, opened_at_ms=2, reason="cut")


def test_a_gap_is_saved_in_each_of_its_states(connection: sa.Connection) -> None:
    gaps.save(connection, OPEN)
    gaps.save(connection, replace(OPEN, gap_id="g2", account_id="bob", opened_at_ms=3))
    assert gaps.unproven(connection) == [OPEN, replace(OPEN, gap_id="g2", account_id="bob", opened_at_ms=3)]
    proven = replace(OPEN, state=GapState.PROVEN, closed_at_ms=9, proven_at_ms=9, fills_found=4)
    gaps.settle(connection, "ann", "history", 8, 9, proven)
    assert gaps.unproven(connection, "ann") == []
    assert gaps.find(connection, "ann") == [proven]
    assert gaps.watermark(connection, "ann", "history") == 8


def test_of_many_gaps_the_latest_are_found(connection: sa.Connection) -> None:
    for number in range(5):
        gaps.save(connection, replace(OPEN, gap_id=f"g{number}", opened_at_ms=number))
    assert [g.opened_at_ms for g in gaps.find(connection, limit=2)] == [3, 4]


def test_a_watermark_never_goes_back(connection: sa.Connection) -> None:
    for at_ms in (5, 9, 7):
        gaps.move_watermark(connection, "ann", "history", at_ms, 10)
    assert gaps.watermark(connection, "ann", "history") == 9
    assert gaps.watermark(connection, "bob", "history") is None


def test_gap_ids_sort_by_time_and_differ() -> None:
    rng = random.Random(1)
    made = [gaps.new_id(now_ms, rng) for now_ms in (1_700_000_000_000, 1_700_000_000_000, 1_900_000_000_000)]
    assert made[0][:12] == made[1][:12] < made[2]
    assert len(set(made)) == 3


def test_a_kill_switch_stays_until_it_is_switched_off_and_both_are_audited(connection: sa.Connection) -> None:
    on = Kill(scope="venue:okx", by="mia", why="drill", at_ms=5)
    kills.switch_on(connection, on)
    kills.switch_on(connection, replace(on, scope="all"))
    kills.switch_off(connection, "all", "leo", "over", 6)
    assert kills.switched_on(connection) == [on]
    told = [(d.by, d.subject, d.before, d.after) for d in audit.newest(connection)]
    assert told == [
        ("leo", "all", "on", "off: over"),
        ("mia", "all", "off", "on: drill"),
        ("mia", "venue:okx", "off", "on: drill"),
    ]


def test_quarantine_keeps_the_newest_frames_and_only_their_beginning(connection: sa.Connection) -> None:
    for number in range(3):
        quarantine.put(connection, "c1", "ann", number, "not JSON", b"x" * (quarantine.FRAME_LIMIT + 1))
    found = quarantine.newest(connection)
    assert [q.received_at_ms for q in found] == [2, 1, 0]
    assert {len(q.frame) for q in found} == {quarantine.FRAME_LIMIT}
    quarantine.put(connection, "c1", "ann", 3, "not JSON", b"y", kept=2)
    assert [q.received_at_ms for q in quarantine.newest(connection)] == [3, 2]
    assert quarantine.count(connection) == 2


def found_break(break_id: str, account_id: str = "ann", *, first_seen_ms: int = 100, runs_seen: int = 1) -> Break:
    return Break(
        break_id=break_id,
        account_id=account_id,
        code=Code.POS_QTY,
        severity=Severity.MAJOR,
        cause=Cause.UNKNOWN,
        instrument="BTC/USDT:USDT",
        field="quantity",
        venue="3",
        ledger="2",
        first_seen_ms=first_seen_ms,
        last_seen_ms=100,
        runs_seen=runs_seen,
    )


def made_run(began_at_ms: int, **breaks_of: list[Break]) -> Run:
    accounts = [
        Checked(
            account_id=account_id,
            venue="okx",
            verdict=Verdict.BREAKS if breaks else Verdict.CLEAN,
            as_of_ms=began_at_ms,
            since_ms=0,
            reads=1,
            breaks=tuple(breaks),
        )
        for account_id, breaks in breaks_of.items()
    ]
    return whole_run(
        kind=RunKind.ADHOC, began_at_ms=began_at_ms, ended_at_ms=began_at_ms + 5, rules=RULES, accounts=accounts
    )


def test_a_run_comes_back_byte_for_byte(connection: sa.Connection) -> None:
    run = made_run(1000, ann=[found_break("b1")], bob=[])
    for _ in range(2):
        runs.save(connection, run)
    assert runs.load(connection, run.run_id) == run
    document = runs.document(connection, run.run_id)
    assert document is not None
    assert complaints(document) == ()
    assert runs.latest_id(connection) == run.run_id
    assert runs.load(connection, "none") is None
    assert runs.document(connection, "none") is None


def test_runs_are_listed_newest_first_with_their_counts(connection: sa.Connection) -> None:
    assert runs.latest_id(connection) is None
    runs.save(connection, made_run(1000, ann=[found_break("b1"), found_break("b2")], bob=[]))
    runs.save(connection, made_run(2000, ann=[]))
    lines = [(r.began_at_ms, r.verdict, r.accounts, r.breaks) for r in runs.newest(connection)]
    assert lines == [(2000, Verdict.CLEAN, 1, 0), (1000, Verdict.BREAKS, 2, 2)]


def test_a_break_is_remembered_only_while_the_latest_run_of_its_account_shows_it(connection: sa.Connection) -> None:
    runs.save(connection, made_run(1000, ann=[found_break("a1"), found_break("a2")], bob=[found_break("b1", "bob")]))
    again = found_break("a1", first_seen_ms=100, runs_seen=2)
    runs.save(connection, made_run(2000, ann=[again]))
    assert runs.seen(connection, ["a1", "a2", "b1", "new"]) == {
        "a1": runs.Seen(100, 2),
        "b1": runs.Seen(100, 1),
    }
    runs.save(connection, made_run(3000, ann=[]))
    assert runs.seen(connection, ["a1", "b1"]) == {"b1": runs.Seen(100, 1)}
