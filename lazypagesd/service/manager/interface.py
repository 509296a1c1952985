"""The interface, and which of our functions answers which method."""

from __future__ import annotations

from pathlib import Path

from lazypagesd.service.manager.asking import Asking
from lazypagesd.service.manager.explaining import Explaining
from lazypagesd.service.manager.history import History
from lazypagesd.service.manager.orders import Orders
from lazypagesd.service.manager.watching import Watching
from lazypagesd.service.manager.world import Caller, World
from lazypagesd.service.varlink.interface import Interface
from lazypagesd.service.varlink.service import Handler, Methods

FILE = Path(__file__).parent.parent / "org.lazypages.Manager.varlink"


def methods_of(world: World, get_metrics: Handler[Caller]) -> Methods[Caller]:
    """Return what answers for *world*."""
    asking, history, orders = Asking(world), History(world), Orders(world)
    watching, explaining = Watching(world, asking), Explaining(asking, history)
    return Methods(
        Interface.read(FILE),
        {
            "Describe": asking.describe,
            "ListRestores": asking.list_restores,
            "ListSessions": asking.list_sessions,
            "GetSession": asking.get_session,
            "GetFaults": history.faults,
            "GetSteps": history.steps,
            "Explain": explaining.explain,
            "SetPolicy": orders.set_policy,
            "Drain": watching.begin_drain,
            "Pause": orders.pause,
            "Resume": orders.resume,
            "Detach": orders.detach,
            "Retry": orders.retry,
            "GetMetrics": get_metrics,
        },
        {
            "Watch": watching.watch,
            "Drain": watching.drain,
            "GetFaults": history.stream_faults,
            "GetSteps": history.stream_steps,
        },
    )
