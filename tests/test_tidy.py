"""Rules of the code's form which no other tool checks."""

import ast
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PRODUCT = ("domain", "application", "infrastructure", "interfaces")
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc", "service"}
DOMAIN_LIBRARIES = {"domain", "msgspec", "jsonpath_rfc9535", "immutables", "transitions"}
TEXT_SUFFIXES = {".py", ".md", ".toml", ".txt", ".ini", ".yaml", ".yml", ".json", ".html", ".sql"}
GENERATED = {"requirements/dev.txt", "requirements/image.txt", "requirements/run.txt"}
MACHINE_PATHS = re.compile(r"(?<![\w.])/(?:work|root|home/\w+)/[\w.-]")
UNFINISHED = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|X{3})\b")
SUPPRESSION = re.compile(r"#\s*(?:type:\s*ignore|noqa)(?P<rest>.*)$")
REASONED = re.compile(r"^(?:\[[\w, -]+\]|:\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*)\s*(?:#|-|—)\s*\S.{5,}")
CHANGELOG_HEADING = re.compile(r"## (?:Unreleased|\d+\.\d+\.\d+ - \d{4}-\d{2}-\d{2})")
CHANGELOG_GROUPS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


@cache
def repository_files() -> tuple[Path, ...]:
    """Files which git has or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:  # an unpacked archive has no git
        paths = [path for path in ROOT.rglob("*") if not _is_made(path)]
    return tuple(sorted(path for path in paths if path.is_file()))


def _is_made(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    return any(part in {"var", "build", "dist", "__pycache__"} for part in parts) or parts[
        0
    ].startswith(".")


def python_files(*folders: str) -> list[Path]:
    return [
        path
        for path in repository_files()
        if path.suffix == ".py" and (not folders or path.relative_to(ROOT).parts[0] in folders)
    ]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def lines_matching(pattern: re.Pattern[str], paths: list[Path]) -> Iterator[str]:
    for path in paths:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
            if pattern.search(line):
                yield f"{name_of(path)}:{number}: {line.strip()}"


def text_files() -> list[Path]:
    return [path for path in repository_files() if path.suffix in TEXT_SUFFIXES]


def comments_of(path: Path) -> Iterator[tuple[int, str]]:
    with path.open("rb") as source:
        for token in tokenize.tokenize(source.readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string


def imported_roots(path: Path) -> set[str]:
    roots = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            roots.add(node.module.partition(".")[0])
    return roots


def test_files_are_short() -> None:
    long = {
        name_of(path): count
        for path in python_files()
        if (count := len(path.read_text("utf-8").splitlines())) > FILE_LINES_MAX
    }
    assert long == {}


def test_functions_fit_a_screen() -> None:
    long = [
        f"{name_of(path)}:{node.lineno} {node.name}"
        for path in python_files(*PRODUCT)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert long == []


def test_modules_are_named_by_their_problem() -> None:
    vague = [name_of(path) for path in python_files() if set(path.stem.split("_")) & VAGUE_NAMES]
    assert vague == []


def test_every_module_of_the_product_says_what_it_is_for() -> None:
    silent = [
        name_of(path)
        for path in python_files(*PRODUCT)
        if not ast.get_docstring(ast.parse(path.read_text("utf-8")))
    ]
    assert silent == []


def test_package_files_hold_a_docstring_only() -> None:
    full = [
        name_of(path)
        for path in python_files(*PRODUCT)
        if path.name == "__init__.py" and len(ast.parse(path.read_text("utf-8")).body) != 1
    ]
    assert full == []


def test_the_domain_uses_few_libraries() -> None:
    allowed = DOMAIN_LIBRARIES | sys.stdlib_module_names
    foreign = {
        name_of(path): roots
        for path in python_files("domain")
        if (roots := imported_roots(path) - allowed)
    }
    assert foreign == {}


def test_the_product_does_not_import_what_the_wheel_lacks() -> None:
    lacking = {"tests", "docs", "benchmarks", "tools", "examples"}
    wrong = [name_of(path) for path in python_files(*PRODUCT) if imported_roots(path) & lacking]
    assert wrong == []


def test_tests_do_not_sleep() -> None:
    assert list(lines_matching(re.compile(r"\btime\.sle" r"ep\("), python_files("tests"))) == []


def test_no_test_is_skipped() -> None:
    skips = re.compile(r"mark\.sk" r"ip|pytest\.sk" r"ip|mark\.xf" r"ail|importorsk" r"ip")
    assert list(lines_matching(skips, python_files("tests"))) == []


def test_nothing_is_left_unfinished() -> None:
    """Comments only: TODO is also the status of a task that waits for a person."""
    promises = [
        f"{name_of(path)}:{number}: {comment}"
        for path in python_files()
        for number, comment in comments_of(path)
        if UNFINISHED.search(comment)
    ]
    assert promises == []


def test_every_suppressed_check_names_its_code_and_reason() -> None:
    bare = [
        f"{name_of(path)}:{number}: {comment}"
        for path in python_files()
        for number, comment in comments_of(path)
        if (found := SUPPRESSION.search(comment)) and not REASONED.match(found["rest"])
    ]
    assert bare == [], "write `# noqa: CODE - reason` or `# type: ignore[code]  # reason`"


def test_no_file_names_a_path_of_one_machine() -> None:
    assert list(lines_matching(MACHINE_PATHS, text_files())) == []


@pytest.mark.parametrize("lock", sorted(GENERATED))
def test_locks_are_hashed_and_name_no_host(lock: str) -> None:
    text = (ROOT / lock).read_text("utf-8")
    assert "://" not in text
    assert "--index-url" not in text
    pinned = re.findall(r"^[a-z0-9][^\s=]*==\S+", text, flags=re.MULTILINE)
    assert pinned
    assert len(pinned) == len(re.findall(r"^[a-z0-9].*\\\n +--hash=", text, flags=re.MULTILINE))


def test_the_other_locks_are_parts_of_the_development_lock() -> None:
    dev, image, run = (
        set(re.findall(r"^[a-z0-9]\S*==\S+", (ROOT / lock).read_text("utf-8"), flags=re.MULTILINE))
        for lock in sorted(GENERATED)
    )
    assert run < image < dev


def test_the_changelog_keeps_its_form() -> None:
    lines = (ROOT / "CHANGELOG.md").read_text("utf-8").splitlines()
    headings = [line for line in lines if line.startswith("## ")]
    groups = [line.removeprefix("### ") for line in lines if line.startswith("### ")]
    assert lines[0] == "# Changelog"
    assert headings[0] == "## Unreleased"
    assert [line for line in headings if not CHANGELOG_HEADING.fullmatch(line)] == []
    assert set(groups) <= CHANGELOG_GROUPS
