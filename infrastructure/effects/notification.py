"""The action `send_notification`: to the log, a signed webhook, or by e-mail.

Config: `{message, channel? log|webhook|email, recipient?, subject?, url?, secret?, data?}`.
Output: `{notificationSent: true, message, recipient, timestamp, channel}`.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

import msgspec

from application.steps import StepContext, StepFailure
from domain.json_values import Json, JsonObject, pointer_join
from domain.mistakes import Mistake
from infrastructure.effects.blocking_calls import BlockingCalls
from infrastructure.effects.config_fields import (
    ANY,
    TEXT,
    Field,
    holds_reference,
    mistakes_as_written,
    require_valid,
)
from infrastructure.effects.http_status import status_failure
from infrastructure.effects.mail import Mail, MailServer, send_mail
from infrastructure.effects.outbound import Outbound, OutboundRequest
from infrastructure.effects.outbound_urls import mistake_of_url
from infrastructure.effects.webhook import BODY_BYTES_MAX, webhook_headers

_log = logging.getLogger("flowledger.notifications")

_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,253}")

_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "log": (),
    "webhook": ("url", "secret"),
    "email": ("recipient",),
}


def _channel_mistake(value: Json) -> str | None:
    return None if value in _REQUIRED else f"must be one of {', '.join(sorted(_REQUIRED))}"


def _url_mistake(value: Json) -> str | None:
    return mistake_of_url(str(value))


def _one_line_mistake(value: Json) -> str | None:
    return None if str(value).isprintable() else "must be one line without control characters"


def _secret_mistake(value: Json) -> str | None:
    if isinstance(value, list) and not all(isinstance(item, str) for item in value):
        return "must be a secret or a list of secrets, each as text"
    return None


FIELDS: Mapping[str, Field] = {
    "message": Field(kinds=TEXT, required=True),
    "channel": Field(kinds=TEXT, mistake=_channel_mistake),
    "recipient": Field(kinds=TEXT, mistake=_one_line_mistake),
    "subject": Field(kinds=TEXT, mistake=_one_line_mistake),
    "url": Field(kinds=TEXT, mistake=_url_mistake),
    "secret": Field(kinds=(str, list), mistake=_secret_mistake),
    "data": Field(kinds=ANY),
}


def utc_now() -> datetime:
    return datetime.now(UTC)


class SendNotification:
    """Tells somebody; `mail_server` is None when the operator has set up none."""

    name = "send_notification"
    touches_outside = True

    def __init__(
        self,
        outbound: Outbound,
        blocking: BlockingCalls,
        mail_server: MailServer | None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._outbound = outbound
        self._blocking = blocking
        self._mail_server = mail_server
        self._now = now

    def check(self, config: JsonObject, pointer: str) -> Iterator[Mistake]:
        yield from mistakes_as_written(FIELDS, config, pointer)
        channel = config.get("channel") or "log"
        if not isinstance(channel, str) or holds_reference(channel):
            return
        for name in _REQUIRED.get(channel, ()):
            if config.get(name) is None:
                text = f"{name!r} is missing; the channel {channel} needs it"
                yield Mistake(pointer, "missing_field", text)
        for name in ("message", "recipient", "subject") if channel == "log" else ():
            if "${secret." in str(config.get(name)):
                yield Mistake(
                    pointer_join(pointer, name), "secret_in_log", "a secret must not be logged"
                )

    async def __call__(self, config: JsonObject, context: StepContext) -> Json:
        require_valid(FIELDS, config)
        channel = str(config.get("channel") or "log")
        missing = [name for name in _REQUIRED[channel] if not config.get(name)]
        if missing:
            raise _permanent("bad_config", f"config/{missing[0]}: the channel {channel} needs it")
        now = self._now()
        recipient = str(config.get("recipient") or context.actor)
        match channel:
            case "webhook":
                await self._post(config, context, recipient, now)
            case "email":
                await self._mail(config, context, recipient, now)
            case _:
                self._write_log(config, context, recipient)
        return {
            "notificationSent": True,
            "message": config["message"],
            "recipient": recipient,
            "timestamp": _timestamp(now),
            "channel": channel,
        }

    def _write_log(self, config: JsonObject, context: StepContext, recipient: str) -> None:
        if any(use.pointer in ("/message", "/recipient") for use in context.secret_uses):
            raise _permanent("secret_in_log", "config: a secret must not be logged")
        _log.info(
            "notification",
            extra={
                "execution_id": context.execution_id,
                "step_id": context.step_id,
                "attempt": context.attempt,
                "recipient": recipient,
                "notification": config["message"],
            },
        )

    async def _post(
        self, config: JsonObject, context: StepContext, recipient: str, now: datetime
    ) -> None:
        data: JsonObject = {
            "message": config["message"],
            "recipient": recipient,
            "subject": config.get("subject"),
            "execution_id": context.execution_id,
            "workflow_name": context.workflow_name,
            "step_id": context.step_id,
            "data": config.get("data"),
        }
        body = msgspec.json.encode(
            {"type": "notification", "timestamp": _timestamp(now), "data": data}
        )
        if len(body) > BODY_BYTES_MAX:
            raise _permanent(
                "bad_config", f"config: a webhook holds {BODY_BYTES_MAX} bytes at most; send a link"
            )
        secret = config["secret"]
        headers = webhook_headers(
            idempotency_key=context.idempotency_key,
            sent_at=now,
            body=body,
            secrets=[str(item) for item in (secret if isinstance(secret, list) else [secret])],
        )
        answer = await self._outbound.send(
            OutboundRequest(
                method="POST",
                url=str(config["url"]),
                timeout_seconds=context.timeout_seconds,
                headers={"Content-Type": "application/json", **headers},
                body=body,
                redirects_max=0,
            )
        )
        if not 200 <= answer.status < 300:
            raise status_failure(answer, {"status": answer.status, "statusText": answer.reason})

    async def _mail(
        self, config: JsonObject, context: StepContext, recipient: str, now: datetime
    ) -> None:
        if self._mail_server is None:
            raise _permanent(
                "mail_not_configured",
                "no mail server is set; set FLOWLEDGER_SMTP_HOST and FLOWLEDGER_SMTP_FROM",
            )
        mail = Mail(
            recipient=_one_address(recipient),
            subject=str(config.get("subject") or f"{context.workflow_name}: {context.step_id}"),
            text=str(config["message"]),
            sent_at=now,
            idempotency_key=context.idempotency_key,
        )
        await send_mail(
            mail,
            self._mail_server,
            blocking=self._blocking,
            timeout_seconds=context.timeout_seconds,
        )


def _one_address(recipient: str) -> str:
    """Refuses lists, display names and quoting: an address must not bring another along."""
    if _ADDRESS.fullmatch(recipient):
        return recipient
    raise _permanent(
        "bad_config", "config/recipient: must be one e-mail address, like a@example.org"
    )


def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _permanent(code: str, message: str) -> StepFailure:
    return StepFailure(code, message, error_class="permanent")
