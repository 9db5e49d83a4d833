"""The example with a loop, a parallel, a fork and checks, run by the engine of one process."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from application.callers import Caller
from application.requests import ExecuteOptions
from application.views import ExecutionView
from domain.json_values import JsonObject
from infrastructure.settings import Settings
from interfaces.bootstrap import Services, open_services
from interfaces.yaml_reader import read_yaml
from tests.e2e.programs import EXAMPLES

pytestmark = pytest.mark.anyio
_CALLER = Caller(actor="alice")
_PATIENCE_SECONDS = 30
GENT: JsonObject = {"id": "P-1", "kg": 2, "to": {"city": "Gent", "zip": "9000"}}
TOO_HEAVY: JsonObject = {"id": "P-2", "kg": 44, "to": {"city": "Oslo", "zip": "0150"}}
NO_ADDRESS: JsonObject = {"id": "P-3", "kg": 1}


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    """One process with the example published."""
    opened = await open_services(Settings(database_url=f"sqlite:///{tmp_path}/flowledger.db"))
    try:
        definition = read_yaml((EXAMPLES / "fan_out.yaml").read_bytes()).value
        assert isinstance(definition, dict)
        await opened.workflows.publish(_CALLER, definition)
        yield opened
    finally:
        await opened.close()


async def sent(services: Services, *parcels: JsonObject) -> ExecutionView:
    """The execution for these parcels, ended."""
    options = ExecuteOptions(input_data={"parcels": list(parcels)})
    begun = await services.requests.execute(_CALLER, "send-parcels", options)
    return await services.history.wait_ended("default", begun.view.id, _PATIENCE_SECONDS)


async def test_every_parcel_gets_a_label(services: Services) -> None:
    ended = await sent(services, GENT, {**GENT, "id": "P-4"})
    assert (ended.status, ended.partial) == ("COMPLETED", False)
    assert ended.output == {
        "labels": [
            {"parcel": "P-1", "number": 0, "slip": "post-P-1"},
            {"parcel": "P-4", "number": 1, "slip": "post-P-4"},
        ]
    }


async def test_parcels_that_stay_here_do_not_stop_the_others(services: Services) -> None:
    ended = await sent(services, TOO_HEAVY, GENT, NO_ADDRESS)
    assert (ended.status, ended.partial) == ("COMPLETED", True)
    assert ended.output == {
        "labels": [None, {"parcel": "P-1", "number": 1, "slip": "post-P-1"}, None]
    }
    steps = {each.path: each for each in await services.history.steps("default", ended.id)}
    weight, address = (
        steps["each_parcel[0]/check/check_weight"],
        steps["each_parcel[2]/check/check_address"],
    )
    assert weight.error is not None
    assert address.error is not None
    assert weight.error.code == address.error.code == "validation_failed"
    assert steps["each_parcel[0]/check/check_address"].status == "COMPLETED"
    assert steps["each_parcel[1]/carrier/van/van_round"].status == "CANCELLED"
    assert "each_parcel[0]/carrier" not in steps


async def test_a_day_without_parcels_completes(services: Services) -> None:
    assert (await sent(services)).output == {"labels": []}
