"""The example that waits for a signal and then runs another workflow."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from application.callers import Caller
from application.requests import ExecuteOptions
from domain.json_values import JsonObject
from infrastructure.settings import Settings
from interfaces.bootstrap import Services, open_services
from interfaces.yaml_reader import read_yaml
from tests.e2e.programs import EXAMPLES, ROOT

pytestmark = pytest.mark.anyio
_CALLER = Caller(actor="alice")
_PATIENCE_SECONDS = 30
INPUT: JsonObject = {
    "order": "A-17",
    "parcels": [{"id": "P-1", "kg": 2, "to": {"city": "Gent", "zip": "9000"}}],
}
_INPUT = re.compile(r"execute approved-shipment\b[^']*'([^']+)'")


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    """One process with both workflows published."""
    opened = await open_services(Settings(database_url=f"sqlite:///{tmp_path}/flowledger.db"))
    try:
        for name in ("fan_out", "approval"):
            definition = read_yaml((EXAMPLES / f"{name}.yaml").read_bytes()).value
            assert isinstance(definition, dict)
            published = await opened.workflows.publish(_CALLER, definition)
            assert published.warnings == ()
        yield opened
    finally:
        await opened.close()


def test_the_inputs_that_are_shown_can_be_sent() -> None:
    shown = [
        json.loads(given.replace("\n#", "\n"))
        for page in (ROOT / "docs/how-to/wait-for-others.md", EXAMPLES / "approval.yaml")
        for given in _INPUT.findall(page.read_text("utf-8"))
    ]
    assert shown == [INPUT, INPUT]


async def test_the_parcels_are_sent_once_their_order_is_approved(services: Services) -> None:
    options = ExecuteOptions(input_data=INPUT)
    begun = await services.requests.execute(_CALLER, "approved-shipment", options)
    execution_id = begun.view.id
    for order in ("A-16", "A-17"):
        payload: JsonObject = {"order": order, "by": "bob"}
        await services.control.signal(_CALLER, execution_id, "approved", payload)
    ended = await services.history.wait_ended("default", execution_id, _PATIENCE_SECONDS)
    assert (ended.status, ended.error_message) == ("COMPLETED", None)
    assert ended.output == {
        "approved_by": "bob",
        "labels": [{"parcel": "P-1", "number": 0, "slip": "post-P-1"}],
    }
    steps = {each.path: each for each in await services.history.steps("default", execution_id)}
    child = await services.history.view("default", steps["decide/ship"].child_execution_id or "")
    assert (child.workflow_name, child.status) == ("send-parcels", "COMPLETED")
    assert child.parent is not None
    assert child.parent.execution_id == execution_id
