"""Several processes of the product on one PostgreSQL database: some answer, some work.

Each writes what its actions did to one file of effects, so that keys are compared over all of them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.faults.programs import EFFECTS, Program

RACING = Path(__file__).with_name("racing_actions.py")
PLANTED = Path(__file__).with_name("planted_bugs.py")


class Fleet:
    """Makes programs with a folder of their own each; they are not started here."""

    def __init__(
        self, url: str, folder: Path, *, lease_seconds: float = 3.0, bug: str = ""
    ) -> None:
        """`bug` names one of `planted_bugs`, which every process then has."""
        self.url = url
        self.folder = folder
        self.effects = folder / "effects.jsonl"
        self._settings = {
            "FLOWLEDGER_LEASE_SECONDS": str(lease_seconds),
            "FLOWLEDGER_ACTIONS": f"{EFFECTS},{RACING}" + (f",{PLANTED}" if bug else ""),
            "PLANTED_BUG": bug,
            "EFFECTS_FILE": str(self.effects),
            "FLOWLEDGER_LOG_LEVEL": "warning",
        }

    def api(self, name: str = "api", *, url: str = "", **settings: str) -> Program:
        """A process that only answers."""
        return self._program(name, url, {"FLOWLEDGER_WORKER_SLOTS": "0", **settings})

    def worker(
        self,
        name: str = "worker",
        *,
        url: str = "",
        within: Sequence[str] = (),
        **settings: str,
    ) -> Program:
        """A process that works; `within` as for Program."""
        return self._program(name, url, settings, within)

    def _program(
        self, name: str, url: str, settings: Mapping[str, str], within: Sequence[str] = ()
    ) -> Program:
        folder = self.folder / name
        folder.mkdir()
        return Program(
            url or self.url,
            folder,
            name=name,
            settings={**self._settings, **settings},
            within=within,
        )
