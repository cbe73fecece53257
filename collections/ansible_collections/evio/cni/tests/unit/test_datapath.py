# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which datapath a kernel can have, according to the files that list its modules."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.ovs import datapath


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the running kernel's module directory, empty, on a machine that has loaded no module."""
    directory = tmp_path / "lib/modules" / os.uname().release
    directory.mkdir(parents=True)
    monkeypatch.setattr(datapath, "_MODULES", tmp_path / "lib/modules")
    monkeypatch.setattr(datapath, "_LOADED_MODULE", tmp_path / "sys/module/openvswitch")
    return directory


def test_kernel_without_the_module_has_the_userspace_datapath(modules: Path) -> None:
    assert datapath.probe_datapath() == "netdev"
    (modules / "modules.dep").write_text("kernel/net/sched/act_ct.ko: kernel/net/openvswitch/openvswitch.ko\n")
    assert datapath.probe_datapath() == "netdev"


@pytest.mark.parametrize(
    ("index", "line"),
    [
        ("modules.dep", "kernel/net/openvswitch/openvswitch.ko.xz: kernel/net/nsh/nsh.ko.xz"),
        ("modules.builtin", "kernel/net/openvswitch/openvswitch.ko"),
    ],
)
def test_loadable_or_built_in_module_counts(modules: Path, index: str, line: str) -> None:
    (modules / index).write_text(f"kernel/net/nsh/nsh.ko.xz:\n{line}\n")
    assert datapath.probe_datapath() == "system"


def test_loaded_module_counts_without_an_entry_in_the_directory(modules: Path, tmp_path: Path) -> None:
    (tmp_path / "sys/module/openvswitch").mkdir(parents=True)
    assert list(modules.iterdir()) == []
    assert datapath.probe_datapath() == "system"
