"""Claims one task of a node and works on it until it is told what to answer.

    queue_worker.py URL WORKER_ID LEASE_S

Prints one JSON document a line: first what it claimed, then what it was told for every heartbeat, of
which it sends two a second. Each line on stdin is a result: it is sent as the task's, and what the
node says is printed. Ends when stdin ends. Needs Python's own library only. The tests stop the whole
process in between, as a laptop that is closed or a machine that hangs does.
"""

import json
import sys
import threading
import urllib.request

REVISION = "2026-07-28"
BEAT_S = 0.5


def call(url: str, tool: str, arguments: dict) -> dict:
    """Calls one tool of the queue; returns its structured content."""
    name = f"p2p_taskqueue_{tool}"
    meta = {
        "io.modelcontextprotocol/protocolVersion": REVISION,
        "io.modelcontextprotocol/clientInfo": {"name": "queue_worker.py", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": name, "arguments": arguments, "_meta": meta}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": REVISION,
        "Mcp-Method": "tools/call",
        "Mcp-Name": name,
    }
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        answer = json.load(response)
    if "error" in answer:
        raise SystemExit(f"{tool}: {answer['error']}")
    return answer["result"]["structuredContent"]


def say(what: str, told: dict) -> None:
    print(json.dumps({"what": what, "told": told}), flush=True)


def main() -> None:
    url, worker, lease_s = sys.argv[1], sys.argv[2], int(sys.argv[3])
    wanted = {"worker_id": worker, "lease_s": lease_s, "wait_s": 30}
    claimed = call(url, "claim", wanted)
    say("claim", claimed)
    task = claimed["tasks"][0]
    proof = {"worker_id": worker, "task_id": task["task_id"], "fence": task["fence"]}
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT_S):
            say("heartbeat", call(url, "heartbeat", proof))

    beating = threading.Thread(target=beat)
    beating.start()
    for line in sys.stdin:
        result = {"said": line.strip()}
        say("complete", call(url, "complete", {**proof, "status": "completed", "result": result}))
    over.set()
    beating.join()


if __name__ == "__main__":
    main()
