"""An agent as callers describe it: read and checked, every mistake with its place."""

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from msgspec import structs

from domain.agent_names import AGENT_NAME, AGENT_NAME_RULE, HTTP, TRANSPORTS
from domain.agents import (
    ACTIVE,
    APIKEY,
    AUTH_TYPES,
    BEARER,
    FALLBACK,
    INACTIVE,
    NONE,
    ON_FAILURE,
    PROTOCOLS,
    AgentRecovery,
    AgentSettings,
    RetryConfig,
)
from domain.breaker import read_breaker_settings
from domain.credentials import credential_in_url
from domain.json_values import Json, JsonObject
from domain.mistakes import Fields, Mistake
from domain.reference_forms import SECRET_USE

TIMEOUT_MS_MIN: Final = 1_000
TIMEOUT_MS_MAX: Final = 300_000
RETRIES_MAX: Final = 10
DELAY_MS_LIMIT: Final = 3_600_000
MULTIPLIER_MAX: Final = 100
CREDENTIAL_LENGTH_MIN: Final = 6
"""A shorter one cannot be told from ordinary text when it is taken out of an answer."""
CREDENTIAL_LENGTH_MAX: Final = 8_192
SECRET_MEMBERS: Final[Mapping[str, str]] = {BEARER: "token", APIKEY: "key"}
"""The member of `auth_config` that holds the credential, by `auth_type`."""
MASK: Final = "***"
"""What callers see in the place of a credential. Sent back with a change, it keeps the present."""

_FIELDS: Final = frozenset(
    {
        "url",
        "description",
        "transport",
        "protocol",
        "auth_type",
        "auth_config",
        "timeout_ms",
        "retry_config",
        "circuit_breaker_config",
        "recovery",
    }
)
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}\Z")
_HEADERS_TAKEN: Final = re.compile(
    r"(accept|accept-encoding|connection|content-length|content-type|expect|host|idempotency-key"
    r"|keep-alive|proxy-authorization|proxy-connection|te|trailer|transfer-encoding|upgrade"
    r"|x-correlation-id|x-flowledger-.*)\Z",
    re.IGNORECASE,
)

CheckUrl = Callable[[str], str | None]
"""What is wrong with the form of a URL, in words; None when it may be called."""


class Described(NamedTuple):
    """What a caller wants an agent to be. `credential` is a literal one, which has no place in
    `settings`; `keeps_credential` when the present one shall stay.
    """

    name: str
    status: str
    settings: AgentSettings
    credential: str | None
    keeps_credential: bool


def read_agent(
    raw: JsonObject, check_url: CheckUrl, mistakes: list[Mistake], before: Described | None = None
) -> Described:
    """An agent from the members that were given, over `before` or the defaults.

    What it returns is of use only if no mistake was added.
    """
    fields = Fields(raw, "", mistakes)
    fields.refuse_others(_FIELDS | ({"name"} if before is None else {"name", "status"}))
    known = before.settings if before else AgentSettings()
    retry = _retry(fields, known.retry_config)
    settings = AgentSettings(
        url=fields.text("url") if "url" in raw else known.url,
        description=fields.text("description") if "description" in raw else known.description,
        transport=fields.choice("transport", TRANSPORTS, None) or known.transport,
        protocol=fields.choice("protocol", PROTOCOLS, None) or known.protocol,
        auth_type=fields.choice("auth_type", AUTH_TYPES, None) or known.auth_type,
        timeout_ms=fields.whole("timeout_ms", TIMEOUT_MS_MIN, TIMEOUT_MS_MAX, known.timeout_ms),
        retry_config=retry,
        circuit_breaker_config=known.circuit_breaker_config
        if "circuit_breaker_config" not in raw
        else read_breaker_settings(
            raw["circuit_breaker_config"], "/circuit_breaker_config", mistakes
        ),
        recovery=_recovery(fields, known.recovery, retry.max_retries),
    )
    name = _name(fields, before)
    _check_address(fields, settings, check_url)
    if settings.recovery is not None and settings.recovery.fallback_agent == name:
        message = "An agent cannot be its own fallback; name another one."
        fields.refuse("bad_value", message, "recovery", "fallback_agent")
    status = ACTIVE if before is None else before.status
    if before is not None:
        status = fields.choice("status", (ACTIVE, INACTIVE), None) or status
    return _with_credential(fields, Described(name, status, settings, None, False), before)


def _name(fields: Fields, before: Described | None) -> str:
    name = fields.raw.get("name")
    if before is not None:
        if name not in (None, before.name):
            message = "An agent keeps its name; register another one instead."
            fields.refuse("bad_value", message, "name")
        return before.name
    if not isinstance(name, str) or not AGENT_NAME.match(name):
        fields.refuse("bad_value", f"name is required: {AGENT_NAME_RULE}.", "name")
        return ""
    return name


def _check_address(fields: Fields, settings: AgentSettings, check_url: CheckUrl) -> None:
    if settings.url is None:
        if settings.transport == HTTP and not any(
            mistake.pointer == "/url" for mistake in fields.mistakes
        ):
            message = "url is required: an agent with transport http is called at an address."
            fields.refuse("missing_field", message, "url")
        return
    wrong = check_url(settings.url)
    if wrong is None and credential_in_url(settings.url):
        wrong = "it holds what looks like a credential; send that with auth_type and auth_config"
    if wrong is not None:
        fields.refuse("bad_value", f"url: {wrong}.", "url")


def _retry(fields: Fields, known: RetryConfig) -> RetryConfig:
    if fields.raw.get("retry_config") is None:
        return known
    inner = Fields(fields.object("retry_config"), "/retry_config", fields.mistakes)
    inner.refuse_others(frozenset(RetryConfig.__struct_fields__))
    default = RetryConfig()
    config = RetryConfig(
        max_retries=inner.whole("max_retries", 0, RETRIES_MAX, default.max_retries),
        initial_delay_ms=inner.whole(
            "initial_delay_ms", 100, DELAY_MS_LIMIT, default.initial_delay_ms
        ),
        max_delay_ms=inner.whole("max_delay_ms", 1_000, DELAY_MS_LIMIT, default.max_delay_ms),
        backoff_multiplier=inner.number(
            "backoff_multiplier", 1, MULTIPLIER_MAX, default.backoff_multiplier
        ),
    )
    if config.initial_delay_ms > config.max_delay_ms:
        message = "initial_delay_ms is larger than max_delay_ms; every wait would be cut."
        inner.refuse("contradiction", message, "initial_delay_ms")
    return config


def _recovery(fields: Fields, known: AgentRecovery | None, retries: int) -> AgentRecovery | None:
    """`retries` are those of `retry_config`, which say it for the engine; two numbers would leave
    open which one counts.
    """
    if "recovery" not in fields.raw:
        return None if known is None else structs.replace(known, max_retries=retries)
    if fields.raw["recovery"] is None:
        return None
    inner = Fields(fields.object("recovery"), "/recovery", fields.mistakes)
    inner.refuse_others(frozenset(AgentRecovery.__struct_fields__))
    default = AgentRecovery()
    on_failure = inner.choice("on_failure", ON_FAILURE, default.on_failure) or default.on_failure
    fallback = inner.text("fallback_agent")
    if fallback is not None and not AGENT_NAME.match(fallback):
        inner.refuse("bad_value", f"An agent's name: {AGENT_NAME_RULE}.", "fallback_agent")
    if on_failure == FALLBACK and fallback is None:
        message = "fallback_agent is required: the agent that FALLBACK turns to."
        inner.refuse("missing_field", message, "fallback_agent")
    if inner.whole("max_retries", 0, RETRIES_MAX, retries) != retries:
        message = f"retry_config.max_retries is {retries}: say the same here, or leave it out."
        inner.refuse("contradiction", message, "max_retries")
    return AgentRecovery(on_failure=on_failure, fallback_agent=fallback, max_retries=retries)


def _with_credential(fields: Fields, agent: Described, before: Described | None) -> Described:
    """`agent` with what `auth_config` says: `{token}`, or `{key, header_name}`."""
    auth_type = agent.settings.auth_type
    given_config = {} if fields.raw.get("auth_config") is None else fields.object("auth_config")
    inner = Fields(given_config, "/auth_config", fields.mistakes)
    if auth_type == NONE:
        if any(value is not None for value in inner.raw.values()):
            message = "auth_config has a meaning only with auth_type bearer or apikey."
            fields.refuse("contradiction", message, "auth_config")
        return agent
    member = SECRET_MEMBERS[auth_type]
    inner.refuse_others(frozenset({member} if auth_type == BEARER else {member, "header_name"}))
    same = before is not None and before.settings.auth_type == auth_type
    header = before.settings.header_name if before and same else agent.settings.header_name
    settings = structs.replace(agent.settings, header_name=_header(inner, header))
    given = inner.raw.get(member)
    if before is not None and same and given in (None, MASK):
        settings = structs.replace(
            settings,
            secret_reference=before.settings.secret_reference,
            secret_id=before.settings.secret_id,
        )
        return agent._replace(settings=settings, keeps_credential=True)
    mistake = _mistake_of_credential(given)
    if mistake is not None:
        inner.refuse("bad_value", f"{member} {mistake}", member)
        return agent
    text = str(given)
    if SECRET_USE.fullmatch(text.strip()):
        settings = structs.replace(settings, secret_reference=text.strip())
        return agent._replace(settings=settings)
    return agent._replace(settings=settings, credential=text)


def _header(inner: Fields, known: str) -> str:
    name = inner.text("header_name")
    if name is None:
        return known
    if not _HEADER.match(name):
        inner.refuse("bad_value", f"{name!r} is no header name.", "header_name")
    elif _HEADERS_TAKEN.match(name):
        message = f"{name} is set by the call itself; choose another header."
        inner.refuse("bad_value", message, "header_name")
    return name


def _mistake_of_credential(given: Json) -> str | None:
    """What is wrong with it, in words that do not repeat it."""
    if given is None:
        return "is required: the credential, or ${secret.NAME}."
    if not isinstance(given, str):
        return "is text: the credential, or ${secret.NAME}."
    if given == MASK:
        return "is the mask that answers show; send the credential itself."
    if SECRET_USE.fullmatch(given.strip()):
        return None
    if "${" in given:
        return "is either ${secret.NAME} and nothing else, or the credential itself."
    if not CREDENTIAL_LENGTH_MIN <= len(given) <= CREDENTIAL_LENGTH_MAX:
        return f"has {CREDENTIAL_LENGTH_MIN} to {CREDENTIAL_LENGTH_MAX} characters."
    if not given.isascii() or not given.isprintable() or given != given.strip():
        return "is printable ASCII on one line, without spaces around it."
    return None
