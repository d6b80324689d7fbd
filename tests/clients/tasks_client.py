"""Calls a tool with the official Python SDK as a client of the extension io.modelcontextprotocol/tasks
(2026-07-28), and prints what came of it as one JSON document.

    tasks_client.py URL TOOL [ARGUMENTS]

If the call becomes a task it is asked for until it has ended, and whatever it asks is accepted with
`true`. `statuses` lists how the task stood, each once in a row. Run it with the interpreter that
tests/fetch.sh made.
"""

import asyncio
import json
import sys
from typing import Any, Literal

import mcp_types as types
from mcp import Client
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from pydantic import ConfigDict, Field

TIMEOUT_S = 60


class Created(types.Result):
    """The answer to a call that became a task."""

    model_config = ConfigDict(extra="allow")

    result_type: Literal["task"] = Field(alias="resultType")
    task_id: str = Field(alias="taskId")
    status: str


class Shown(types.Result):
    """A task, or an acknowledgement."""

    model_config = ConfigDict(extra="allow")


class Get(types.Request[dict[str, Any], Literal["tasks/get"]]):
    method: Literal["tasks/get"] = "tasks/get"
    name_param = "taskId"


class Update(types.Request[dict[str, Any], Literal["tasks/update"]]):
    method: Literal["tasks/update"] = "tasks/update"
    name_param = "taskId"


class Tasks(ClientExtension):
    identifier = "io.modelcontextprotocol/tasks"

    def __init__(self) -> None:
        self.statuses: list[str] = []

    def claims(self) -> list[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=Created, resolve=self.resolve)]

    def saw(self, status: str) -> None:
        if self.statuses[-1:] != [status]:
            self.statuses.append(status)

    async def resolve(self, created: Created, context: ClaimContext) -> types.CallToolResult:
        self.saw(created.status)
        params = {"taskId": created.task_id}
        answered: set[str] = set()
        while True:
            shown = await context.session.send_request(Get(params=params), Shown)
            task = shown.model_dump(by_alias=True)
            self.saw(task["status"])
            if task["status"] == "completed":
                return types.CallToolResult.model_validate(task["result"])
            if task["status"] in ("failed", "cancelled"):
                raise RuntimeError(f"the task is {task}")
            responses = {}
            for key, request in task.get("inputRequests", {}).items():
                if key not in answered:
                    fields = request["params"]["requestedSchema"]["properties"]
                    content = dict.fromkeys(fields, True)
                    responses[key] = {"action": "accept", "content": content}
            if responses:
                answered |= responses.keys()
                await context.session.send_request(
                    Update(params={**params, "inputResponses": responses}), Shown
                )
            await asyncio.sleep(task["pollIntervalMs"] / 1000)


async def main() -> None:
    url, tool, *rest = sys.argv[1:]
    tasks = Tasks()
    async with Client(url, extensions=[tasks], read_timeout_seconds=TIMEOUT_S) as client:
        result = await client.call_tool(tool, json.loads(rest[0]) if rest else {})
    seen = result.model_dump(mode="json", by_alias=True, exclude_none=True)
    print(json.dumps({"result": seen, "statuses": tasks.statuses}))


asyncio.run(main())
