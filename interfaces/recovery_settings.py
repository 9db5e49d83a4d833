"""What a server says about recovery, from its settings, to the rules that the domain uses."""

from collections.abc import Set
from pathlib import Path
from typing import Final

from domain.error_classes import DEFAULT_LISTS, ErrorLists
from domain.json_values import NotStorable, read_json
from domain.mistakes import Mistake
from domain.recovery_config import RecoveryConfig, completed, read_recovery_config
from domain.recovery_rules import RecoveryRules
from domain.recovery_stages import Alternative
from domain.rules_reader import read_rules
from interfaces.cli_input import read_definition

_VARIABLE: Final = "FLOWLEDGER_RECOVERY"


class BadRecoverySettings(ValueError):
    """The settings for recovery have mistakes; the message names each with its place."""


def recovery_rules(config: str, rules: Path | None, actions: Set[str]) -> RecoveryRules:
    """From the setting `recovery`, and the file that the setting `recovery_rules` names.

    `actions` are the registered ones.

    Raises BadRecoverySettings, or CommandFailed for a file that cannot be read.
    """
    errors, alternatives = (DEFAULT_LISTS, ()) if rules is None else _of_file(rules, actions)
    return RecoveryRules(errors, alternatives, _config(config))


def _config(text: str) -> RecoveryConfig | None:
    if not text.strip():
        return None
    mistakes: list[Mistake] = []
    try:
        given = read_recovery_config(read_json(text.encode()), "", mistakes)
    except NotStorable as error:
        raise BadRecoverySettings(f"{_VARIABLE} is no JSON object: {error}.") from None
    if mistakes:
        raise _bad(_VARIABLE, [f"{each.pointer or '(all)'}: {each.message}" for each in mistakes])
    return completed(given)


def _of_file(path: Path, actions: Set[str]) -> tuple[ErrorLists, tuple[Alternative, ...]]:
    file = read_definition(str(path.absolute()))
    mistakes: list[Mistake] = []
    found = read_rules(file.value, actions, mistakes)
    if mistakes:
        mistakes.sort(key=lambda each: file.line(each.pointer))
        raise _bad(
            f"{_VARIABLE}_RULES",
            [f"{file.place(each.pointer)}: {each.message} [{each.code}]" for each in mistakes],
        )
    return found


def _bad(variable: str, places: list[str]) -> BadRecoverySettings:
    count = "a mistake" if len(places) == 1 else f"{len(places)} mistakes"
    return BadRecoverySettings("\n".join([f"{variable} has {count}:", *(f"  {p}" for p in places)]))
