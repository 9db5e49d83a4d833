"""SQL in every parameter of a list that a database sees."""
# ruff: noqa: E501 - an input stays on one line

from urllib.parse import quote

from tests.interfaces.http.corpus.case import Case, query

STRINGS = (
    "'", "''", '"', "`", ";", "--", "/*", "' --", "' #", "') --", "')) --", "\\'", "%27", "';--",
    "' OR '1'='1", "' OR 1=1 --", "' OR 1=1#", '" OR ""="', "1 OR 1=1", "1' AND SLEEP(5)--",
    "1; SELECT pg_sleep(5)", "'; DROP TABLE ledger_events; --", "' UNION SELECT NULL,NULL--",
    "' UNION ALL SELECT sql FROM sqlite_master--", "1) UNION SELECT version()--", "' AND 1=(SELECT 1)--",
    "admin'--", "' HAVING 1=1--", "' GROUP BY 1--", "1 ORDER BY 100--", "'; ATTACH DATABASE 'x' AS x;--",
    "' || (SELECT 1) || '", "0x27204f52", "CHAR(39)", "$$ OR 1=1 $$", "E'\\x27'", "U&'\\0027'",
    "; COPY x FROM PROGRAM 'id'", "'; PRAGMA writable_schema=1;--", "created_at; DELETE FROM workflow_runs",
    "created_at DESC, (SELECT 1)", "(CASE WHEN 1=1 THEN 1 ELSE 2 END)", "*", "a%' ESCAPE '!", "_%",
)  # fmt: skip
_HARMLESS = ("--", "0x27204f52")
"""Identifiers may look like this."""
_PLACES = (
    ("/executions", "status"), ("/executions", "sort"), ("/executions", "workflow_id"),
    ("/executions", "sub_status"), ("/executions", "waiting_on"), ("/executions", "created_after"),
    ("/executions", "cursor"), ("/executions", "page"), ("/executions", "min_position"),
    ("/workflows", "name"), ("/workflows", "sort"), ("/workflows", "status"), ("/runs", "sort_by"),
    ("/runs", "workflow_id"), ("/human-tasks", "status"), ("/human-tasks", "execution_id"),
    ("/tasks", "status"), ("/tasks", "execution_id"),
    ("/events", "after"), ("/executions/victim", "as_of"),
)  # fmt: skip

CASES: tuple[Case, ...] = tuple(
    query(path, f"{name}={quote(text)}")
    for text in STRINGS
    if text not in _HARMLESS
    for path, name in _PLACES
) + tuple(
    query("/executions", f"label.{quote(text)}=x") for text in STRINGS if text not in _HARMLESS
)
