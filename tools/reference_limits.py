"""The page of limits: constants of the code with their present values."""

from importlib import import_module
from typing import Final, NamedTuple

from tools.markdown import table

_INTRODUCTION: Final = """# Limits

Everything has a bound. What comes from outside is checked before anything is stored; a refusal says
where the limit was passed. Limits that an operator can move are [settings](settings.md). There is
no limit to the number of events of an execution.
"""


class Limit(NamedTuple):
    """One constant. `unit` follows the value; `passed` says what happens above it."""

    module: str
    constant: str
    what: str
    unit: str
    passed: str = ""


LIMITS: Final[dict[str, tuple[Limit, ...]]] = {
    "Requests and values": (
        Limit(
            "interfaces.connection",
            "HEAD_BYTES_MAX",
            "Line and headers of a request that are not complete",
            "bytes",
            "400, and the connection is closed",
        ),
        Limit("domain.json_values", "BODY_BYTES_MAX", "A request body", "bytes", "413 `too_large`"),
        Limit(
            "domain.json_values",
            "PAYLOAD_BYTES_MAX",
            "One payload: an input, the output of a step, the result of a task, all values that "
            "the references of one step bring in",
            "bytes",
            "413 `too_large`; in a step `output_not_storable` or `bad_step_input`",
        ),
        Limit("domain.json_values", "DEPTH_MAX", "Containers inside one another", "levels", "422"),
        Limit("domain.json_values", "KEYS_MAX", "Object members in one whole value", "", "422"),
        Limit("domain.json_values", "INTEGER_MAX", "Magnitude of an integer", "(2^53)", "422"),
        Limit("interfaces.yaml_reader", "YAML_BYTES_MAX", "A definition in YAML", "bytes", "413"),
        Limit("interfaces.yaml_reader", "YAML_DEPTH_MAX", "Containers in YAML", "levels", "422"),
        Limit("interfaces.http.execute", "ITEMS_MAX", "Executions in one batch", "", "422"),
        Limit("interfaces.http.labels", "LABELS_MAX", "Labels of an execution", "", "422"),
        Limit("interfaces.http.labels", "LABEL_CHARACTERS_MAX", "A label", "characters", "422"),
        Limit("interfaces.caller_names", "ACTOR_CHARACTERS_MAX", "`X-Actor`", "characters", "422"),
        Limit(
            "interfaces.http.executions", "REASON_CHARACTERS_MAX", "A reason", "characters", "422"
        ),
        Limit(
            "interfaces.http.conditional",
            "WAIT_SECONDS_MAX",
            "`Prefer: wait`",
            "s",
            "the most is used",
        ),
        Limit(
            "interfaces.http.lists",
            "BEHIND_SECONDS_MAX",
            "Wait for `min_position`",
            "s",
            "503 `projection_behind`",
        ),
        Limit(
            "interfaces.http.stream",
            "STREAMS_MAX",
            "Open event streams of a process",
            "",
            "429 `too_many_streams`",
        ),
        Limit(
            "application.history",
            "FOLLOWERS_READING_MAX",
            "Of them, those that look at the log at a time",
            "",
            "the others wait for their turn",
        ),
        Limit(
            "interfaces.http.stream",
            "SEND_SECONDS_MAX",
            "Time a stream's reader may take for one message",
            "s",
            "the stream is closed",
        ),
    ),
    "Definitions": (
        Limit("domain.definition", "STEPS_MAX", "Steps", "", "`too_many_steps`"),
        Limit(
            "domain.definition", "NESTING_MAX", "Steps inside one another", "levels", "`too_deep`"
        ),
        Limit(
            "domain.definition",
            "LANES_MAX",
            "Children of a parallel, branches of a fork_join, `max_parallelism`",
            "",
            "`bad_value`, `out_of_range`",
        ),
        Limit(
            "domain.definition",
            "ITEMS_MAX",
            "Items of a loop",
            "",
            "`too_many`, or the step fails",
        ),
        Limit(
            "domain.composite_reader",
            "PARALLELISM_DEFAULT",
            "Iterations of a parallel loop at a time, unless it says",
            "",
        ),
        Limit(
            "domain.fan_out",
            "LIVE_MAX",
            "Steps of an execution under way, beyond which no composite that has some begins more",
            "",
        ),
        Limit(
            "domain.recovery_config",
            "ATTEMPTS_MAX",
            "Automatic re-tries of a step",
            "",
            "`out_of_range`",
        ),
        Limit(
            "domain.recovery_config",
            "MULTIPLIER_MAX",
            "Factor from one wait to the next",
            "",
            "`out_of_range`",
        ),
        Limit(
            "domain.stage_reader",
            "ALTERNATIVES_MAX",
            "Alternatives of a step, of a definition",
            "",
            "`bad_value`",
        ),
        Limit(
            "domain.stage_reader",
            "FACTOR_MAX",
            "`multiply` of an alternative",
            "",
            "`out_of_range`",
        ),
        Limit(
            "domain.mistakes",
            "TEXTS_MAX",
            "Texts in `error_contains`, `retry_on_errors`, `questions`",
            "",
            "`bad_value`",
        ),
        Limit(
            "domain.questions",
            "ANSWER_CHARACTERS_MAX",
            "An answer to a question",
            "characters",
            "`too_long`",
        ),
        Limit(
            "domain.interventions",
            "PAUSE_SECONDS_MAX",
            "`max_pause_duration_seconds`",
            "s (366 days)",
            "`out_of_range`",
        ),
        Limit(
            "domain.mistakes", "SECONDS_MAX", "A time-out, a wait", "s (a year)", "`out_of_range`"
        ),
        Limit(
            "domain.mistakes",
            "TEXT_MAX",
            "`name` of a step, `description`",
            "characters",
            "`bad_value`",
        ),
        Limit(
            "domain.children",
            "DEPTH_MAX",
            "Executions that run one another, the first one counted",
            "deep",
            "`too_deep`",
        ),
        Limit(
            "domain.dispatching",
            "REASON_CHARACTERS_MAX",
            "Of the reason why a request could not be sent",
            "characters",
            "cut",
        ),
        Limit(
            "domain.signals",
            "SIGNALS_KEPT_MAX",
            "Signals of one execution that no step has taken yet",
            "",
            "429 `too_many_signals`",
        ),
        Limit("domain.child_reader", "VERSION_MAX", "`version` of a sub_workflow", "", "422"),
        Limit("domain.step_reader", "GATES_MAX", "`conditions` of a step", "", "`bad_value`"),
        Limit(
            "domain.definition",
            "TIMEOUT_SECONDS_DEFAULT",
            "Time-out of an action step that names none",
            "s",
            "`step_timeout`",
        ),
        Limit("domain.references", "MISTAKES_MAX", "Mistakes listed for one value", ""),
    ),
    "References and conditions": (
        Limit(
            "domain.reference_forms",
            "REFERENCE_CHARACTERS_MAX",
            "A reference",
            "characters",
            "`bad_reference`",
        ),
        Limit(
            "domain.json_paths",
            "PATH_CHARACTERS_MAX",
            "A JSONPath",
            "characters",
            "`bad_reference`",
        ),
        Limit(
            "domain.json_paths",
            "BRACKETS_DEEP_MAX",
            "Brackets inside one another in it",
            "",
            "`bad_reference`",
        ),
        Limit(
            "domain.json_paths",
            "WORK_MAX",
            "Items that the JSONPaths of one value look at",
            "",
            "the step fails with `bad_step_input`; in a condition the condition is false",
        ),
        Limit(
            "domain.condition_parser",
            "CHARACTERS_MAX",
            "A condition",
            "characters",
            "`bad_condition`",
        ),
        Limit(
            "domain.condition_parser", "NODES_MAX", "Parts of a condition", "", "`bad_condition`"
        ),
        Limit(
            "domain.condition_parser",
            "DEPTH_MAX",
            "Parts inside one another",
            "",
            "`bad_condition`",
        ),
        Limit(
            "domain.conditions",
            "WORK_MAX",
            "Comparisons of one evaluation",
            "",
            "the condition is false",
        ),
    ),
    "Executions": (
        Limit(
            "domain.outcomes",
            "OUTPUT_BYTES_MAX",
            "All outputs of one execution",
            "bytes",
            "`outputs_too_large`",
        ),
        Limit(
            "domain.outcomes",
            "DELIVERIES_MAX",
            "Hand-overs of one try to a worker",
            "",
            "`worker_lost` instead of one more",
        ),
        Limit(
            "application.steps",
            "PROGRESS_BYTES_MAX",
            "A progress value",
            "bytes",
            "it is dropped and logged",
        ),
        Limit(
            "application.progress",
            "PROGRESS_SECONDS",
            "Pause between two progress events of a try",
            "s",
        ),
        Limit(
            "infrastructure.effects.failure_texts",
            "MESSAGE_LENGTH_MAX",
            "An error message",
            "characters",
            "it is cut",
        ),
        Limit(
            "domain.execution",
            "COMMANDS_KEPT",
            "Commands of an execution whose Idempotency-Key is remembered",
            "(the newest)",
        ),
    ),
    "Agents": (
        Limit("domain.agent_reader", "TIMEOUT_MS_MAX", "`timeout_ms`", "ms", "`out_of_range`"),
        Limit("domain.agent_reader", "RETRIES_MAX", "`max_retries`", "", "`out_of_range`"),
        Limit(
            "domain.agent_reader", "MULTIPLIER_MAX", "`backoff_multiplier`", "", "`out_of_range`"
        ),
        Limit(
            "domain.agent_reader",
            "CREDENTIAL_LENGTH_MAX",
            "A token or key",
            "characters",
            "`bad_value`",
        ),
        Limit("application.tasks", "AGENTS_MAX", "Agents of one `tasks/poll`", "", "422"),
        Limit("application.tasks", "TASKS_MAX", "`max_tasks` of one `tasks/poll`", "", "422"),
        Limit("application.tasks", "WAIT_SECONDS_MAX", "`wait_seconds` of a poll", "s", "422"),
        Limit("application.tasks", "LEASE_SECONDS_MIN", "`lease_seconds`, least", "s", "422"),
        Limit("application.tasks", "LEASE_SECONDS_MAX", "`lease_seconds`", "s", "422"),
        Limit(
            "application.tasks",
            "MESSAGE_CHARACTERS_MAX",
            "`message` of a failure",
            "characters",
            "422",
        ),
        Limit("application.tasks", "WORKER_CHARACTERS_MAX", "`worker_id`", "characters", "422"),
    ),
    "Calls to the outside": (
        Limit(
            "domain.breaker",
            "CALLS_MAX",
            "A number of calls in a `circuit_breaker_config`",
            "",
            "`out_of_range`",
        ),
        Limit(
            "domain.breaker",
            "SECONDS_MAX",
            "A time in a `circuit_breaker_config`",
            "s",
            "`out_of_range`",
        ),
        Limit(
            "infrastructure.effects.outbound",
            "BODY_BYTES_MAX",
            "An answer's body, unpacked",
            "bytes",
            "`body_too_large`",
        ),
        Limit(
            "infrastructure.effects.outbound",
            "REDIRECTS_MAX",
            "Redirects",
            "",
            "`too_many_redirects`",
        ),
        Limit(
            "infrastructure.effects.outbound",
            "CONNECT_SECONDS_MAX",
            "Time to connect",
            "s",
            "`timeout`",
        ),
        Limit(
            "infrastructure.effects.outbound_urls",
            "URL_LENGTH_MAX",
            "A URL",
            "characters",
            "`bad_url`",
        ),
        Limit(
            "infrastructure.effects.outbound_network",
            "CONNECTIONS_MAX",
            "Connections at a time",
            "",
            "further calls wait",
        ),
        Limit(
            "infrastructure.effects.webhook",
            "BODY_BYTES_MAX",
            "A webhook's body",
            "bytes",
            "the step fails",
        ),
        Limit(
            "infrastructure.effects.secrets",
            "LENGTH_MIN",
            "A secret (at least)",
            "characters",
            "`secret_too_short`",
        ),
    ),
    "Diagrams": (
        Limit(
            "infrastructure.graphviz_svg",
            "DOT_BYTES_MAX",
            "DOT text that is drawn",
            "bytes",
            "`diagram_too_large`",
        ),
        Limit(
            "infrastructure.graphviz_svg",
            "SVG_BYTES_MAX",
            "A picture",
            "bytes",
            "`diagram_not_rendered`",
        ),
        Limit(
            "infrastructure.graphviz_svg",
            "SECONDS_MAX",
            "Time to draw",
            "s",
            "`diagram_not_rendered`",
        ),
    ),
    "Store": (
        Limit(
            "infrastructure.event_store.group_commit",
            "EVENTS_PER_BATCH_MAX",
            "Events in a batch, before its last append",
            "",
        ),
        Limit(
            "infrastructure.event_store.group_commit",
            "NEW_WORK_SHARE",
            "Share of the append queue that new executions may fill",
            "",
            "503 `not_ready`",
        ),
        Limit(
            "infrastructure.event_store.group_commit",
            "TRIES_AFTER_ROLLBACK_MAX",
            "Tries of a batch that the database undid",
            "",
            "503 `not_ready`",
        ),
        Limit(
            "infrastructure.database",
            "QUERY_SECONDS_MAX",
            "A query for a list on PostgreSQL",
            "s",
            "503 `not_ready`",
        ),
        Limit(
            "infrastructure.projections.lanes",
            "EVENTS_PER_BATCH_MAX",
            "Events in a projection's batch",
            "",
        ),
    ),
}


def value_of(limit: Limit) -> int | float:
    """The constant as the code has it now."""
    value: int | float = getattr(import_module(limit.module), limit.constant)
    return value


def limits_page() -> str:
    """The page."""
    sections = []
    for heading, limits in LIMITS.items():
        rows = [
            (each.what, f"{value_of(each):,} {each.unit}".strip(), each.passed) for each in limits
        ]
        sections.append(f"\n## {heading}\n\n{table(('what', 'at most', 'beyond it'), rows)}")
    return _INTRODUCTION + "".join(sections)
