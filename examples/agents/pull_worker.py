"""A worker that asks Flowledger for work: it counts the words of a text. Needs nothing but Python.

flowledger agents add counter --transport pull
python pull_worker.py http://127.0.0.1:8000 counter
"""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait
from urllib.request import Request, urlopen

LEASE_SECONDS = 30


def post(address, path, body):
    """Status and answer. A server that is away or busy is asked again."""
    url, data = f"{address}/api/v1/tasks/{path}", json.dumps(body).encode()
    request = Request(url, data, {"Content-Type": "application/json"})  # noqa: S310 - as was asked
    for pause in (0.5, 1, 2, 5, 10, 30):
        try:
            with urlopen(request, timeout=60) as answer:  # noqa: S310 - as was asked
                return answer.status, json.load(answer)
        except OSError as refused:
            if getattr(refused, "code", 503) < 500:
                return refused.code, json.load(refused)
        time.sleep(pause)
    sys.exit(f"{address} does not answer")


def work(task):
    """What the agent is for. The same idempotency_key may come twice, after a lost answer."""
    return {"words": len(task["input_data"]["text"].split())}


def do(address, task, thread):
    """Work on a task; say now and then that it is still worked on; send what came of it."""
    own, held, working = task["task_id"], {"epoch": task["epoch"]}, thread.submit(work, task)
    while not wait([working], LEASE_SECONDS / 3).done:
        if post(address, f"{own}/heartbeat", held)[0] == 409:
            break  # another worker has it, or nobody wants it any more; its result is refused
    try:
        return post(address, f"{own}/complete", {**held, "output_data": working.result()})
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        held |= {"message": repr(error), "error_class": "permanent"}
        return post(address, f"{own}/fail", held)


if __name__ == "__main__":
    server, agent = sys.argv[1:3]
    print(f"{agent} asks {server} for work", flush=True)
    ask = {"agents": [agent], "worker_id": f"{agent}-{os.getpid()}"}
    ask |= {"wait_seconds": 30, "lease_seconds": LEASE_SECONDS}
    with ThreadPoolExecutor(1) as thread:
        while (answer := post(server, "poll", ask))[0] == 200:
            for task in answer[1]["tasks"]:
                print(task["task_id"], *do(server, task, thread), flush=True)
    sys.exit(answer[1]["detail"])
