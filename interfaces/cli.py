"""The command `flowledger`: every subcommand, and how it ends.

`flowledger --help` imports no framework; each command imports what it needs when it runs.
"""

import sys
from collections.abc import Sequence

import typer

from interfaces import (
    cli_agents,
    cli_demo,
    cli_executions,
    cli_interventions,
    cli_operations,
    cli_questions,
    cli_serve,
)
from interfaces.cli_dead_letters import dead_letters_app
from interfaces.cli_failures import CommandFailed, ExitCode
from interfaces.cli_output import write_error
from interfaces.cli_projections import projections_app
from interfaces.cli_workflows import workflow_app
from interfaces.garbage_collection import put_off_collections

_EXIT_CODES = (
    "Exit codes: 0 done, 1 the execution did not complete or a check found a fault, 2 wrong usage "
    "or input, 3 not found, 4 conflict, 5 server or database not ready, 6 defect."
)

app = typer.Typer(
    name="flowledger",
    help="A workflow engine that keeps the ledger of every run.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("serve")(cli_serve.serve)
app.command("api")(cli_serve.api)
app.command("worker")(cli_serve.worker)
app.command("projector")(cli_serve.projector)
app.command("consumer")(cli_serve.consumer)
app.command("bridge")(cli_serve.bridge)
app.command("migrate")(cli_operations.migrate)
app.add_typer(workflow_app, name="workflow")
app.add_typer(cli_agents.agents_app, name="agents")
app.command("make-key")(cli_agents.make_key)
app.command("execute")(cli_executions.execute)
app.command("watch")(cli_executions.watch)
app.command("list")(cli_executions.list_executions)
app.command("cancel")(cli_executions.cancel)
app.command("signal")(cli_executions.signal)
app.command("retry")(cli_executions.retry)
app.command("questions")(cli_questions.questions)
app.command("answer")(cli_questions.answer)
app.command("pause")(cli_interventions.pause)
app.command("resume")(cli_interventions.resume)
app.command("fork")(cli_interventions.fork)
app.command("skip")(cli_interventions.skip)
app.command("complete")(cli_interventions.complete)
app.command("history")(cli_executions.history)
app.command("diagram")(cli_executions.diagram)
app.command("explain")(cli_executions.explain)
app.add_typer(dead_letters_app, name="dead-letters")
app.add_typer(projections_app, name="projections")
app.command("doctor")(cli_operations.doctor)
app.command("demo")(cli_demo.demo)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"flowledger {version('flowledger')}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version."
    ),
) -> None:
    """Shown above the list of commands."""


def main() -> None:
    """Entry point of the installed command."""
    put_off_collections()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code and raises nothing."""
    try:
        app(list(arguments), prog_name="flowledger")
    except CommandFailed as failed:
        write_error(failed.text())
        return failed.code
    except KeyboardInterrupt:
        write_error("Interrupted.")
        return ExitCode.INTERRUPTED
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else ExitCode.DONE
    except Exception as error:  # noqa: BLE001 - people get a sentence, never a traceback
        write_error(_defect(error).text())
        return ExitCode.UNEXPECTED
    return ExitCode.DONE


def _defect(error: Exception) -> CommandFailed:
    import logging

    logging.getLogger("flowledger.cli").debug("defect", exc_info=error)
    return CommandFailed(
        ExitCode.UNEXPECTED,
        f"This is a defect of Flowledger: {type(error).__name__}: {error}",
        "Please report it with the command and what `flowledger doctor` says.",
    )
