# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The name of an attachment, and the interfaces that ADD reports for it."""

from __future__ import annotations

import pytest
from ansible_collections.evio.cni.plugins.module_utils.cni.attachment import Attachment
from ansible_collections.evio.cni.plugins.module_utils.cni.interfaces import Interface, Interfaces

POD = Attachment("evio", "0a1b", "eth0")


def test_attachment_is_immutable_and_hashable() -> None:
    assert {POD: 1}[Attachment("evio", "0a1b", "eth0")] == 1
    with pytest.raises(AttributeError):
        POD.network = "other"  # type: ignore[misc]


def test_attachments_are_sorted_by_network_container_and_interface() -> None:
    others = [Attachment("evio", "0a1b", "net1"), Attachment("evio", "ff", "eth0"), Attachment("site", "00", "eth0")]
    assert sorted([*reversed(others), POD]) == [POD, *others]


def test_attachment_has_a_path_for_files_and_words_for_messages() -> None:
    assert POD.path == "evio/0a1b:eth0"
    assert f"{POD}" == "0a1b eth0"


@pytest.mark.parametrize(
    ("container_id", "ifname"),
    [("", "eth0"), ("../0a1b", "eth0"), ("a" * 201, "eth0"), ("0a1b", ""), ("0a1b", "a/b"), ("0a1b", "a" * 16)],
)
def test_attachment_with_a_name_that_add_refuses_is_not_valid(container_id: str, ifname: str) -> None:
    assert POD.is_valid
    assert not Attachment("evio", container_id, ifname).is_valid


def test_interfaces_stand_in_the_result_in_their_order() -> None:
    bridge, host = Interface("br-evio", "0a:58:0a:f4:03:01", 1420), Interface("evpod0", "02:00:00:00:00:01", 1420)
    pod = Interface("eth0", "02:00:00:00:00:02", 1420, "/run/netns/pod")
    interfaces = Interfaces(bridge, host, pod)
    assert (interfaces.bridge, interfaces.host, interfaces.pod) == (bridge, host, pod)
    assert interfaces[Interfaces.POD] is pod
    assert [one.to_json() for one in interfaces] == [
        {"name": "br-evio", "mac": "0a:58:0a:f4:03:01", "mtu": 1420},
        {"name": "evpod0", "mac": "02:00:00:00:00:01", "mtu": 1420},
        {"name": "eth0", "mac": "02:00:00:00:00:02", "mtu": 1420, "sandbox": "/run/netns/pod"},
    ]
