"""An agent that takes its tasks from Kafka; needs `pip install confluent-kafka`.

    python kafka_agent.py BROKERS AGENT_NAME [TASK_TOPIC RESULT_TOPIC]

It counts the words of the text that it is sent. The same task may come twice, and its result may go
out twice: Flowledger records the first.
"""

import json
import signal
import sys
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import Consumer, Producer

brokers, own_name = sys.argv[1:3]
task_topic, result_topic = sys.argv[3:5] or ("orchestrator.tasks.http", "results.topic")


def count(text: str) -> dict[str, Any]:
    """The work itself."""
    words = text.split()
    return {"words": len(words), "longest": max(words, key=len, default="")}


def result_of(task: dict[str, Any]) -> dict[str, Any]:
    """The names of the task come back as they were; its outcome stands beside them."""
    names = {name: task[name] for name in ("run_id", "task_id", "correlation_id")}
    try:
        outcome = {"status": "SUCCESS", "output_data": count(task["input_data"]["text"])}
    except Exception as error:  # noqa: BLE001 - whatever it is, the step must hear of it
        outcome = {"status": "FAILURE", "error_message": f"{type(error).__name__}: {error}"}
    return {**names, **outcome, "timestamp": datetime.now(UTC).isoformat()}


# One group per agent: all its processes share the partitions, and others read the topic, too.
settings = {"bootstrap.servers": brokers, "group.id": f"agent-{own_name}"}
settings |= {"topic.metadata.refresh.interval.ms": 5_000}  # for a topic that is made later
consumer = Consumer(settings | {"enable.auto.commit": False, "auto.offset.reset": "earliest"})
producer = Producer(  # 0: it never gives a result up
    {"bootstrap.servers": brokers, "enable.idempotence": True, "message.timeout.ms": 0}
)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
consumer.subscribe([task_topic])
print(f"{own_name} takes tasks from {task_topic}", flush=True)
while True:
    message = consumer.poll(1.0)
    if message is None or message.error():
        continue
    try:
        task = json.loads(message.value())
        if task["agent_name"] == own_name:  # the topic has the tasks of all agents
            producer.produce(result_topic, json.dumps(result_of(task)), task["correlation_id"])
            producer.flush()  # the broker has the result before the task counts as done
    except (ValueError, KeyError, TypeError) as error:  # no task; it must not hold up the others
        print(f"offset {message.offset()} is no task: {error!r}", file=sys.stderr)
    consumer.commit(message)
