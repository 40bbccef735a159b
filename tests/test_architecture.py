"""The shape of the code, as docs/architecture.md promises it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from imaging_services.cli import settings_reference
from imaging_services.cli.components import COMPONENTS

ROOT = Path(__file__).parents[1]
LONGEST_FILE = 400
SOURCES = sorted(path for folder in ("operator", "services") for path in (ROOT / folder).rglob("*.py"))
EVERYTHING = [*SOURCES, *sorted(path for folder in ("tests", "bench") for path in (ROOT / folder).rglob("*.py"))]


def test_import_contracts_hold() -> None:
    lint_imports = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint_imports, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_operator_folder_is_not_a_package() -> None:
    assert (ROOT / "operator" / "imaging_operator" / "__init__.py").exists()
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert not (ROOT / "services" / "__init__.py").exists()


def test_no_package_shadows_the_standard_operator_module() -> None:
    assert [path for path in SOURCES if path.name == "operator.py" or path.parent.name == "operator"] == []
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_no_file_is_too_long() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in EVERYTHING}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_every_module_and_public_thing_has_a_docstring() -> None:
    missing = [where for path in SOURCES for where in _without_docstring(path)]
    assert missing == []


def test_every_component_has_settings_and_main() -> None:
    folders = {path.parent.name for path in (ROOT / "services/imaging_services/apps").glob("*/main.py")}
    assert folders == set(COMPONENTS.values())
    assert settings_reference.COMPONENTS == COMPONENTS


@pytest.mark.parametrize("words", [("TO" + "DO",), ("FIX" + "ME",), ("X" * 3,), ("Not" + "ImplementedError(",)])
def test_nothing_is_left_for_later(words: tuple[str]) -> None:
    assert [str(path) for path in SOURCES if words[0] in path.read_text("utf-8")] == []


def test_the_settings_page_agrees_with_the_settings_classes() -> None:
    assert (ROOT / "docs" / "settings.md").read_text("utf-8") == settings_reference.render(), "run 'make docs'"


def _without_docstring(path: Path) -> list[str]:
    tree = ast.parse(path.read_text("utf-8"))
    public = [
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
    ]
    found = [str(path.relative_to(ROOT))] if tree.body and not ast.get_docstring(tree) else []
    return found + [f"{path.relative_to(ROOT)}: {node.name}" for node in public if not ast.get_docstring(node)]
