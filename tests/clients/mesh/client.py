"""Talks to an MCP++ peer as existing Python nodes do, and prints what came back as JSON lines.

    client.py [OPTION]... ADDRESS list
    client.py [OPTION]... ADDRESS call NAME [ARGUMENTS] [--times N] [--streams one|each|fresh]
    client.py [OPTION]... ADDRESS script <STEPS

ADDRESS is a multiaddr that ends in /p2p/PEER_ID. Three dialects share the protocol: --dialect a
opens a session with `initialize`, b sends one envelope a stream, c is 2026-07-28 without session.

A script is one JSON object a line, each a step. {"frame": MESSAGE} sends a frame and {"hex": BYTES}
sends bytes as they are, both as often as "times" with "pause_s" after each; {"sleep_s": N} waits;
{"close": true} ends our half. What the peer sends is printed when it comes, until it ends the
stream or has been silent for --wait after the last step. {"next": true} begins another stream.

Printed are {"answer": MESSAGE} for each frame of the peer and, last, {"ended": HOW}: `done` when
this side was satisfied, `eof` or `reset` when the peer ended the stream, `frame_too_large` when it
sent more than we read, `silent` when it did none of this; for a script once for each stream. A
conversation that could not begin is {"failure": REASON}, and status 1.

Run it with the interpreter that tests/fetch.sh made: target/test-packages/python-mesh/bin/python.
"""

import argparse
import json
import math
import sys
import time
from typing import Any, NoReturn

import trio
from libp2p.abc import IHost, INetStream
from libp2p.peer.id import ID

import join
import wire

MODERN = "2026-07-28"
META = "io.modelcontextprotocol/"
CLIENT = {"name": "toolmesh-tests", "version": "1"}
PROFILE = "mcp++/p2p-transport"
PATIENCE_S = 60
ENDS = {
    EOFError: "eof",
    ConnectionResetError: "reset",
    wire.FrameTooLarge: "frame_too_large",
    TimeoutError: "silent",
    trio.TooSlowError: "silent",
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Talks to an MCP++ peer as Python nodes do.")
    parser.add_argument("--dialect", choices="abc", default="a")
    parser.add_argument("--key", choices=wire.KEYS, default="ed25519")
    parser.add_argument("--seed", help="always the same identity; a fresh one without")
    parser.add_argument("--max-frame", type=int, default=wire.MIB, metavar="BYTES")
    parser.add_argument("--wait", type=float, default=2, metavar="S", help="ends a script")
    key = parser.add_mutually_exclusive_group()
    key.add_argument("--join-secret", metavar="HEX", help="join first, with the mesh secret")
    key.add_argument("--join-invite", metavar="LINE", help="join first, with an invite")
    parser.add_argument("address")
    what = parser.add_subparsers(dest="what", required=True)
    what.add_parser("list")
    what.add_parser("script")
    call = what.add_parser("call")
    call.add_argument("name")
    call.add_argument("arguments", type=json.loads, nargs="?", default={})
    call.add_argument("--times", type=int, default=1)
    call.add_argument(
        "--streams",
        choices=["one", "each", "fresh"],
        default="one",
        help="all calls on one stream, one stream each, or one identity each",
    )
    return parser.parse_args()


def say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


class Conversation:
    """One stream, one dialect, and what came of it."""

    def __init__(self, stream: INetStream, options: argparse.Namespace) -> None:
        self.stream = stream
        self.dialect = options.dialect
        self.max_frame = options.max_frame
        self.last_id = 0

    async def begin(self) -> None:
        """Opens the session, where the dialect has one."""
        if self.dialect == "a":
            await self.ask("initialize", {"clientInfo": CLIENT, "profiles": [PROFILE]})

    async def ask(self, method: str, params: dict[str, Any]) -> Any:
        """Sends a request and waits for its answer."""
        self.last_id += 1
        await wire.write(self.stream, wire.encode(self._request(method, params)))
        return await self.answer()

    async def answer(self) -> Any:
        """Waits for the peer's next frame and prints it."""
        message = json.loads(await wire.read_frame(self.stream, self.max_frame))
        say({"answer": message})
        return message

    def _request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        if self.dialect == "b":
            if method == "tools/call":
                method, params = params["name"], params["arguments"]
            now = time.time()
            envelope = {"type": "request", "method": method, "params": params}
            return envelope | {"id": f"{method}_{now}", "sender": "self-asserted", "timestamp": now}
        if self.dialect == "c":
            meta = {"protocolVersion": MODERN, "clientInfo": CLIENT, "clientCapabilities": {}}
            params = params | {"_meta": {META + key: value for key, value in meta.items()}}
        return {"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params}


class Asker:
    """What is asked of a peer, over streams of one host."""

    def __init__(self, host: IHost, peer: ID, options: argparse.Namespace) -> None:
        self.host = host
        self.peer = peer
        self.options = options

    async def ask(self, method: str, params: dict[str, Any], times: int = 1) -> None:
        """Asks the same on one stream, and ends it."""
        talk = Conversation(await self._stream(), self.options)
        await talk.begin()
        for _ in range(times):
            await talk.ask(method, params)
        await talk.stream.close()

    async def call(self) -> None:
        """Calls the tool on one stream, or each time on another; dialect b knows only this."""
        params = {"name": self.options.name, "arguments": self.options.arguments}
        times = 1 if self.options.streams == "fresh" else self.options.times
        if self.options.streams == "one" and self.options.dialect != "b":
            return await self.ask("tools/call", params, times)
        for _ in range(times):
            await self.ask("tools/call", params)

    async def script(self) -> None:
        """Does what stdin says, on as many streams as it says."""
        parts: list[list[dict[str, Any]]] = [[]]
        for line in sys.stdin:
            step = json.loads(line)
            parts.append([]) if "next" in step else parts[-1].append(step)
        for steps in parts:
            talk = Conversation(await self._stream(), self.options)
            try:
                await self._play(talk, steps)
            except Exception as error:
                say({"ended": how_ended(error)})

    async def _play(self, talk: Conversation, steps: list[dict[str, Any]]) -> NoReturn:
        """Takes the steps while printing what comes, until the peer ends it or is silent."""
        with trio.CancelScope() as silence:

            async def speak() -> None:
                for step in steps:
                    await take(talk.stream, step)
                silence.deadline = trio.current_time() + self.options.wait

            async with trio.open_nursery() as nursery:
                nursery.start_soon(speak)
                while True:
                    await talk.answer()
                    if silence.deadline < math.inf:
                        silence.deadline = trio.current_time() + self.options.wait
        raise TimeoutError

    async def _stream(self) -> INetStream:
        return await self.host.new_stream(self.peer, [wire.PROTOCOL])


async def take(stream: INetStream, step: dict[str, Any]) -> None:
    """Takes one step of a script."""
    if "sleep_s" in step:
        return await trio.sleep(step["sleep_s"])
    if "close" in step:
        return await stream.close()  # One half of it: what the peer sends is still read.
    data = wire.encode(step["frame"]) if "frame" in step else bytes.fromhex(step["hex"])
    for _ in range(step.get("times", 1)):
        await wire.write(stream, data)
        await trio.sleep(step.get("pause_s", 0))


async def once(options: argparse.Namespace) -> None:
    """Connects, joins if told to, and does what was asked."""
    keys = wire.identity(options.key, options.seed)
    async with wire.dialed(options.address, keys) as (host, peer):
        if options.join_secret:
            key = join.Key(bytes.fromhex(options.join_secret))
            say({"joined": await join.join(host, peer, key, "python")})
        elif options.join_invite:
            key = join.Key.of_invite(options.join_invite)
            say({"joined": await join.join(host, peer, key, "python")})
        asker = Asker(host, peer, options)
        match options.what:
            case "list":
                await asker.ask("tools/list", {})
            case "call":
                await asker.call()
            case "script":
                await asker.script()


async def converse(options: argparse.Namespace) -> None:
    """Holds the whole conversation, with as many identities as it takes."""
    fresh = options.what == "call" and options.streams == "fresh"
    for _ in range(options.times if fresh else 1):
        with trio.fail_after(PATIENCE_S):
            await once(options)


def how_ended(error: BaseException) -> str:
    """Tells in a word how a stream ended. Raises `error` if that is no end of a stream."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    for kind, how in ENDS.items():
        if isinstance(error, kind):
            return how
    raise error


def outcome(options: argparse.Namespace) -> str:
    """Holds the conversation; returns how it ended."""
    try:
        trio.run(converse, options)
    except Exception as error:
        return how_ended(error)
    return "done"


def main() -> int:
    options = arguments()
    try:
        ended = outcome(options)
    except Exception as error:
        say({"failure": f"{type(error).__name__}: {error}"})
        return 1
    if options.what != "script":
        say({"ended": ended})
    return 0


if __name__ == "__main__":
    sys.exit(main())
