"""The action send_notification: log, signed webhook, e-mail."""

import json
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email import message_from_bytes, policy

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from application.steps import SecretUse, StepFailure
from domain.json_values import Json, JsonObject
from infrastructure.effects.blocking_calls import BlockingCalls
from infrastructure.effects.mail import MailServer
from infrastructure.effects.notification import SendNotification, utc_now
from infrastructure.effects.outbound import Outbound
from infrastructure.effects.outbound_addresses import OutboundAllow
from infrastructure.effects.webhook import webhook_headers, webhook_id
from tests.infrastructure.effects.local_servers import (
    Received,
    answer,
    http_server,
    smtp_server,
    step_context,
)

pytestmark = pytest.mark.anyio

WHSEC = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_WHSEC = "whsec_" + "C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
NOW = datetime(2026, 11, 21, 1, 2, 3, 456000, tzinfo=UTC)


@pytest.fixture
async def outbound() -> AsyncIterator[Outbound]:
    made = Outbound(OutboundAllow.parse("127.0.0.1"))
    yield made
    await made.aclose()


def notifier(outbound: Outbound, mail_server: MailServer | None = None) -> SendNotification:
    return SendNotification(outbound, BlockingCalls(), mail_server, now=lambda: NOW)


async def failure(action: SendNotification, config: JsonObject) -> StepFailure:
    with pytest.raises(StepFailure) as caught:
        await action(config, step_context())
    return caught.value


async def test_the_log_is_the_default_and_the_caller_the_recipient(
    outbound: Outbound, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "flowledger.notifications"):
        output = await notifier(outbound)({"message": "done"}, step_context())
    assert output == {
        "notificationSent": True,
        "message": "done",
        "recipient": "alice",
        "timestamp": "2026-11-21T01:02:03.456Z",
        "channel": "log",
    }
    record = caplog.records[0]
    assert (record.getMessage(), vars(record)["notification"]) == ("notification", "done")


async def test_a_secret_is_not_logged(outbound: Outbound) -> None:
    action = notifier(outbound)
    written: JsonObject = {"message": "the key is ${secret.KEY}"}
    assert [found.code for found in action.check(written, "")] == ["secret_in_log"]
    with pytest.raises(StepFailure, match="must not be logged"):
        await action({"message": "x"}, step_context(SecretUse("/message", "KEY")))


async def test_a_webhook_verifies_with_the_reference_implementation(outbound: Outbound) -> None:
    config: JsonObject = {
        "message": "päid",
        "channel": "webhook",
        "recipient": "billing",
        "secret": [WHSEC, OTHER_WHSEC],
        "data": {"order": 7},
    }
    action = SendNotification(outbound, BlockingCalls(), None, now=utc_now)
    async with http_server() as server:
        context = step_context(path="pay~alt.cheap")
        await action(config | {"url": server.url}, context)
        request: Received = server.received[0]
    for secret in (WHSEC, OTHER_WHSEC):
        verified = Webhook(secret).verify(request.body, request.headers)
    assert verified["type"] == "notification"
    assert verified["data"]["message"] == "päid"
    assert verified["data"]["data"] == {"order": 7}
    assert "." not in request.headers["webhook-id"]
    with pytest.raises(WebhookVerificationError):
        Webhook(WHSEC).verify(request.body + b" ", request.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + "A" * 32).verify(request.body, request.headers)


def test_the_signature_equals_the_reference_implementation() -> None:
    body = json.dumps({"a": 1}).encode()
    headers = webhook_headers(idempotency_key="e:1:p", sent_at=NOW, body=body, secrets=[WHSEC])
    assert headers["webhook-signature"] == Webhook(WHSEC).sign("e:1:p", NOW, body.decode())


def test_different_steps_keep_different_webhook_ids() -> None:
    keys = ["e:1:a.b", "e:1:a%2Eb", "e:1:a%252Eb", "e:1:a-b"]
    assert len({webhook_id(key) for key in keys}) == len(keys)


@pytest.mark.parametrize(
    "secret", ["x", "whsec_", "whsec_AAAA", "whsec_!!", WHSEC[6:], "whsec_" + "A" * 96]
)
async def test_a_bad_webhook_secret_is_not_shown(outbound: Outbound, secret: str) -> None:
    config: JsonObject = {"message": "m", "channel": "webhook", "url": "http://127.0.0.1:9/"}
    error = await failure(notifier(outbound), config | {"secret": secret})
    assert (error.code, error.retryable) == ("bad_webhook_secret", False)
    assert len(secret) < 7 or secret not in error.message


@pytest.mark.parametrize(
    ("status", "retryable"), [(302, False), (410, False), (429, True), (500, True)]
)
async def test_a_webhook_that_is_not_taken_fails(
    outbound: Outbound, status: int, retryable: bool
) -> None:
    async with http_server(lambda _: answer(status, location="/x")) as server:
        config: JsonObject = {"message": "m", "channel": "webhook", "secret": WHSEC}
        error = await failure(notifier(outbound), config | {"url": server.url})
        assert (error.code, error.retryable) == ("http_status", retryable)
        assert len(server.received) == 1


async def test_a_webhook_above_twenty_kilobytes_is_refused(outbound: Outbound) -> None:
    config: JsonObject = {"message": "m" * 20_000, "channel": "webhook", "secret": WHSEC}
    error = await failure(notifier(outbound), config | {"url": "http://127.0.0.1/"})
    assert "send a link" in error.message


async def test_a_mail_arrives_with_a_repeatable_message_id(outbound: Outbound) -> None:
    config: JsonObject = {
        "message": "Grüße\n.\nend",
        "channel": "email",
        "recipient": "b@example.org",
    }
    async with smtp_server() as server:
        mail_server = MailServer(
            host="127.0.0.1", port=server.port, sender="flow@example.org", security="none"
        )
        for _ in range(2):
            output = await notifier(outbound, mail_server)(config, step_context())
        assert isinstance(output, dict)
        assert output["recipient"] == "b@example.org"
        first, second = (message_from_bytes(m, policy=policy.default) for m in server.messages)
        assert "rcpt TO:<b@example.org>" in server.commands
    assert first["Message-ID"] == second["Message-ID"]
    assert (first["From"], first["To"], first["Subject"]) == (
        "flow@example.org",
        "b@example.org",
        "etl: fetch",
    )
    assert "Grüße" in first.get_content()


@pytest.mark.parametrize(
    "recipient",
    [
        "b@example.org\r\nBcc: c@example.org",
        "b@example.org, c@example.org",
        "B <b@example.org>",
        "b@example.org;c@example.org",
        "nobody",
        "@",
        '"a b"@example.org',
        "a@b@c",
        "b@example.org\x00",
    ],
)
async def test_a_recipient_cannot_bring_a_second_one_or_a_header(
    outbound: Outbound, recipient: str
) -> None:
    async with smtp_server() as server:
        mail_server = MailServer(host="127.0.0.1", port=server.port, sender="f@example.org")
        config: JsonObject = {"message": "m", "channel": "email", "recipient": recipient}
        assert (await failure(notifier(outbound, mail_server), config)).code == "bad_config"
        assert server.commands == []


async def test_a_subject_is_one_line(outbound: Outbound) -> None:
    config: JsonObject = {"message": "m", "subject": "a\r\nBcc: x@example.org"}
    assert (await failure(notifier(outbound), config)).code == "bad_config"


@pytest.mark.parametrize(("reply", "retryable"), [("550 no such user", False), ("450 later", True)])
async def test_a_refused_recipient_is_told_apart(
    outbound: Outbound, reply: str, retryable: bool
) -> None:
    async with smtp_server(reply) as server:
        mail_server = MailServer(
            host="127.0.0.1", port=server.port, sender="f@example.org", security="none"
        )
        config: JsonObject = {"message": "m", "channel": "email", "recipient": "b@example.org"}
        error = await failure(notifier(outbound, mail_server), config)
        assert (error.code, error.retryable) == ("mail_refused", retryable)
        assert reply in error.message


async def test_a_mail_server_that_is_away_or_not_set_is_named(outbound: Outbound) -> None:
    async with smtp_server() as server:
        port = server.port
    config: JsonObject = {"message": "m", "channel": "email", "recipient": "b@example.org"}
    away = MailServer(host="127.0.0.1", port=port, sender="f@example.org", password="canary-pw")
    error = await failure(notifier(outbound, away), config)
    assert (error.code, error.error_class) == ("mail_not_sent", "transient")
    assert "canary-pw" not in repr(away)
    error = await failure(notifier(outbound), config)
    assert (error.code, error.retryable) == ("mail_not_configured", False)


@pytest.mark.parametrize(
    ("config", "codes"),
    [
        ({}, ["missing_field"]),
        ({"message": "m", "channel": "pigeon"}, ["bad_value"]),
        ({"message": "m", "channel": "webhook"}, ["missing_field", "missing_field"]),
        ({"message": "m", "channel": "email"}, ["missing_field"]),
        (
            {"message": "m", "channel": "webhook", "url": "x:", "secret": 1},
            ["bad_value", "wrong_type"],
        ),
        ({"message": "m", "subject": "a\nb"}, ["bad_value"]),
        ({"message": "m", "to": "b"}, ["unknown_field"]),
        ({"message": "${a.output}", "channel": "${workflow.input.c}"}, []),
    ],
)
def test_mistakes_are_found_at_registration(config: JsonObject, codes: list[Json]) -> None:
    action = notifier(Outbound(OutboundAllow()))
    assert [mistake.code for mistake in action.check(config, "/c")] == codes
