"""Calls an MCP server with the official Python SDK and prints what it saw as one JSON document.

    sdk_client.py [--legacy | --modern] [--header 'NAME: VALUE']... [--call NAME [--arguments JSON]]
                  [--progress] [--answer JSON] [--lines] (--url URL | -- COMMAND ARGUMENT...)

Without --legacy (an `initialize` handshake) or --modern (`server/discover`, 2026-07-28) the SDK
negotiates by itself. Run it with the interpreter that tests/fetch.sh made:
target/test-packages/python/bin/python. With --lines it goes on in the same session: each line of stdin
is a call, {"name": NAME, "arguments": {...}}, and a line of stdout says what came of it. A call that the server refuses is part of the document
(`error`) and no failure; a session that cannot be opened is one, and ends with status 1.
"""

import argparse
import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack
from importlib.metadata import version

import httpx2
import mcp_types as types
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

MODERN = "2026-07-28"
TIMEOUT_S = 60


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Calls an MCP server with the official Python SDK.")
    lifecycle = parser.add_mutually_exclusive_group()
    lifecycle.add_argument("--legacy", action="store_true", help="open a session with `initialize`")
    lifecycle.add_argument("--modern", action="store_true", help=f"insist on {MODERN}")
    parser.add_argument("--url", help="Streamable HTTP endpoint")
    parser.add_argument("--header", action="append", default=[], metavar="NAME: VALUE")
    parser.add_argument("--call", metavar="NAME", help="call this tool")
    parser.add_argument("--arguments", type=json.loads, default={}, metavar="JSON")
    parser.add_argument("--progress", action="store_true", help="ask for progress and record it")
    parser.add_argument("--lines", action="store_true", help="then make the calls of stdin")
    parser.add_argument("--answer", type=json.loads, help="accept every elicitation with this")
    parser.add_argument("command", nargs="*", help="stdio server, after --")
    parsed = parser.parse_args()
    if bool(parsed.url) == bool(parsed.command):
        parser.error("give either --url or -- COMMAND")
    return parsed


def dump(model) -> dict:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


async def client_for(options: argparse.Namespace, stack: AsyncExitStack) -> Client:
    if options.url:
        headers = dict(header.split(": ", 1) for header in options.header)
        http = await stack.enter_async_context(
            httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(TIMEOUT_S))
        )
        transport = streamable_http_client(options.url, http_client=http)
    else:
        command, *rest = options.command
        transport = stdio_client(
            StdioServerParameters(command=command, args=rest, env=dict(os.environ))
        )

    async def answer(_context, _params) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content=options.answer)

    return await stack.enter_async_context(
        Client(
            transport,
            mode="legacy" if options.legacy else "auto",
            elicitation_callback=answer if options.answer is not None else None,
            read_timeout_seconds=TIMEOUT_S,
        )
    )


async def all_tools(client: Client) -> list[dict]:
    tools, cursor = [], None
    while True:
        page = await client.list_tools(cursor=cursor)
        tools.extend(dump(tool) for tool in page.tools)
        cursor = page.next_cursor
        if cursor is None:
            return tools


async def call(client: Client, options: argparse.Namespace) -> dict:
    progress = []

    async def record(done: float, total: float | None, message: str | None) -> None:
        progress.append({"progress": done, "total": total, "message": message})

    try:
        result = await client.call_tool(
            options.call,
            options.arguments,
            progress_callback=record if options.progress else None,
        )
        seen = {"result": dump(result)}
    except MCPError as error:
        seen = {"error": {"code": error.code, "message": error.message}}
    return seen | ({"progress": progress} if options.progress else {})


async def look(options: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        client = await client_for(options, stack)
        if options.modern and client.protocol_version != MODERN:
            raise RuntimeError(f"the server speaks {client.protocol_version}, not {MODERN}")
        server = client.server_info
        seen = {
            "sdk": {"package": "mcp", "version": version("mcp")},
            "protocolVersion": client.protocol_version,
            "server": dump(server) if server else None,
            "tools": await all_tools(client),
        }
        seen |= await call(client, options) if options.call else {}
        print(json.dumps(seen), flush=True)
        while options.lines and (line := await asyncio.to_thread(sys.stdin.readline)):
            asked = json.loads(line)
            options.call, options.arguments = asked["name"], asked["arguments"]
            print(json.dumps(await call(client, options)), flush=True)


def main() -> int:
    options = arguments()
    try:
        asyncio.run(look(options))
    except Exception as error:
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        print(json.dumps({"failure": f"{type(error).__name__}: {error}"}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
