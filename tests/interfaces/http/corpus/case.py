"""One hostile request."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

API = "/api/v1"
EXECUTE = f"{API}/workflows/victim/execute"


class Case(NamedTuple):
    """A request that must be refused. `content` may come in chunks without a length."""

    label: str
    method: str
    url: str
    content: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()


def body(label: str, content: bytes | str, url: str = EXECUTE) -> Case:
    """A JSON body, as these bytes."""
    raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return Case(label, "POST", url, raw, ((b"content-type", b"application/json"),))


def value(label: str, sent: Any, url: str = EXECUTE) -> Case:
    """A JSON body, well-formed."""
    return body(label, json.dumps(sent), url)


def query(path: str, text: str) -> Case:
    """A GET with this raw query."""
    return Case(f"{path}?{text}"[:100], "GET", f"{API}{path}?{text}")


def published(label: str, definition: Any) -> Iterator[Case]:
    """A definition, wherever one is taken."""
    yield value(label, definition, f"{API}/workflows")
    yield value(f"{label} (inline)", {"definition": definition}, f"{API}/executions")
