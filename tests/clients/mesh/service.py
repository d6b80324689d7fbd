"""The task queue of a Python node, in memory: its operations, aliases, defaults and errors as the
description of the wire has them. `peer.py --queue` serves it.

Not here: what a node of ours does not ask for (tools, cache, trust tiers, encryption, the owner of a
task by hash). Whatever needs no owner's word there needs none here: anybody ends any task.
"""

import time
import uuid
from typing import Any

import trio

TOOL = "task_queue.rpc"
FINAL = ("completed", "failed", "cancelled")
WAIT_S = 60
POLL_S = 0.05
ALIASES = {
    "claim_next": "claim",
    "task.complete": "complete",
    "complete_task": "complete",
    "task.release": "release",
    "release_task": "release",
    "peer.heartbeat": "heartbeat",
    "peer": "heartbeat",
    "tasks.list": "list",
    "queue.list": "list",
    "task.cancel": "cancel",
    "capabilities": "status",
    "describe": "status",
}

Row = dict[str, Any]
Request = dict[str, Any]


class Refused(Exception):
    """An answer that is `ok: false`, with its `error`."""


class Queue:
    """Tasks, and the peers that were heard of."""

    def __init__(self, token: str | None, lease_s: float, lose: int) -> None:
        self.token = token
        self.lease_s = lease_s
        self.lose = lose
        self.peer_id = ""
        self.rows: dict[str, Row] = {}
        self.peers: dict[str, Row] = {}

    async def rpc(self, **request: Any) -> Row:
        """Invoke a TaskQueue RPC operation over MCP++."""
        try:
            answer = {"ok": True} | await self.answer(request)
        except Refused as refused:
            answer = {"ok": False, "error": str(refused)}
        except Exception as error:
            answer = {"ok": False, "error": "internal_error", "detail": str(error)}
        if request.get("op") == "submit" and self.lose > 0:
            self.lose -= 1
            raise ConnectionResetError("the answer is lost")
        return answer | {"peer_id": self.peer_id}

    async def answer(self, request: Request) -> Row:
        if self.token is not None and request.get("token") != self.token:
            raise Refused("unauthorized")
        op = str(request.get("op") or "").strip().lower()
        match ALIASES.get(op, op):
            case "submit":
                return {"task_id": self.submit(request)}
            case "claim":
                return {"task": self.claim(request)}
            case "complete":
                return self.complete(request)
            case "release":
                return self.release(request)
            case "heartbeat":
                self.heard(request)
                return {"peer": request.get("peer"), "scheduler": {"known_peers": self.known()}}
            case "list":
                return {"tasks": self.listed(request)}
            case "cancel":
                return {"cancelled": self.cancel(request)}
            case "get":
                return {"task": self.rows.get(self.task_id(request))}
            case "wait":
                return {"task": await self.wait(request)}
            case "status":
                return self.status(request)
        raise Refused("unknown_op")

    def task_id(self, request: Request) -> str:
        if not request.get("task_id"):
            raise Refused("missing_task_id")
        return str(request["task_id"])

    def submit(self, request: Request) -> str:
        payload = request.get("payload")
        if not isinstance(payload, dict):
            payload = {"payload": payload}
        kind = str(request.get("task_type") or "text-generation")
        model, key = str(request.get("model_name") or ""), payload.get("idempotency_key")
        for row in self.rows.values():
            if key and row["idempotency_key"] == key:
                if (row["task_type"], row["model_name"], row["payload"]) != (kind, model, payload):
                    raise ValueError("the idempotency key stands for other work")
                return row["task_id"]
        now, task_id = time.time(), uuid.uuid4().hex
        self.rows[task_id] = {
            "task_id": task_id,
            "task_type": kind,
            "model_name": model,
            "payload": payload,
            "status": "queued",
            "assigned_worker": None,
            "created_at": now,
            "updated_at": now,
            "result": None,
            "error": None,
            "priority": int(payload.get("priority") or 5),
            "attempt": 0,
            "max_attempts": int(payload.get("max_attempts", 3)),
            "next_attempt_at": float(payload.get("next_attempt_at") or 0),
            "lease_until": None,
            "heartbeat_at": None,
            "idempotency_key": key,
        }
        return task_id

    def claim(self, request: Request) -> Row | None:
        worker = request.get("worker_id")
        if not worker:
            raise Refused("missing_worker_id")
        self.heard(request)
        self.recover()
        kinds = request.get("supported_task_types")
        waiting = [row for row in self.rows.values() if self.fits(row, kinds)]
        waiting.sort(key=lambda row: (-row["priority"], row["created_at"]))
        if not waiting:
            return None
        row = waiting[0]
        row["attempt"] += 1
        self.set(row, "running", worker, time.time() + self.lease_s)
        columns = ("task_id", "task_type", "model_name", "payload", "created_at", "status")
        return {key: row[key] for key in (*columns, "assigned_worker")}

    def fits(self, row: Row, kinds: list[str] | None) -> bool:
        left = row["max_attempts"] == 0 or row["attempt"] < row["max_attempts"]
        due = row["next_attempt_at"] <= time.time()
        return row["status"] == "queued" and left and due and (not kinds or row["task_type"] in kinds)

    def recover(self) -> None:
        """Puts tasks back in line whose lease is over."""
        for row in self.rows.values():
            if row["status"] == "running" and row["lease_until"] <= time.time():
                self.set(row, "queued", None, None)

    def set(self, row: Row, status: str, worker: str | None, lease_until: float | None) -> None:
        row |= {"status": status, "assigned_worker": worker, "lease_until": lease_until}
        row["updated_at"] = time.time()

    def complete(self, request: Request) -> Row:
        task_id = self.task_id(request)
        row = self.rows.get(task_id)
        if row is None:
            return {"ok": False, "task_id": task_id}
        status = request.get("status", "completed")
        self.set(row, status if status in FINAL else "failed", row["assigned_worker"], None)
        if (result := request.get("result")) is not None:
            row["result"] = result if isinstance(result, dict) else {"result": result}
        row["error"] = request.get("error")
        return {"task_id": task_id}

    def release(self, request: Request) -> Row:
        task_id, row = self.task_id(request), self.rows.get(self.task_id(request))
        worker = request.get("worker_id")
        if row is None or row["status"] != "running" or row["assigned_worker"] != worker:
            return {"ok": False, "task_id": task_id}
        self.set(row, "queued", None, None)
        row["result"] = {"progress": {"last_release_reason": request.get("reason") or "released"}}
        return {"task_id": task_id}

    def listed(self, request: Request) -> list[Row]:
        status, kinds = request.get("status"), request.get("task_types")
        rows = [
            row
            for row in self.rows.values()
            if (not status or row["status"] == status) and (not kinds or row["task_type"] in kinds)
        ]
        return rows[: int(request.get("limit") or 50)]

    def cancel(self, request: Request) -> bool:
        row = self.rows.get(self.task_id(request))
        if row is None or row["status"] != "queued":
            return False
        self.set(row, "cancelled", None, None)
        row["result"] = {"progress": {"cancel_reason": request.get("reason")}}
        return True

    async def wait(self, request: Request) -> Row | None:
        until = trio.current_time() + float(request.get("timeout_s") or WAIT_S)
        while (row := self.rows.get(self.task_id(request))) is not None:
            if row["status"] in FINAL or trio.current_time() >= until:
                return row
            await trio.sleep(POLL_S)
        return None

    def status(self, request: Request) -> Row:
        answer: Row = {"capabilities": {"task_types": []}, "session": ""}
        if request.get("detail"):
            counts: dict[str, dict[str, int]] = {"queued": {}, "running": {}}
            for row in self.rows.values():
                if (of := counts.get(row["status"])) is not None:
                    of[row["task_type"]] = of.get(row["task_type"], 0) + 1
            answer["queue"] = {name: sum(of.values()) for name, of in counts.items()}
            answer["queue"] |= {f"{name}_by_type": of for name, of in counts.items()}
            answer["scheduler"] = {"known_peers": self.known()}
        return answer

    def heard(self, request: Request) -> None:
        peer = str(request.get("peer") or request.get("peer_id") or request.get("worker_id") or "")
        if not peer:
            raise Refused("missing_peer_id")
        self.peers[peer] = {"peer_id": peer, "last_seen": time.time(), "clock": request.get("clock")}

    def known(self) -> list[Row]:
        return list(self.peers.values())
