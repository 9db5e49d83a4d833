"""What people read: events as sentences, refusals with a next step, texts that cannot draw."""

import pytest

from domain.events import EXECUTION_PAYLOADS
from interfaces.cli_failures import ExitCode
from interfaces.cli_output import short_duration, short_time, visible, write_table
from interfaces.cli_session import Answer, refused, segment
from interfaces.cli_story import sentence


def test_every_kind_of_event_has_a_sentence() -> None:
    for payload in EXECUTION_PAYLOADS:
        kind = payload.TOPIC.split(".")[1]
        told = sentence(
            {"topic": payload.TOPIC, "type": kind, "data": {"path": "p", "message": "m"}}
        )
        assert told != payload.TOPIC
        assert "Traceback" not in told
    assert sentence({"topic": "execution.new_thing.v1", "type": "new_thing"}) == (
        "execution.new_thing.v1"
    )


@pytest.mark.parametrize(
    ("kind", "data", "told"),
    [
        (
            "retried",
            {"attempt": 2, "reset": ["call"], "reason": "bank is back"},
            "reopened as attempt 2; to run again: call: bank is back",
        ),
        (
            "question_answered",
            {
                "path": "pay",
                "kind": "retry",
                "read_as": "text",
                "answer": "yes please",
                "reason": "the bank rang",
            },
            'pay: the answer is retry (read as text of "yes please"): the bank rang',
        ),
        (
            "question_answered",
            {
                "path": "pay",
                "kind": "alternative",
                "alternative": "cash",
                "read_as": "exact",
                "answer": "alternative:cash",
            },
            "pay: the answer is alternative cash (read as exact)",
        ),
        (
            "question_answered",
            {"path": "pay", "kind": "skip", "read_as": "timeout", "answer": "skip"},
            "pay: the answer is skip (nobody in time)",
        ),
        (
            "human_task_completed",
            {"path": "sign", "result": {"decision": "nein, später"}},
            'sign was done by a person with {"decision": "nein, später"}',
        ),
        ("human_task_completed", {"path": "sign"}, "sign was done by a person"),
        ("signal_received", {"name": "paid", "payload": 7}, "signal paid received with 7"),
        (
            "step_settled",
            {"path": "pay", "state": "COMPLETED", "output": {"receipt": 17}, "reason": "by hand"},
            'pay completed by hand with {"receipt": 17}: by hand',
        ),
        ("step_settled", {"path": "p", "state": "SKIPPED", "reason": "x"}, "p skipped by hand: x"),
    ],
)
def test_what_a_person_did_is_told_with_its_content_and_reason(
    kind: str, data: dict[str, object], told: str
) -> None:
    assert sentence({"type": kind, "data": data}) == told


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        *((kind, "reason") for kind in ("paused", "resumed", "cancel_requested", "retried")),
        *((kind, "reason") for kind in ("step_settled", "forked_from", "question_answered")),
        ("dispatch_failed", "reason"),
        ("question_answered", "answer"),
        ("human_task_created", "title"),
        ("human_task_completed", "result"),
        ("signal_received", "payload"),
        ("step_settled", "output"),
        ("step_progressed", "progress"),
    ],
)
def test_texts_of_others_stay_on_one_line_and_are_cut(kind: str, field: str) -> None:
    told = sentence({"type": kind, "data": {field: "yes\n  COMPLETED\u2028" + "x" * 9_000}})
    assert "yes" in told
    assert len(told.splitlines()) == 1
    assert len(told) < 300


def test_control_characters_are_made_visible() -> None:
    assert visible("a\x1b[31mb\rc\u202ed\x00") == "a\\x1b[31mb\\rc\\u202ed\\x00"
    assert visible("two\nlines", "\n") == "two\nlines"
    assert visible(None) == ""


def test_tables_show_markup_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    write_table(("NAME",), [("[red]x[/red] :smile:",), ("\x1b]0;title\x07",)])
    out = capsys.readouterr().out
    assert "[red]x[/red] :smile:" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(None, ""), (7, "7 ms"), (999, "999 ms"), (1_500, "1.5 s"), (125_000, "2 min 5 s")],
)
def test_durations(milliseconds: int | None, text: str) -> None:
    assert short_duration(milliseconds) == text


def test_times() -> None:
    assert short_time("2026-11-20T10:11:12.345678Z") == "2026-11-20 10:11:12.345Z"
    assert short_time("2026-11-20T10:11:12Z") == "2026-11-20 10:11:12.000Z"
    assert short_time(None) == ""


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, ExitCode.INVALID),
        (404, ExitCode.NOT_FOUND),
        (409, ExitCode.CONFLICT),
        (412, ExitCode.CONFLICT),
        (422, ExitCode.INVALID),
        (429, ExitCode.NOT_READY),
        (500, ExitCode.UNEXPECTED),
        (503, ExitCode.NOT_READY),
    ],
)
def test_statuses_have_exit_codes(status: int, code: ExitCode) -> None:
    problem = {"detail": "no", "errors": [{"pointer": "/a", "message": "wrong"}]}
    failure = refused(Answer(status, {}, problem))
    assert failure.code is code
    assert failure.message == "no\n  /a: wrong"
    assert refused(Answer(status, {}, "<html>")).message == f"HTTP {status}"


def test_a_mistake_is_told_once() -> None:
    one = {"detail": "/a: wrong", "errors": [{"pointer": "/a", "message": "wrong"}]}
    assert refused(Answer(422, {}, one)).message == "/a: wrong"
    more = [*one["errors"], {"pointer": "", "message": "too long"}]
    two = refused(Answer(422, {}, {"detail": "/a: wrong (2 mistakes)", "errors": more}))
    assert two.message == "The request has 2 mistakes:\n  /a: wrong\n  (whole): too long"


@pytest.mark.parametrize(
    ("status", "problem", "said"),
    [
        (404, {}, "`flowledger list` and `flowledger workflow list`"),
        (404, {"path": "/api/v1/agents/a"}, "`flowledger agents list`"),
        (409, {"path": "/api/v1/agents/a", "code": "concurrent_update"}, "agents show a`"),
        (409, {"path": "/api/v1/agents", "code": "agent_exists"}, "choose another name"),
        (409, {"path": "/api/v1/executions/r/cancel"}, "`flowledger explain r`"),
        (409, {"path": "/api/v1/workflows"}, "Look at it again, then decide."),
        (422, {"path": "/api/v1/executions", "code": "invalid_request"}, "--help"),
        (422, {"code": "idempotency_key_reused"}, "another --key"),
        (422, {"code": "invalid_input", "path": "/api/v1/workflows/w/execute"}, "workflow show w`"),
    ],
)
def test_a_refusal_says_what_to_do_next(status: int, problem: dict[str, str], said: str) -> None:
    assert said in refused(Answer(status, {}, problem)).next_step


def test_references_stay_one_segment() -> None:
    assert segment("../a?b#c/d e") == "..%2Fa%3Fb%23c%2Fd%20e"
