#!/bin/sh
# A worker that asks Flowledger for work: it counts the words of a text, with curl and python3.
#   flowledger agents add counter --transport pull
#   sh pull_worker.sh http://127.0.0.1:8000 counter
# Each task has to be done within its lease of 60 seconds: this one sends no heartbeats.
tasks="$1/api/v1/tasks"
ask="{\"agents\": [\"$2\"], \"worker_id\": \"$2-$$\", \"wait_seconds\": 30, \"lease_seconds\": 60}"

post() { # PATH BODY: the answer; a server that is away or busy is asked again
    curl -sS --fail-with-body --retry 9 --retry-all-errors --retry-max-time 300 \
        -H 'Content-Type: application/json' "$tasks/$1" -d "$2"
}

read_task() { # MEMBER...: that of the first task in the answer, nothing without one
    python3 -c 'import json, sys
found = json.load(sys.stdin)["tasks"]
for name in sys.argv[1:] if found else ():
    found = found[0][name] if isinstance(found, list) else found[name]
print(found or "")' "$@"
}

echo "$2 asks $1 for work"
while answer=$(post poll "$ask"); do
    task=$(printf %s "$answer" | read_task task_id)
    [ -n "$task" ] || continue
    epoch=$(printf %s "$answer" | read_task epoch)
    if text=$(printf %s "$answer" | read_task input_data text); then
        words=$(printf %s "$text" | wc -w | tr -d ' ')
        post "$task/complete" "{\"epoch\": $epoch, \"output_data\": {\"words\": $words}}"
    else
        post "$task/fail" "{\"epoch\": $epoch, \"message\": \"there is no text\", \"error_class\": \"permanent\"}"
    fi
    echo
done
echo "$answer" >&2
exit 1
