from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from lazypagesd.engine.pb import record_pb2
from lazypagesd.images import wire
from lazypagesd.proto import handoff_pb2

ROOT = Path(__file__).resolve().parents[2]
DESCRIBE = """
import sys
sys.path.insert(0, sys.argv[1])
from google.protobuf.descriptor_pb2 import FileDescriptorProto
module = __import__(sys.argv[2])
proto = FileDescriptorProto()
module.DESCRIPTOR.CopyToProto(proto)
sys.stdout.buffer.write(proto.SerializeToString())
"""
COMMITTED = {
    "images/pb/inventory": wire.inventory_entry.DESCRIPTOR.file,
    "images/pb/mm": wire.mm_entry.DESCRIPTOR.file,
    "images/pb/pagemap": wire.pagemap_entry.DESCRIPTOR.file,
    "images/pb/pstree": wire.pstree_entry.DESCRIPTOR.file,
    "proto/handoff": handoff_pb2.DESCRIPTOR,
    "engine/pb/record": record_pb2.DESCRIPTOR,
}


def test_generated_modules_are_those_of_proto(tmp_path: Path) -> None:
    """What is committed describes the same messages as what protoc makes of proto/ now."""
    pytest.importorskip("grpc_tools")
    script = str(ROOT / "proto/generate.py")
    subprocess.run([sys.executable, script, str(tmp_path)], check=True, timeout=60)
    package = tmp_path / "lazypagesd"
    made = {os.fspath(path.relative_to(package)) for path in package.rglob("*_pb2.py")}
    assert made == {f"{name}_pb2.py" for name in COMMITTED}
    for name, committed in COMMITTED.items():
        path = package / f"{name}_pb2.py"
        command = [sys.executable, "-c", DESCRIBE, str(path.parent), path.stem]
        output = subprocess.run(command, check=True, timeout=60, capture_output=True).stdout
        want = FileDescriptorProto()
        committed.CopyToProto(want)
        assert FileDescriptorProto.FromString(output) == want
