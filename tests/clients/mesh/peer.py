"""A small MCP++ peer with tools, as existing Python nodes are one: what a node of ours calls.

    peer.py [--dialect a|b] [--key ed25519|secp256k1] [--seed TEXT] [--listen ADDRESS]
            [--max-frames N] [--queue [--token TEXT] [--lease SECONDS] [--lose N]]

Dialect a is the JSON-RPC session of the task queue service, b the envelope of `MCPp2pNode`. It
With --queue it
has the tool `task_queue.rpc` beside its others: see service.py. It prints `peer_id=ID` and `multiaddr=ADDRESS` as that service does, serves until its stdin ends, and
then prints what it has seen as one JSON document: {"streams": n, "frames": n, "calls": {TOOL: n}}.

Run it with the interpreter that tests/fetch.sh made: target/test-packages/python-mesh/bin/python.
"""

import argparse
import contextlib
import inspect
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import libp2p
import multiaddr
import trio
from libp2p.abc import INetStream

import service
import wire

INBOUND_BYTES = {"a": wire.MIB, "b": 16 * wire.MIB}
BIG_BYTES = wire.MIB + wire.MIB // 5
TOOL_TIME_S = 30
FRAME_TIME_S = 10
STREAMS_AT_ONCE = 50


async def echo(text: str) -> dict[str, Any]:
    """Returns what it was given."""
    return {"text": text}


async def add(a: float, b: float) -> float:
    """Adds two numbers; what it returns is no object."""
    return a + b


async def slow(seconds: float) -> dict[str, Any]:
    """Returns after some time."""
    await trio.sleep(seconds)
    return {"slept_s": seconds}


async def fail() -> None:
    """Always fails."""
    raise RuntimeError("it fails, as it says")


async def big(size: int = BIG_BYTES) -> dict[str, Any]:
    """Returns 1.2 MiB of text, or as much as it is told to."""
    return {"text": "x" * size}


TOOLS: dict[str, Callable[..., Awaitable[Any]]] = {
    tool.__name__: tool for tool in (add, big, echo, fail, slow)
}
JSON_TYPES = {str: "string", float: "number", int: "integer"}


def listed() -> list[dict[str, Any]]:
    """The tools as `tools/list` shows them."""
    return [described(name) for name in sorted(TOOLS)]


def described(name: str) -> dict[str, Any]:
    tool = TOOLS[name]
    parameters = inspect.signature(tool).parameters.values()
    named = [each for each in parameters if each.kind is not each.VAR_KEYWORD]
    schema = {
        "type": "object",
        "properties": {each.name: {"type": JSON_TYPES[each.annotation]} for each in named},
        "required": [each.name for each in named if each.default is each.empty],
    }
    return {"name": name, "description": inspect.getdoc(tool), "inputSchema": schema}


class RpcError(Exception):
    """An answer of dialect a that is an error; `fatal` ones end the stream."""

    def __init__(self, code: int, message: str, fatal: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.fatal = fatal


class Peer:
    """Serves streams of one dialect and counts."""

    def __init__(self, dialect: str, max_frames: int) -> None:
        self.dialect = dialect
        self.max_frames = max_frames
        self.peer_id = ""
        self.open_streams = 0
        self.streams = 0
        self.frames = 0
        self.calls: Counter[str] = Counter()

    async def serve(self, stream: INetStream) -> None:
        """Serves one stream to its end."""
        self.streams += 1
        self.open_streams += 1
        with contextlib.suppress(EOFError, ConnectionResetError):
            await (self.session(stream) if self.dialect == "a" else self.exchange(stream))
        self.open_streams -= 1
        await stream.close()

    async def read(self, stream: INetStream) -> bytes:
        frame = await wire.read_frame(stream, INBOUND_BYTES[self.dialect])
        self.frames += 1
        return frame

    async def run(self, name: str, arguments: dict[str, Any]) -> Any:
        self.calls[name] += 1
        return await TOOLS[name](**arguments)

    async def session(self, stream: INetStream) -> None:
        """Dialect a: requests one after the other, until one is fatal."""
        frames, initialized = 0, False
        while True:
            message: dict[str, Any] = {}
            try:
                message = await self.request(stream)
                frames += 1
                if frames > self.max_frames:
                    raise RpcError(-32010, "rate_limited", fatal=True)
                if message.get("jsonrpc") != "2.0":
                    raise RpcError(-32600, "invalid_jsonrpc", fatal=True)
                if "id" not in message:
                    continue
                if message.get("method") == "initialize" and not initialized:
                    initialized, outcome = True, {"result": self.introduction()}
                elif initialized:
                    outcome = {"result": await self.answer(message)}
                else:
                    raise RpcError(-32000, "init_required", fatal=True)
            except RpcError as error:
                outcome = {"error": {"code": error.code, "message": error.message}}
                if error.fatal:
                    return await self.reply(stream, message, outcome)
            await self.reply(stream, message, outcome)

    async def request(self, stream: INetStream) -> dict[str, Any]:
        """The next frame as an object."""
        try:
            message = json.loads(await self.read(stream))
        except wire.FrameTooLarge:
            raise RpcError(-32003, "frame_too_large", fatal=True) from None
        except ValueError:
            raise RpcError(-32003, "invalid_json", fatal=True) from None
        if not isinstance(message, dict):
            raise RpcError(-32003, "invalid_message", fatal=True)
        return message

    async def reply(
        self, stream: INetStream, message: dict[str, Any], outcome: dict[str, Any]
    ) -> None:
        await wire.write(stream, wire.encode({"jsonrpc": "2.0", "id": message.get("id")} | outcome))

    async def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """What a request of an open session is answered with."""
        params = message.get("params", {})
        if not isinstance(params, dict):
            raise RpcError(-32602, "invalid_params")
        match message.get("method"):
            case "tools/list" | "tools.list":
                return {"tools": listed()}
            case "tools/call" | "tools.call":
                # The tool's own value, not the content blocks of MCP.
                return {"content": await self.called(params)}
            case _:
                raise RpcError(-32601, "method_not_found")

    async def called(self, params: dict[str, Any]) -> Any:
        name, arguments = params.get("name"), params.get("arguments", {})
        if not isinstance(arguments, dict):
            raise RpcError(-32002, "invalid_params")
        if name not in TOOLS:
            raise RpcError(-32002, "unknown_tool")
        try:
            return await self.run(name, arguments)
        except ConnectionError:
            raise
        except Exception:
            raise RpcError(-32002, "tool_error") from None

    def introduction(self) -> dict[str, Any]:
        """The result of `initialize`."""
        profiles = ["mcp++/p2p-transport", "mcp++/profile-e-mcp-p2p"]
        return {
            "ok": True,
            "protocolVersion": "2024-11-05",
            "serverInfo": {"name": "ipfs-accelerate-mcppp", "version": "1.0.0"},
            "capabilities": {"tools": {"listChanged": True}, "mcpPlusPlusProfiles": profiles},
            "transport": wire.PROTOCOL,
            "server": {"peer_id": self.peer_id},
            "active_profile": profiles[0],
            "limits": {"max_frame_bytes": wire.MIB, "max_frames": self.max_frames},
        }

    async def exchange(self, stream: INetStream) -> None:
        """Dialect b: one request, one response, whatever the frame asks for."""
        try:
            with trio.fail_after(FRAME_TIME_S):
                message = json.loads(await self.read(stream))
        except (ValueError, wire.FrameTooLarge, trio.TooSlowError):
            return
        response: dict[str, Any] = {"type": "response", "result": None, "error": None}
        response |= await self.outcome(message)
        response |= {"method": message.get("method"), "id": message.get("id")}
        response |= {"sender": self.peer_id, "timestamp": time.time()}
        await wire.write(stream, wire.encode(response))

    async def outcome(self, message: dict[str, Any]) -> dict[str, Any]:
        name = message.get("method")
        if self.open_streams > STREAMS_AT_ONCE:
            return {"error": "Server overloaded (backpressure)"}
        if name == "tools/list":
            return {"result": {"tools": listed()}}
        if name not in TOOLS:
            return {"error": f"Unknown tool: {name}"}
        try:
            with trio.fail_after(TOOL_TIME_S):
                return {"result": await self.run(name, message.get("params") or {})}
        except trio.TooSlowError:
            return {"error": f"Tool execution timeout ({TOOL_TIME_S}s)"}
        except Exception as error:
            return {"error": str(error)}


async def serve(options: argparse.Namespace) -> None:
    peer = Peer(options.dialect, options.max_frames)
    queue = service.Queue(options.token, options.lease, options.lose)
    if options.queue:
        TOOLS[service.TOOL] = queue.rpc
    host = libp2p.new_host(key_pair=wire.identity(options.key, options.seed))
    host.set_stream_handler(wire.PROTOCOL, peer.serve)
    async with host.run(listen_addrs=[multiaddr.Multiaddr(options.listen)]):
        peer.peer_id = queue.peer_id = str(host.get_id())
        print(f"peer_id={peer.peer_id}")
        print(f"multiaddr={host.get_addrs()[0]}", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        counts = {"streams": peer.streams, "frames": peer.frames, "calls": peer.calls}
        print(json.dumps(counts), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A small MCP++ peer with tools.")
    parser.add_argument("--dialect", choices="ab", default="a")
    parser.add_argument("--key", choices=wire.KEYS, default="ed25519")
    parser.add_argument("--seed", help="always the same identity; a fresh one without")
    parser.add_argument("--listen", default="/ip4/127.0.0.1/tcp/0", metavar="ADDRESS")
    parser.add_argument("--max-frames", type=int, default=128, help="frames of a session")
    parser.add_argument("--queue", action="store_true", help="has a task queue")
    parser.add_argument("--token", help="what the task queue asks for")
    parser.add_argument("--lease", type=float, default=300, help="seconds that a lease holds")
    parser.add_argument("--lose", type=int, default=0, help="answers to `submit` that are lost")
    return parser.parse_args()


if __name__ == "__main__":
    trio.run(serve, arguments())
