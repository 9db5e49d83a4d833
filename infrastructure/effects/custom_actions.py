"""Loads the operator's own actions: plain functions `name(config, context)`, sync or async.

They come from `FLOWLEDGER_ACTIONS=path.py,package.module` and from entry points of the group
`flowledger.actions`. Their authors import nothing of this product.
"""

import importlib
import importlib.util
import inspect
import re
import sys
from asyncio import get_running_loop
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import FunctionType, ModuleType

from msgspec import structs

from application.steps import StepContext
from domain.json_values import Json, JsonObject, own_copy
from domain.mistakes import Mistake
from infrastructure.effects.blocking_calls import BlockingCalls

ENTRY_POINT_GROUP = "flowledger.actions"
BUILT_IN_NAMES = frozenset(
    (
        "call_api",
        "send_notification",
        "set_variables",
        "set_variable",
        "create_task",
        "wait",
        "condition",
        "conditional",
        "parallel",
        "loop",
        "fork_join",
        "agent",
        "sub_workflow",
        "validate",
    )
)

_ACTION_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,127}")

Function = Callable[[JsonObject, StepContext], Json | Awaitable[Json]]


class ActionsNotLoaded(ValueError):
    """Own actions cannot be used; the message says which and what to do."""


class CustomAction:
    """One function of the operator as a `StepHandler`."""

    touches_outside = True  # only the function knows whether it does

    def __init__(self, name: str, function: Function, source: str, blocking: BlockingCalls) -> None:
        self.name = name
        self.source = source
        self._function = function
        self._blocking = blocking
        self._is_async = inspect.iscoroutinefunction(function)

    def check(self, config: JsonObject, pointer: str) -> Iterator[Mistake]:
        return iter(())  # only the function knows what it wants

    async def __call__(self, config: JsonObject, context: StepContext) -> Json:
        config = own_copy(config)  # a function may change what it gets, and it is the state's
        if self._is_async:
            output = self._function(config, context)
        else:
            loop = get_running_loop()
            report = context.progress

            def report_in_loop(value: Json) -> None:
                loop.call_soon_threadsafe(report, value)

            context = structs.replace(context, progress=report_in_loop)
            output = await self._blocking.run(partial(self._function, config, context))
        return await output if inspect.isawaitable(output) else output


def load_custom_actions(
    sources: Iterable[str], blocking: BlockingCalls, installed: Iterable[EntryPoint] | None = None
) -> tuple[CustomAction, ...]:
    """The actions of files and modules named by the operator, then those of installed packages.

    Raises `ActionsNotLoaded` when a source is missing or fails to import, holds no action, or
    when a name is given twice or belongs to a built-in action.
    """
    found: list[CustomAction] = []
    for source in filter(None, (text.strip() for text in sources)):
        functions = _functions_of(_import(source))
        if not functions:
            raise ActionsNotLoaded(
                f"{source}: holds no action; write a public function name(config, context) in it"
            )
        found += (CustomAction(name, function, source, blocking) for name, function in functions)
    for entry in entry_points(group=ENTRY_POINT_GROUP) if installed is None else installed:
        source = f"entry point {entry.name} = {entry.value}"
        for name, function in _functions_of_entry(entry, source):
            found.append(CustomAction(name, function, source, blocking))
    _refuse_clashes(found)
    return tuple(found)


def _import(source: str) -> ModuleType:
    try:
        if source.endswith(".py"):
            return _import_file(Path(source))
        return importlib.import_module(source)
    except ActionsNotLoaded:
        raise
    except (Exception, SystemExit) as error:  # whatever an import does, start-up says where
        raise ActionsNotLoaded(
            f"{source}: cannot be imported: {type(error).__name__}: {error}"
        ) from error


def _import_file(file: Path) -> ModuleType:
    if not file.is_file():
        raise ActionsNotLoaded(
            f"{file}: no such file (looked in {Path.cwd()}); FLOWLEDGER_ACTIONS takes files ending "
            "in .py and importable modules, separated by commas"
        )
    # The full path in the name keeps two files of one name apart.
    name = "flowledger_actions_" + re.sub(r"\W", "_", str(file.resolve().with_suffix("")))
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ActionsNotLoaded(f"{file}: is no Python source file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _functions_of(module: ModuleType) -> list[tuple[str, Function]]:
    """Public functions written in this very module that take exactly (config, context)."""
    return [
        (name, value)
        for name, value in vars(module).items()
        if isinstance(value, FunctionType)
        and not name.startswith("_")
        and value.__module__ == module.__name__
        and tuple(inspect.signature(value).parameters) == ("config", "context")
    ]


def _functions_of_entry(entry: EntryPoint, source: str) -> list[tuple[str, Function]]:
    try:
        loaded = entry.load()
    except (Exception, SystemExit) as error:
        raise ActionsNotLoaded(
            f"{source}: cannot be loaded: {type(error).__name__}: {error}; repair or uninstall "
            "its distribution"
        ) from error
    if isinstance(loaded, ModuleType):
        return _functions_of(loaded)
    if not callable(loaded):
        raise ActionsNotLoaded(f"{source}: must be a function or a module")
    return [(entry.name, loaded)]


def _refuse_clashes(actions: Sequence[CustomAction]) -> None:
    sources: dict[str, str] = {}
    for action in actions:
        if _ACTION_NAME.fullmatch(action.name) is None:
            raise ActionsNotLoaded(
                f"{action.source}: {action.name!r} is no action name; use letters, digits, _ and -"
            )
        if action.name in BUILT_IN_NAMES:
            raise ActionsNotLoaded(
                f"{action.source}: {action.name!r} is a built-in action; rename the function"
            )
        if action.name in sources:
            raise ActionsNotLoaded(
                f"{action.source}: {action.name!r} is already an action of "
                f"{sources[action.name]}; rename one of them"
            )
        sources[action.name] = action.source
