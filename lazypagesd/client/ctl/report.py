"""``report``: a restore as a page to look at."""

from __future__ import annotations

import argparse
from pathlib import Path

from lazypagesd.client.ctl.admin import asking
from lazypagesd.client.ctl.pace import parse_restore
from lazypagesd.client.ctl.trouble import Trouble
from lazypagesd.client.report.page import page_of
from lazypagesd.client.report.recording import NoRecording, Recording, read, record


def report(options: argparse.Namespace) -> int:
    """Write it, or with ``--json`` the recording that it is made of."""
    recording = recording_of(options)
    text = recording.to_json() + "\n" if options.json else page_of(recording)
    if options.output is None:
        print(text, end="")
    else:
        Path(options.output).write_text(text, encoding="utf-8")
    return 0


def recording_of(options: argparse.Namespace) -> Recording:
    """Return the recording in a file, or that of a restore of the daemon's."""
    try:
        number = parse_restore(options.what)
    except ValueError:
        try:
            return read(Path(options.what))
        except NoRecording as error:
            raise Trouble(str(error)) from None
    with asking(options) as connection:
        return record(connection, number)
