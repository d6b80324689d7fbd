"""Joins a toolmesh node as a member: the exchange of `/toolmesh/join/1.0.0`, on the dialer's side.

Existing Python peers do not speak it. The tests do, to become members with an identity of theirs.
"""

import base64
import hashlib
import hmac
import json
import os
from dataclasses import dataclass
from typing import Any

from libp2p.abc import IHost
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID

import wire

PROTOCOL = TProtocol("/toolmesh/join/1.0.0")
MESSAGE_BYTES = 1024
INVITE_PREFIX = "tminvite1_"


@dataclass
class Key:
    """The mesh secret, or the code of an invite with its id."""

    secret: bytes
    invite_id: str | None = None

    @staticmethod
    def of_invite(line: str) -> "Key":
        """Reads the line that `toolmesh peer invite` prints."""
        text = line.strip().removeprefix(INVITE_PREFIX)
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        if hashlib.sha256(data[:-4]).digest()[:4] != data[-4:]:
            raise ValueError("the invite is damaged")
        return Key(secret=data[16:48], invite_id=data[:16].hex())

    def proof(self, role: str, dialer: ID, listener: ID, nonces: tuple[bytes, bytes]) -> bytes:
        use = "invite" if self.invite_id else "secret"
        texts = [PROTOCOL, role, use, self.invite_id or ""]
        fields = [text.encode() for text in texts]
        mac = hmac.new(self.secret, digestmod=hashlib.sha256)
        for field in [*fields, dialer.to_bytes(), listener.to_bytes(), *nonces]:
            mac.update(len(field).to_bytes(8, "big") + field)
        return mac.digest()


class Refused(Exception):
    """The node refused, or could not prove that it belongs to the mesh itself."""


async def join(host: IHost, node: ID, key: Key, name: str) -> dict[str, Any]:
    """Makes this host a member of `node`'s mesh; returns what the node says of itself."""
    stream = await host.new_stream(node, [PROTOCOL])

    async def answer() -> dict[str, Any]:
        message = json.loads(await wire.read_frame(stream, MESSAGE_BYTES))
        if message.get("refused"):
            raise Refused(json.dumps(message))
        return message

    ours = os.urandom(32)
    hello = {"v": 1, "nonce": ours.hex()} | ({"invite": key.invite_id} if key.invite_id else {})
    await wire.write(stream, wire.encode(hello))
    nonces = (ours, bytes.fromhex((await answer())["nonce"]))
    proof = key.proof("dialer", host.get_id(), node, nonces)
    await wire.write(stream, wire.encode({"proof": proof.hex()}))
    welcome = await answer()
    expected = key.proof("listener", host.get_id(), node, nonces)
    if not hmac.compare_digest(bytes.fromhex(welcome["proof"]), expected):
        raise Refused("the node could not prove that it belongs to the mesh")
    await wire.write(stream, wire.encode({"name": name, "addresses": []}))
    await stream.close()
    return welcome
