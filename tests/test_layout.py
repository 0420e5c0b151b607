"""The package is laid out as the method runs: imports go one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

from neurosurgery.masks.kinds import UNITS
from neurosurgery.methods.registry import METHODS

PACKAGE = ROOT / "neurosurgery"

FOLDERS = (
    "common settings data models prompts masks activations methods localisation edit evaluation "
    "results verdicts report run studies api cli"
).split()
"""A folder imports only from folders that stand before it."""

REPORT_MAY = {
    "common",
    "settings",
    "results",
    "verdicts",
    "masks.files",
    "masks.units",
    "masks.overlap",
    "masks.kinds",
    "methods",
    "edit.kinds",
    "report",
}
REPORT_FOLDERS = ["read", "figures", "page"]
"""The same rule within the report."""

HEAVY = {"transformers", "lm_eval", "accelerate", "peft"}
"""What `results/` and `verdicts/` must not need."""

SETTINGS_MAY_BE_SEEN_WHOLE = {
    "settings/experiment.py",
    "cli/parse.py",
    "studies/grid.py",
}
"""The study of a grid and the command line; every other room gets its own part."""


def python_files(folder: Path = PACKAGE) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imports(path: Path, package: Path = PACKAGE) -> Iterator[tuple[str, int]]:
    """Every module that a file names in an import, wherever in the file, with its line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                place = path.relative_to(package.parent).with_suffix("").parts[: -node.level]
                base = ".".join((*place, base)).rstrip(".")
            for alias in node.names:
                # `from neurosurgery.masks import units` names a module, too.
                inner = package.parent / base.replace(".", "/") / alias.name
                is_module = inner.is_dir() or inner.with_suffix(".py").is_file()
                yield (f"{base}.{alias.name}" if is_module else base), node.lineno


def forbidden(path: Path, module: str, package: Path = PACKAGE) -> str | None:
    """Why a file may not import a module; None where it may."""
    mine = path.relative_to(package).with_suffix("").parts
    if len(mine) == 1:
        # __init__ and __main__ gather what there is.
        return None
    folder = mine[0]
    if folder in ("results", "verdicts") and module.partition(".")[0] in HEAVY:
        return f"{folder}/ is to answer without {module}"
    first, _, rest = module.partition(".")
    if first != "neurosurgery" or not rest:
        return None
    theirs = rest.split(".")
    if folder == "report":
        if theirs[0] == "report":
            if len(mine) < 3 or len(theirs) < 3:
                return None
            if REPORT_FOLDERS.index(theirs[1]) > REPORT_FOLDERS.index(mine[1]):
                return f"report/{theirs[1]}/ comes after report/{mine[1]}/"
            return None
        allowed = theirs[0] in REPORT_MAY or ".".join(theirs[:2]) in REPORT_MAY
        return None if allowed else "the report reads only files, their units and their verdicts"
    if FOLDERS.index(theirs[0]) > FOLDERS.index(folder):
        return f"{theirs[0]}/ comes after {folder}/"
    return None


def violations(package: Path = PACKAGE) -> list[str]:
    return [
        f"{path.relative_to(package)}:{line} imports {module}: {reason}"
        for path in python_files(package)
        for module, line in imports(path, package)
        if (reason := forbidden(path, module, package)) is not None
    ]


def test_no_two_test_files_have_one_name():
    """pytest imports them by name alone."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "__init__.py"]
    assert sorted(names) == sorted(set(names))


def test_imports_go_one_way():
    assert violations() == []


@pytest.mark.parametrize(
    ("file", "line", "reason"),
    [
        ("masks/mask.py", "from neurosurgery.methods.twins import x", "methods/ comes after"),
        (
            "masks/mask.py",
            "from neurosurgery.localisation import consistency",
            "localisation/ comes after",
        ),
        ("masks/mask.py", "import neurosurgery.run.plan", "run/ comes after"),
        ("masks/mask.py", "from ..localisation import consistency", "localisation/ comes after"),
        ("models/load.py", "def f():\n    from neurosurgery.cli import flags", "cli/ comes after"),
        ("results/store.py", "import transformers", "is to answer without transformers"),
        ("verdicts/points.py", "from lm_eval.utils import x", "is to answer without lm_eval"),
        ("report/read/folder.py", "from neurosurgery.masks.mask import pack", "the report reads"),
        ("report/read/folder.py", "import neurosurgery.models.load", "the report reads"),
        (
            "report/read/points.py",
            "from neurosurgery.report.figures.grid import x",
            "figures/ comes after",
        ),
        ("run/plan.py", "from neurosurgery.cli.flags import build_parser", "cli/ comes after"),
    ],
)
def test_a_forbidden_import_is_found_and_both_files_are_named(tmp_path, file, line, reason):
    package = tmp_path / "neurosurgery"
    for path in python_files():
        copy = package / path.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    changed = package / file
    changed.write_text(f"{changed.read_text(encoding='utf-8')}\n\n{line}\n", encoding="utf-8")
    (found,) = violations(package)
    assert found.startswith(file)
    assert reason in found


def test_every_folder_stands_in_the_table():
    there = {
        path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"
    }
    assert there == set(FOLDERS)
    table = (ROOT / "docs" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    positions = [table.index(f"| `{folder}/`") for folder in FOLDERS]
    assert positions == sorted(positions)


def test_only_the_command_line_and_the_conductor_see_all_settings():
    seen = {
        relative(path)
        for path in python_files()
        if "ExperimentConfig" in path.read_text(encoding="utf-8")
    }
    assert seen == SETTINGS_MAY_BE_SEEN_WHOLE


def test_a_method_is_named_in_its_own_file_alone():
    """Elsewhere code asks the method; only what the paper has published is about one method."""
    # The methods of path patching are called as their units are, which --units names too.
    # "all" is a word of other flags, too.
    names = set(METHODS) - {kind.plural.lower() for kind in UNITS.values()} - {"all"}
    named = {
        relative(path)
        for path in python_files()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Constant) and node.value in names)
        or (isinstance(node, ast.Name) and node.id.lower() in names and node.id.isupper())
    }
    of_the_paper = {
        "edit/model_card.py",
        "report/figures/consistency.py",
        "verdicts/published_lines.py",
    }
    # PEFT has two configurations.
    adapters = "edit/adapters.py"
    # Documents can be random ones, too.
    documents = "settings/parts.py"
    # `neurosurgery lape` is a command.
    command = "cli/entries.py"
    elsewhere = {file for file in named if not file.startswith("methods/")}
    assert elsewhere <= {*of_the_paper, adapters, documents, command}


REGISTRIES = (
    "activations.kinds masks.kinds methods.registry methods.keys edit.kinds cli.scripts"
).split()


@pytest.mark.parametrize("name", REGISTRIES)
def test_a_registry_is_free_of_torch(name):
    """`--help` and the checks of flags read them."""
    code = (
        f"import sys, neurosurgery.{name}\n"
        "assert not {'torch', 'transformers', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_only_the_scripts_and_main_use_the_command_line():
    users = [
        path
        for path in python_files()
        for module, _ in imports(path)
        if module.startswith("neurosurgery.cli")
    ]
    assert {path.relative_to(PACKAGE).parts[0] for path in users} <= {"cli", "__main__.py"}


def printed(path: Path) -> Iterator[int]:
    """The lines of a file that print past `common/terminal.py`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("print", "tqdm.write", "sys.stdout.write", "sys.stderr.write"):
                yield node.lineno


@pytest.mark.parametrize("path", python_files(), ids=relative)
def test_lines_are_printed_in_one_place(path):
    """There control characters of foreign texts become visible."""
    if relative(path) != "common/terminal.py":
        assert not list(printed(path)), f"{relative(path)}: use `say` of common/terminal.py"


def test_a_print_would_be_found(tmp_path):
    (tmp_path / "a.py").write_text("def f():\n    print(1)\n    tqdm.write('x')\n")
    assert list(printed(tmp_path / "a.py")) == [2, 3]
