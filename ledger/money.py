"""Integer arithmetic on fen and basis points.  No float ever; every division says how it rounds."""

from collections.abc import Sequence

BP = 10_000
"""Basis points in a whole."""


def half_even(numerator: int, denominator: int) -> int:
    """The quotient rounded to the nearest integer, a half to the even one; the denominator is positive."""
    quotient, rest = divmod(numerator, denominator)
    twice = 2 * rest
    if twice > denominator or (twice == denominator and quotient & 1):
        return quotient + 1
    return quotient


def half_up(numerator: int, denominator: int) -> int | None:
    """The quotient of two non-negative integers rounded half up; ``None`` over zero.  For ratios in read models."""
    return (2 * numerator + denominator) // (2 * denominator) if denominator else None


def share(amount: int, part: int, whole: int) -> int:
    """``amount * part / whole`` half-even; all of it for the last part, so nothing is left over."""
    return amount if part == whole else half_even(amount * part, whole)


def allot(amount: int, weights: Sequence[int]) -> list[int]:
    """Splits an amount in proportion to the weights by cumulative targets, so that the parts add up to it exactly."""
    total, seen, given = sum(weights), 0, 0
    parts = []
    for weight in weights:
        seen += weight
        target = half_even(amount * seen, total) if total else 0
        parts.append(target - given)
        given = target
    return parts


def clamp(value: int, low: int, high: int) -> int:
    """The value, no lower than ``low`` and no higher than ``high``."""
    return max(low, min(value, high))
