"""Commands for operators, without a server: migrate, doctor."""

import asyncio

from interfaces.cli_engine import migrate_store, read_settings, schema_versions
from interfaces.cli_failures import CommandFailed, ExitCode
from interfaces.cli_options import AsJson, Database
from interfaces.cli_output import write_json, write_line


def migrate(database: Database = None, as_json: AsJson = False) -> None:
    """Bring a database to the schema of this release.

    Safe to repeat. An SQLite file is made if there is none.
    """
    settings = read_settings(database)
    before, newest = schema_versions(settings)
    if before != newest:
        migrate_store(settings)
    if as_json:
        write_json({"before": before, "schema": newest, "changed": before != newest})
    elif before == newest:
        write_line(f"Nothing to do: the schema is {newest}, the newest.")
    else:
        write_line(f"Migrated from {before or 'nothing'} to schema {newest}.")


def doctor(database: Database = None, as_json: AsJson = False) -> None:
    """Check the installation and the database.

    Says for each fault what to do; the exit code is 1 when there is one.
    """
    asyncio.run(_doctor(database, as_json=as_json))


async def _doctor(database: str | None, *, as_json: bool) -> None:
    from dataclasses import asdict

    from interfaces.cli_doctor import examine

    findings = []
    async for finding in examine(database):
        findings.append(finding)
        if not as_json:
            write_line(f"{'ok   ' if finding.ok else 'FAULT'}  {finding.check}: {finding.seen}")
            if finding.advice:
                write_line(f"       {finding.advice}")
    faults = [finding.check for finding in findings if not finding.ok]
    if as_json:
        write_json({"ok": not faults, "checks": [asdict(finding) for finding in findings]})
    if faults:
        message = f"doctor found a fault in: {', '.join(faults)}."
        raise CommandFailed(ExitCode.UNSUCCESSFUL, message, "Follow the advice, then run it again.")
    if not as_json:
        write_line("All is well.")
