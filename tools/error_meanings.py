"""What the codes of mistakes and failures mean; the docs tests hold them to the source."""

from collections.abc import Mapping
from typing import Final

MISTAKE_CODES: Final[Mapping[str, str]] = {
    "alias": "YAML: anchors and aliases are not accepted; write the value out.",
    "bad_condition": "A condition is not in the [grammar](definitions.md#conditions), or names an "
    "unknown operator.",
    "bad_cursor": "The cursor was not given out for these filters.",
    "bad_encoding": "Not UTF-8.",
    "bad_etag": "`If-Match` or `If-None-Match` holds no entity tag.",
    "bad_identifier": "A name or id is not 1 to 128 of `A-Z a-z 0-9 . _ -`.",
    "bad_key": "YAML: the key of a mapping is not text.",
    "bad_label": "A label's name is not 1 to 128 of `A-Z a-z 0-9 . _ -`.",
    "bad_reference": "A reference is malformed, names no step, names one that cannot have run "
    "before, or one inside a composite.",
    "bad_schema": "`input_schema` or `validation_schema` is not a usable JSON Schema (2020-12, no "
    "remote references).",
    "bad_time": "Not a time like `2026-01-31T12:00:00Z`.",
    "bad_value": "The member may not have this value; the message says which it may.",
    "bad_wait": "`Prefer: wait` is not a whole number of seconds.",
    "contradiction": "Two members exclude each other.",
    "cycle": "`next_step` leads back, a branch contains itself, or an alternative or compensation "
    "is the step itself.",
    "dangling_next": "`next_step`, a branch or `compensate_with` names a step that is not there.",
    "duplicate_id": "Two actions of a list have one id.",
    "duplicate_key": "An object has a member twice.",
    "empty": "YAML: there is no document.",
    "id_mismatch": "A step's `id` differs from its key.",
    "ignored_next_step": "Warning: what is inside a composite does not choose what follows.",
    "integer_too_large": "An integer beyond 2^53; write it as text.",
    "literal_credential": "Looks like a credential; use `${secret.NAME}`.",
    "lone_surrogate": "Text with half of a surrogate pair.",
    "many_documents": "YAML: a second document.",
    "merge_key": "YAML: merge keys are not accepted.",
    "method_not_allowed": "The address does not know this method.",
    "missing": "A needed member is not there; a reason, where the server wants one.",
    "missing_branch": "A conditional has neither branch.",
    "missing_field": "A setting that the action needs is not there.",
    "missing_start": "`start_step` is missing or names no step.",
    "missing_steps": "There are no steps.",
    "no_kafka": "A warning: the agent gets its tasks over Kafka, and `FLOWLEDGER_KAFKA_BROKERS` is "
    "not set where the definition was published.",
    "not_a_json_type": "A value that JSON does not know.",
    "not_a_number": "NaN, Infinity, or a number beyond a double.",
    "not_an_object": "A JSON object belongs here.",
    "not_available_yet": "Known by name, not built yet; refused rather than ignored.",
    "not_found": "There is nothing by this name.",
    "not_json": "Not one JSON text.",
    "not_yaml": "Not YAML.",
    "nul_character": "A NUL character.",
    "out_of_range": "A number or version outside its bounds.",
    "repeated": "A header or parameter may be given once.",
    "reserved_name": "The name means something else in a path, an id or a reference.",
    "schema": "The input does not fit the workflow's `input_schema`.",
    "secret_in_log": "A notification to the log would print a secret.",
    "tag": "YAML: tags are not accepted.",
    "too_deep": "Nested too deep.",
    "too_large": "Too many bytes.",
    "too_long": "Too many characters.",
    "too_many": "Too many of them.",
    "too_many_keys": "More than 10,000 members in one value.",
    "too_many_steps": "More than 1,000 steps.",
    "two_parents": "A step is inside two composites, or inside one and on the main line, or "
    "undoes others and runs otherwise too.",
    "unknown_action": "No such action is registered on this server.",
    "unknown_agent": "No agent of this name is registered, or it is inactive.",
    "unknown_field": "This member is not known here.",
    "unknown_parameter": "The route does not know this query parameter.",
    "wrong_transport": "The agent gets its work another way than by pull.",
    "unknown_workflow": "A warning: no workflow of this name is published yet.",
    "unknown_type": "`type` is no [kind of step](definitions.md#every-step).",
    "unreachable": "No step leads to this one.",
    "unsupported": "Another media type, charset or encoding than the route takes: JSON in UTF-8, a "
    "definition also as YAML.",
    "wrong_type": "The setting has another JSON type.",
}
STEP_CODES: Final[Mapping[str, str]] = {
    "agent_call_broken": "The call of an agent ended in an exception of the engine.",
    "agent_credential_missing": "The agent wants a credential and has none. Permanent.",
    "agent_credential_unusable": "No HTTP header can hold the agent's credential, or it is too "
    "short to be taken out of outputs again. Permanent.",
    "agent_error": "The agent answered that it failed: `JSON-RPC Error -32000: ...`, or what the "
    "simple form has as `error`. Permanent.",
    "agent_inactive": "The agent is inactive or deleted. Permanent.",
    "agent_redirects": "The agent's URL redirects, which is not followed: register the address "
    "that answers. Permanent.",
    "agent_unavailable": "The process that ran the execution calls no agents. Transient.",
    "agent_without_url": "The agent has no URL to be called at. Permanent.",
    "bad_agent_reply": "The agent's answer is not its protocol: a page in HTML, no JSON, no UTF-8, "
    "nested too deeply, without the members that it must have. Permanent.",
    "bad_config": "A setting is wrong once its references are filled in. Permanent.",
    "bad_content_encoding": "An answer is packed in a way that was not offered, or damaged.",
    "bad_mail": "The mail cannot be written: a header or address is wrong. Permanent.",
    "bad_step_input": "A reference has no value, or the input cannot be stored. Permanent.",
    "bad_url": "The URL cannot be called. Permanent.",
    "bad_webhook_secret": "The webhook's secret is not `whsec_` and base64. Permanent.",
    "body_too_large": "An answer is larger than is read. Permanent.",
    "branches_failed": "Too few branches of a fork_join completed; the message lists why.",
    "branch_timeout": "A branch did not end within its `timeout_seconds`.",
    "circuit_open": "The agent failed lately and was not called: its [circuit "
    "breaker](../explanation/agents.md#circuit-breaker) is open. Transient.",
    "child_cancelled": "The execution that a sub_workflow step ran was cancelled. Permanent.",
    "child_failed": "The execution that a sub_workflow step ran failed without saying why.",
    "cancelled_error": "An action cancelled itself.",
    "children_failed": "Critical children of a parallel failed; the message lists them.",
    "event_timeout": "The signal that a wait_for_event step waits for did not come in time.",
    "invalid_child_input": "What a sub_workflow step gives does not fit the `input_schema` of the "
    "workflow that it runs. Permanent.",
    "http_status": "The called service answered with a status that is no success; `output` has its "
    "answer. 5xx, 408, 425 and 429 are transient, others permanent.",
    "interrupted": "The handler was interrupted and its result is not awaited any more.",
    "iterations_failed": "Iterations of a loop failed; `output` lists them.",
    "mail_not_configured": "No mail server is set up. Permanent.",
    "mail_not_sent": "The mail server could not be reached or did not take the mail for now.",
    "mail_refused": "The mail server refused the mail. Permanent.",
    "network_error": "No connection, or it broke. Transient.",
    "outbound_refused": "The address is not public and not allowed by `FLOWLEDGER_OUTBOUND_ALLOW`. "
    "Permanent.",
    "no_encryption_key": "This server lacks the key that an agent's credential was sealed with. "
    "Permanent.",
    "output_not_storable": "The output is no JSON value within the limits. Permanent.",
    "outputs_too_large": "All outputs of the execution together are too large. Permanent.",
    "result_not_sendable": "A bridge called the agent, and its result was too large for a message.",
    "registry_unavailable": "The database did not say who the agent is. Transient.",
    "secret_missing": "There is no secret of that name. Permanent.",
    "secret_too_short": "The secret is too short to be taken out of outputs again. Permanent.",
    "step_timeout": "The try did not end within its `timeout_seconds`.",
    "task_not_completed": "The agent's task ended in another state: `Task state: failed`. "
    "Permanent.",
    "timeout": "The called service did not answer in time.",
    "too_deep": "Executions run one another deeper than they may. Permanent.",
    "too_many_redirects": "The service redirected too often. Permanent.",
    "unknown_action": "This server lacks the action that the definition names. Permanent.",
    "unknown_agent": "No agent of this name is registered. Permanent.",
    "workflow_inactive": "A sub_workflow step names a workflow that takes no executions. "
    "Permanent.",
    "workflow_not_found": "A sub_workflow step names a workflow or version that does not exist. "
    "Permanent.",
    "wrong_reply_id": "The agent answered with the id of another request. Permanent.",
    "validation_failed": "Data does not fit a strict validate step; `output` lists why. Permanent.",
    "worker_lost": "Three workers were lost while they ran this try. Permanent.",
}
EXECUTION_CODES: Final[Mapping[str, str]] = {
    "bad_output": "The definition's `output` could not be made: a reference has no value, or the "
    "result is too large.",
    "pause_timeout": "It was paused for longer than `max_pause_duration_seconds`.",
    "compensation_failed": "A step that undoes another one failed for good; the message names what "
    "is left to undo by hand.",
    "execution_timeout": "It did not end within the definition's `timeout_seconds`.",
    "no_success": "In lenient mode: steps failed and none succeeded.",
}
