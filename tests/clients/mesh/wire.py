"""What the Python programs of the mesh share: identities, hosts and frames, on py-libp2p.

A frame is a length of four bytes, big-endian, and as many bytes of JSON.
"""

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import libp2p
import multiaddr
from libp2p.abc import IHost, INetStream
from libp2p.crypto import ed25519, secp256k1
from libp2p.crypto.keys import KeyPair
from libp2p.custom_types import TProtocol
from libp2p.network.stream.exceptions import StreamClosed, StreamEOF, StreamReset
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr

PROTOCOL = TProtocol("/mcp+p2p/1.0.0")
MIB = 1024 * 1024
HEADER_BYTES = 4
KEYS = {"ed25519": ed25519.create_new_key_pair, "secp256k1": secp256k1.create_new_key_pair}


class FrameTooLarge(Exception):
    """The peer announced a frame larger than this side reads."""


def identity(kind: str = "ed25519", seed: str | None = None) -> KeyPair:
    """Makes a fresh identity, or always the same one of `seed`."""
    return KEYS[kind](hashlib.sha256(seed.encode()).digest() if seed is not None else None)


@asynccontextmanager
async def dialed(address: str, keys: KeyPair) -> AsyncIterator[tuple[IHost, ID]]:
    """A host of its own that is connected to the peer at `address`, which ends in its PeerId."""
    peer = info_from_p2p_addr(multiaddr.Multiaddr(address))
    host = libp2p.new_host(key_pair=keys)
    async with host.run(listen_addrs=[]):
        await host.connect(peer)
        yield host, peer.peer_id


def encode(message: Any) -> bytes:
    """The frame of `message`, written as the Python nodes write theirs."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return len(body).to_bytes(HEADER_BYTES, "big") + body


async def read_frame(stream: INetStream, max_bytes: int) -> bytes:
    """The next frame's bytes. Raises `EOFError` when the stream ends, in a frame or before one, and
    `ConnectionResetError` when the peer broke it."""
    length = int.from_bytes(await _exactly(stream, HEADER_BYTES), "big")
    if length > max_bytes:
        raise FrameTooLarge(f"{length} bytes announced, {max_bytes} read")
    return await _exactly(stream, length)


async def write(stream: INetStream, data: bytes) -> None:
    """Writes all of `data`. Raises `ConnectionResetError` when the peer does not take it."""
    try:
        await stream.write(data)
    except (StreamReset, StreamClosed) as error:
        raise ConnectionResetError from error


async def _exactly(stream: INetStream, length: int) -> bytes:
    read = bytearray()
    while len(read) < length:
        try:
            part = await stream.read(length - len(read))
        except StreamReset as error:
            raise ConnectionResetError from error
        except StreamEOF as error:
            raise EOFError from error
        if not part:
            raise EOFError
        read += part
    return bytes(read)
