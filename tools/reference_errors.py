"""The page of errors: every code that an answer, a mistake or a failed step can carry."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from domain.errors import FlowledgerError
from interfaces.http.problems import KINDS
from tools.error_meanings import EXECUTION_CODES, MISTAKE_CODES, STEP_CODES
from tools.markdown import table, told

ROOT: Final = Path(__file__).resolve().parent.parent
_INTRODUCTION: Final = """# Errors

## Answers

A refused request is answered with `application/problem+json` (RFC 9457). Programs compare `code`,
which is stable; people read `detail`; `errors` lists every mistake with a pointer to its place, a
code of the [next list](#mistakes) and a sentence. `type` is `/problems/{code}`, where the running
server says what the list says here. `request_id` is also in the header `X-Request-ID` and in the
log. `error`, `status_code`, `timestamp` and `path` repeat the rest for older clients. An illegal
verb also gets `current_status` and `allowed_actions`.

"""
_MISTAKES: Final = """
## Mistakes

The `code` of an entry in `errors`. Its `pointer` (RFC 6901) leads into the body as it was sent; for
other parts of a request it begins with the part: `/query/page`, `/header/If-Match`,
`/path/workflow_id`. Some entries carry the code of the whole answer, others (`int_parsing`,
`string_type`, ...) those of pydantic for a member or parameter of the wrong type.

"""
_STEPS: Final = """
## Failed steps

The `code` in the `error` of a step and in `execution.step_failed.v1`. Own actions add
[their own](../how-to/write-an-action.md#how-it-fails). The class says whether a re-try can help:
`permanent` is never tried again; `transient`, `timeout` and `unknown` are, where the step has
re-tries.

"""
_EXECUTIONS: Final = """
## Failed executions

The `code` of a FAILED execution is that of the critical step that failed, or one of these.

"""
_SCANNED: Final = ("domain", "application", "infrastructure", "interfaces")
_CODE: Final = re.compile(r"[a-z]+(?:_[a-z]+)+\Z|[a-z]{3,}\Z")
_CALLS: Final = frozenset(
    {"Mistake", "ConfigMistake", "StepFailure", "BadYaml", "Failed", "StepFailed", "fail_step"}
    | {"refuse", "_refuse", "Refused", "refused_part", "_permanent", "_fail", "BranchFinished"}
)
_PLACES: Final = {
    "Mistake": 1,
    "ConfigMistake": 1,
    "Failed": 0,
    "fail_step": 2,
    "refused_part": 2,
    "_fail": 3,
    "ev.BranchFinished": 6,
    "ev.Failed": 3,
    "ev.StepFailed": 5,
}
"""Calls whose code is not the first argument that looks like one."""


def errors_page() -> str:
    """The page."""
    answers = [
        (f"`{code}`", str(kind.status), _cause(code) or f"{kind.title}.", kind.advice)
        for code, kind in KINDS.items()
    ]
    return "".join(
        (
            _INTRODUCTION,
            table(("code", "status", "meaning", "what to do"), answers),
            _MISTAKES,
            _listed(MISTAKE_CODES),
            _STEPS,
            _listed(STEP_CODES),
            _EXECUTIONS,
            _listed(EXECUTION_CODES),
        )
    )


def _listed(meanings: Mapping[str, str]) -> str:
    return table(
        ("code", "meaning"), [(f"`{code}`", text) for code, text in sorted(meanings.items())]
    )


def _cause(code: str) -> str:
    """What the domain's refusal with this code says of itself, up to the first semicolon."""
    sentences = (told(kind).partition("\n")[0] for kind in refusals() if kind.code == code)
    sentence, more, _ = next(sentences, "").partition(";")
    return sentence + "." if more else sentence


def refusals(root: type[FlowledgerError] = FlowledgerError) -> Iterator[type[FlowledgerError]]:
    """Every refusal of the domain."""
    for kind in root.__subclasses__():
        yield kind
        yield from refusals(kind)


def codes_in_use() -> dict[str, str]:
    """Codes that the source names where it refuses something, each with one place."""
    found: dict[str, str] = {}
    for file in sorted(file for folder in _SCANNED for file in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            code = _code_of(node)
            if code is not None:
                found.setdefault(code, f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}")
    return found


def _code_of(node: ast.AST) -> str | None:
    if isinstance(node, ast.Assign):
        named = any(isinstance(each, ast.Name) and each.id == "code" for each in node.targets)
        return _text(node.value) if named else None
    if not isinstance(node, ast.Call):
        return None
    called = ast.unparse(node.func)
    if called.rpartition(".")[2] not in _CALLS:
        return None
    if called in _PLACES:
        return _text(node.args[_PLACES[called]]) if len(node.args) > _PLACES[called] else None
    texts = (_text(argument) for argument in node.args)
    return next((text for text in texts if text and _CODE.fullmatch(text)), None)


def _text(node: ast.expr) -> str | None:
    value = node.value if isinstance(node, ast.Constant) else None
    return value if isinstance(value, str) else None
