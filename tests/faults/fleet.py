"""Several processes of the product on one PostgreSQL database: they answer, work, or fill tables.

Each writes what its actions did to one file of effects, so that keys are compared over all of them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.faults.programs import EFFECTS, Program

RACING = Path(__file__).with_name("racing_actions.py")
PORTS = {
    "serve": ["--port", "0"],
    "api": ["--port", "0"],
    "worker": [],
    "projector": [],
    "consumer": [],
    "bridge": [],
}
PLANTED = Path(__file__).with_name("planted_bugs.py")


class Fleet:
    """Makes programs with a folder of their own each; they are not started here."""

    def __init__(
        self,
        url: str,
        folder: Path,
        *,
        lease_seconds: float = 3.0,
        bug: str = "",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`bug` names one of `planted_bugs`, which every process then has; `settings` are for every
        process, too.
        """
        self.url = url
        self.folder = folder
        self.effects = folder / "effects.jsonl"
        self._settings = {
            "FLOWLEDGER_LEASE_SECONDS": str(lease_seconds),
            "FLOWLEDGER_ACTIONS": f"{EFFECTS},{RACING}" + (f",{PLANTED}" if bug else ""),
            "PLANTED_BUG": bug,
            "EFFECTS_FILE": str(self.effects),
            "FLOWLEDGER_LOG_LEVEL": "warning",
            **(settings or {}),
        }

    def api(self, name: str = "api", *, url: str = "", **settings: str) -> Program:
        """A process that only answers."""
        return self._program("api", name, url, settings)

    def worker(
        self, name: str = "worker", *, url: str = "", within: Sequence[str] = (), **settings: str
    ) -> Program:
        """A process that only works; `within` as for Program."""
        return self._program("worker", name, url, settings, within)

    def projector(self, name: str = "projector", *, url: str = "") -> Program:
        """A process that fills the tables."""
        return self._program("projector", name, url, {})

    def server(self, name: str = "server", *, url: str = "", **settings: str) -> Program:
        """A process that does everything."""
        return self._program("serve", name, url, settings)

    def consumer(self, name: str = "consumer", **settings: str) -> Program:
        """A process that takes what comes over Kafka, and works on it."""
        return self._program("consumer", name, "", settings)

    def bridge(self, name: str = "bridge", **settings: str) -> Program:
        """A process that calls agents for the tasks of a topic."""
        return self._program("bridge", name, "", settings)

    def _program(
        self,
        kind: str,
        name: str,
        url: str,
        settings: Mapping[str, str],
        within: Sequence[str] = (),
    ) -> Program:
        folder = self.folder / name
        folder.mkdir()
        return Program(
            url or self.url,
            folder,
            kind=kind,
            name=name,
            settings={**self._settings, **settings},
            arguments=PORTS[kind],
            within=within,
        )
