"""What the documents say is true: commands, make targets, links and the catalogue."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from api.catalogue import catalogue
from api.cli import app
from projections import PROJECTIONS

ROOT = Path(__file__).parent.parent
DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md")


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_catalogue_is_what_the_code_says() -> None:
    assert text_of("docs/catalogue.md") == catalogue()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_make_target_that_is_named_exists(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)`", text_of(name))) <= targets


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_guarantee_command_that_is_named_exists(name: str) -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    named = set(re.findall(r"(?:`|^)guarantee ([a-z]+)", text_of(name), re.MULTILINE))
    assert named <= commands.keys()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name: str) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", text_of(name)):
        if "://" not in link:
            assert (ROOT / link).exists(), link


def test_the_read_models_are_all_named() -> None:
    assert all(name in text_of("README.md") for name in PROJECTIONS)


def test_every_room_of_the_house_is_described() -> None:
    rooms = text_of("ARCHITECTURE.md")
    for folder in ("ledger", "projections", "api", "migrations", "benchmarks", "tests"):
        assert f"`{folder}/" in rooms
