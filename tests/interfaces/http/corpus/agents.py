"""Agents and tasks as nobody may register, ask for or settle them."""

from typing import Any, Final

from tests.interfaces.http.corpus.case import API, Case, body, query, value

_AGENTS: Final = f"{API}/agents"
_POLL: Final = f"{API}/tasks/poll"
_TASK: Final = f"{API}/tasks/task-pay-0123456789abcdef"
_URL: Final = "https://scorer.example/a2a"
_ASK: Final[dict[str, Any]] = {"agents": ["worker"], "worker_id": "w"}
_MANY: Final = 10**400

_URLS: tuple[Any, ...] = (
    *(None, "", 5, ["http://a.example"], "//a.example", "ftp://a.example", "file:///etc/passwd"),
    *("javascript:alert(1)", "http://", "http:///a", "http://a b/", "http://a.example:99999/"),
    *("http://user:pass@a.example/", "http://a.example/?api_key=abcdef12345", "http://[::1"),
    *("http://a.example\\@127.0.0.1/", "http://a.example\r\nX-Other: 1/", "http://0177.0.0.1/"),
    *("http://\u2460\u2461\u2466.0.0.1/", "http://a\x00b.example/", "http://\ud800/", "x" * 5_000),
)
_NAMES: tuple[Any, ...] = (
    *(None, "", " ", 7, ["a"], " a", "a ", "a/b", "../a", "a:b", "a\nb", "a\x00", "\ud800", "é"),
    *("a" * 129, "<script>", "${secret.KEY}", "'; DROP TABLE agents; --"),
)
_MEMBERS: tuple[dict[str, Any], ...] = (
    *({"transport": each} for each in ("", "smtp", 7, "HTTP ")),
    *({"protocol": each} for each in ("", "soap", 7)),
    *({"timeout_ms": each} for each in (0, -1, 999, 300_001, "30000", 1e9, True, _MANY)),
    *({"auth_type": each} for each in ("basic", 7)),
    *({"auth_type": "bearer", "auth_config": each} for each in (None, [], "x", {"key": "secret"})),
    *(
        {"auth_type": "bearer", "auth_config": {"token": each}}
        for each in ("short", "***", "line\r\nX-Other: 1", "é" * 10, "${secret.A}x", 7, "x" * 9_000)
    ),
    *(
        {"auth_type": "apikey", "auth_config": {"key": "${secret.A}", "header_name": each}}
        for each in ("Host", "content-length", "X-Flowledger-Epoch", "a b", "", "a\r\nb", "x" * 200)
    ),
    {"auth_config": {"token": "secret-1"}},
    *({"retry_config": {"max_retries": each}} for each in (-1, 11, "3", 1.5, _MANY)),
    *({"circuit_breaker_config": {"failure_rate_threshold": each}} for each in (0, 2, "x")),
    {"circuit_breaker_config": {"failure_threshold": 0}},
    *({"recovery": each} for each in ([], {"on_failure": "PRAY"}, {"on_failure": "FALLBACK"})),
    *({each: "other"} for each in ("workspace", "workspace_id", "id", "secret_id", "status")),
)
_ASKS: tuple[dict[str, Any], ...] = (
    *({"wait_seconds": each} for each in (-1, 31, 1e6, "5", True, None)),
    *({"lease_seconds": each} for each in (0, 4, 3_601, "30")),
    *({"max_tasks": each} for each in (0, 101, 1.0, "1", _MANY)),
    *({"worker_id": each} for each in ("", "a b", "a\n", "é", "x" * 201, 7)),
    *({"agents": each} for each in ([], "worker", [7], ["a/b"], ["worker"] * 101, ["a\x00"])),
    *({"agents": each} for each in (["nobody"], ["called"], ["worker", "nobody"])),
    {"workspace_id": "other"},
)
_VERBS: Final[dict[str, tuple[str, Any]]] = {
    "heartbeat": ("lease_seconds", 30),
    "progress": ("progress", 1),
    "complete": ("output_data", 1),
    "fail": ("message", "m"),
}
_EPOCHS: tuple[Any, ...] = (None, -1, 2**53 + 1, _MANY, "1", 1.0, True)
_RAW: tuple[str, ...] = (
    *("NaN", "Infinity", "1e999", '"\\ud800"', '"\\u0000"', '{"\\u0000": 1}', '{"a": 1, "a": 2}'),
    *("[" * 100 + "]" * 100, "9" * 400, '"' + "x" * 300_000 + '"'),
)

CASES: tuple[Case, ...] = (
    *(value(f"agent at {each!r:.40}", {"name": "a", "url": each}, _AGENTS) for each in _URLS),
    *(value(f"agent {each!r:.40}", {"name": each, "url": _URL}, _AGENTS) for each in _NAMES),
    *(
        value(f"agent with {each!r:.60}", {"name": "a", "url": _URL} | each, _AGENTS)
        for each in _MEMBERS
    ),
    *(value(f"poll with {each!r:.60}", _ASK | each, _POLL) for each in _ASKS),
    *(
        value(f"{verb} in epoch {epoch!r:.20}", {"epoch": epoch, name: sent}, f"{_TASK}/{verb}")
        for verb, (name, sent) in _VERBS.items()
        for epoch in _EPOCHS
    ),
    *(
        body(f"{verb} {raw[:20]}", f'{{"epoch": 1, "{name}": {raw}}}', f"{_TASK}/{verb}")
        for verb, (name, _) in _VERBS.items()
        for raw in _RAW
    ),
    *(
        value(f"{verb} of no task", {"epoch": 1, name: sent}, f"{_TASK}/{verb}")
        for verb, (name, sent) in _VERBS.items()
    ),
    *(
        value(f"fail with {each!r:.40}", {"epoch": 1, "message": "m"} | each, f"{_TASK}/fail")
        for each in (
            {"code": "Bad Code"},
            {"error_class": "weird"},
            {"retryable": "yes"},
            {"message": "x" * 10_001},
            {"output_data": "x" * 300_000},
        )
    ),
    *(
        query(path, f"{name}={text}")
        for path, name in (("/agents", "name"), ("/tasks", "agent"), ("/tasks", "status"))
        for text in ("%00", "%FF", "a%2Fb", "x" * 300)
    ),
    *(
        Case(f"{method} agent {name}", method, f"{_AGENTS}/{name}{rest}")
        for name in ("nobody", "a%00b", "%F0%9F%98%80", "x" * 300)
        for method, rest in (("GET", ""), ("DELETE", ""), ("GET", "/health"), ("GET", "/circuit"))
    ),
)
