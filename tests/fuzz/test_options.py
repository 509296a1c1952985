"""Command lines and configuration files of anything: options, or a ConfigError."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from lazypagesd.cli.criu_options import LONG, SHORT
from lazypagesd.cli.lazy_pages_options import INT_MAX, read_options
from lazypagesd.errors import ConfigError
from lazypagesd.service.options import DropinOptions

# What the kernel can give a program: any bytes but zeros, as Python decodes them.
ARGUMENT = st.binary(max_size=8).map(lambda data: os.fsdecode(data.replace(b"\0", b"")))
NAMES = st.sampled_from(sorted(LONG))
VALUES = st.one_of(ARGUMENT, st.integers().map(str), st.sampled_from(["", "4", "vv", "9" * 5000]))
WORDS = st.one_of(
    ARGUMENT,
    VALUES,
    st.sampled_from(["--", "-", "lazy-pages", "dump", *(f"-{letter}" for letter in SHORT)]),
    NAMES.map("--{}".format),
    st.builds("--{}={}".format, NAMES, VALUES),
    st.builds("-{}{}".format, st.sampled_from(sorted(SHORT)), VALUES),
    NAMES.flatmap(lambda name: st.integers(0, len(name)).map(lambda n: f"--{name[:n]}")),
)
LINES = st.one_of(
    st.binary(max_size=12),
    st.builds("{} {}".format, NAMES, VALUES).map(os.fsencode),
    st.builds("{}={}".format, NAMES, VALUES).map(os.fsencode),
    st.builds("{} '{}\" # {}".format, NAMES, VALUES, VALUES).map(os.fsencode),
)
FILES = st.lists(LINES, max_size=6).map(b"\n".join)


def check_options(options: DropinOptions) -> None:
    """Assert that whoever does what *options* say gets no ValueError from the kernel's door."""
    paths = options.images_dir, options.work_dir, options.log_file, options.pidfile
    for path in (*paths, *options.action_scripts):
        assert b"\0" not in os.fsencode(path or "")
    assert options.status_fd is None or 0 <= options.status_fd <= INT_MAX
    assert options.verbosity >= 0


@settings(deadline=None, max_examples=300)
@given(st.lists(WORDS, max_size=6), FILES)
def test_any_words_and_file_are_options_or_refused(words: list[str], text: bytes) -> None:
    """Whatever is asked for, it can be tried, or the error is one line that says what is wrong."""
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "criu.conf"
        config.write_bytes(text)
        environment = {"HOME": directory, "CRIU_CONFIG_FILE": str(config)}
        try:
            options = read_options(["--no-default-config", "lazy-pages", *words], environment)
        except ConfigError as error:
            assert str(error)
            return
    check_options(options)
