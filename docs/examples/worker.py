"""A worker in Python: runs tasks of the type `demo.sum`, each with a lease that it keeps.

    worker.py [--url http://127.0.0.1:7332/mcp] [--token TOKEN] [--name NAME]

    toolmesh task submit demo.sum '{"numbers": [1, 2, 3], "pause_s": 0.5}' --wait

Needs the official SDK: pip install mcp. Replace `TYPE` and `work` by what you want done.
"""

import argparse
import asyncio

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

TYPE = "demo.sum"
BEAT_S = 1.0  # Often enough for the lease, and how soon a cancellation is noticed.

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--url", default="http://127.0.0.1:7332/mcp")
parser.add_argument("--token", help="of a client; not needed on the node's own machine")
parser.add_argument("--name", default="python-1", help="no two workers may share one")
options = parser.parse_args()


class Refused(Exception):
    """The queue said no, and will say no again."""


async def work(payload, report):
    """The work itself. What blocks belongs into `asyncio.to_thread`, or the lease is not kept."""
    total = 0
    for done, number in enumerate(payload["numbers"], 1):
        await asyncio.sleep(payload.get("pause_s", 0))
        total += number
        report({"progress": done, "total": len(payload["numbers"])}, f"added {number}")
    return {"sum": total}


async def ask(tool, **arguments):
    """Asks until there is an answer, over a restart of the node too: asking twice does no harm."""
    headers = {"Authorization": f"Bearer {options.token}"} if options.token else {}
    while True:
        try:
            # Each request stands alone, so there is no session that a restart could end.
            async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
                transport = streamable_http_client(options.url, http_client=http)
                async with Client(transport, mode="2026-07-28") as client:
                    result = await client.call_tool(f"p2p_taskqueue_{tool}", arguments)
        except Exception as error:
            print(f"no answer, asking again: {error!r}", flush=True)
            await asyncio.sleep(1)
            continue
        if not result.is_error:
            return result.structured_content
        error = result.structured_content["error"]
        if not error["retryable"]:
            raise Refused(error["message"])
        await asyncio.sleep(error.get("retry_after_ms", 1_000) / 1_000)


async def run(task):
    """Runs one task and tells how it ended."""
    mine = {"worker_id": options.name, "task_id": task["task_id"], "fence": task["fence"]}
    news = {}

    def report(progress, line):
        news.update(progress=progress, logs=[*news.get("logs", []), line][-200:])

    working = asyncio.create_task(work(task["payload"], report))
    try:
        while not (await asyncio.wait([working], timeout=BEAT_S))[0]:
            told, news = news, {}
            if (await ask("heartbeat", **mine, **told))["cancel_requested"]:
                working.cancel()
        if news:
            await ask("heartbeat", **mine, **news)
        if working.cancelled():
            await ask("complete", **mine, status="cancelled")
        elif error := working.exception():
            await ask("complete", **mine, status="failed", error=repr(error))
        else:
            await ask("complete", **mine, result=working.result())
    except Refused as why:  # It is another worker's by now, or was taken away.
        working.cancel()
        print(f"dropped {task['task_id']}: {why}", flush=True)


async def main():
    while True:
        got = await ask("claim", worker_id=options.name, task_types=[TYPE], wait_s=30)
        for task in got["tasks"]:
            await run(task)
        if got["draining"]:  # An operator wants it to rest: toolmesh worker resume NAME.
            await asyncio.sleep(BEAT_S)


asyncio.run(main())
