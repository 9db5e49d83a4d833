"""The example workflow from the command line: on a server, and on the embedded file."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.programs import EXAMPLES, Ended, example_settings, flowledger, serving, shop

ORDERS = str(EXAMPLES / "orders.yaml")


def body(ended: Ended) -> Any:  # what REST answered
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


@pytest.mark.parametrize("where", ["server", "file"])
def test_a_walk_in_json(tmp_path: Path, where: str) -> None:
    settings = example_settings()
    with shop(tmp_path) as service:
        if where == "server":
            with serving(cwd=tmp_path, more=settings) as server:
                walk(tmp_path, service.address, {"FLOWLEDGER_URL": server.address})
        else:
            walk(tmp_path, service.address, settings)


def walk(folder: Path, shop_url: str, settings: dict[str, str]) -> None:
    def command(*arguments: str) -> Ended:
        return flowledger(*arguments, "--json", cwd=folder, more=settings)

    assert body(command("workflow", "validate", ORDERS))["valid"] is True
    workflow = body(command("workflow", "publish", ORDERS))
    assert (workflow["name"], workflow["version"]) == ("daily-orders", 1)

    given = json.dumps({"shop_url": shop_url})
    run = ("execute", "daily-orders", "--input", given, "--key", "day-1", "--watch")
    execution = body(command(*run))
    assert execution["status"] == "COMPLETED"
    assert execution["output"]["settlement"] == "ST-7001"
    assert body(command(*run)) == execution

    events = body(command("history", execution["id"]))["items"]
    assert [event["version"] for event in events] == list(range(1, len(events) + 1))
    failed = [event for event in events if event["type"] == "step_failed"]
    assert [event["data"]["path"] for event in failed] == ["book", "book"]

    refused = command("execute", "daily-orders", "--input", "{}")
    assert refused.code == 2
    assert "shop_url" in refused.err
    late = command("cancel", execution["id"])
    assert (late.code, late.out) == (4, "")
    assert [each["id"] for each in body(command("list"))["items"]] == [execution["id"]]


def test_own_actions_are_needed_to_publish(tmp_path: Path) -> None:
    ended = flowledger("workflow", "validate", ORDERS, cwd=tmp_path)
    assert ended.code == 2
    assert "orders.yaml:" in ended.err
    assert "'check_orders' is not a registered action" in ended.err
