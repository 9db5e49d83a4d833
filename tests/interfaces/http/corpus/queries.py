"""Query parameters out of range, of the wrong kind, repeated, unknown, or not text."""
# ruff: noqa: E501 - an input stays on one line

from tests.interfaces.http.corpus.case import Case, query

CASES: tuple[Case, ...] = tuple(
    query(path, text)
    for path, texts in {
        "/executions": (
            "page=0", "page=-1", "page=1.5", "page=x", "page=", "page=99999999999999999999",
            "page=%EF%BC%91", "page=1&page=2", "page_size=0", "page_size=201", "page_size=1e3",
            "page_size=" + "9" * 5_000, "status=DONE", "status=running", "status=", "status=%00",
            "status=%FF", "status=%ED%A0%80", "sub_status=all", "sort=", "sort=id", "sort=--status",
            "sort=created_at,status", "waiting_on=godot", "created_after=yesterday",
            "created_after=1", "created_after=0001-01-01T00:00:00%2B23:59",
            "created_before=9999-12-31T23:59:59-23:59", "created_after=2026-02-30T00:00:00Z",
            "workflow_id=", "workflow_id=a/b", "workflow_id=" + "x" * 201, "workflow_id=%00",
            "cursor=", "cursor=x", "cursor=" + "x" * 1_001, "cursor=%00", "cursor=e30", "cursor=bnVsbA",
            "cursor=W10&page=2", "min_position=-1", "min_position=x", "min_position=99999999999999999999",
            "min_position=9007199254740992", "min_position=%C2%B2", "label.=x", "label.a%20b=x",
            "label.a=" + "x" * 257, "label." + "x" * 129 + "=1", "label.a=1&label.a=2", "label.%00=1",
            "label.a=%00", "label.a=%FF", "&".join(f"label.k{n}=1" for n in range(33)),
            "unknown=1", "Status=FAILED", "status[]=FAILED", "%00=1", "%FF=1", "=1",
        ),
        "/executions/victim": ("as_of=", "as_of=x", "as_of=-1", "as_of=" + "9" * 60, "as_of=%00",
                               "as_of=1&as_of=2", "as_of=" + "x" * 65, "version=1"),
        "/executions/victim/events": ("after_version=-1", "after_version=x", "limit=0", "limit=1001",
                                      "after_version=99999999999999999999", "after=1"),
        "/executions/victim/stream": ("after=-1", "after=x", "after=99999999999999999999"),
        "/executions/victim/diagram": ("format=", "format=png", "format=svg%00", "format=../../etc"),
        "/events": ("after=-1", "after=1e3", "after=99999999999999999999", "limit=0", "limit=-5",
                    "limit=99999999999999999999", "limit=7&limit=7"),
        "/workflows": ("status=gone", "name=", "name=" + "x" * 129, "name=%00", "name=a%20b",
                       "sort=id", "sort_by=id", "sort_order=down", "page=0"),
        "/human-tasks": ("status=OPEN", "execution_id=", "execution_id=%00", "page_size=999"),
        "/tasks": ("status=TODO", "status=open", "agent=", "agent=a%2Fb", "agent=%00", "execution_id=%00",
                   "page=0", "page_size=999", "min_position=x", "task_id=a"),
        "/questions": ("status=TODO", "status=open", "execution_id=", "execution_id=%00",
                       "page=0", "page_size=999", "min_position=x", "workflow=quick"),
        "/metrics/recovery": ("workflow_id=", "workflow_id=a/b", "workflow_id=%00", "created_after=x",
                              "created_before=2026-02-30T00:00:00Z", "from=2026-01-01T00:00:00Z",
                              "created_after=2026-01-01T00:00:00Z&created_before=2026-01-01T00:00:00Z",
                              "strategy=retry", "min_position=-1"),
        "/runs": ("status=PAUSED", "sort_by=drop", "sort_order=", "workflow_definition_id=%20",
                  "created_after=x", "cursor=x"),
        "/statistics": ("min_position=x", "workflow=quick"),
    }.items()
    for text in texts
)  # fmt: skip
