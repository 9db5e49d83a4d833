"""What the tests of the REST interface say often: definitions, requests, the form of a problem."""

from typing import Any

import httpx2

API = "/api/v1"
JSON = {"content-type": "application/json"}


def action(config: dict[str, Any] | None = None, next_step: str | None = None, **more: Any) -> Any:
    """A step that sets variables."""
    return {
        "type": "action",
        "action": "set_variables",
        "config": {"variables": config or {"x": 1}},
        "next_step": next_step,
        **more,
    }


def flow(name: str, **steps: Any) -> Any:
    """A definition whose first step is the first one given."""
    named = {step_id: {"id": step_id, **step} for step_id, step in steps.items()}
    return {"name": name, "start_step": next(iter(named)), "steps": named}


QUICK = flow("quick", first=action({"count": "${workflow.input.count}"}))
WAITING = flow("waiting", pause={"type": "wait", "duration_ms": 3_600_000, "next_step": None})
ASKING = flow(
    "asking",
    ask={
        "type": "action",
        "action": "create_task",
        "config": {"title": "Approve", "wait": True},
        "next_step": "after",
    },
    after=action(),
)
FAILING = flow(
    "failing",
    call={
        "type": "action",
        "action": "call_api",
        "config": {"url": "http://127.0.0.1:9/", "method": "GET"},
        "on_error": "stop",
        "next_step": None,
    },
)


class Client:
    """An HTTP client below `/api/v1`, with the few requests that most tests begin with."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self.http = http

    async def get(self, path: str, **more: Any) -> httpx2.Response:
        return await self.http.get(API + path, **more)

    async def post(self, path: str, json: Any = None, **more: Any) -> httpx2.Response:
        if json is not None:
            more["json"] = json
        return await self.http.post(API + path, **more)

    async def publish(self, definition: Any) -> Any:
        answer = await self.post("/workflows", definition)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def run(self, definition: Any, input_data: Any = None) -> Any:
        """Publish, execute, and wait for the end."""
        await self.publish(definition)
        answer = await self.post(
            f"/workflows/{definition['name']}/execute",
            {"input_data": input_data or {}},
            headers={"Prefer": "wait=30"},
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def begin(self, definition: Any) -> Any:
        """Publish, execute, and wait until it waits for something."""
        await self.publish(definition)
        answer = await self.post(f"/workflows/{definition['name']}/execute", {})
        assert answer.status_code == 202, answer.text
        view = answer.json()
        while not any(wait["kind"] in ("timer", "human_task") for wait in view["waiting_on"]):
            answer = await self.get(
                f"/executions/{view['id']}",
                headers={"If-None-Match": f'"{view["version"]}"', "Prefer": "wait=30"},
            )
            view = answer.json()
        return view


def problem_of(answer: httpx2.Response, status: int, code: str) -> Any:
    """The body of a refusal, after a look at its form."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["code"] == code, body
    assert body["type"] == f"/problems/{code}"
    assert body["status"] == body["status_code"] == status
    assert isinstance(body["detail"], str)
    assert body["error"] == body["title"]
    assert body["path"] == body["instance"]
    assert body["timestamp"].endswith("Z")
    assert body["request_id"] == answer.headers["x-request-id"]
    for mistake in body["errors"]:
        assert set(mistake) == {"pointer", "message", "code", "in"}
    return body
