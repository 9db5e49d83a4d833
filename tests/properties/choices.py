"""Choices that Hypothesis makes in a property, and a seeded generator makes in a simulation.

The names are those of `hypothesis.strategies`, for the few that random definitions need.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from hypothesis import strategies

# Any in this file is what is chosen, which is any JSON value.


class Choice(Protocol):
    """Something to be chosen."""

    def strategy(self) -> strategies.SearchStrategy[Any]:
        """For Hypothesis, which chooses and shrinks."""

    def made(self, chance: Random) -> Any:
        """The choice of a generator."""


@dataclass(frozen=True, slots=True)
class _Sampled:
    options: Sequence[Any]

    def strategy(self) -> strategies.SearchStrategy[Any]:
        return strategies.sampled_from(self.options)

    def made(self, chance: Random) -> Any:
        return self.options[chance.randrange(len(self.options))]


@dataclass(frozen=True, slots=True)
class _Members:
    """An object with all `required` members and any of the `optional` ones."""

    required: Mapping[str, Choice]
    optional: Mapping[str, Choice]

    def strategy(self) -> strategies.SearchStrategy[Any]:
        return strategies.fixed_dictionaries(
            {name: choice.strategy() for name, choice in self.required.items()},
            optional={name: choice.strategy() for name, choice in self.optional.items()},
        )

    def made(self, chance: Random) -> Any:
        chosen = {name: choice.made(chance) for name, choice in self.required.items()}
        for name, choice in self.optional.items():
            if chance.random() < 0.5:
                chosen[name] = choice.made(chance)
        return chosen


@dataclass(frozen=True, slots=True)
class _Either:
    choices: Sequence[Choice]

    def strategy(self) -> strategies.SearchStrategy[Any]:
        return strategies.one_of(*(each.strategy() for each in self.choices))

    def made(self, chance: Random) -> Any:
        return self.choices[chance.randrange(len(self.choices))].made(chance)


def sampled_from(options: Sequence[Any]) -> Choice:
    """One of `options`."""
    return _Sampled(options)


def integers(lowest: int, highest: int) -> Choice:
    """A number from `lowest` to `highest`."""
    return _Sampled(range(lowest, highest + 1))


def booleans() -> Choice:
    """False or true."""
    return _Sampled((False, True))


def just(value: Any) -> Choice:
    """Always `value`."""
    return _Sampled((value,))


def one_of(*choices: Choice) -> Choice:
    """What one of `choices` chooses."""
    return _Either(choices)


def fixed_dictionaries(
    required: Mapping[str, Choice], *, optional: Mapping[str, Choice] | None = None
) -> Choice:
    """An object with all `required` members and any of the `optional` ones."""
    return _Members(required, optional or {})
