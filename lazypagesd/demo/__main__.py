"""The demo's command line."""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from lazypagesd.demo.builtin import BuiltinCheckpoints
from lazypagesd.demo.checkpoints import Checkpoints, Place
from lazypagesd.demo.criu import CriuCheckpoints, find_criu
from lazypagesd.demo.story import Story, start_victim
from lazypagesd.demo.trouble import Trouble
from lazypagesd.demo.victim import PAGE_SIZE


def main() -> int:
    """Run the demo; 0 when every page came back right."""
    options = _parser().parse_args()
    console = Console(highlight=False)
    try:
        with tempfile.TemporaryDirectory(prefix="lazypagesd-demo-") as directory:
            return _run(console, options, Path(directory))
    except Trouble as trouble:
        console.print(f"[bold red]The demo ends here:[/] {trouble}", soft_wrap=True)
        return 1


def _run(console: Console, options: argparse.Namespace, directory: Path) -> int:
    place = Place(directory / "images", directory / "work")
    place.images.mkdir()
    place.work.mkdir()
    checkpoints = _choose(console, builtin=options.builtin)
    command = shlex.split(options.lazy_pages_command)
    victim = start_victim(place, (options.size << 20) // PAGE_SIZE)
    return 0 if Story(console, checkpoints, place, command).tell(victim) else 1


def _choose(console: Console, *, builtin: bool) -> Checkpoints:
    if builtin:
        return BuiltinCheckpoints()
    criu = find_criu()
    if isinstance(criu, Path):
        return CriuCheckpoints(criu)
    console.print(f"{criu}: using the demo's own checkpoint instead.\n", soft_wrap=True)
    return BuiltinCheckpoints()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lazypagesd.demo",
        description="Checkpoint a process, restore it without its memory, and watch it work.",
    )
    parser.add_argument("--size", type=int, default=256, metavar="MIB", help="its memory (256)")
    parser.add_argument(
        "--builtin", action="store_true", help="do without CRIU, even where there is one"
    )
    parser.add_argument(
        "--lazy-pages-command",
        default=shlex.join([sys.executable, "-m", "lazypagesd", "lazy-pages"]),
        metavar="COMMAND",
        help="the daemon to see at work, such as 'criu lazy-pages'",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
