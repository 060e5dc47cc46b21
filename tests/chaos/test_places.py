"""A run of chaos knows the way to each named place of the engine, and says which it never met."""

from __future__ import annotations

import pytest

from engine.crash import POINTS
from tests.chaos.office import Office
from tests.chaos.places import FIRST, never_met, way_to


@pytest.mark.parametrize("place", POINTS)
def test_every_place_has_a_way_that_the_office_can_go(place: str) -> None:
    way = way_to(place)
    assert way.most >= 1
    assert way.act in {"", *Office.ACTS}


def test_a_place_that_nobody_knows_the_way_to_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        way_to("elsewhere")


def test_what_was_never_met_is_told_in_the_order_of_the_places() -> None:
    assert never_met(POINTS) == []
    assert never_met([]) == list(POINTS)
    assert never_met(set(POINTS) - {FIRST, POINTS[0]}) == [POINTS[0], FIRST]
