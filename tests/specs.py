"""Given an execution, when a command comes, then these facts follow, or this refusal."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from domain.errors import FlowledgerError
from tests.builders import Run


@dataclass(frozen=True, slots=True)
class Told:
    """What a command made of an execution, told in short (`tests.builders.told`)."""

    run: Run
    facts: tuple[str, ...]

    def then(self, *facts: str) -> Run:
        """Exactly these facts were recorded, in this order."""
        assert self.facts == facts
        return self.run

    def then_nothing(self) -> Run:
        return self.then()


@dataclass(frozen=True, slots=True)
class Given:
    """An execution in some state."""

    run: Run

    def when(self, command: Callable[[Run], list[str]]) -> Told:
        return Told(self.run, tuple(command(self.run)))

    def when_refused(
        self, command: Callable[[Run], list[str]], error: type[FlowledgerError]
    ) -> FlowledgerError:
        """The command is refused with `error` and leaves nothing behind."""
        version = self.run.state.version
        with pytest.raises(error) as refusal:
            command(self.run)
        assert self.run.state.version == version
        return refusal.value


def given(run: Run, *commands: Callable[[Run], list[str]]) -> Given:
    """An execution after some commands, whose facts do not matter here."""
    for command in commands:
        command(run)
    return Given(run)
