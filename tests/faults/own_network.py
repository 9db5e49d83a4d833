"""A network namespace with one line to this machine, which can be taken away: what runs in it then
hears nothing, not even that connections are gone.
"""

import os
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

NETWORK = "10.213"


class OwnNetwork:
    """`host` is the address of this machine as seen from inside; `command` runs a program there."""

    def __init__(self, name: str, number: int) -> None:
        self.host = f"{NETWORK}.{number}.1"
        self.command: Sequence[str] = ("ip", "netns", "exec", name)
        self._line = f"{name}-h"

    def cut(self) -> None:
        """Take the line down: nothing passes, nobody is told."""
        _ip("link", "set", self._line, "down")

    def heal(self) -> None:
        """Bring it back."""
        _ip("link", "set", self._line, "up")


@contextmanager
def own_network() -> Iterator[OwnNetwork | None]:
    """A network until the block ends; None where this kernel or account may not make one."""
    name, number = f"fl{secrets.token_hex(3)}", 1 + secrets.randbelow(250)
    network = OwnNetwork(name, number)
    try:
        _make(name, number)
    except (OSError, subprocess.CalledProcessError):
        _remove(name)
        yield None
        return
    try:
        yield network
    finally:
        _remove(name)


def _make(name: str, number: int) -> None:
    if os.geteuid() != 0:
        raise PermissionError("only root makes networks")
    here, there = f"{name}-h", f"{name}-n"
    _ip("netns", "add", name)
    _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
    _ip("addr", "add", f"{NETWORK}.{number}.1/24", "dev", here)
    _ip("link", "set", here, "up")
    inside = ("-n", name)
    _ip(*inside, "addr", "add", f"{NETWORK}.{number}.2/24", "dev", there)
    _ip(*inside, "link", "set", there, "up")
    _ip(*inside, "link", "set", "lo", "up")


def _remove(name: str) -> None:
    for what in (("link", "del", f"{name}-h"), ("netns", "del", name)):
        subprocess.run(["ip", *what], capture_output=True, check=False)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], capture_output=True, check=True)
