"""Business days are days of Asia/Shanghai; instants are UTC."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.calendar import ZONE, add_days, add_hours, business_date, business_month, day_after, parse, start_of


def test_a_business_day_begins_at_four_in_the_afternoon_of_the_day_before_in_utc() -> None:
    assert start_of(date(2015, 7, 15)) == datetime(2015, 7, 14, 16, tzinfo=UTC)


def test_by_the_fifteenth_means_before_the_sixteenth_begins() -> None:
    assert day_after(date(2015, 7, 15)) == start_of(date(2015, 7, 16))


@pytest.mark.parametrize(
    ("instant", "day"),
    [
        (datetime(2015, 7, 14, 15, 59, 59, 999999, tzinfo=UTC), date(2015, 7, 14)),
        (datetime(2015, 7, 14, 16, tzinfo=UTC), date(2015, 7, 15)),
        (datetime(2015, 12, 31, 16, tzinfo=UTC), date(2016, 1, 1)),
    ],
)
def test_an_instant_falls_on_its_day_in_shanghai(instant: datetime, day: date) -> None:
    assert business_date(instant) == day


def test_a_month_is_that_of_the_business_day() -> None:
    assert business_month(datetime(2015, 7, 31, 16, tzinfo=UTC)) == "2015-08"


@given(st.integers(0, 115 * 366 * 24 * 60))
def test_the_short_way_gives_what_the_zone_gives(minutes: int) -> None:
    instant = datetime(1985, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    assert business_date(instant) == instant.astimezone(ZONE).date()


def test_the_summer_time_of_the_eighties_is_known() -> None:
    assert business_date(datetime(1988, 7, 1, 15, 30, tzinfo=UTC)) == date(1988, 7, 2)


@given(st.dates(date(1993, 1, 1), date(2090, 1, 1)))
def test_every_day_holds_its_first_instant_and_not_the_first_of_the_next(day: date) -> None:
    assert business_date(start_of(day)) == day
    assert business_date(day_after(day) - timedelta(microseconds=1)) == day
    assert business_date(day_after(day)) == day + timedelta(days=1)


def test_seven_days_are_168_hours() -> None:
    instant = start_of(date(2015, 7, 1))
    assert add_days(instant, 7) == add_hours(instant, 168) == instant + timedelta(hours=168)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2018-12-01", datetime(2018, 11, 30, 16, tzinfo=UTC)),
        ("2018-12-01 08:30", datetime(2018, 12, 1, 0, 30, tzinfo=UTC)),
        ("2018-12-01T08:30:00Z", datetime(2018, 12, 1, 8, 30, tzinfo=UTC)),
        ("2018-12-01T08:30:00+02:00", datetime(2018, 12, 1, 6, 30, tzinfo=UTC)),
    ],
)
def test_text_without_a_zone_is_shanghais(text: str, instant: datetime) -> None:
    assert parse(text) == instant


@pytest.mark.parametrize("text", ["", "yesterday", "2018-13-01"])
def test_what_is_no_instant_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - it is worded differently from version to version
        parse(text)
