"""The database goes away under running processes: calls are refused quickly, nothing is lost, and
all of it goes on by itself.
"""

from pathlib import Path

import httpx2

from tests.e2e.fleet import API, ask_until, execute, fleet, get, one_step, until_it_exists
from tests.infrastructure.event_store.cutting_proxy import cutting_proxy

PUBLISHED = one_step("stay_once", Path("nowhere")) | {"name": "published"}
READS = (
    "/executions",
    "/executions/{id}",
    "/executions/{id}?as_of=1",
    "/executions/{id}/steps",
    "/executions/{id}/events",
    "/executions/{id}/explain",
    "/executions/{id}/stream",
    "/executions/{id}/diagram?format=json",
    "/stuck-executions",
    "/workflows",
    "/human-tasks",
    "/tasks",
    "/events",
    "/statistics",
    "/projections",
)


def test_all_goes_on_after_an_outage(postgres_dsn: str, tmp_path: Path) -> None:
    relayed = tmp_path / "relay"
    relayed.mkdir()
    with cutting_proxy(postgres_dsn, relayed) as (relay, url), fleet(url, tmp_path) as running:
        api, worker, projector = running.api(), running.worker(), running.projector()
        taken = execute(api, one_step("until_told", tmp_path)).json()
        until_it_exists(tmp_path / f"began-{taken['id']}", api)
        relay.down = True
        relay.cut_all()
        for each in (api, worker, projector):
            ask_until(each, "/readyz", 503)
            assert get(each, "/livez").status_code == 200
            assert "flowledger_store_up 0.0" in get(each, "/metrics").text
        for path in READS:
            refused(get(api, API + path.format(id=taken["id"])), path)
        refused(execute(api, PUBLISHED, wait=30, key="k-1"), "execute")
        for path, body in (
            ("/workflows", PUBLISHED),
            (f"/executions/{taken['id']}/cancel", {}),
            (f"/executions/{taken['id']}/retry", {}),
        ):
            refused(httpx2.post(f"{api.address}{API}{path}", json=body, timeout=60), path)

        relay.down = False
        (tmp_path / "go").touch()
        for each in (api, worker, projector):
            ask_until(each, "/readyz", 200)
        ended = get(api, f"{API}/executions/{taken['id']}", wait=30).json()
        assert ended["status"] == "COMPLETED"
        listed = ask_until(api, f"{API}/executions?min_position={ended['position']}", 200)
        assert [each["status"] for each in listed.json()["items"]] == ["COMPLETED"]


def refused(answer: httpx2.Response, what: str) -> None:
    """It says that it is the server's state, and when to come again."""
    assert answer.status_code == 503, (what, answer.text)
    assert answer.headers["content-type"] == "application/problem+json", what
    assert int(answer.headers["retry-after"]) >= 1, what
