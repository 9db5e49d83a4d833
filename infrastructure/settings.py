"""Settings from the environment (`FLOWLEDGER_...`), typed and checked once at start. Nothing else
reads the environment.
"""

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from infrastructure.effects.mail import MailServer
from infrastructure.effects.outbound_addresses import OutboundAllow
from infrastructure.sealing import Keys

STOP_SECONDS_MAX: Final = 25
"""For requests and handlers under way; what comes after them ends before 30 s."""


class Settings(BaseSettings):
    """Every setting; the environment variable is the name in upper case after `FLOWLEDGER_`."""

    model_config = SettingsConfigDict(env_prefix="FLOWLEDGER_", frozen=True, extra="ignore")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 chooses a free one.")
    database_url: str = Field(
        "sqlite:///flowledger.db",
        description="Where the ledger is: sqlite:///file.db or postgresql://user@host/name.",
    )
    no_auth: bool = Field(
        False,
        description="Allow listening on an address that is not loopback without authentication.",
    )
    require_reason: bool = Field(
        False, description="Refuse cancel, retry and answers that give no reason."
    )
    actions: str = Field(
        "", description="Own actions: comma-separated files (path.py) and modules (package.module)."
    )
    outbound_allow: str = Field(
        "",
        description="Private hosts and networks that actions may call, comma-separated.",
    )
    secrets_file: Path | None = Field(
        None,
        description="File with secrets: a JSON object, or lines NAME=value.",
    )
    encryption_key: SecretStr = Field(
        SecretStr(""),
        description="Keys that seal the credentials of agents, comma-separated, newest first; "
        "`flowledger make-key` makes one.",
    )
    agent_transport: Literal["http", "kafka"] = Field(
        "http",
        description="Who calls the agents of transport http: the engine, or a bridge over Kafka.",
    )
    recovery: str = Field(
        "",
        description="RecoveryConfig of executions that bring none, as a JSON object; empty: their "
        "steps recover only as they say themselves.",
    )
    recovery_rules: Path | None = Field(
        None,
        description="File (YAML or JSON) with named alternatives and lists of errors by class.",
    )
    smtp_host: str = Field(
        "", description="Mail server of send_notification; empty switches mail off."
    )
    smtp_port: int = Field(587, ge=1, le=65535, description="Port of the mail server.")
    smtp_user: str = Field("", description="User at the mail server; empty sends without a login.")
    smtp_password: SecretStr = Field(SecretStr(""), description="Password at the mail server.")
    smtp_from: str = Field("", description="Sender address of mail.")
    smtp_security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="How mail is protected on its way."
    )
    worker_slots: int = Field(
        100,
        ge=0,
        le=10_000,
        description="Executions that run at a time in this process; 0 runs none.",
    )
    lease_seconds: float = Field(
        15.0,
        gt=0,
        le=3600,
        description="How long a worker that went silent keeps its executions from the others.",
    )
    heartbeat_seconds: float | None = Field(
        None,
        gt=0,
        le=1200,
        description="How often a worker renews its leases; a third of the lease when not set.",
    )
    fence_seconds: float | None = Field(
        None,
        gt=0,
        le=2400,
        description="Without a renewal for so long a worker stops what it runs, as others may take "
        "it over soon; two thirds of the lease when not set.",
    )
    drain_seconds: float = Field(
        0.5,
        ge=0,
        le=10,
        description="How long requests are still taken after SIGTERM, while /readyz says 503.",
    )
    grace_seconds: float = Field(
        20.0, ge=0, le=25, description="How long running handlers may go on after SIGTERM."
    )
    health_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port where a worker or projector tells its health and figures; 0 chooses a "
        "free one.",
    )
    blocking_threads: int = Field(
        32, ge=1, le=1000, description="Threads for handlers and effects that block."
    )
    append_queue: int = Field(
        10_000, ge=10, description="Appends that may wait for the committer before callers get 503."
    )
    projection_lag_seconds: float = Field(
        60.0, gt=0, description="Projection lag above which new executions get 503."
    )
    cache_bytes: int = Field(
        64_000_000,
        ge=1_000_000,
        description="Memory for cached execution states, in bytes (estimated).",
    )
    kafka_brokers: str = Field(
        "", description="Kafka brokers, host:port, comma-separated; empty: nothing goes over Kafka."
    )
    kafka_options: SecretStr = Field(
        SecretStr(""),
        description="More options of the Kafka client, a JSON object with the names of librdkafka, "
        'as {"security.protocol": "SASL_SSL"}.',
    )
    kafka_group_id: str = Field(
        "execution-consumer-group",
        description="Consumer group that shares the requests from outside.",
    )
    kafka_bridge_group_id: str = Field(
        "flowledger-bridge", description="Consumer group of the bridges that call agents."
    )
    start: Literal["queue", "kafka"] = Field(
        "queue",
        description="Who starts what is asked for over REST: the next worker, or the consumer that "
        "receives its request over Kafka. Forks, retries, children and later starts are the next "
        "worker's always.",
    )
    bridge_calls: int = Field(
        100, ge=1, le=10_000, description="Agents that a bridge calls at a time."
    )
    bridge_retries: int = Field(
        0,
        ge=0,
        le=10,
        description="How often a bridge itself calls again after a failure that may pass; 0 where "
        "Flowledger sends the tasks, as its steps say how they are tried again.",
    )
    kafka_execution_topic: str = Field(
        "workflow.execution.requests", description="Topic of requests to execute a plan."
    )
    kafka_cancellation_topic: str = Field(
        "workflow.cancellation.requests", description="Topic of requests to cancel a run."
    )
    kafka_task_topic: str = Field(
        "orchestrator.tasks.http", description="Topic of tasks for agents."
    )
    kafka_result_topic: str = Field("results.topic", description="Topic of the agents' results.")
    kafka_monitoring_topic: str = Field(
        "workflow.monitoring.updates", description="Topic of what runs and their steps come to."
    )
    kafka_cloudevents: bool = Field(
        False, description="Send messages as CloudEvents 1.0 (binary mode: `ce_` headers)."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level that is logged."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Log lines for people or for machines."
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.heartbeat < self.fence < self.lease_seconds:
            raise ValueError(
                "FLOWLEDGER_HEARTBEAT_SECONDS < FLOWLEDGER_FENCE_SECONDS < "
                f"FLOWLEDGER_LEASE_SECONDS must hold, not {self.heartbeat:g} < {self.fence:g} < "
                f"{self.lease_seconds:g}"
            )
        if self.drain_seconds + self.grace_seconds > STOP_SECONDS_MAX:
            raise ValueError(
                "FLOWLEDGER_DRAIN_SECONDS + FLOWLEDGER_GRACE_SECONDS is at most "
                f"{STOP_SECONDS_MAX}, so that a stop takes less than 30 s"
            )
        for name in ("start", "agent_transport"):
            if getattr(self, name) == "kafka" and not self.kafka_brokers:
                raise ValueError(
                    f"FLOWLEDGER_{name.upper()}=kafka needs FLOWLEDGER_KAFKA_BROKERS; set it, or "
                    f"leave {name.upper()} out"
                )
        return self

    @property
    def heartbeat(self) -> float:
        """Seconds between two renewals."""
        return self.heartbeat_seconds or self.lease_seconds / 3

    @property
    def fence(self) -> float:
        """Seconds without a renewal after which a worker stops."""
        return self.fence_seconds or self.lease_seconds * 2 / 3

    @cached_property
    def allow(self) -> OutboundAllow:
        """`outbound_allow`, parsed; raises ValueError naming the bad entry."""
        return OutboundAllow.parse(self.outbound_allow)

    @property
    def keys(self) -> Keys:
        """`encryption_key`, parsed; raises BadEncryptionKey without repeating a key."""
        return Keys.parse(self.encryption_key.get_secret_value())

    def mail_server(self) -> MailServer | None:
        """The mail server, or None when mail is off."""
        if not self.smtp_host:
            return None
        return MailServer(
            host=self.smtp_host,
            port=self.smtp_port,
            sender=self.smtp_from,
            user=self.smtp_user,
            password=self.smtp_password.get_secret_value(),
            security=self.smtp_security,
        )


def environment() -> Mapping[str, str]:
    """The process environment, for what is not a setting of its own (secrets by name)."""
    return os.environ
