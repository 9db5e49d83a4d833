"""Reading over HTTP: one execution now, then and changing; its history; lists."""

import asyncio
import json
from xml.etree import ElementTree

import pytest

from interfaces.http import stream
from tests.engine import PATIENCE_SECONDS
from tests.interfaces.http.served import API, FAILING, QUICK, WAITING, Client, problem_of

pytestmark = pytest.mark.anyio


async def test_what_has_not_changed_is_not_sent_again(client: Client) -> None:
    view = await client.run(QUICK, {"count": 1})
    path = f"/executions/{view['id']}"
    for tag in (f'"{view["version"]}"', f'W/"{view["version"]}"', '"1", "99", "8"', "*"):
        known = tag if tag != '"1", "99", "8"' else f'"1", "{view["version"]}"'
        answer = await client.get(path, headers={"If-None-Match": known})
        assert answer.status_code == 304, known
        assert answer.content == b""
        assert answer.headers["etag"] == f'"{view["version"]}"'
    assert (await client.get(path, headers={"If-None-Match": '"1"'})).status_code == 200


async def test_a_long_poll_answers_when_something_changes(client: Client) -> None:
    view = await client.begin(WAITING)
    headers = {"If-None-Match": f'"{view["version"]}"', "Prefer": "wait=30"}
    changed, _ = await asyncio.gather(
        client.get(f"/executions/{view['id']}", headers=headers),
        client.post(f"/executions/{view['id']}/cancel"),
    )
    assert changed.status_code == 200
    assert changed.json()["status"] == "CANCELLED"
    headers["Prefer"] = "wait=0"
    headers["If-None-Match"] = changed.headers["etag"]
    same = await client.get(f"/executions/{view['id']}", headers=headers)
    assert same.status_code == 304
    assert same.headers["preference-applied"] == "wait=0"


async def test_any_past_version_and_time_can_be_read(client: Client) -> None:
    view = await client.run(QUICK, {"count": 1})
    path = f"/executions/{view['id']}"
    first = await client.get(f"{path}?as_of=1")
    assert (first.json()["status"], first.headers["etag"]) == ("PENDING", '"1"')
    by_time = await client.get(path, params={"as_of": view["created_at"]})
    assert by_time.json() == first.json()
    unencoded = view["created_at"].replace("Z", "+00:00")  # its plus sign arrives as a blank
    assert (await client.get(f"{path}?as_of={unencoded}")).json() == first.json()
    assert (await client.get(path, params={"as_of": view["updated_at"]})).json() == view
    problem_of(await client.get(f"{path}?as_of=1999-01-01T00:00:00Z"), 404, "not_found")
    for wrong in ("0", "999", "9" * 30, "yesterday", "2026-13-01T00:00:00Z", "-1"):
        answer = await client.get(path, params={"as_of": wrong})
        assert problem_of(answer, 422, "invalid_request")["errors"][0]["in"] == "query"


async def test_steps_show_every_try(client: Client) -> None:
    view = await client.run(FAILING)
    steps = (await client.get(f"/executions/{view['id']}/steps")).json()
    assert steps["total"] == 1
    (step,) = steps["items"]
    assert (step["step_id"], step["status"], step["try_no"]) == ("call", "FAILED", 1)
    assert step["error"]["class"] == step["error_class"]


class TestHistory:
    """The events of one execution and of all."""

    async def test_pages_follow_one_another(self, client: Client) -> None:
        view = await client.run(QUICK, {"count": 1})
        seen, after = [], 0
        while True:
            answer = await client.get(
                f"/executions/{view['id']}/events?after_version={after}&limit=2"
            )
            body = answer.json()
            seen += [event["version"] for event in body["items"]]
            if body["next_after"] is None:
                assert answer.headers["cache-control"] == "private, no-cache"
                break
            assert answer.headers["cache-control"].endswith("immutable")
            assert answer.headers["link"].endswith('rel="next"')
            after = body["next_after"]
        assert seen == list(range(1, view["version"] + 1))

    async def test_an_event_has_its_envelope(self, client: Client) -> None:
        view = await client.run(QUICK, {"count": 1})
        answer = await client.get(f"/executions/{view['id']}/events")
        event = answer.json()["items"][0]
        assert event["topic"] == "execution.requested.v1"
        assert event["type"] == "requested"
        assert event["stream_id"] == view["id"]
        assert event["data"]["input"] == {"count": 1}
        assert event["recorded_at"] == view["created_at"]

    async def test_lines_stream_everything(self, client: Client) -> None:
        view = await client.run(QUICK, {"count": 1})
        lines = {"Accept": "application/x-ndjson"}
        answer = await client.get(f"/executions/{view['id']}/events", headers=lines)
        assert answer.headers["content-type"] == "application/x-ndjson"
        versions = [json.loads(line)["version"] for line in answer.text.splitlines()]
        assert versions == list(range(1, view["version"] + 1))
        everything = (await client.get("/events", headers=lines)).text.splitlines()
        positions = [json.loads(line)["position"] for line in everything]
        assert positions == sorted(set(positions))
        assert len(positions) == view["version"] + 1  # and workflow.published
        few = await client.get("/events?limit=3&after=1", headers=lines)
        assert [json.loads(line)["position"] for line in few.text.splitlines()] == positions[1:4]

    async def test_the_global_log_goes_on_from_any_position(self, client: Client) -> None:
        await client.run(QUICK, {"count": 1})
        first = (await client.get("/events?limit=2")).json()
        rest = (await client.get(f"/events?after={first['next_after']}")).json()
        assert first["items"][-1]["position"] < rest["items"][0]["position"]


class TestStream:
    """Server-Sent Events."""

    @staticmethod
    def messages(text: str) -> list[dict[str, str]]:
        blocks = [block for block in text.replace("\r\n", "\n").split("\n\n") if block]
        return [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]

    async def test_an_ended_execution_streams_its_log_and_closes(self, client: Client) -> None:
        view = await client.run(QUICK, {"count": 1})
        answer = await client.get(f"/executions/{view['id']}/stream")
        first, *events, end = self.messages(answer.text)
        assert first == {"retry": "2000"}
        assert [int(each["id"]) for each in events] == list(range(1, view["version"] + 1))
        assert events[0]["event"] == "requested"
        assert json.loads(events[-1]["data"])["type"] == "completed"
        assert end["event"] == "end"
        assert answer.headers["cache-control"] == "no-store"

    @pytest.mark.parametrize("by_header", [True, False])
    async def test_a_stream_resumes_where_it_was_cut(self, client: Client, by_header: bool) -> None:
        view = await client.run(QUICK, {"count": 1})
        path, last = f"/executions/{view['id']}/stream", view["version"] - 2
        if by_header:
            answer = await client.get(path, headers={"Last-Event-ID": str(last)})
        else:
            answer = await client.get(f"{path}?after={last}")
        _, *events, end = self.messages(answer.text)
        assert [int(each["id"]) for each in events] == [last + 1, last + 2]
        assert json.loads(end["data"])["version"] == view["version"]

    async def test_a_live_stream_ends_with_the_execution(self, client: Client) -> None:
        view = await client.begin(WAITING)
        answer, _ = await asyncio.gather(
            client.get(f"/executions/{view['id']}/stream?after={view['version']}"),
            client.post(f"/executions/{view['id']}/cancel"),
        )
        names = [each.get("event") for each in self.messages(answer.text)]
        assert names == [None, "cancel_requested", "cancelled", "end"]

    async def test_those_who_come_at_once_are_counted_before_they_are_served(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stream, "STREAMS_MAX", 3)
        view = await client.begin(WAITING)
        path = f"/executions/{view['id']}/stream"
        answers = [asyncio.create_task(client.get(path)) for _ in range(8)]
        async with asyncio.timeout(PATIENCE_SECONDS):
            refused = await asyncio.gather(*answers[3:])
        for each in refused:
            problem_of(each, 429, "too_many_streams")
            assert each.headers["retry-after"] == "5"
        await client.post(f"/executions/{view['id']}/cancel")
        served = await asyncio.gather(*answers[:3])
        assert [self.messages(each.text)[-1]["event"] for each in served] == ["end"] * 3
        assert (await client.get(path)).status_code == 200

    async def test_head_answers_without_a_stream(self, client: Client) -> None:
        view = await client.begin(WAITING)
        answer = await client.http.head(f"{API}/executions/{view['id']}/stream")
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"].startswith("text/event-stream")

    async def test_a_place_that_is_not_reached_yet_is_refused(self, client: Client) -> None:
        view = await client.begin(WAITING)
        path = f"/executions/{view['id']}/stream"
        answer = await client.get(path, headers={"Last-Event-ID": "99"})
        (mistake,) = problem_of(answer, 422, "invalid_request")["errors"]
        assert mistake["pointer"] == "/header/Last-Event-ID"
        problem_of(await client.get("/executions/none/stream"), 404, "not_found")


async def test_every_form_of_a_diagram(client: Client) -> None:
    view = await client.run(QUICK, {"count": 1})
    for owner in (f"/executions/{view['id']}", "/workflows/quick"):
        mermaid = await client.get(f"{owner}/diagram")
        assert "stateDiagram-v2" in mermaid.text
        assert (await client.get(f"{owner}/diagram?format=dot")).text.startswith("digraph")
        assert (await client.get(f"{owner}/diagram?format=json")).json()["nodes"]
        svg = await client.get(f"{owner}/diagram?format=svg")
        assert svg.headers["content-type"] == "image/svg+xml"
        assert "default-src 'none'" in svg.headers["content-security-policy"]
        assert ElementTree.fromstring(svg.text).tag.endswith("svg")  # noqa: S314 - our own output
        same = await client.get(
            f"{owner}/diagram", headers={"If-None-Match": mermaid.headers["etag"]}
        )
        assert same.status_code == 304
        problem_of(await client.get(f"{owner}/diagram?format=gif"), 422, "invalid_request")


async def test_explain_says_what_it_waits_for(client: Client) -> None:
    view = await client.begin(WAITING)
    body = (await client.get(f"/executions/{view['id']}/explain")).json()
    assert body["waiting_on"][0]["kind"] == "timer"
    assert {verb["verb"]: verb["allowed"] for verb in body["verbs"]} == {
        "cancel": True,
        "pause": True,
        "resume": False,
        "retry": False,
        "fork": True,
        "skip": True,
        "complete": True,
    }


class TestLists:
    """Pages, cursors, filters, and reading one's own write."""

    async def test_cursors_walk_through_everything_once(self, client: Client) -> None:
        await client.publish(QUICK)
        items = [{"workflow_id": "quick", "input_data": {"count": n}} for n in range(7)]
        answers = (await client.post("/executions/batch", {"items": items})).json()["items"]
        position = max(each["execution"]["position"] for each in answers)
        path, seen = f"/executions?page_size=3&sort=created_at&min_position={position}", []
        while True:
            answer = await client.get(path)
            body = answer.json()
            seen += [each["id"] for each in body["items"]]
            assert body["total"] == 7
            if body["next_cursor"] is None:
                assert "link" not in answer.headers
                break
            path = answer.headers["link"].removeprefix(f"<{API}").partition(">")[0]
        assert sorted(seen) == sorted(each["execution"]["id"] for each in answers)

    async def test_pages_have_totals(self, client: Client) -> None:
        await client.publish(QUICK)
        items = [{"workflow_id": "quick"}] * 5
        answers = (await client.post("/executions/batch", {"items": items})).json()["items"]
        position = max(each["execution"]["position"] for each in answers)
        body = (await client.get(f"/executions?page=2&page_size=2&min_position={position}")).json()
        assert (body["total"], body["page"], body["page_size"]) == (5, 2, 2)
        assert (body["total_pages"], len(body["items"])) == (3, 2)

    async def test_filters_narrow_a_list(self, client: Client) -> None:
        await client.publish(QUICK)
        waiting = await client.begin(WAITING)
        labelled = await client.post(
            "/workflows/quick/execute",
            {"input_data": {"count": 1}, "labels": {"team": "a b", "n": "1"}},
            headers={"Prefer": "wait=30"},
        )
        position = labelled.json()["position"]
        queries = {
            "status=RUNNING": waiting["id"],
            "status=RUNNING&status=FAILED": waiting["id"],
            "status=COMPLETED": labelled.json()["id"],
            "workflow_id=quick": labelled.json()["id"],
            "workflow_id=wf-waiting-1": waiting["id"],
            "waiting_on=timer": waiting["id"],
            "label.team=a+b&label.n=1": labelled.json()["id"],
            f"created_after={labelled.json()['created_at'][:19]}.000Z&workflow_id=quick": (
                labelled.json()["id"]
            ),
        }
        for query, expected in queries.items():
            answer = await client.get(f"/executions?{query}&min_position={position}")
            assert [each["id"] for each in answer.json()["items"]] == [expected], query
        none = await client.get(f"/executions?label.team=a&min_position={position}")
        assert none.json()["items"] == []

    async def test_a_bad_cursor_is_400(self, client: Client) -> None:
        answer = await client.get("/executions?cursor=bm9uc2Vuc2U")
        (mistake,) = problem_of(answer, 400, "bad_cursor")["errors"]
        assert mistake["pointer"] == "/query/cursor"

    async def test_a_position_that_does_not_exist_is_refused_at_once(self, client: Client) -> None:
        answer = await client.get("/executions?min_position=1000000")
        problem_of(answer, 422, "invalid_request")

    async def test_statistics_count(self, client: Client) -> None:
        view = await client.run(QUICK, {"count": 1})
        seen = f"min_position={view['position']}"
        for path in ("/statistics", "/workflows/quick/statistics"):
            body = (await client.get(f"{path}?{seen}")).json()
            assert body["by_status"]["COMPLETED"] == body["total"] == 1
        problem_of(await client.get("/workflows/none/statistics"), 404, "not_found")

    async def test_projections_say_how_far_they_are(self, client: Client) -> None:
        await client.publish(QUICK)
        assert (await client.get("/workflows?min_position=1")).status_code == 200  # it leads by now
        items = (await client.get("/projections")).json()["items"]
        assert "workflow_runs" in {each["name"] for each in items}
        assert all(each["state"] == "running" for each in items)
