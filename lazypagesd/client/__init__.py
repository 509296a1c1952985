"""What a restore tool in Python imports to hand its faults over to ``lazypagesd serve``.

    with Restore.open("web", socket_path) as restore:
        restore.add_session(userfaultfd, regions=[Region(start, nr_pages, offset)], files=[file])
        ...  # let the process run
        restore.finished()

aio.py has the same for asyncio.  A process that may have no userfaultfd has a channel instead:
channel.py.  Imports nothing of the daemon but the messages that it speaks.
"""

from __future__ import annotations

from lazypagesd.client.messages import Pace, Progress, Refused, Region
from lazypagesd.client.restore import Restore

__all__ = ["Pace", "Progress", "Refused", "Region", "Restore"]
