"""Asks a node's task queue as existing Python nodes do: with another identity in every call.

    task_queue.py ADDRESS rpc <REQUESTS
    task_queue.py ADDRESS work TYPE [--token TOKEN] [--worker NAME] [--tasks N]

`rpc` reads one object a line, calls `task_queue.rpc` with it over a fresh host and stream, and
prints what `content` holds. `work` is the loop of a worker: it claims a task, ends it with its
payload in capitals, and stops after N tasks. Workers of that kind have no fence and no heartbeat.

Run it with the interpreter that tests/fetch.sh made: target/test-packages/python-mesh/bin/python.
"""

import argparse
import json
import sys
from typing import Any

import trio

import wire

PATIENCE_S = 60
POLL_S = 0.2


async def call(address: str, request: dict[str, Any]) -> dict[str, Any]:
    """Asks once, as dialect A has it. Raises `ValueError` where the answer is no object."""
    with trio.fail_after(PATIENCE_S):
        async with wire.dialed(address, wire.identity()) as (host, peer):
            stream = await host.new_stream(peer, [wire.PROTOCOL])
            client = {"clientInfo": {"name": "toolmesh-tests", "version": "1"}}
            await ask(stream, 1, "initialize", client | {"profiles": ["mcp++/p2p-transport"]})
            params = {"name": "task_queue.rpc", "arguments": request}
            answer = await ask(stream, 2, "tools/call", params)
            await stream.close()
    content = answer.get("result", {}).get("content")
    if not isinstance(content, dict):
        raise ValueError(f"invalid_mcp_response: {answer}")
    return content


async def ask(stream: Any, number: int, method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Sends a request and returns what answers it."""
    request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    await wire.write(stream, wire.encode(request))
    return json.loads(await wire.read_frame(stream, wire.MIB))


def say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


async def rpc(address: str) -> None:
    """Asks what stdin says, one after the other."""
    lines = trio.wrap_file(sys.stdin)
    async for line in lines:
        try:
            say(await call(address, json.loads(line)))
        except ValueError as error:
            say({"failure": str(error)})


async def work(options: argparse.Namespace) -> None:
    """Runs tasks of a type until there were enough."""
    about = {"worker_id": options.worker, "supported_task_types": [options.type]}
    token = {"token": options.token} if options.token else {}
    left = options.tasks
    while left:
        claimed = await call(options.address, {"op": "claim", **about, **token})
        task = claimed.get("task")
        if not task:
            await trio.sleep(POLL_S)
            continue
        done = {"op": "complete", "task_id": task["task_id"], "status": "completed"}
        result = {"text": str(task["payload"].get("prompt", "")).upper()}
        say(await call(options.address, {**done, "result": result, **token}))
        left -= 1


def main() -> None:
    parser = argparse.ArgumentParser(description="Asks a node's task queue as Python nodes do.")
    parser.add_argument("address")
    what = parser.add_subparsers(dest="what", required=True)
    what.add_parser("rpc")
    worker = what.add_parser("work")
    worker.add_argument("type")
    worker.add_argument("--token")
    worker.add_argument("--worker", default="python-worker")
    worker.add_argument("--tasks", type=int, default=1)
    options = parser.parse_args()
    if options.what == "rpc":
        trio.run(rpc, options.address)
    else:
        trio.run(work, options)


if __name__ == "__main__":
    main()
