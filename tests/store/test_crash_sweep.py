"""The crash sweep in small, every day; by night as large as the script does it by itself."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.conftest import NIGHTLY
from tests.store.crash_sweep import sweep


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Where a server of this test's own lives, for it will not be treated well."""
    yield tmp_path / "home"
    shutil.rmtree(tmp_path / "home", ignore_errors=True)


def test_crashes_of_writers_and_server_lose_nothing_that_was_acknowledged(home: Path, postgres_binaries: Path) -> None:
    kills, server_kills = (200, 20) if NIGHTLY else (8, 2)

    found, hammer = sweep(home, postgres_binaries, writers=4, kills=kills, server_kills=server_kills)

    print(found)  # noqa: T201
    assert hammer.kills == kills
    assert found.acknowledged > kills
    assert found.are_clean()
