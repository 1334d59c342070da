"""Integer arithmetic: every division says how it rounds, and no part gets lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.money import BP, allot, clamp, half_even, half_up, share

FEN = st.integers(0, 10**15)


@pytest.mark.parametrize(
    ("numerator", "denominator", "rounded"),
    [(1, 2, 0), (3, 2, 2), (5, 2, 2), (7, 2, 4), (1, 3, 0), (2, 3, 1), (0, 7, 0), (-1, 2, 0), (-3, 2, -2), (-5, 3, -2)],
)
def test_a_half_goes_to_the_even_number(numerator: int, denominator: int, rounded: int) -> None:
    assert half_even(numerator, denominator) == rounded


@given(st.integers(-(10**12), 10**12), st.integers(1, 10**9))
def test_half_even_is_never_further_away_than_a_half(numerator: int, denominator: int) -> None:
    assert abs(2 * (half_even(numerator, denominator) * denominator - numerator)) <= denominator


@pytest.mark.parametrize(
    ("numerator", "denominator", "rounded"), [(1, 2, 1), (3, 2, 2), (1, 3, 0), (2, 3, 1), (0, 5, 0)]
)
def test_ratios_are_rounded_half_up(numerator: int, denominator: int, rounded: int) -> None:
    assert half_up(numerator, denominator) == rounded


def test_a_ratio_over_nothing_is_null() -> None:
    assert half_up(0, 0) is None


def test_the_last_unit_takes_the_rest() -> None:
    first = share(1001, 1, 3)
    second = share(1001 - first, 1, 2)
    assert (first, second, share(1001 - first - second, 1, 1)) == (334, 334, 333)


@given(FEN, st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_shares_of_what_is_left_add_up_to_the_whole(amount_fen: int, claims: list[int]) -> None:
    left_fen, units = amount_fen, sum(claims)
    for claimed in claims:
        part = share(left_fen, claimed, units)
        assert 0 <= part <= left_fen
        left_fen, units = left_fen - part, units - claimed
    assert left_fen == 0


@given(FEN, st.lists(st.integers(0, 1000), min_size=1, max_size=20))
def test_what_is_allotted_adds_up_and_follows_the_weights(amount_fen: int, weights: list[int]) -> None:
    parts = allot(amount_fen, weights)
    assert sum(parts) == (amount_fen if any(weights) else 0)
    assert all(part >= 0 for part in parts)
    assert all(part == 0 for part, weight in zip(parts, weights, strict=True) if weight == 0)


def test_nothing_is_allotted_by_no_weights() -> None:
    assert allot(100, [0, 0]) == [0, 0]


def test_a_value_is_clamped_to_its_bounds() -> None:
    assert [clamp(x, 500, 10_000) for x in (3, 700, 20_000)] == [500, 700, 10_000]


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=30), st.integers(0, BP))
def test_cumulative_targets_end_exactly_at_the_target_of_the_sum(amounts: list[int], rate_bp: int) -> None:
    posted = total = 0
    for amount in amounts:
        total += amount
        posted += half_even(rate_bp * total, BP) - posted
    assert posted == half_even(rate_bp * sum(amounts), BP)
