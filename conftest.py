"""Settings that must be in place before any test imports a module, and a watch over what belongs to the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Debian's etcd3 has generated code that newer protobufs accept only in their Python implementation. protobuf chooses
# its implementation when it is first imported, and tests may import the CRI's stubs before etcd3.
os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"

MACHINES_OWN = (
    "/etc/evio",
    "/etc/cni/net.d",
    "/etc/wireguard",
    "/opt/cni/bin",
    "/opt/evio",
    "/run/evio",
    "/var/lib/cni",
    "/var/lib/evio",
)
"""Directories of a node. Tests have their own: in those of the machine a running node may have its files."""


@pytest.fixture(autouse=True)
def the_machines_own_directories_stay_as_they_are() -> Iterator[None]:
    """Fail a test, or one that runs beside it, that creates or deletes a file in a directory of the machine's own."""
    before = _listings()
    yield
    assert _listings() == before


def _listings() -> dict[str, list[str] | None]:
    return {path: sorted(os.listdir(path)) if os.path.isdir(path) else None for path in MACHINES_OWN}
