"""A workflow over Kafka with the example of an agent that reads its tasks from the topic."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.e2e.fleet import API, get
from tests.e2e.programs import EXAMPLES, program
from tests.e2e.test_kafka import Installation, post

SECONDS_MAX: Final = 60


def test_a_workflow_goes_on_with_what_the_agent_that_reads_kafka_sends(
    postgres_dsn: str, mock_kafka: str, tmp_path: Path
) -> None:
    step = {"agent_name": "counter", "input_mapping": {"text": "${workflow.input.text}"}}
    asked = {
        "definition": {"name": "one", "start_step": "count", "steps": {"count": step}},
        "input_data": {"text": "the ledger of every run"},
    }
    with ExitStack() as stack:
        installation = Installation(stack, postgres_dsn, mock_kafka, tmp_path)
        serve = installation.start("serve", "--port", "0")
        installation.start("consumer")
        names = [
            installation.topics[f"FLOWLEDGER_KAFKA_{each}_TOPIC"] for each in ("TASK", "RESULT")
        ]
        command = [
            sys.executable,
            str(EXAMPLES / "agents" / "kafka_agent.py"),
            mock_kafka,
            "counter",
            *names,
        ]
        stack.enter_context(program(command, cwd=tmp_path))
        post(serve, "/agents", {"name": "counter", "transport": "kafka"}, 201)
        begun = post(serve, "/executions", asked, 202)
        ended = begun
        for _ in range(6):  # topics are made and found, groups formed: longer than one wait may be
            ended = get(serve, f"{API}/executions/{begun['id']}", wait=SECONDS_MAX).json()
            if ended["status"] != "RUNNING":
                break
    assert (ended["status"], ended["output"]) == ("COMPLETED", {"words": 5, "longest": "ledger"})
