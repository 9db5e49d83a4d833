"""A server's rules for recovery, from the JSON value that an operator wrote, to their use.

`{"errors": {"permanent": [...], "transient": [...]}, "alternatives": [...]}`, each optional.
"""

from collections.abc import Set
from typing import Final

from domain.error_classes import DEFAULT_LISTS, ErrorLists
from domain.json_values import Json
from domain.mistakes import Fields, Mistake
from domain.recovery_stages import Alternative, compile_alternative
from domain.stage_reader import read_named_alternatives, unknown_actions

_MEMBERS: Final = frozenset({"errors", "alternatives"})
_LISTS: Final = frozenset({"permanent", "transient"})


def read_rules(
    raw: Json, actions: Set[str], mistakes: list[Mistake]
) -> tuple[ErrorLists, tuple[Alternative, ...]]:
    """The lists of errors and the named alternatives; a list that is left out is the default one.

    `actions` are the registered ones. Every mistake is noted with its place.
    """
    if not isinstance(raw, dict):
        message = 'Rules of recovery are an object like {"errors": {}, "alternatives": []}.'
        mistakes.append(Mistake("", "not_an_object", message))
        return DEFAULT_LISTS, ()
    fields = Fields(raw, "", mistakes)
    fields.refuse_others(_MEMBERS)
    stages = read_named_alternatives(fields)
    mistakes += unknown_actions(stages, "/alternatives", actions)
    return _errors(fields), () if mistakes else tuple(map(compile_alternative, stages))


def _errors(fields: Fields) -> ErrorLists:
    fields.refuse_others(_LISTS, inside="errors")
    given = Fields(fields.object("errors"), "/errors", fields.mistakes)
    lists = {
        name: tuple(text for text in given.texts(name) if isinstance(text, str))
        for name in sorted(_LISTS)
        if given.raw.get(name) is not None
    }
    return ErrorLists(
        permanent=lists.get("permanent", DEFAULT_LISTS.permanent),
        transient=lists.get("transient", DEFAULT_LISTS.transient),
    )
