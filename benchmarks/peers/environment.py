"""The peers' own environment: installed from `benchmarks/peers.txt` into a folder of its own.

Nothing of it is in our locks or in our package. The packages come from wherever the machine's pip
and npm are set up to look.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PINNED = Path(__file__).parent.parent / "peers.txt"
_NPM = "npm: "


@dataclass(frozen=True, slots=True)
class PeerEnvironment:
    """Where the peers are: a Python with their packages, Restate's server, what is installed."""

    python: Path
    restate_server: Path
    versions: dict[str, str]


def install(folder: Path) -> PeerEnvironment:
    """Install into `folder` what is not there yet. Raises CalledProcessError."""
    lines = [line for line in PINNED.read_text().splitlines() if line and line[0] != "#"]
    packages = [line for line in lines if not line.startswith(_NPM)]
    modules = [line.removeprefix(_NPM) for line in lines if line.startswith(_NPM)]
    python, marker = folder / "venv/bin/python", folder / "installed.txt"
    wanted = PINNED.read_text()
    if not marker.exists() or marker.read_text() != wanted:
        sys.stderr.write(f"Installing the peers into {folder} ...\n")
        pip = (str(python), "-m", "pip", "--disable-pip-version-check", "-q")
        _run(sys.executable, "-m", "venv", "--clear", str(folder / "venv"))
        _run(*pip, "install", *packages)
        _run("npm", "install", "--silent", "--prefix", str(folder / "npm"), *modules)
        marker.write_text(wanted)
    server = next((folder / "npm/node_modules/@restatedev").glob("*/bin/restate-server"))
    pinned = {package.partition("==")[0].partition("[")[0] for package in packages}
    installed = {name: v for name, v in _versions(python).items() if name in pinned}
    return PeerEnvironment(python, server, installed | _npm_versions(modules))


def _versions(python: Path) -> dict[str, str]:
    listed = subprocess.run(
        [python, "-m", "pip", "--disable-pip-version-check", "list", "--format", "json"],
        capture_output=True,
        check=True,
    )
    return {each["name"].lower(): each["version"] for each in json.loads(listed.stdout)}


def _npm_versions(modules: list[str]) -> dict[str, str]:
    return dict(module.rsplit("@", 1) for module in modules)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=sys.stderr)
