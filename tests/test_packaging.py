"""What is installed is what the project says; the wheel itself is tried by `make package-check`."""

import importlib
import importlib.metadata
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("domain", "application", "infrastructure", "interfaces")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_the_installed_distribution_is_this_one() -> None:
    metadata = importlib.metadata.metadata("flowledger")
    assert metadata["Version"] == PROJECT["project"]["version"]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"


def test_the_command_is_installed() -> None:
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="flowledger")
    assert command.value == "interfaces.cli:main"
    assert callable(command.load())


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_ours_and_typed(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__file__ is not None
    folder = Path(module.__file__).parent
    assert folder == ROOT / package
    assert (folder / "py.typed").exists()


def test_no_other_distribution_ships_one_of_our_packages() -> None:
    owners = importlib.metadata.packages_distributions()
    assert {name: owners.get(name, ["flowledger"]) for name in PACKAGES} == {
        name: ["flowledger"] for name in PACKAGES
    }


def test_the_wheel_takes_all_packages_and_the_examples() -> None:
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert tuple(wheel["packages"]) == PACKAGES
    assert wheel["force-include"] == {"examples": "interfaces/examples"}
