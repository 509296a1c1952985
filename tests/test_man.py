"""The manual pages say what the reference and the interface file say, and are well formed."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from lazypagesd.client.ctl.main import COMMANDS
from lazypagesd.service.manager.interface import FILE

PAGES = ("lazypagesd.8", "lazypagesctl.1", "lazypagesd.toml.5", "org.lazypages.Manager.7")


@pytest.fixture(scope="module")
def generator(repository: Path) -> ModuleType:
    """docs/man/generate.py, which is in no package."""
    spec = importlib.util.spec_from_file_location("generate", repository / "docs/man/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses look for it there.
    sys.modules["generate"] = module
    spec.loader.exec_module(module)
    return module


def test_pages_are_as_they_are_made(
    repository: Path, generator: ModuleType, tmp_path: Path
) -> None:
    """`python docs/man/generate.py` would change nothing."""
    generator.generate(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(PAGES)
    for name in PAGES:
        made, committed = tmp_path / name, repository / "docs/man" / name
        assert made.read_text() == committed.read_text(), f"run docs/man/generate.py ({name})"


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_well_formed(repository: Path, name: str) -> None:
    """mandoc has no complaint."""
    if (mandoc := shutil.which("mandoc")) is None:
        pytest.skip("mandoc: not installed")
    page = str(repository / "docs/man" / name)
    command = [mandoc, "-T", "lint", "-W", "warning", page]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def printed(repository: Path, name: str) -> str:
    """Return the text of a page, without what is only for the eye."""
    text = (repository / "docs/man" / name).read_text()
    return re.sub(r"\\f[BR]|\\&", "", text).replace("\\-", "-")


def test_every_command_has_its_section(repository: Path) -> None:
    """Of lazypagesctl, whose options a test of the reference knows."""
    text = printed(repository, "lazypagesctl.1")
    sections = re.findall(r"^\.SS (\w+)", text, flags=re.MULTILINE)
    assert set(sections) == COMMANDS.keys()


@pytest.mark.parametrize("name", PAGES)
def test_pages_have_the_sections_that_people_look_for(repository: Path, name: str) -> None:
    """A command's are more than those of a file or an interface."""
    headings = re.findall(r"^\.S[HS] (.*)", printed(repository, name), flags=re.MULTILINE)
    wanted = {"NAME", "SYNOPSIS", "DESCRIPTION", "SEE ALSO"}
    if name.endswith((".1", ".8")):
        wanted |= {"FILES", "ENVIRONMENT", "EXIT STATUS", "EXAMPLES"}
    assert wanted <= {heading.upper() for heading in headings}


def test_every_part_of_the_interface_is_in_its_page(repository: Path) -> None:
    """Each type, method and error with its fields, and what the file says of it."""
    text = printed(repository, "org.lazypages.Manager.7")
    for line in FILE.read_text().splitlines():
        assert line.removeprefix("#").strip().replace("`", "") in text


def test_pages_name_each_other(repository: Path) -> None:
    """What stands under SEE ALSO is there, or is somebody else's."""
    others = {"criu(8)", "varlinkctl(1)"}
    ours = {re.sub(r"\.(\d)$", r"(\1)", name) for name in PAGES}
    for name in PAGES:
        last = printed(repository, name).rpartition(".SH SEE ALSO\n")[2]
        assert set(last.strip().split(", ")) <= ours | others
