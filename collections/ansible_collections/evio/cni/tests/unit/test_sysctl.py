# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Kernel settings that are kept for the next boot in a file of sysctl.d."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.kernel.sysctl import dotted, settings_file_change
from ansible_collections.evio.cni.plugins.module_utils.managed_file import ManagedFileError


def test_file_is_written_kept_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "sysctl.d/60-evio.conf"
    settings = {"net/ipv4/ip_forward": "1"}
    settings_file_change(str(path), settings).apply()
    assert path.read_text().endswith("\nnet.ipv4.ip_forward = 1\n")
    assert path.stat().st_mode & 0o777 == 0o644
    assert not settings_file_change(str(path), settings).changed
    removal = settings_file_change(str(path), {})
    assert removal.changed
    removal.apply()
    assert not path.exists()
    assert not settings_file_change(str(path), {}).changed


def test_error_names_the_file_whose_directory_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "sysctl.d").write_text("")
    with pytest.raises(ManagedFileError, match=r"cannot read .*60-evio\.conf"):
        settings_file_change(str(tmp_path / "sysctl.d/60-evio.conf"), {"net/ipv4/ip_forward": "1"})


def test_setting_of_an_interface_with_a_dot_is_named_as_sysctl_reads_it() -> None:
    assert dotted("net/ipv6/conf/eth0.7/accept_ra") == "net.ipv6.conf.eth0/7.accept_ra"
