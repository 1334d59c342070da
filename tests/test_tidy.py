"""House rules that matter, as tests: who may import whom, what the domain never touches, what is documented."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.catalogue import catalogue
from ledger.events import Decision, Fact
from ledger.streams import COMMANDS, DECIDERS, WIRE
from projections import PROJECTIONS

ROOT = Path(__file__).parent.parent
PACKAGES = ("ledger", "projections", "api", "migrations", "benchmarks")
SQL_IS_WRITTEN_IN = {
    "ledger/log_writer.py", "ledger/log_reader.py", "ledger/log_check.py", "ledger/log_tail.py",
    "ledger/log_library.py", "ledger/store.py", "migrations/__init__.py",
    "projections/tables.py", "projections/runner.py", "projections/rebuild.py", "projections/reader.py",
    "api/keys.py", "api/checkpoints.py", "api/importing.py", "api/embedded.py", "api/queries.py",
}  # fmt: skip
SPEAKS_TO_POSTGRES = {"ledger/store.py"} | {x.relative_to(ROOT).as_posix() for x in (ROOT / "ledger").glob("log*.py")}
LONGEST_FUNCTION = 60
"""Lines, the docstring included: what fits a screen."""


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


DOMAIN = [path for path in python_files("ledger") if name_of(path) not in SPEAKS_TO_POSTGRES]
FOLDS = [ROOT / "projections" / f"{name}.py" for name in (*PROJECTIONS, "projection", "replay")]


@pytest.mark.parametrize("path", python_files("ledger", "projections"), ids=name_of)
def test_imports_run_one_way(path: Path) -> None:
    package = name_of(path).partition("/")[0]
    forbidden = {"ledger": {"projections", "api", "migrations"}, "projections": {"api"}}[package]
    assert not forbidden & set(imported(tree_of(path)))


@pytest.mark.parametrize("path", DOMAIN, ids=name_of)
def test_the_domain_imports_the_standard_library_msgspec_and_itself(path: Path) -> None:
    others = {x for x in imported(tree_of(path)) if x not in sys.stdlib_module_names}
    assert others <= {"msgspec", "ledger"}


@pytest.mark.parametrize("path", [*DOMAIN, *FOLDS], ids=name_of)
def test_the_domain_and_the_folds_know_no_clock_no_chance_and_no_float(path: Path) -> None:
    tree = tree_of(path)
    assert not {"uuid", "random", "secrets", "time", "socket", "os", "subprocess"} & set(imported(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            assert not isinstance(node.value, float), f"{node.value} in line {node.lineno}"
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            # a path may be joined; numbers are divided by money.half_even and money.half_up only
            assert name_of(path) == "ledger/rulebook.py", f"a division in line {node.lineno}"
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("now", "utcnow", "today"), f"a clock in line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("float", "open", "print"), f"{node.func.id} in line {node.lineno}"


@pytest.mark.parametrize("path", [x for x in DOMAIN if x.name not in ("events.py", "decider.py")], ids=name_of)
def test_no_state_depends_on_where_or_when_it_was_recorded(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("recorded_at", "position"), f"line {node.lineno}"


@pytest.mark.parametrize("path", python_files(*PACKAGES), ids=name_of)
def test_errors_are_never_swallowed(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"a bare except in line {node.lineno}"
            catches_all = isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
            does_nothing = all(isinstance(x, ast.Pass | ast.Continue) for x in node.body)
            assert not (catches_all and does_nothing), f"swallowed in line {node.lineno}"


@pytest.mark.parametrize("path", python_files(*PACKAGES), ids=name_of)
def test_functions_fit_a_screen(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", python_files("ledger", "projections", "api"), ids=name_of)
def test_public_things_have_a_docstring(path: Path) -> None:
    tree = tree_of(path)
    assert ast.get_docstring(tree) or not tree.body, "the module"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            inherits = isinstance(node, ast.ClassDef) and any("Fact" in ast.dump(b) or "Decision" in ast.dump(b)
                                                              for b in node.bases)  # fmt: skip
            assert ast.get_docstring(node) or (inherits and node.name.endswith(("Fact", "Decision"))), node.name


@pytest.mark.parametrize("path", python_files("ledger", "projections", "api"), ids=name_of)
def test_sql_is_written_in_few_places(path: Path) -> None:
    if name_of(path) in SQL_IS_WRITTEN_IN:
        return
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found = re.search(r"\b(SELECT .* FROM|INSERT INTO|UPDATE \w+ SET|DELETE FROM|CREATE TABLE)\b", node.value)
            assert not found, f"SQL in line {node.lineno}"


def test_an_event_is_a_fact_or_a_decision_and_never_both() -> None:
    for cls in WIRE.classes.values():
        assert issubclass(cls, Fact) != issubclass(cls, Decision)


def test_every_event_and_command_says_what_it_is() -> None:
    for cls in (*WIRE.classes.values(), *COMMANDS.values()):
        assert cls.__doc__
        assert not cls.__doc__.startswith(cls.__name__), f"{cls.__name__} has no docstring of its own"


def test_events_are_in_the_past_tense_and_commands_in_the_imperative() -> None:
    assert not {name for name in WIRE.classes if name.endswith(("Updated", "Changed", "Modified"))} - {"AddressChanged"}
    assert not WIRE.classes.keys() & COMMANDS.keys()


def test_amounts_have_their_unit_last() -> None:
    for cls in (*WIRE.classes.values(), *COMMANDS.values(), *(p.shown or p.row for p in PROJECTIONS.values())):
        for field in cls.__struct_fields__:
            assert not re.search(r"(amount|price|cost|balance)$", field), f"{cls.__name__}.{field} has no unit"


def test_every_rejection_code_is_documented() -> None:
    text = catalogue() + (ROOT / "README.md").read_text(encoding="utf-8")
    codes = {code for path in DOMAIN for code in re.findall(r'Rejected\("(\w+)"\)', path.read_text(encoding="utf-8"))}
    assert codes
    assert {code for code in codes if f"`{code}`" not in text} == set()


def test_every_stream_has_its_four_functions() -> None:
    for decider in DECIDERS.values():
        for function in (decider.decide, decider.react, decider.due, decider.evolve):
            assert callable(function)


def test_no_file_names_a_machine_or_a_registry() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    forbidden = re.compile(r"(/root/|/work/|/home/\w+|https?://(pypi|files\.pythonhosted|registry\.))", re.IGNORECASE)
    for name in tracked:
        path = ROOT / name
        if (
            path.suffix in (".py", ".md", ".toml", ".lock", ".yaml", ".sql", "")
            and path.is_file()
            and path != Path(__file__)
        ):
            assert not forbidden.search(path.read_text(encoding="utf-8", errors="replace")), name
