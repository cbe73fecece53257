# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What integration tests stand on: a namespace, and a real Open vSwitch in it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .ovs_daemons import OpenVSwitch, network_namespace


@pytest.fixture
def netns() -> Iterator[str]:
    with network_namespace("evt-") as name:
        yield name


@pytest.fixture
def ovs(netns: str) -> Iterator[OpenVSwitch]:
    # Not in tmp_path: with a long test's name in it, the sockets' paths pass the kernel's 108 bytes.
    with tempfile.TemporaryDirectory(prefix="evt-ovs-") as directory:
        switch = OpenVSwitch(netns, Path(directory))
        try:
            yield switch.start()
        finally:
            switch.stop()
