"""Generate Python modules from the messages here: ``python proto/generate.py [OUTPUT]``.

Needs grpcio-tools, of the version in pyproject.toml: its code loads with every protobuf runtime
that is allowed there.  The files are known to protobuf by their path in the package, so that they
can live in one process with CRIU's own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "images": "lazypagesd/images/pb",
    "handoff": "lazypagesd/proto",
    "state": "lazypagesd/engine/pb",
}

# protoc leaves a Mapping without parameters in its stubs.
STUB_HEAD = '# mypy: disable-error-code="type-arg"\n'


def generate(output: Path) -> None:
    """Write the modules and their stubs below *output*."""
    for directory, package in PACKAGES.items():
        generate_package(ROOT / "proto" / directory, package, output)


def generate_package(directory: Path, package: str, output: Path) -> None:
    """Write those of one *directory*, which become *package*."""
    names = sorted(path.name for path in directory.glob("*.proto"))
    options = [f"--python_out={output}", f"--pyi_out={output}"]
    paths = [f"-I{package}={directory}", *(f"{package}/{name}" for name in names)]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *options, *paths], check=True)
    for stub in (output / package).glob("*_pb2.pyi"):
        stub.write_text(STUB_HEAD + stub.read_text())


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
