"""Ids in addresses that try to be paths, code, other alphabets, or very long."""
# ruff: noqa: E501 - an input stays on one line

from urllib.parse import quote

from tests.interfaces.http.corpus.case import API, Case

_IDS = (
    " ", "%00", "a%00b", "%FF", "%ED%A0%80", "%0A", "%0D%0AX-Injected:%201", "%09", "%7F", "%1B%5B31m",
    "..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "%2e%2e%5c", "a%2fb", "%252e%252e%252f", "~", "*", "%3F",
    "%23", "%25", "a%20b", "'", "%22", "%60id%60", "$(id)", ";id", "%7C%20id", "@file", "--config=%2Fx",
    "%3Cscript%3E", "%7B%7B7*7%7D%7D", "$%7B7*7%7D", "x" * 201, "x" * 5_000, "%E2%80%8B", "%E2%80%AE",
    quote("\uff41\uff42\uff43"), quote("run-١٢٣"), quote("é"), "null", "undefined", "NaN", "-1", "0",
    "1e400", "run-", "run-run-run-", "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff", "wf--", "wf-victim-0", "wf-victim-99", "wf-victim-" + "9" * 30,
    "__proto__", "constructor", "CON",
)  # fmt: skip
_READS = (
    "/executions/{}", "/executions/{}/steps", "/executions/{}/events", "/executions/{}/stream",
    "/executions/{}/diagram", "/executions/{}/explain", "/runs/{}", "/runs/{}/logs",
    "/workflows/{}", "/workflows/{}/versions", "/workflows/{}/diagram", "/workflows/{}/statistics",
)  # fmt: skip
_COMMANDS = (
    "/executions/{}/cancel", "/executions/{}/retry", "/runs/{}/cancel", "/runs/{}/retry",
    "/workflows/{}/execute", "/human-tasks/{}/complete",
)  # fmt: skip
_JSON = ((b"content-type", b"application/json"),)

CASES: tuple[Case, ...] = tuple(
    Case(f"{method} {path} {name[:60]}", method, API + path.format(name), content, headers)
    for number, name in enumerate(_IDS)
    for method, path, content, headers in (
        ("GET", _READS[number % len(_READS)], b"", ()),
        ("GET", _READS[(number + 5) % len(_READS)], b"", ()),
        ("POST", _COMMANDS[number % len(_COMMANDS)], b"{}", _JSON),
    )
) + tuple(
    Case(f"version {number}", "GET", f"{API}/workflows/victim/versions/{number}")
    for number in ("0", "-1", "2", "x", "1.5", "99999999999999999999", "%00", "%20")
)
