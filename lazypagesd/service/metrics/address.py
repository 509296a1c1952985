"""Where metrics are told by HTTP: on this machine, and nowhere else."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: at *path*, or at *port* of a loopback address."""

    path: Path | None = None
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        """Write it as the configuration does."""
        if self.path is not None:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(text: str) -> Address:
    """Return what ``unix:/PATH``, ``127.0.0.1:9465`` or ``[::1]:9465`` mean, or raise ValueError
    with why not."""
    if text.startswith("unix:/"):
        return Address(path=Path(text.removeprefix("unix:")))
    if match := re.fullmatch(r"(?:\[([0-9a-fA-F:]+)\]|([0-9.]+)):([0-9]{1,5})", text):
        host, port = match[1] or match[2], int(match[3])
        try:
            is_ours = ipaddress.ip_address(host).is_loopback
        except ValueError:
            is_ours = False
        if is_ours and 0 < port < 1 << 16:
            return Address(host=host, port=port)
    raise ValueError(
        f"is neither unix:/PATH nor a loopback address such as 127.0.0.1:9465 ({text!r})"
    )
