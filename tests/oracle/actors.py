"""The processes that do the operations, one at a time, so that the truth after each is known.

Owns `Cast`: forked actors of several kinds, told what to do over sockets; descriptors handed from
one to another (SCM_RIGHTS); an actor forked anew from another one, with all that it holds. An
operation is done by the actor's own thread, by a thread, or by a child of it that ends right away.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from . import attributes, data, mapped, names, programs, requests, system
from .hands import Args, Hands

KINDS = ("root", "other", "user", "chroot", "namespace")
USER = 1000
_MESSAGE = 1 << 18
_CLONE_NEWNS, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x20000, 0x1000, 0x4000, 1 << 18

OPERATIONS: dict[str, Callable[[Hands, Args], None]] = {
    "write": data.write, "truncate": data.truncate, "ftruncate": data.ftruncate, "fallocate": data.fallocate,
    "sendfile": data.sendfile, "copy_range": data.copy_range, "splice": data.splice, "clone": data.clone,
    "create": names.create, "mkdir": names.mkdir, "mknod": names.mknod, "bind_socket": names.bind_socket,
    "symlink": names.symlink, "link": names.link, "rename": names.rename, "unlink": names.unlink,
    "rmdir": names.rmdir, "rmtree": names.rmtree, "tmpfile": names.tmpfile, "deep": names.deep, "chdir": names.chdir,
    "keep": names.keep, "duplicate": names.duplicate, "close": names.close,
    "chmod": attributes.chmod, "chown": attributes.chown, "utime": attributes.utime,
    "setxattr": attributes.setxattr, "removexattr": attributes.removexattr, "chattr": attributes.chattr,
    "map_store": mapped.map_store, "map_keep": mapped.map_keep, "map_poke": mapped.map_poke,
    "map_drop": mapped.map_drop,
    "ring_write": requests.ring_write, "ring_splice": requests.ring_splice, "ring_fallocate": requests.ring_fallocate,
    "ring_ftruncate": requests.ring_ftruncate, "ring_open": requests.ring_open, "ring_name": requests.ring_name,
    "ring_setxattr": requests.ring_setxattr, "aio": requests.aio, "program": programs.run,
}  # fmt: skip


class OracleError(Exception):
    """The oracle itself is wrong, not what it looks at."""


def perform(hands: Hands, operation: Args) -> dict[str, Any]:
    """Do it; says what came of it: {} or {"error": errno}, {"broken": traceback} when it is our own fault."""
    args = {key: value for key, value in operation.items() if key not in ("op", "by", "as")}
    try:
        OPERATIONS[operation["op"]](hands, args)
    except OSError as error:
        return {"error": error.errno or 1}
    except Exception:  # noqa: BLE001  whatever it is, it is told to who started us
        return {"broken": traceback.format_exc()}
    return {}


def _in_thread(hands: Hands, operation: Args) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: results.append(perform(hands, operation)))
    thread.start()
    thread.join()
    return results[0]


def _in_child(hands: Hands, operation: Args) -> dict[str, Any]:
    pid = os.fork()
    if not pid:
        result = perform(hands, operation)
        os._exit(result.get("error", 0) if "broken" not in result else 255)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {"broken": "a child failed"} if code in (-1, 255) else {"error": code} if code else {}


_AS = {"self": perform, "thread": _in_thread, "child": _in_child}


class Cast:
    """All actors; `do` has one of them do something. They end with `close`, or when who made them does."""

    def __init__(self, root: bytes, elsewhere: bytes, inherited: Sequence[int]) -> None:
        """`elsewhere`: an empty directory outside, where the one in its own namespace mounts the root."""
        self._root, self._elsewhere = root, elsewhere
        requests.prepare()
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in KINDS]
        self._ours, self._theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        for number in range(len(KINDS)):
            if not os.fork():
                self._become(number, Hands(root), dict(enumerate(inherited, start=8)))
        for each in (*self._theirs,):
            each.setblocking(True)

    def do(self, operation: Args) -> dict[str, Any]:
        """The outcome, as `perform` has it."""
        name, by = operation["op"], operation["by"]
        if name == "pass":
            answer, fds = self._ask(by, {"op": "give", "slot": operation["slot"]})
            if fds:
                self._ask(operation["to"], {"op": "take", "slot": operation["slot2"]}, fds)
                os.close(fds[0])
            return answer
        if name == "respawn":
            if operation["to"] == by or not {KINDS[by], KINDS[operation["to"]]} <= {"root", "other"}:
                return {"error": 22}
            self._ask(operation["to"], {"op": "end"})
        answer, _ = self._ask(by, operation)
        if "broken" in answer:
            raise OracleError(f"{operation}: {answer['broken']}")
        return answer

    def close(self) -> None:
        for number in range(len(KINDS)):
            with contextlib.suppress(OSError):
                self._ask(number, {"op": "end"})

    def _ask(self, number: int, message: Args, fds: Sequence[int] = ()) -> tuple[dict[str, Any], list[int]]:
        text = json.dumps(message).encode()
        socket.send_fds(self._ours[number], [text], list(fds))
        answer, received, _, _ = socket.recv_fds(self._ours[number], _MESSAGE, 1)
        if not answer:
            raise OracleError(f"actor {number} is gone, after {message}")
        return json.loads(answer), list(received)

    # ---- in the actors ----

    def _become(self, number: int, hands: Hands, slots: dict[int, int]) -> None:
        """An actor's whole life."""
        status = 1
        try:
            for each in self._ours:
                each.close()
            hands.slots.update({slot: os.dup(fd) for slot, fd in slots.items()})
            _dress(KINDS[number], hands, self._elsewhere)
            self._serve(number, hands)
            status = 0
        except BaseException:  # noqa: BLE001  nothing of ours may run on in a forked copy
            traceback.print_exc()
        finally:
            os._exit(status)

    def _serve(self, number: int, hands: Hands) -> None:
        mine = self._theirs[number]
        while True:
            text, received, _, _ = socket.recv_fds(mine, _MESSAGE, 1)
            if not text:
                return
            message = json.loads(text)
            answer: dict[str, Any] = {}
            given: list[int] = []
            if message["op"] == "end":
                mine.send(b"{}")
                return
            if message["op"] == "give":
                given = [hands.slots[message["slot"]]] if message["slot"] in hands.slots else []
                answer = {} if given else {"error": 9}
            elif message["op"] == "take":
                hands.keep(message["slot"], received[0])
            elif message["op"] == "respawn":
                if not os.fork():
                    number, mine = message["to"], self._theirs[message["to"]]
                    continue
            else:
                answer = _AS[message.get("as", "self")](hands, message)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", given))] if given else []
            mine.sendmsg([json.dumps(answer).encode()], rights)


def _dress(kind: str, hands: Hands, elsewhere: bytes) -> None:
    """Make the calling process an actor of a kind, standing in the root."""
    os.chdir(hands.root)
    if kind == "user":
        os.umask(0o027)
        os.setgroups([USER, USER + 1])
        os.setresgid(USER, USER, USER)
        os.setresuid(USER, USER, USER)
    elif kind == "chroot":
        os.chroot(hands.root)
        hands.root = b""
    elif kind == "namespace":
        system.unshare(_CLONE_NEWNS)
        system.mount(b"none", b"/", b"none", _MS_REC | _MS_PRIVATE)
        system.mount(hands.root, elsewhere, b"none", _MS_BIND)
        hands.root = elsewhere
        os.chdir(elsewhere)
