"""Daemons that kill themselves at a chosen point; the next one, started by the same command, goes
on.

Points of the C are in a build that has them (native/crash.c).  Those of the Python are calls, or
simply lines, counted: Python lets anybody look on.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.sanitizers import Interpreter, build, copy_package

# The command ``lazypagesd``, which dies at a point.
_PROGRAM = """
import functools, importlib, inspect, os, signal, sys, threading
from pathlib import Path

points, crashes = sys.argv.pop(1).split("; "), Path(sys.argv.pop(1))
nr_crashes = len(crashes.read_text().splitlines()) if crashes.exists() else 0
counter = iter(range(1, 1 << 30))

def reach(number, where):
    if next(counter) == number:
        with crashes.open("a") as file:
            print(where, file=file)
        os.kill(os.getpid(), signal.SIGKILL)

def wrap(function, when, number):
    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        when == "before" and reach(number, f"{when} {function}")
        result = function(*args, **kwargs)
        when == "after" and reach(number, f"{when} {function}")
        return result
    return wrapped

def die_at_call(name, when, number):
    module, path = name.split(":")
    *outer, last = path.split(".")
    owner = functools.reduce(getattr, outer, importlib.import_module(module))
    found = inspect.getattr_static(owner, last)
    if isinstance(found, classmethod):
        setattr(owner, last, classmethod(wrap(found.__func__, when, number)))
    else:
        setattr(owner, last, wrap(found, when, number))

def die_at_line(number):
    import lazypagesd
    ours = os.path.dirname(lazypagesd.__file__)
    def trace(frame, event, _argument):
        if not frame.f_code.co_filename.startswith(ours):
            return None
        event == "line" and reach(number, f"{frame.f_code.co_filename}:{frame.f_lineno}")
        return trace
    def begin():
        sys.settrace(trace)
        threading.settrace(trace)
    from lazypagesd.service.restores import Restores
    from lazypagesd.service.succession import Inheritance
    serve, take = Restores.serve, Inheritance.take
    if nr_crashes:
        Inheritance.take = lambda environment: begin() or take(environment)
    else:
        Restores.serve = lambda *args, **kwargs: begin() or serve(*args, **kwargs)

if nr_crashes < len(points):
    *call, number = points[nr_crashes].split()
    die_at_call(*call, int(number)) if call else die_at_line(int(number))
from lazypagesd.cli.main import main
sys.exit(main())
"""


def crashing_command(points: str, crashes: Path) -> list[str]:
    """Return the command ``lazypagesd``; the first daemon that it starts dies at the first of
    *points*, which are separated by ``; ``, the next at the next, and so on.

    A point is ``module:function before N`` or ``... after N``, of the n-th call; or the number of
    a line of ours, counted from when the daemon begins to serve, or, if it is not the first, to
    take over.  Each adds a line to the file *crashes* when it dies.
    """
    return [sys.executable, "-c", _PROGRAM, points, str(crashes)]


def build_with_crash_points(directory: Path) -> Interpreter:
    """Build a copy of the package in *directory* whose C dies where it is told to: see crash.c."""
    copy_package(directory)
    interpreter = Interpreter(directory, environment={"PYTHONPATH": str(directory)})
    build(interpreter, {"LAZYPAGESD_CFLAGS": "-DLPD_CRASH_POINTS"})
    return interpreter
