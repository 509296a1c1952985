"""Everything that the daemon can be asked, and its place beside the restores."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from lazypagesd.service.acceptor import RETRY_S
from lazypagesd.service.admission import Admission
from lazypagesd.service.listeners import Listeners
from lazypagesd.service.manager.interface import methods_of
from lazypagesd.service.manager.past import Past
from lazypagesd.service.manager.rates import Rates
from lazypagesd.service.manager.world import Caller, World
from lazypagesd.service.metrics.address import Address
from lazypagesd.service.metrics.http import Exporter
from lazypagesd.service.metrics.looking import Looking
from lazypagesd.service.metrics.systemd import Metrics
from lazypagesd.service.restores import Restores
from lazypagesd.service.varlink.server import Server
from lazypagesd.service.varlink.service import Service

log = logging.getLogger(__name__)


def serve(
    listeners: Listeners,
    restores: Restores,
    admission: Admission,
    metrics: Address | None,
    group: asyncio.TaskGroup,
) -> Callable[[], None]:
    """Answer whoever asks of *restores*, in tasks of *group*, until what is returned is called;
    and whoever collects *metrics*, at that address."""
    world = World(restores, admission, Past(), Rates(lambda: restores.served))
    restores.on_ended = world.past.add
    looking = Looking(world)
    tasks = [group.create_task(world.rates.run())]
    closing: list[Callable[[], None]] = []
    if listeners.admin is not None:
        interfaces = [
            methods_of(world, looking.get_metrics),
            Metrics(looking.snapshot).methods(),
        ]
        service: Service[Caller] = Service(interfaces)
        server = Server(listeners.admin, service, Caller.of, group, shared=listeners.shared)
        server.start()
        closing.append(server.close)
    if metrics is not None:
        # Who may read it is whom the address lets.
        exporter = Exporter(metrics, looking.text)
        tasks.append(group.create_task(export(exporter)))
        closing.append(exporter.close)

    def close() -> None:
        for task in tasks:
            task.cancel()
        for each in closing:
            each()

    return close


async def export(exporter: Exporter) -> None:
    """Begin to; as long as that cannot be, restores are served all the same."""
    told = False
    while True:
        try:
            await exporter.start()
        except OSError as error:
            if not told:
                log.error("metrics: %s: %s: tried again", error.filename, error.strerror)
            told = True
            # The keeper of the daemon before may have the address for a moment.
            await asyncio.sleep(RETRY_S)
        else:
            return
