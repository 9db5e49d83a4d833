"""The words of conditions: numbers, quoted texts, references, names and signs, in linear time."""

import re
from typing import Final, Literal, NamedTuple


class BadCondition(ValueError):
    """A condition that is not in the grammar; `position` counts characters from 0."""

    def __init__(self, position: int, message: str) -> None:
        super().__init__(f"{message} (at character {position})")
        self.position = position
        self.message = message


Kind = Literal["number", "text", "reference", "word", "sign", "end"]


class Token(NamedTuple):
    """One word; `text` is as written, `position` counts characters from 0."""

    kind: Kind
    text: str
    position: int


_PATH = r"(?:\.[\w-]+|\[-?[0-9]+\]|\['[^']*'\]|\[\"[^\"]*\"\])*"
_TOKEN: Final = re.compile(
    r"\s*(?:"
    r"(?P<number>-?[0-9][0-9.]*(?:[eE][+-]?[0-9]+)?(?![\w.]))"
    r"|(?P<text>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
    r"|(?P<reference>\$\{(?:[^{}'\"]|'[^']*'|\"[^\"]*\")*\}|\{\{[^{}]*\}\}"
    rf"|(?:trigger|step\.[0-9]+)(?![\w-]){_PATH})"
    r"|(?P<path>\$)(?=[.\[])"
    r"|(?P<word>[A-Za-z_]\w*(?:\.\w+)*)"
    r"|(?P<sign>==|!=|>=|<=|[<>()\[\],])"
    r"|(?P<end>\Z)"
    r")",
    re.DOTALL,
)
_PATH_NAME: Final = re.compile(r"\.\.?(?:[\w-]+|\*)|\.\.(?=\[)")
_PATH_BRACKET: Final = re.compile(r"[^\[\]'\"]+|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)


def read_words(text: str) -> list[Token]:
    """Cut a condition into tokens, the last of which is the end; raises `BadCondition`."""
    tokens: list[Token] = []
    position = 0
    while True:
        found = _TOKEN.match(text, position)
        if found is None or found.lastgroup is None:
            raise _unreadable(text, position)
        start, position = found.start(found.lastgroup), found.end()
        match found.lastgroup:
            case "path":
                position = _end_of_path(text, position)
                tokens.append(Token("reference", text[start:position], start))
            case "end":
                tokens.append(Token("end", "", start))
                return tokens
            case "number" | "text" | "reference" | "word" | "sign" as kind:
                tokens.append(Token(kind, text[start:position], start))
            case other:
                raise AssertionError(f"unknown token {other}")


def _end_of_path(text: str, position: int) -> int:
    """Where a JSONPath that begins before `position` ends: names and balanced brackets."""
    while position < len(text):
        if name := _PATH_NAME.match(text, position):
            position = name.end()
        elif text[position] == "[":
            position = _end_of_bracket(text, position)
        else:
            break
    return position


def _end_of_bracket(text: str, start: int) -> int:
    position, deep = start, 0
    while position < len(text):
        if text[position] in "[]":
            deep += 1 if text[position] == "[" else -1
            position += 1
            if deep == 0:
                return position
        elif inside := _PATH_BRACKET.match(text, position):
            position = inside.end()
        else:
            break
    raise BadCondition(start, "this [ of a path is never closed")


def _unreadable(text: str, position: int) -> BadCondition:
    while position < len(text) and text[position].isspace():
        position += 1
    shown = text[position : position + 20]
    advice = {"&": "write and", "|": "write or", "!": "write not", "=": "write =="}
    hint = advice.get(shown[:1], "strings stand in quotes, references in ${...}")
    return BadCondition(position, f"{shown!a} is not part of a condition; {hint}")
