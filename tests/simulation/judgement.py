"""Whether a story keeps the invariants; a broken one comes with the events that tell it."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from domain.events import Event, StepRedelivered, StepStarted
from domain.execution import fold
from tests.builders import told
from tests.invariants import Tables, Violation, check_all, streams_of
from tests.properties.finished_work import reset_though_finished
from tests.simulation.agent_judgement import agents_judged
from tests.simulation.effects import keys_of
from tests.simulation.projector import rebuilt
from tests.simulation.scenario import Story
from tests.simulation.verbs import WHERE_IT_FAILED

SLICE_MAX: Final = 12
_PLACE: Final = re.compile(r"^(?P<stream>[0-9a-f-]{36}) v(?P<version>\d+)")
_EXPECTED_REPORTS: Final = frozenset(
    {"lease_lost", "leases_left_to_expire", "progress_not_storable"}
)


def violations(story: Story) -> list[Violation]:
    """Every broken invariant of a story."""
    found = check_all(story.store.log, story.history, _tables(story))
    found += _rebuild(story)
    found += _keys(story)
    found += _deliveries(story)
    found += _handed_over(story)
    found += _retries(story)
    found += _caches(story)
    found += agents_judged(story)
    found += [Violation("I18", what[:36], what) for what in story.restless]
    found += [
        Violation("I18", "worker", f"{event}: {facts.get('error')}")
        for event, facts in story.reports
        if event not in _EXPECTED_REPORTS and not _away(event, facts)
    ]
    found += [Violation("I21", where, error) for where, error in story.crashes]
    return sorted(found)


def _away(event: str, facts: Mapping[str, object]) -> bool:
    """Whether a relay waits for a broker or a database."""
    return event == "relay_waits" and facts.get("exception") is None


def _tables(story: Story) -> Tables:
    def rows(table: str) -> list[dict[str, object]]:
        return [
            {name: getattr(row, name) for name in row.__struct_fields__}
            for row in story.tables.rows[table].values()
        ]

    return Tables(rows("workflow_runs"), rows("step_executions"))


def _rebuild(story: Story) -> Iterator[Violation]:
    """I9: a rebuild is the live table, byte for byte."""
    live, anew = story.tables.exported(), rebuilt(story.store).exported()
    for table, rows in anew.items():
        for row in set(rows) ^ set(live[table]):
            shown = msgspec.json.decode(row)
            where = str(shown.get("run_id", "")).removeprefix("run-")
            which = "lacks" if row in rows else "holds"
            yield Violation(
                "I9", f"{where} {table}", f"the live table {which} {row.decode()[:200]}"
            )


def _keys(story: Story) -> Iterator[Violation]:
    """I7: one key per step and attempt, another for each step."""
    owners: dict[str, tuple[str, int, str]] = {}
    for step, keys in keys_of(story.deeds.done).items():
        if len(keys) > 1:
            yield Violation("I7", step[0], f"{step} was done with the keys {sorted(keys)}")
        for key in keys:
            if owners.setdefault(key, step) != step:
                yield Violation("I7", step[0], f"{step} and {owners[key]} have one key")


def _deliveries(story: Story) -> Iterator[Violation]:
    """I8: what is delivered once is begun once under its lease."""
    for deed, times in Counter(story.deeds.done).items():
        if times > 1:
            yield Violation("I8", deed.execution_id, f"{deed} was begun {times} times")


def _handed_over(story: Story) -> Iterator[Violation]:
    """I8: a worker hands nothing over to itself under a lease that it has not given up since."""
    given_up = {
        (facts["execution_id"], facts["epoch"])
        for event, facts in story.reports
        if event == "lease_lost"
    }
    for stream_id, events in streams_of(story.store.log).items():
        begun: dict[tuple[int, str, int], str] = {}
        for event in events:
            data = event.data
            if not isinstance(data, StepStarted | StepRedelivered):
                continue
            what, lease = (data.attempt, data.path, data.try_no), event.meta.cmd.partition(":")[0]
            again = isinstance(data, StepRedelivered) and begun.get(what) == lease
            if again and (str(stream_id), data.epoch) not in given_up:
                where = f"{stream_id} v{event.version} StepRedelivered"
                yield Violation("I8", where, f"{data.path} was handed over, and nobody was lost")
            begun[what] = lease


def _retries(story: Story) -> Iterator[Violation]:
    """I7: a retry that names no step does nothing again that is finished."""
    for stream_id, events in streams_of(story.store.log).items():
        for version, path in reset_though_finished(events, WHERE_IT_FAILED):
            yield Violation("I7", f"{stream_id} v{version} Retried", f"{path} is finished")


def _caches(story: Story) -> Iterator[Violation]:
    """What a process remembers is what the log says."""
    for process in story.processes:
        for stream_id, recorded in story.store.streams.items():
            entry = process.ledger.cache.get(stream_id)
            if entry is None:
                continue
            version = entry.state.version
            known = fold(each.event for each in recorded[:version])
            place = recorded[version - 1].position
            if known != entry.state or place != entry.position:
                what = f"{process.name} remembers {entry.position} for {place}"
                yield Violation("I9", f"{stream_id} v{version}", what)


def slice_of(story: Story, violation: Violation) -> list[str]:
    """The shortest beginning of the stream that breaks it, of that the last events."""
    events = _stream(story, violation)
    found = _PLACE.match(violation.where)
    if found is not None:
        events = events[: int(found["version"])]
    return [
        f"v{event.version} {event.meta.at:%H:%M:%S.%f} {event.meta.cmd[:8]} {told(event.data)}"
        for event in events[-SLICE_MAX:]
    ]


def _stream(story: Story, violation: Violation) -> list[Event]:
    streams = streams_of(story.store.log)
    text = violation.where + violation.what
    for stream_id, events in streams.items():
        if str(stream_id) in text or any(event.meta.cmd == violation.where for event in events):
            return events
    return []
