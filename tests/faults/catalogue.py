"""The faults by number: the module that makes each, loaded when it is wanted."""

from importlib import import_module

from tests.faults.report import Fault

MODULES = {
    "F1": "database_killed",
    "F3": "answers_cut",
    "F4": "processes_killed",
    "F5": "races",
    "F6": "late_visibility",
    "F7": "tables_after_faults",
    "F9": "lines_cut",
    "F11": "clocks_set",
    "F14": "overloaded",
    "F15": "slow_readers",
    "O1": "rolling_restarts",
    "F8": "standing_still",
    "F10": "disk_full",
    "F13": "backlog",
    "F17": "modes",
    "F12": "messages_shuffled",
    "F18": "broker_killed",
    "F19": "consumer_killed",
    "F20": "agent_failing",
    "F21": "database_away",
}


def fault_of(number: str) -> Fault:
    """The `run` of a fault. Raises KeyError."""
    fault: Fault = import_module(f"tests.faults.{MODULES[number]}").run
    return fault


def title_of(number: str) -> str:
    """What the fault is, in one line."""
    told = import_module(f"tests.faults.{MODULES[number]}").__doc__ or ""
    return " ".join(told.strip().partition("\n\n")[0].split())
