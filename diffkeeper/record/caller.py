"""Whoever has called us, by sudo or not: the command is to run as theirs, and to find what it would find without us.

Owns who that is, and what sudo keeps from us: it gives root an environment, a umask and limits of its own. What we were
given beyond that (`sudo NAME=value diffkeeper`) counts as well.
"""

from __future__ import annotations

import os
import pwd
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from . import limits
from .limits import Limits

_OF_SUDO = frozenset({"PATH", "HOME", "USER", "LOGNAME", "SHELL", "MAIL", "TERM", "COLORTERM"})
"""What sudo sets for root, or lets through: the caller's own are theirs."""


class User(Struct, frozen=True):
    """Whom the command runs as and the trace belongs to."""

    uid: int
    gid: int
    name: str = ""
    home: str = ""

    @property
    def is_caller(self) -> bool:
        return self.uid == os.geteuid() and self.gid == os.getegid()


class Caller(Struct, frozen=True):
    """The user, the environment of the command, its limits, and its umask; None: ours."""

    user: User
    environment: dict[str, str]
    limits: Limits
    umask: int | None = None


def called_by(given: Limits) -> Caller:
    """Whoever called sudo, which called us; else us. `given`: the limits that we were given."""
    user, ours = invoking_user(), dict(os.environ)
    if user.is_caller:
        return Caller(user, ours, given)
    ours |= _named(user)
    sudo, above = _sudo()
    if not sudo:
        return Caller(user, ours, given)
    further = {name: value for name, value in ours.items() if name not in _OF_SUDO and not name.startswith("SUDO_")}
    return Caller(user, {**sudo, **further}, _limits(above) or given, _umask(above))


def invoking_user() -> User:
    """The user who called sudo, or else the one we are."""
    uid, gid = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if os.geteuid() == 0 and uid.isdigit() and gid.isdigit() and int(uid) != 0:
        try:
            entry = pwd.getpwuid(int(uid))
            return User(int(uid), int(gid), entry.pw_name, entry.pw_dir)
        except KeyError:
            return User(int(uid), int(gid))
    return User(os.geteuid(), os.getegid())


def become(user: User) -> None:
    """Take on the user's rights for good."""
    if user.is_caller:
        return
    os.environ.update(_named(user))
    if user.name:
        os.initgroups(user.name, user.gid)
    else:
        os.setgroups([user.gid])
    os.setgid(user.gid)
    os.setuid(user.uid)


def _named(user: User) -> dict[str, str]:
    return {"HOME": user.home, "USER": user.name, "LOGNAME": user.name} if user.name else {}


def _sudo() -> tuple[dict[str, str], int]:
    """The environment that sudo was called with, and by which process; empty where it does not stand right above us."""
    pid, found = os.getppid(), b""
    with suppress(OSError, ValueError):
        while Path(f"/proc/{pid}/comm").read_bytes() == b"sudo\n":  # with a terminal of its own there are two
            found = Path(f"/proc/{pid}/environ").read_bytes()
            pid = int(_field(pid, "PPid"), 10)
    pairs = (os.fsdecode(pair).partition("=") for pair in found.split(b"\0"))
    return {name: value for name, _, value in pairs if name}, pid


def _limits(pid: int) -> Limits:
    with suppress(OSError):
        return limits.of(pid)
    return {}


def _umask(pid: int) -> int | None:
    with suppress(OSError, ValueError):
        return int(_field(pid, "Umask"), 8)
    return None


def _field(pid: int, name: str) -> str:
    """Of /proc/PID/status. OSError, ValueError."""
    for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
        if line.startswith(f"{name}:"):
            return line.split()[1]
    raise ValueError(name)
