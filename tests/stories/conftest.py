"""A marketplace in which the rules are in force and one merchant sells, for each story."""

from collections.abc import Iterator

import pytest

from tests.api.console import database, name_of
from tests.stories.market import RULEBOOK, Market, admission, open_market


@pytest.fixture(scope="session")
def opening(postgres: str) -> Iterator[str]:
    """The name of a database in which the rulebook was published and merchant m-1 admitted, to be copied."""
    with database(postgres) as url:
        with open_market(url) as market:
            market.given(RULEBOOK, admission())
        yield name_of(url)


@pytest.fixture
def market(postgres: str, opening: str) -> Iterator[Market]:
    """1 July 2015: the programme is live, and m-1 is a power merchant."""
    with database(postgres, template=opening) as url, open_market(url) as market:
        yield market


@pytest.fixture
def empty_market(postgres: str) -> Iterator[Market]:
    """The rulebook is published; there are no merchants yet."""
    with database(postgres) as url, open_market(url) as market:
        yield market.given(RULEBOOK)
