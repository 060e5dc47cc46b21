"""Raw frames lie in hourly files: what is pinned stays, of the rest the oldest goes."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.wire import archive
from engine.wire.archive import HOUR_MS, Hour, Line, Pin

HOUR = 1_767_225_600_000  # 2026-01-01 00:00
DAY_HOURS = 24


def write(folder: Path, hour_ms: int, *frames: str, venue: str = "okx", end: bool = True) -> Hour:
    hour = Hour(folder, venue, hour_ms)
    for number, frame in enumerate(frames):
        hour.write(msgspec.json.encode(Line(hour_ms + number, "ann-private", "in", frame)) + b"\n")
    hour.flush()
    if end:
        hour.close()
    return hour


def frames(folder: Path, **wanted: int | str) -> list[str]:
    return [line.frame for _, line in archive.lines(folder, **wanted)]  # type: ignore[arg-type]


def pinned(hour_ms: int, hours: int = 1) -> Pin:
    until_ms = hour_ms + hours * HOUR_MS - 1
    return Pin(pin_id=f"p{hour_ms}", since_ms=hour_ms, until_ms=until_ms, by="mia", why="lost", at_ms=HOUR)


def test_a_file_is_named_by_its_day_venue_and_hour_and_is_its_owners_only(tmp_path: Path) -> None:
    write(tmp_path, HOUR + 3 * HOUR_MS, "a")
    file = tmp_path / "2026-01-01" / "okx-03.jsonl.zst"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o077 == 0


def test_what_was_written_is_read_in_its_order(tmp_path: Path) -> None:
    write(tmp_path, HOUR + HOUR_MS, "c")
    write(tmp_path, HOUR, "a", "b\n\u2028ü")
    assert frames(tmp_path) == ["a", "b\n\u2028ü", "c"]


def test_a_file_that_a_crash_cut_off_is_read_up_to_its_last_flush_and_another_follows_it(tmp_path: Path) -> None:
    crashed = write(tmp_path, HOUR, "a", "b", end=False)
    whole = crashed.path.read_bytes()
    crashed.close()
    crashed.path.write_bytes(whole + b"\x07")  # the beginning of a block
    write(tmp_path, HOUR, "c")
    assert [file.number for file in archive.files(tmp_path)] == [1, 2]
    assert frames(tmp_path) == ["a", "b", "c"]


def test_frames_are_found_by_time_venue_and_connection(tmp_path: Path) -> None:
    write(tmp_path, HOUR, "a", "b", "c")
    write(tmp_path, HOUR, "d", venue="alor")
    assert frames(tmp_path, since_ms=HOUR + 1, until_ms=HOUR + 1) == ["b"]
    assert frames(tmp_path, venue="alor") == ["d"]
    assert frames(tmp_path, source="private") == ["d", "a", "b", "c"]
    assert frames(tmp_path, source="bob") == []


def test_the_oldest_go_until_the_rest_is_small_enough(tmp_path: Path) -> None:
    for number in range(4):
        file = write(tmp_path, HOUR + number * DAY_HOURS * HOUR_MS, "a").path
        file.write_bytes(bytes(600_000))
    now_ms = HOUR + 5 * DAY_HOURS * HOUR_MS
    gone = archive.prune(tmp_path, max_mb=2, max_days=100, now_ms=now_ms)
    assert [file.hour_ms for file in gone] == [HOUR]
    assert not (tmp_path / "2026-01-01").exists(), "nor an empty folder"
    assert archive.prune(tmp_path, max_mb=2, max_days=100, now_ms=now_ms) == []


def test_what_is_too_old_goes_though_it_is_small(tmp_path: Path) -> None:
    write(tmp_path, HOUR, "a")
    write(tmp_path, HOUR + DAY_HOURS * HOUR_MS, "b")
    archive.prune(tmp_path, max_mb=100, max_days=1, now_ms=HOUR + (DAY_HOURS + 1) * HOUR_MS)
    assert frames(tmp_path) == ["b"]


def test_a_pinned_hour_stays_whatever_its_size_and_age_until_the_pin_is_lifted(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path, HOUR + number * HOUR_MS, str(number)).path.write_bytes(bytes(2_000_000))
    archive.pin(tmp_path, pinned(HOUR))
    now_ms = HOUR + 100 * DAY_HOURS * HOUR_MS
    assert [f.hour_ms for f in archive.prune(tmp_path, max_mb=1, max_days=1, now_ms=now_ms)] == [
        HOUR + HOUR_MS,
        HOUR + 2 * HOUR_MS,
    ]
    (one,) = archive.pins(tmp_path)
    assert one == pinned(HOUR)
    assert archive.unpin(tmp_path, one.pin_id)
    assert not archive.unpin(tmp_path, one.pin_id)
    assert len(archive.prune(tmp_path, max_mb=1, max_days=1, now_ms=now_ms)) == 1


def test_a_file_that_is_being_written_is_not_deleted(tmp_path: Path) -> None:
    hour = write(tmp_path, HOUR, "a", end=False)
    now_ms = HOUR + 100 * DAY_HOURS * HOUR_MS
    assert archive.prune(tmp_path, max_mb=1, max_days=1, now_ms=now_ms, in_use={hour.path}) == []
    hour.close()


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "2026-01-01").mkdir()
    (tmp_path / "2026-01-01" / "notes.jsonl.zst").write_bytes(b"")
    (tmp_path / "pins").mkdir()
    (tmp_path / "pins" / "half.json").write_bytes(b'{"pin_id":')
    assert archive.files(tmp_path) == archive.pins(tmp_path) == []
