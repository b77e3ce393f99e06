"""The house rules, executed: layers, lint, types, package maps, sizes, names, and what may not be committed."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("agent", "control_plane", "protocol", "client/allotment")
FILE_LINES_MAX = 300
FUNCTION_LINES_MAX = 60
BANNED_NAMES = {"utils", "helpers", "common", "manager", "base", "misc", "util", "helper"}
TOP_LEVEL = {
    ".ci", ".github", ".gitignore", "LICENSE", "Makefile", "README.md", "agent", "client", "control_plane", "docs",
    "examples", "k8s", "protocol", "pyproject.toml", "tests",
}  # fmt: skip


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    # A virtual environment of one's own, whatever its name, is no part of the project.
    environments = [path.parent.parent for path in found if path.name == "activate" and path.parent.name == "bin"]
    return [path for path in found if not any(path.is_relative_to(one) for one in environments)]


def sources() -> list[Path]:
    return [
        path
        for path in tracked()
        if path.suffix == ".py" and path.relative_to(ROOT).as_posix().startswith(tuple(f"{p}/" for p in PACKAGES))
    ]


def run_tool(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]


def tool(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def test_layers_hold() -> None:
    run_tool(tool("lint-imports"), "--no-cache")


def test_code_is_formatted() -> None:
    run_tool(tool("ruff"), "format", "--check", ".")


def test_lint_is_clean() -> None:
    run_tool(tool("ruff"), "check", ".")


def test_types_are_strict_and_hold() -> None:
    run_tool(tool("mypy"))


def test_nobody_else_owns_our_import_names() -> None:
    owners = importlib.metadata.packages_distributions()
    for name, distribution in (
        ("agent", "allotment-programs"),
        ("control_plane", "allotment-programs"),
        ("protocol", "allotment-programs"),
        ("allotment", "allotment"),
    ):
        assert set(owners.get(name, [distribution])) == {distribution}


def test_top_level_holds_only_what_the_readme_explains() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in tracked()} <= TOP_LEVEL


@pytest.mark.parametrize("package", sorted({path.parent for path in sources()}), ids=lambda p: str(p.relative_to(ROOT)))
def test_package_head_is_a_map_of_its_files(package: Path) -> None:
    if "migrations" in package.parts:
        return
    docstring = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    named = {match.group(1) for match in re.finditer(r"^(\w[\w./]*)\s{2,}\S", docstring, re.MULTILINE)}
    files = {path.stem for path in package.glob("*.py") if path.name != "__init__.py"}
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    assert files | rooms <= {name.removesuffix(".py").rstrip("/") for name in named}
    for name in named:
        bare = name.removesuffix(".py").rstrip("/")
        assert bare in files | rooms or (package / name).exists(), f"{package}/__init__.py names {name}, which is gone"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_file_is_small_and_says_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    if "migrations/versions" in path.as_posix():
        return
    assert ast.get_docstring(tree), "a file begins with a sentence saying what it is for"
    assert text.count("\n") <= FILE_LINES_MAX
    assert not BANNED_NAMES & set(path.stem.split("_"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{node.name} has {lines} lines"


def test_tests_have_no_packages_and_unique_names() -> None:
    tests = [path for path in tracked() if path.relative_to(ROOT).parts[0] == "tests"]
    assert not [path for path in tests if path.name == "__init__.py"]


def test_no_machine_or_registry_is_named() -> None:
    banned = re.compile(r"/work/(main|shared)|pypi\.org|/root/|files\.pythonhosted|deb\.debian\.org")
    for path in tracked():
        if path == Path(__file__).resolve() or path.suffix in {".gz", ".sse", ".png"}:
            continue
        found = banned.search(path.read_text(errors="replace"))
        assert not found, f"{path.relative_to(ROOT)} names {found.group(0) if found else ''}"


def test_no_unfinished_marks_are_left() -> None:
    unfinished = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
    for path in sources():
        assert not unfinished.search(path.read_text()), path
