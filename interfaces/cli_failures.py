"""How a command of the CLI ends: its exit code, and the one sentence it says when it fails."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes that scripts can rely on."""

    DONE = 0
    """The command did what it was asked."""
    UNSUCCESSFUL = 1
    """The execution ended FAILED or CANCELLED; verify found a difference; doctor found a fault."""
    INVALID = 2
    """Wrong usage, or the definition, the input or an option was refused."""
    NOT_FOUND = 3
    """No such workflow, execution, version or file."""
    CONFLICT = 4
    """Not possible in the present state, or somebody else changed it first."""
    NOT_READY = 5
    """The server or the database does not answer, or is not ready; trying again may help."""
    UNEXPECTED = 6
    """A defect of Flowledger."""
    INTERRUPTED = 130
    """Stopped by Ctrl-C."""


class CommandFailed(Exception):
    """Ends the command. `message` says what went wrong, `next_step` what to do about it."""

    def __init__(self, code: ExitCode, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.next_step = next_step

    def text(self) -> str:
        """What stands on stderr."""
        return f"Error: {self.message}" + (f"\n{self.next_step}" if self.next_step else "")
