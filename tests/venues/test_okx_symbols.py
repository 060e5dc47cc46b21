"""OKX's spelling of instruments and ours."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.venues.okx.numbers import moment, number, optional, plain
from engine.venues.okx.symbols import InstrumentRow, instrument_of, name_of, ref_of, symbol_of

PAIRS = [
    ("BTC-USDT", "BTC/USDT"),
    ("BTC-USDT-SWAP", "BTC/USDT:USDT"),
    ("BTC-USDC-SWAP", "BTC/USDC:USDC"),
    ("BTC-USD-SWAP", "BTC/USD:BTC"),
    ("BTC-USDT-261225", "BTC/USDT:USDT-261225"),
    ("ETH-USD-261225", "ETH/USD:ETH-261225"),
    ("BTC-USD-261225-90000-C", "BTC/USD:BTC-261225-90000-C"),
    ("BTC-USD-261225-0.5-P", "BTC/USD:BTC-261225-0.5-P"),
    ("1INCH-USDT", "1INCH/USDT"),
    ("BTC-ABOVE-DAILY-260224", "BTC-ABOVE-DAILY-260224"),  # of a shape that we do not know: kept as it is
]


@pytest.mark.parametrize(("symbol", "name"), PAIRS)
def test_symbol_and_name(symbol: str, name: str) -> None:
    assert name_of(symbol) == name
    assert symbol_of(name) == symbol


_word = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_", min_size=1, max_size=6)
_term = st.one_of(
    st.just(""),
    st.just("-SWAP"),
    st.dates().map(lambda d: f"-{d:%y%m%d}"),
    st.tuples(st.dates(), st.integers(1, 10**6), st.sampled_from("CP")).map(lambda t: f"-{t[0]:%y%m%d}-{t[1]}-{t[2]}"),
    st.text("ABC019-", max_size=12).map(lambda t: f"-{t}"),
)


@given(_word, st.one_of(_word, st.just("USD")), _term)
def test_a_symbol_comes_back_from_its_name(base: str, quote: str, term: str) -> None:
    symbol = f"{base}-{quote}{term}"
    assert symbol_of(name_of(symbol)) == symbol


@given(st.text(max_size=20))
def test_whatever_has_a_name_comes_back_and_all_else_is_refused(text: str) -> None:
    try:
        name = name_of(text)
    except ValueError:
        return
    assert symbol_of(name) == text


@pytest.mark.parametrize("symbol", ["", " ", "BTC/USDT", "BTC-USDT:USDT", "BTC|USDT", "BTC-\nUSDT", "BTC-US\x00DT"])
def test_what_is_no_symbol(symbol: str) -> None:
    with pytest.raises(ValueError, match="no symbol"):
        name_of(symbol)


@pytest.mark.parametrize("name", ["BTC-USDT", "BTC/USD:USD", "BTC/USDT:BTC", "BTC/USDT:USDT-", "BTC/", "", "a:b"])
def test_what_is_no_name_of_an_instrument_at_okx(name: str) -> None:
    with pytest.raises(ValueError, match="OKX"):
        symbol_of(name)


def _swap(**changes: object) -> InstrumentRow:
    fields: dict[str, object] = {
        "instType": "SWAP",
        "instId": "BTC-USDT-SWAP",
        "instIdCode": 20871,
        "lotSz": "0.01",
        "minSz": "0.01",
        "tickSz": "0.1",
        "state": "live",
        "settleCcy": "USDT",
        "ctVal": "0.01",
        "ctMult": "10",
        "ctValCcy": "BTC",
        "ctType": "linear",
    }
    return InstrumentRow(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_contract_counts_its_value_times_its_multiplier() -> None:
    swap = instrument_of(_swap())
    assert swap.base_quantity(Decimal(5), Decimal(90_000)) == Decimal("0.5")
    assert swap.notional(Decimal(5), Decimal(90_000)) == Decimal(45_000)


def test_an_inverse_contract_counts_dollars() -> None:
    swap = instrument_of(_swap(instId="BTC-USD-SWAP", ctType="inverse", ctVal="100", ctMult="1", ctValCcy="USD"))
    assert swap.notional(Decimal(5), Decimal(50_000)) == Decimal(500)
    assert swap.base_quantity(Decimal(5), Decimal(50_000)) == Decimal("0.01")


@pytest.mark.parametrize(
    "changes",
    [
        {"ctValCcy": "ETH"},
        {"ctValCcy": "USDT"},
        {"ctType": "inverse"},
        {"ctType": ""},
        {"ctVal": ""},
        {"lotSz": ""},
        {"tickSz": "NaN"},
        {"instType": "EVENTS"},
        {"instId": "BTC-A-B-C"},
    ],
    ids=str,
)
def test_units_that_would_have_to_be_guessed_make_no_instrument(changes: dict[str, object]) -> None:
    with pytest.raises((ValueError, KeyError)):
        instrument_of(_swap(**changes))


@pytest.mark.parametrize(
    ("changes", "tradable"),
    [({}, True), ({"state": "suspend"}, False), ({"state": "post_only"}, False), ({"instIdCode": None}, False)],
    ids=str,
)
def test_only_what_is_live_and_has_a_code_for_the_stream_is_tradable(
    changes: dict[str, object], tradable: bool
) -> None:
    assert instrument_of(_swap(**changes)).tradable is tradable


def test_the_reference_comes_apart_again() -> None:
    ref = ref_of(instrument_of(_swap()).venue_ref)
    assert (ref.inst_type, ref.symbol, ref.code) == ("SWAP", "BTC-USDT-SWAP", 20871)
    assert ref_of(instrument_of(_swap(instIdCode=None)).venue_ref).code is None


# ---- Numbers


@pytest.mark.parametrize("text", ["", "NaN", "-Infinity", "sNaN", "1e999999", "1e-999999", "9" * 65, "abc", "1,5"])
def test_what_is_no_number_never_becomes_one(text: str) -> None:
    with pytest.raises(ValueError, match="no number"):
        number(text)


@pytest.mark.parametrize("text", ["", "-1", "abc", "1.5", "9" * 14, "9" * 5000])
def test_what_is_no_moment_never_becomes_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"no moment|invalid literal"):
        moment(text)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**15), max_value=10**15, places=12))
def test_a_number_is_written_plainly_and_comes_back(value: Decimal) -> None:
    assert "e" not in plain(value).lower()
    assert number(plain(value)) == value


def test_nothing_told_is_not_zero() -> None:
    assert optional("") is None
    assert optional("0") == 0
    assert plain(Decimal("1E+3")) == "1000"
