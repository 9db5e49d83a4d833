"""YAML that explodes, constructs, repeats, or is not what it looks like."""

from tests.interfaces.http.corpus.case import API, Case

_GOOD = (
    "name: y\nstart_step: a\nsteps:\n  a: {action: set_variables, config: {variables: {x: 1}}}\n"
)


def _yaml(label: str, text: str | bytes, path: str = "/workflows") -> Case:
    raw = text.encode() if isinstance(text, str) else text
    return Case(label, "POST", API + path, raw, ((b"content-type", b"application/yaml"),))


def _laughs(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"a{level}: &a{level} [" + ", ".join([f"*a{level - 1}"] * 9) + "]"
        for level in range(1, levels)
    ]
    return "\n".join(lines)


CASES: tuple[Case, ...] = (
    _yaml("a billion laughs", _laughs(9)),
    _yaml("one alias", _GOOD + "description: &d text\noutput: *d\n"),
    _yaml("an anchor", _GOOD + "output: &o {a: 1}\n"),
    _yaml("a recursive alias", "name: &n [*n]\n"),
    _yaml("an undefined alias", "name: *n\n"),
    _yaml("a merge key", "x: {a: 1}\nname: {<<: {b: 1}}\n"),
    _yaml("a Python object", "name: !!python/object/apply:os.system ['id']\n"),
    _yaml("a Python name", "name: !!python/name:os.system\n"),
    _yaml("a Python tuple", "name: !!python/tuple [1, 2]\n"),
    _yaml("a local tag", "name: !thing x\n"),
    _yaml("a standard tag", "name: !!str y\n"),
    _yaml("a binary tag", "name: !!binary aGVsbG8=\n"),
    _yaml("a set", "name: !!set {a, b}\n"),
    _yaml("a tag directive", "%TAG ! tag:example.org,2000:\n---\nname: !x y\n"),
    _yaml("two documents", _GOOD + "---\n" + _GOOD),
    _yaml("a repeated key", "name: a\nname: b\n"),
    _yaml("a repeated step", _GOOD + "  a: {action: set_variables}\n"),
    _yaml("depth 33", "[" * 33 + "]" * 33),
    _yaml("depth 10,000", "[" * 10_000 + "]" * 10_000),
    _yaml("depth 5,000 by indent", "\n".join(" " * n + "a:" for n in range(700))),
    _yaml("513 KB", _GOOD + "description: " + "x" * (513 * 1024)),
    _yaml("0.6 MB of flat keys", "\n".join(f"k{n}: 1" for n in range(60_000))),
    _yaml("1 MB + 1", b"#" * 1_000_001),
    _yaml("a key that is a list", "? [a, b]\n: 1\n"),
    _yaml("a key that is a mapping", "? {a: 1}\n: 1\n"),
    _yaml("a key that is a number", "1: a\n"),
    _yaml("infinity", _GOOD + "output: .inf\n"),
    _yaml("not a number", _GOOD + "output: .nan\n"),
    _yaml("an integer above 2^53", _GOOD + "output: 9007199254740993\n"),
    _yaml("5,000 digits", _GOOD + "output: " + "9" * 5_000 + "\n"),
    _yaml("a NUL", _GOOD + 'output: "a\\0b"\n'),
    _yaml("a surrogate", _GOOD + 'output: "\\ud800"\n'),
    _yaml("a raw NUL", b"name: a\x00b\n"),
    _yaml("Latin-1", "name: é\n".encode("latin-1")),
    _yaml("UTF-16", _GOOD.encode("utf-16")),
    _yaml("a tab", "name:\n\t- x\n"),
    _yaml("an unclosed list", "name: [a, b\n"),
    _yaml("an unclosed text", 'name: "a\n'),
    _yaml("only a comment", "# nothing\n"),
    _yaml("a word", "hello\n"),
    _yaml("a list", "- a\n- b\n"),
    _yaml("null", "~\n"),
    _yaml("a name that is a truth value", _GOOD.replace("name: y", "name: true")),
    _yaml("a name that is a number", _GOOD.replace("name: y", "name: 12")),
    _yaml("unknown fields", _GOOD + "colour: red\n"),
    _yaml("YAML where JSON is wanted", "input_data: {}\n", "/workflows/victim/execute"),
    _yaml("YAML for a batch", "items: []\n", "/executions/batch"),
)
