"""Whatever is done to a log by hand shows, at the first row that does not fit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from accounts.chain import BEGINNING, Content, Sealed, check, seal

contents = st.lists(
    st.tuples(st.integers(0, 2**60), st.text(max_size=8), st.none() | st.text(max_size=8)), min_size=2, max_size=8
)


def chain_of(rows: list[Content]) -> list[Sealed]:
    found, head = list[Sealed](), BEGINNING
    for number, content in enumerate(rows, 1):
        found.append(Sealed(number, head, head := seal(head, content), content))
    return found


def test_a_seal_never_changes_its_form() -> None:
    first = seal(BEGINNING, (1_767_225_600_000, "mia", None, "é"))
    assert first == "7f4bd874dc5fede9376f83c0e9c03a6d70e50c7877947194c68deb14c878cf2d"
    assert seal(first, ("x",)) == "1b594d613149571ab701aea254512c068179b1c4cdf2f547a759b121664eb304"


@given(contents)
def test_a_log_as_it_was_written_fits(rows: list[Content]) -> None:
    whole = chain_of(rows)
    assert check(whole) == check(iter(whole))
    assert (check(whole).rows, check(whole).head, check(whole).why) == (len(rows), whole[-1].seal, "")


@given(contents, st.data())
def test_a_changed_row_is_named(rows: list[Content], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(rows) - 1))
    found = chain_of(rows)
    found[at] = Sealed(found[at].number, found[at].previous, found[at].seal, (*rows[at], "more"))
    looked = check(found)
    assert (looked.unfit, looked.rows) == (at + 1, at)
    assert "changed after" in looked.why


@given(contents, st.data())
def test_a_row_changed_and_sealed_anew_shows_at_the_next(rows: list[Content], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(rows) - 2))
    found = chain_of(rows)
    forged = (*rows[at], "more")
    found[at] = Sealed(at + 1, found[at].previous, seal(found[at].previous, forged), forged)
    assert check(found).unfit == at + 2


@given(contents, st.data())
def test_a_removed_row_shows_at_the_next(rows: list[Content], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(rows) - 2))
    found = chain_of(rows)
    del found[at]
    looked = check(found)
    assert looked.unfit == at + 2
    assert "removed" in looked.why


@given(contents, st.data())
def test_a_row_put_in_shows_at_the_one_that_should_stand_there(rows: list[Content], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(rows) - 1))
    found = chain_of(rows)
    previous = found[at].previous
    found.insert(at, Sealed(99, previous, seal(previous, ("forged",)), ("forged",)))
    looked = check(found)
    assert looked.unfit == at + 1
    assert "put in" in looked.why
