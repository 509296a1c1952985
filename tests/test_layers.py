"""A package is a layer, and imports only downward."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "lazypagesd"
# From the top; errors.py, closing.py, proto/ and the package's own __init__.py, which all may
# import, are below.
LAYERS = (
    "demo",
    "cli",
    "service",
    "handoff",
    "engine",
    "sources",
    "images",
    "kernel",
    "keeper",
    "native",
)
HEIGHT = {name: len(LAYERS) - place for place, name in enumerate(LAYERS)} | {
    "__main__": len(LAYERS) + 1,
    "errors": 0,
    "closing": 0,
    "proto": 0,
    "": 0,
}
# client/ is what a restore tool imports: nothing of the daemon but the protocol's messages.
CLIENT = "client"
CLIENT_MAY_IMPORT = {CLIENT, "proto", ""}
IMPORTERS_OF_NATIVE = {"native", "kernel", "engine", "images"}


def check_imports(source: str, module: str) -> Iterator[str]:
    """Yield what is wrong with the imports of *source*, the text of *module*."""
    layer = layer_of(module)
    for line, imported in imports_of(source, module):
        if complaint := check_import(layer, layer_of(imported)):
            yield f"{module}:{line}: {complaint} ({imported})"


def imports_of(source: str, module: str) -> Iterator[tuple[int, str]]:
    """Yield the line and full name of each import of ours, also one within a function."""
    package = module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            # `from lazypagesd import engine` names a package, not something in __init__.py.
            whole = origin == PACKAGE
            names = [f"{origin}.{alias.name}" if whole else origin for alias in node.names]
        for name in dict.fromkeys(names):
            if name.split(".")[0] == PACKAGE:
                yield getattr(node, "lineno", 0), name


def layer_of(module: str) -> str:
    """Return the layer of a module by name: ``engine`` for ``lazypagesd.engine.worker``."""
    inside = module.split(".")[1:]
    known = HEIGHT.keys() | {CLIENT}
    # What is no layer is a name that __init__.py defines.
    return inside[0] if inside and (len(inside) > 1 or inside[0] in known) else ""


def check_import(importer: str, imported: str) -> str | None:
    """Return why *importer* must not import *imported*, both layers; None when it may."""
    if CLIENT in (importer, imported):
        client_ok = importer == CLIENT and imported in CLIENT_MAY_IMPORT
        return None if client_ok else "client/ and the daemon import nothing of each other"
    for layer in importer, imported:
        if layer not in HEIGHT:
            return f"{layer} is no layer; give it a place in {Path(__file__).name}"
    if HEIGHT[imported] > HEIGHT[importer]:
        return f"{importer or '__init__'} imports upward, from {imported}"
    if imported == "native" and importer not in IMPORTERS_OF_NATIVE:
        return f"{importer} imports native, which only {sorted(IMPORTERS_OF_NATIVE)} may"
    return None


def test_no_module_imports_upward(repository: Path) -> None:
    """Every import in the package leads to its own layer or one below."""
    complaints = [
        complaint
        for path in sorted((repository / PACKAGE).rglob("*.py"))
        for complaint in check_imports(path.read_text(), module_name(path, repository))
    ]
    assert complaints == []


def module_name(path: Path, root: Path) -> str:
    """Return the name that the file *path* is imported by; a package's ends in ``__init__``."""
    return ".".join(path.relative_to(root).with_suffix("").parts)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("lazypagesd.engine.made_up", "from lazypagesd.service.logs import log"),
        ("lazypagesd.engine.made_up", "import lazypagesd.cli.main"),
        ("lazypagesd.engine.made_up", "from lazypagesd import handoff"),
        ("lazypagesd.engine.made_up", "from ..handoff import criu"),
        ("lazypagesd.engine.__init__", "from .. import handoff"),
        ("lazypagesd.engine.made_up", "def late():\n    from lazypagesd.demo import show"),
        ("lazypagesd.cli.made_up", "from lazypagesd.demo import show"),
        ("lazypagesd.errors", "from lazypagesd.kernel.uffd import Uffd"),
        ("lazypagesd.service.made_up", "from lazypagesd.native import lib"),
        ("lazypagesd.sources.made_up", "import lazypagesd.native"),
        ("lazypagesd.client.made_up", "from lazypagesd.errors import HandoffError"),
        ("lazypagesd.kernel.made_up", "from lazypagesd.client import connect"),
        ("lazypagesd.stray.made_up", "from lazypagesd.errors import ImageError"),
    ],
)
def test_checker_catches_a_wrong_import(module: str, source: str) -> None:
    """A made-up module that imports what it must not is found out."""
    assert len(list(check_imports(source, module))) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("lazypagesd.engine.made_up", "from lazypagesd.native import lib"),
        ("lazypagesd.engine.made_up", "from . import session\nimport os\nimport lazypagesd_other"),
        ("lazypagesd.cli.made_up", "from lazypagesd import __version__"),
        ("lazypagesd.demo.made_up", "from lazypagesd.cli.main import main"),
        ("lazypagesd.service.made_up", "from lazypagesd.errors import ConfigError"),
    ],
)
def test_checker_allows_a_downward_import(module: str, source: str) -> None:
    """A made-up module that imports from its own layer or below is left alone."""
    assert list(check_imports(source, module)) == []
