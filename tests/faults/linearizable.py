"""An exact check whether what concurrent callers saw can have happened one after the other.

The search of Wing and Gong with Lowe's memory: try every order that keeps what was answered before
something else was asked, and follow it in a model. Exact and exponential in the worst case, hence
for the few calls that one execution gets.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Call(Generic[S]):
    """What somebody asked for, between two times of one clock.

    `take` gives the states in which the model may be after it, none when the answer cannot have
    been given in that state. `answered` is infinite when no answer came: then the call may have
    taken effect at any later time, or never.
    """

    name: str
    asked: float
    answered: float
    take: Callable[[S], Sequence[S]]

    @property
    def optional(self) -> bool:
        """Whether it may never have happened."""
        return self.answered == inf


def linearizable(calls: Sequence[Call[S]], initial: S) -> bool:
    """Whether an order exists that the model allows."""
    ordered = sorted(calls, key=lambda call: call.asked)
    dead: set[tuple[frozenset[int], S]] = set()

    def follow(left: frozenset[int], state: S) -> bool:
        if all(ordered[place].optional for place in left):
            return True
        if (left, state) in dead:
            return False
        limit = min(ordered[place].answered for place in left)
        for place in left:
            call = ordered[place]
            if call.asked <= limit and any(
                follow(left - {place}, after) for after in call.take(state)
            ):
                return True
        dead.add((left, state))
        return False

    return follow(frozenset(range(len(ordered))), initial)
