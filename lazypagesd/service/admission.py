"""Who may begin a restore, how much of the daemon each user gets, and who reaches whose."""

from __future__ import annotations

import os
import socket
from collections import Counter
from dataclasses import dataclass, field
from typing import Self

from lazypagesd.kernel import fdpass
from lazypagesd.service.options import ServeLimits

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Peer:
    """Whoever has connected, as the kernel names them."""

    uid: int
    groups: frozenset[int]

    @classmethod
    def of(cls, connection: socket.socket) -> Self:
        """Return who has connected, when that was."""
        groups = fdpass.peer_groups(connection)
        return cls(fdpass.peer_uid(connection), frozenset(groups))


@dataclass(slots=True)
class Admission:
    """Keeps to *limits*, restore by restore; members of the group *gid* reach every restore.

    That a user is there at all is the mode of the socket's file, which lets them connect.
    """

    limits: ServeLimits
    gid: int
    connections: Counter[int] = field(default_factory=Counter)
    memory: Counter[int] = field(default_factory=Counter)  # in bytes, of each user

    def reasons_against(self, peer: Peer, nr_restores: int) -> list[str]:
        """Return every reason why *peer*, who is connected, may not begin one restore more."""
        reasons = []
        if nr_restores >= self.limits.restores:
            reasons.append(f"{nr_restores} restores are being served: wait, or raise restores")
        return reasons + self.reasons_against_connection(peer)

    def reasons_against_connection(self, peer: Peer) -> list[str]:
        """Return why *peer*, who is connected, has too many connections."""
        if self.connections[peer.uid] <= self.limits.connections_per_user:
            return []
        return [
            f"user {peer.uid} has {self.connections[peer.uid] - 1} connections:"
            " close some, or raise connections_per_user"
        ]

    def reason_to_hang_up(self, uid: int) -> str | None:
        """Return why the last connection of user *uid* is not even heard.

        Each takes a descriptor; up to twice as many as there may be are told that they are too
        many.
        """
        if self.connections[uid] <= 2 * self.limits.connections_per_user:
            return None
        return f"user {uid} has {self.connections[uid] - 1} connections"

    def reasons_against_memory(self, uid: int, nr_bytes: int) -> list[str]:
        """Return why user *uid* may not have *nr_bytes* more."""
        if self.memory[uid] + nr_bytes <= self.limits.memory_per_user * MIB:
            return []
        return [
            f"user {uid} has {self.memory[uid] / MIB:.1f} MiB of state, and this needs"
            f" {nr_bytes / MIB:.1f} MiB more: wait, or raise memory_per_user"
        ]

    def may_reach(self, peer: Peer, owner: int) -> bool:
        """Whether *peer* may ask about the restore of user *owner*, and set its pace."""
        return peer.uid in (owner, 0, os.geteuid()) or self.gid in peer.groups
