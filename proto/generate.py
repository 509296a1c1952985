"""Generate lazypagesd/images/pb/ from proto/images/: ``python proto/generate.py [OUTPUT]``.

Needs grpcio-tools, of the version in pyproject.toml: its code loads with every protobuf runtime
that is allowed there.  The files are known to protobuf by their path in the package, so that they
can live in one process with CRIU's own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "lazypagesd/images/pb"

# protoc leaves a Mapping without parameters in its stubs.
STUB_HEAD = '# mypy: disable-error-code="type-arg"\n'


def generate(output: Path) -> None:
    """Write the modules and their stubs below *output*."""
    names = sorted(path.name for path in (ROOT / "proto/images").glob("*.proto"))
    options = [f"--python_out={output}", f"--pyi_out={output}"]
    paths = [f"-I{PACKAGE}={ROOT}/proto/images", *(f"{PACKAGE}/{name}" for name in names)]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *options, *paths], check=True)
    for stub in (output / PACKAGE).glob("*_pb2.pyi"):
        stub.write_text(STUB_HEAD + stub.read_text())


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
