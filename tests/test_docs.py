"""The documentation holds: generated pages equal the code, links lead somewhere, samples run."""

import json
import re
import sqlite3
import tomllib
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from domain import step_reader
from domain.composite_reader import FORK_FIELDS, LOOP_FIELDS
from domain.conditions import OPERATORS
from domain.events import PAYLOADS
from domain.json_values import Json
from domain.mistakes import IGNORED_FIELDS, Mistake
from domain.stage_reader import ASK_FIELDS
from domain.validation import validate
from infrastructure.effects import call_api, notification
from infrastructure.projections.catalogue import PROJECTIONS
from infrastructure.settings import Settings
from interfaces.http.problems import KINDS
from interfaces.http.shapes import DEFINITION_SCHEMA
from interfaces.yaml_reader import read_yaml
from tests.documented_walks import run_executions, walk_through
from tests.e2e.programs import ROOT, flowledger
from tools.error_meanings import EXECUTION_CODES, MISTAKE_CODES, STEP_CODES
from tools.generate_reference import outdated, pages
from tools.reference_errors import codes_in_use, refusals
from tools.reference_limits import LIMITS
from tools.reference_routes import openapi, operations

DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
_FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_CODE_NAMES_A_PAGE = re.compile(r"\bdocs/[\w./-]*\w")
_FILE_NAME = re.compile(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|toml|yaml|md))`")
_TRACE_ROW = re.compile(r"^\| `((?:\w+/)+\w+\.py)` \| ([^|]+) \|", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block of a page; `info` is what stands behind the fence."""

    page: Path
    info: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.text.partition(chr(10))[0][:40]}"


def blocks(*languages: str) -> list[Block]:
    """The blocks of all pages in these languages."""
    return [
        Block(page, found["info"].strip(), found["text"])
        for page in PAGES
        for found in _FENCE.finditer(page.read_text("utf-8"))
        if found["info"].split(" ")[0] in languages
    ]


def prose(page: Path) -> str:
    """A page without its blocks."""
    return _FENCE.sub("", page.read_text("utf-8"))


def page_text(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


# --- what is made from the code ---


def test_generated_pages_are_what_the_code_says() -> None:
    assert outdated(pages()) == [], "run `make reference`"


def test_every_setting_is_documented() -> None:
    page = page_text("reference/settings.md")
    assert [
        name for name in Settings.model_fields if f"FLOWLEDGER_{name.upper()}`" not in page
    ] == []


def test_every_route_is_documented() -> None:
    page = page_text("reference/routes.md")
    routes = [f"### {method} {path}\n" for method, path, _ in operations(openapi())]
    assert len(routes) > 30
    assert [route for route in routes if route not in page] == []


def test_every_event_is_documented() -> None:
    page = page_text("reference/events.md")
    assert [each.TOPIC for each in PAYLOADS if f"### {each.TOPIC}\n" not in page] == []


def test_every_error_code_of_the_source_is_documented() -> None:
    known = {*KINDS, *MISTAKE_CODES, *STEP_CODES, *EXECUTION_CODES}
    used = codes_in_use()
    assert len(used) > 60
    assert {code: place for code, place in used.items() if code not in known} == {}


def test_every_documented_code_exists() -> None:
    source = "\n".join(
        file.read_text("utf-8")
        for folder in ("domain", "application", "infrastructure", "interfaces")
        for file in (ROOT / folder).rglob("*.py")
    )
    documented = {*MISTAKE_CODES, *STEP_CODES, *EXECUTION_CODES}
    assert [code for code in documented if not re.search(rf"\b{code}\b", source)] == []


def test_every_refusal_of_the_domain_has_a_status() -> None:
    assert [kind.code for kind in refusals() if kind.code not in KINDS] == []


def test_every_table_is_documented() -> None:
    page = page_text("reference/tables.md")
    names = [*(each.table.name for each in PROJECTIONS), "execution_events"]
    assert [name for name in names if f"### {name}\n" not in page] == []


def test_every_limit_of_the_domain_is_listed() -> None:
    listed = {f"{each.module}.{each.constant}" for group in LIMITS.values() for each in group}
    constant = re.compile(r"^([A-Z][A-Z_]*_MAX)\b.*=", re.MULTILINE)
    missing = [
        f"domain.{file.stem}.{name}"
        for file in (ROOT / "domain").glob("*.py")
        for name in constant.findall(file.read_text("utf-8"))
        if f"domain.{file.stem}.{name}" not in listed
    ]
    assert missing == []


def test_every_dependency_has_a_reason() -> None:
    page = page_text("decisions/0013-dependencies.md")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = [each for extra in project["optional-dependencies"].values() for each in extra]
    names = [re.split(r"[\[>=<]", each)[0] for each in [*project["dependencies"], *extras]]
    assert [name for name in names if f"| `{name}` |" not in page] == []
    reasons = re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE)
    assert [name for name in reasons if name not in names] == []


def test_every_part_of_a_definition_is_documented() -> None:
    page = page_text("reference/definitions.md")
    members = DEFINITION_SCHEMA["properties"]
    assert isinstance(members, dict)
    names = {*members, *IGNORED_FIELDS, *OPERATORS, *call_api.FIELDS, *notification.FIELDS}
    names |= {*ASK_FIELDS, *step_reader.COMMON_FIELDS, *step_reader.STEP_FIELDS_LATER}
    names = names.union(*step_reader.KIND_FIELDS.values(), LOOP_FIELDS, FORK_FIELDS)
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", page)] == []


def test_every_kind_of_step_is_named_where_the_type_is_documented() -> None:
    (row,) = re.findall(r"^\| `type` \| `action` .*$", page_text("reference/definitions.md"), re.M)
    named = re.findall(r"`(\w+)`", row.rpartition(" | ")[2])
    assert sorted(named) == sorted(step_reader.KIND_FIELDS)


# --- links and names ---


def test_links_lead_somewhere() -> None:
    dead = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in _LINK.findall(prose(page))
        if "://" not in target and not _exists(page, target)
    ]
    assert dead == []


def _exists(page: Path, target: str) -> bool:
    file, _, anchor = target.partition("#")
    found = page if not file else (page.parent / file).resolve()
    return found.exists() and (not anchor or anchor in _anchors(found))


@cache
def _anchors(page: Path) -> frozenset[str]:
    """What a renderer makes of the headings: lower case, blanks to dashes, signs left out."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return frozenset(
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings
    )


def test_every_page_is_listed() -> None:
    index = page_text("index.md")
    pages_of_docs = [
        page.relative_to(DOCS) for page in DOCS.rglob("*.md") if page.name != "index.md"
    ]
    assert [str(page) for page in pages_of_docs if f"]({page})" not in index] == []


def test_pages_that_the_code_names_exist() -> None:
    missing = [
        f"{file.relative_to(ROOT)}: {name}"
        for folder in ("domain", "application", "infrastructure", "interfaces", "examples")
        for file in (ROOT / folder).rglob("*.py")
        for name in _CODE_NAMES_A_PAGE.findall(file.read_text("utf-8"))
        if not (ROOT / name).exists() and not (ROOT / f"{name}.md").exists()
    ]
    assert missing == []


def test_files_that_pages_name_exist() -> None:
    missing = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in DOCS.rglob("*.md")
        for name in _FILE_NAME.findall(prose(page))
        if not (ROOT / name).exists()
    ]
    assert missing == []


def test_names_in_the_trace_of_a_command_are_those_of_the_code() -> None:
    rows = _TRACE_ROW.findall(page_text("explanation/architecture.md"))
    assert len(rows) > 15
    wrong = [
        f"{file}: {name}"
        for file, names in rows
        for name in re.findall(r"`(\w+)`", names)
        if not re.search(rf"\b{name}\b", (ROOT / file).read_text("utf-8"))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "page", sorted((DOCS / "decisions").glob("*.md")), ids=lambda page: page.stem
)
def test_a_decision_says_why_and_how_it_is_checked(page: Path) -> None:
    text = page.read_text("utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == ["Context", "Decision", "Consequence", "Check"]
    assert _FILE_NAME.search(text.rpartition("## Check")[2])
    assert len(text.splitlines()) <= 70


# --- samples ---


class _Catalogue:
    """Every action that a page may use: the built-in ones, and those of the page's own Python."""

    def __init__(self, page: Path) -> None:
        self._own = frozenset(
            re.findall(r"^(?:async )?def (\w+)\(config", page.read_text("utf-8"), re.M)
        )

    def names(self) -> frozenset[str]:
        return self._own | {"call_api", "send_notification", "set_variables", "set_variable"}

    def check(self, action: str, config: dict[str, Json], pointer: str) -> Iterator[Mistake]:
        yield from ()


def definitions() -> list[tuple[Block, Json]]:
    """The blocks which hold a definition; one that shows mistakes is named `broken`."""
    found: list[tuple[Block, Json]] = []
    for block in blocks("yaml", "json"):
        if not re.search(r'^\s*"?(?:steps|actions)"?:', block.text, re.MULTILINE):
            continue
        is_json = block.info.startswith("json")
        value: Any = json.loads(block.text) if is_json else read_yaml(block.text.encode()).value
        if isinstance(value, dict) and value.get("name", "broken") != "broken":
            found.append((block, value))
    return found


def test_definitions_in_the_pages_have_no_mistakes() -> None:
    found = definitions()
    assert len(found) >= 4
    wrong = {
        block.name: verdict.mistakes
        for block, value in found
        if (verdict := validate(value, _Catalogue(block.page))).mistakes
    }
    assert wrong == {}


def test_json_and_python_of_the_pages_can_be_read() -> None:
    for block in blocks("python"):
        compile(block.text, block.name, "exec")
    for block in blocks("json"):
        json.loads(block.text)


@pytest.mark.anyio
async def test_queries_run_as_printed_on_both_back_ends(database_url: str) -> None:
    await run_executions(database_url)
    dialect = database_url.partition(":")[0]
    queries = [
        block.text
        for block in blocks("sql")
        if block.info.removeprefix("sql").strip() in ("", dialect)
    ]
    assert len(queries) > 10
    found = [len(rows) for rows in results(database_url, queries)]
    assert sum(count > 0 for count in found) >= 8, found


@pytest.mark.anyio
async def test_queries_about_people_find_all_that_people_do(database_url: str) -> None:
    await run_executions(database_url)
    dialect = database_url.partition(":")[0]
    told = _answer_to(database_url, dialect, "'question_answered'")
    assert {row[3] for row in told} == {
        "cancel_requested",
        "retried",
        "paused",
        "resumed",
        "step_settled",
        "forked_from",
        "question_answered",
        "human_task_completed",
        "signal_received",
    }
    assert {("retried", "or not"), ("paused", "not today")} <= {(row[3], row[5]) for row in told}
    lost = _answer_to(database_url, dialect, "waited_for")
    assert {(row[0], row[1], row[2]) for row in lost} == {
        ("helped", "question", 3),
        ("helped", "human task", 1),
        ("helped", "pause", 1),
    }
    spent = _answer_to(database_url, dialect, "count(*) AS stays")
    assert {"FAILED", "CANCELLED", "COMPLETED"}.isdisjoint(row[2] for row in spent)


def _answer_to(database_url: str, dialect: str, words: str) -> list[Any]:
    """What the query with these words finds."""
    (query,) = (
        block.text
        for block in blocks("sql")
        if block.info.removeprefix("sql").strip() in ("", dialect) and words in block.text
    )
    (rows,) = results(database_url, [query])
    return rows


def results(database_url: str, queries: list[str]) -> Iterator[list[Any]]:
    """What each query finds; whatever it changes is undone."""
    if database_url.startswith("sqlite"):
        file = database_url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as lite:
            for query in queries:
                yield lite.execute(query).fetchall()
        return
    with psycopg.connect(database_url) as server, server.transaction(force_rollback=True):
        for query in queries:
            cursor = server.execute(query.encode())
            while cursor.description is None and cursor.nextset():
                continue
            yield cursor.fetchall() if cursor.description else []


def test_how_to_write_a_workflow(tmp_path: Path) -> None:
    said = walk_through("docs/how-to/write-a-workflow.md", tmp_path)
    endings = [
        json.loads(line)
        for line in said.replace("}{", "}\n{").splitlines()
        if '"simulate":' in line
    ]
    assert [(each["simulate"], each["status"], each["output"]) for each in endings] == [
        (False, "COMPLETED", {"customer": "ACME", "large": False}),
        (True, "COMPLETED", {"customer": "ACME", "large": True}),
    ]


def test_how_to_write_an_action(tmp_path: Path) -> None:
    page = DOCS / "how-to/write-an-action.md"
    (code,) = [
        each for each in blocks("python") if each.page == page and "my_actions.py" in each.text
    ]
    ((_, definition),) = [each for each in definitions() if each[0].page == page]
    (tmp_path / "my_actions.py").write_text(code.text)
    (tmp_path / "invoice.json").write_text(json.dumps(definition))
    own = {"FLOWLEDGER_ACTIONS": "my_actions.py"}
    published = flowledger("workflow", "publish", "invoice.json", cwd=tmp_path, more=own)
    assert published.code == 0, published
    given = ("--input", '{"net": 100}', "--watch", "--json")
    ended = flowledger("execute", "invoice", *given, cwd=tmp_path, more=own)
    assert json.loads(ended.out)["output"] == {"gross": 120.0}, ended


def test_how_to_back_up(tmp_path: Path) -> None:
    said = walk_through("docs/how-to/back-up-and-restore.md", tmp_path)
    assert (tmp_path / "backup.db").exists()
    assert "All is well." in said
