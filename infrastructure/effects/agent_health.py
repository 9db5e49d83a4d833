"""Whether an agent answers: its card, fetched with its own authentication and time-out."""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from application.agent_views import AgentHealthView
from application.steps import StepFailure
from domain.agents import AgentState
from domain.errors import FlowledgerError
from domain.json_values import JsonObject, NotStorable, read_json
from infrastructure.effects.agent_call import AgentBook, authorisation
from infrastructure.effects.outbound import Outbound, OutboundAnswer, OutboundRequest
from infrastructure.effects.secrets import Mask, Secrets

CARD: Final = "/.well-known/agent-card.json"
MESSAGE_LENGTH_MAX: Final = 500


class _Found(NamedTuple):
    status: Literal["healthy", "unhealthy"]
    message: str
    card: JsonObject | None = None


class AgentHealth:
    """Asks agents how they are."""

    def __init__(
        self,
        outbound: Outbound,
        book: AgentBook[AgentState],
        secrets: Secrets,
        now: Callable[[], datetime],
    ) -> None:
        self._outbound = outbound
        self._book = book
        self._secrets = secrets
        self._now = now

    async def check(self, agent: AgentState) -> AgentHealthView:
        """Fetch `{url}/.well-known/agent-card.json`. Whatever goes wrong is an answer."""
        url = agent.settings.url
        if url is None:
            message = "The agent has no url to ask at; it takes its work by itself."
            return AgentHealthView("unknown", message, None, self._now(), None)
        began = time.monotonic()
        try:
            found = await self._fetch(agent, card_url(url))
        except (StepFailure, FlowledgerError) as error:
            found = _Found("unhealthy", error.message)
        milliseconds = round((time.monotonic() - began) * 1000)
        message = found.message[:MESSAGE_LENGTH_MAX]
        return AgentHealthView(found.status, message, milliseconds, self._now(), found.card)

    async def _fetch(self, agent: AgentState, url: str) -> _Found:
        credential = await self._book.credential(agent)
        if credential is not None:
            credential = self._secrets.in_credential(credential)
        mask = Mask(() if credential is None else (credential,))
        request = OutboundRequest(
            method="GET",
            url=url,
            timeout_seconds=agent.settings.timeout_ms / 1000,
            headers={"Accept": "application/json", **authorisation(agent, credential)},
        )
        try:
            found = _judged(await self._outbound.send(request))
        except StepFailure as error:
            found = _Found("unhealthy", error.message)
        masked = mask.json(found.card)
        card = masked if isinstance(masked, dict) else None
        return _Found(found.status, mask.text(found.message), card)


def card_url(url: str) -> str:
    """Where the card of the agent at `url` is."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") + CARD, "", ""))


def _judged(answer: OutboundAnswer) -> _Found:
    if answer.status != 200:
        return _Found("unhealthy", f"{answer.url} answered {answer.status} {answer.reason}.")
    try:
        card = read_json(answer.body)
    except NotStorable as error:
        return _Found("unhealthy", f"{answer.url} answered no usable JSON: {error.message}")
    if not isinstance(card, dict):
        return _Found("unhealthy", f"{answer.url} answered JSON that is no object.")
    return _Found("healthy", "The agent answered with its card.", card)
