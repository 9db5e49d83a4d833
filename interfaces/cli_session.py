"""One way to talk to Flowledger: its REST interface, on a server or in this process.

With an address the requests go to that server. Without one the whole application is started here
on the embedded file, and the same requests go to it without a network. It runs executions only for
a command that waits for one: what others asked for may need actions and secrets that this command
was not given.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from interfaces.caller_names import (
    ACTOR_CHARACTERS_MAX,
    KEY_CHARACTERS_MAX,
    is_name,
    is_visible,
)
from interfaces.cli_failures import CommandFailed, ExitCode
from interfaces.cli_next_steps import next_step
from interfaces.garbage_collection import resume_collections

if TYPE_CHECKING:  # the library takes 90 ms to import, which --help should not pay
    import httpx2

Body = dict[str, Any]
"""A JSON object of the REST interface."""

API = "/api/v1"
TERMINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
_EMBEDDED_ADDRESS = "http://flowledger.embedded"
_SECONDS_MAX = 60
_EXIT_CODES = {
    404: ExitCode.NOT_FOUND,
    409: ExitCode.CONFLICT,
    412: ExitCode.CONFLICT,
    429: ExitCode.NOT_READY,
    502: ExitCode.NOT_READY,
    503: ExitCode.NOT_READY,
    504: ExitCode.NOT_READY,
}


@dataclass(frozen=True, slots=True)
class Target:
    """Where a command goes and as whom. `url` None is the embedded file `database`."""

    url: str | None
    database: str | None
    actor: str | None
    as_json: bool


class Answer(NamedTuple):
    """What came back; `body` is parsed JSON, or the text of another media type."""

    status: int
    headers: Mapping[str, str]
    body: Any


class Session:
    """Requests to one Flowledger; every refusal becomes a `CommandFailed`."""

    def __init__(self, client: "httpx2.AsyncClient", target: Target) -> None:
        self._client = client
        self.as_json = target.as_json
        self.is_embedded = target.url is None
        self._headers = {} if target.actor is None else {"X-Actor": _checked_actor(target.actor)}

    async def get(
        self,
        path: str,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """`path` is under `/api/v1`; 304 is an answer, too."""
        return await self._send("GET", path, query, None, headers)

    async def post(
        self,
        path: str,
        body: Body,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        return await self._send("POST", path, query, body, headers)

    async def delete(self, path: str) -> Answer:
        return await self._send("DELETE", path, None, None, None)

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        body: Body | None,
        headers: Mapping[str, str] | None,
    ) -> Answer:
        import httpx2

        params = {name: value for name, value in (query or {}).items() if value is not None}
        try:
            response = await self._client.request(
                method,
                API + path,
                params=params,
                json=body,
                headers=[
                    (name.encode("ascii"), value.encode())  # the server reads UTF-8
                    for name, value in (self._headers | dict(headers or {})).items()
                ],
            )
        except httpx2.TransportError as error:
            raise unreachable(str(self._client.base_url), error) from None
        answer = _read(response)
        if response.status_code >= 400:
            raise refused(answer)
        return answer


def _read(response: "httpx2.Response") -> Answer:
    is_json = "json" in response.headers.get("content-type", "")
    try:
        body: Any = response.json() if is_json and response.content else response.text
    except ValueError:
        body = response.text
    return Answer(response.status_code, response.headers, body)


def refused(answer: Answer) -> CommandFailed:
    """A problem answer as the sentence and the exit code of the command."""
    code = _EXIT_CODES.get(answer.status, ExitCode.INVALID)
    if answer.status >= 500 and code is ExitCode.INVALID:
        code = ExitCode.UNEXPECTED
    problem = answer.body if isinstance(answer.body, dict) else {}
    sentence = problem.get("detail") or problem.get("title") or f"HTTP {answer.status}"
    lines = _told(problem | {"detail": sentence})
    return CommandFailed(code, "\n".join(lines), next_step(code, problem))


def _told(problem: Body) -> list[str]:
    """The sentence, and below it the mistakes that it does not tell itself."""
    sentence = str(problem["detail"])
    mistakes = problem.get("errors") or ()
    if mistakes and str(mistakes[0].get("message")) in sentence:
        if len(mistakes) == 1:
            return [sentence]
        sentence = f"The request has {len(mistakes)} mistakes:"
    return [sentence, *(f"  {_where(each)}: {each.get('message')}" for each in mistakes)]


def _where(mistake: Body) -> str:
    return str(mistake.get("pointer") or mistake.get("field") or "(whole)")


def unreachable(address: str, error: Exception) -> CommandFailed:
    return CommandFailed(
        ExitCode.NOT_READY,
        f"No answer from {address.rstrip('/')} ({str(error) or type(error).__name__}).",
        "Start a server with `flowledger serve`, or leave --url out to work on the embedded file.",
    )


def segment(reference: str) -> str:
    """A user's text as one segment of a path."""
    return quote(reference, safe="")


def keyed(key: str | None) -> dict[str, str]:
    """The headers of a command that is safe to repeat, if it was given a `--key`."""
    if key is None:
        return {}
    if not is_visible(key):
        raise CommandFailed(
            ExitCode.INVALID,
            f"--key {key[:KEY_CHARACTERS_MAX]!r} cannot be sent as an Idempotency-Key.",
            f"Give 1 to {KEY_CHARACTERS_MAX} visible ASCII characters, and no space.",
        )
    return {"Idempotency-Key": key}


def _checked_actor(actor: str) -> str:
    name = actor.strip()
    if not is_name(name):
        raise CommandFailed(
            ExitCode.INVALID,
            f"--actor {actor[:ACTOR_CHARACTERS_MAX]!r} is no name that can be recorded.",
            f"Give 1 to {ACTOR_CHARACTERS_MAX} visible characters in UTF-8.",
        )
    return name


@asynccontextmanager
async def open_session(target: Target, *, works: bool = False) -> AsyncIterator[Session]:
    """A session; the embedded application, which runs executions if it `works`, is stopped cleanly
    at the end.
    """
    import httpx2

    async with AsyncExitStack() as stack:
        if target.url is None:
            transport = await stack.enter_async_context(_embedded(target.database, works=works))
            address = _EMBEDDED_ADDRESS
        else:
            transport, address = None, _checked_address(target.url)
        client = httpx2.AsyncClient(
            base_url=address,
            transport=transport,
            timeout=_SECONDS_MAX,
            trust_env=False,
            follow_redirects=False,
        )
        session = Session(await stack.enter_async_context(client), target)
        resume_collections()
        yield session


def _checked_address(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        message = f"--url {url!r} is not an address like http://127.0.0.1:8000."
        raise CommandFailed(ExitCode.INVALID, message)
    return url.rstrip("/").removesuffix(API)


@asynccontextmanager
async def _embedded(
    database: str | None, *, works: bool
) -> "AsyncIterator[httpx2.AsyncBaseTransport]":
    import httpx2

    from interfaces.cli_engine import open_engine
    from interfaces.http.app import create_app

    async with open_engine(database, works=works) as services:
        yield httpx2.ASGITransport(app=create_app(services))
