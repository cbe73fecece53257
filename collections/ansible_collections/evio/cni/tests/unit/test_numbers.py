# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The kernel's numbers, which the plugin has copied to spare imports, are those of the standard library."""

from __future__ import annotations

import errno
import socket

import pytest
from ansible_collections.evio.cni.plugins.module_utils import cidr
from ansible_collections.evio.cni.plugins.module_utils.kernel import numbers

WITHOUT_STANDARD_NAME = {"IP_MTU_DISCOVER", "IP_MTU", "IPV6_MTU_DISCOVER", "IPV6_MTU", "PMTUDISC_DO"}
NAMES = sorted(name for name in vars(numbers) if name.isupper())


@pytest.mark.parametrize("name", NAMES)
def test_number_is_that_of_the_standard_library(name: str) -> None:
    expected = getattr(errno, name, getattr(socket, name, None))
    if expected is None:
        assert name in WITHOUT_STANDARD_NAME
    else:
        assert getattr(numbers, name) == expected


def test_address_families_are_those_of_the_standard_library() -> None:
    assert (cidr.AF_INET, cidr.AF_INET6) == (socket.AF_INET, socket.AF_INET6)


@pytest.mark.parametrize(
    ("family", "level", "discover", "mtu"),
    [
        (socket.AF_INET, socket.IPPROTO_IP, numbers.IP_MTU_DISCOVER, numbers.IP_MTU),
        (socket.AF_INET6, socket.IPPROTO_IPV6, numbers.IPV6_MTU_DISCOVER, numbers.IPV6_MTU),
    ],
)
def test_kernel_knows_the_options_that_have_no_standard_name(
    family: socket.AddressFamily, level: int, discover: int, mtu: int
) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.setsockopt(level, discover, numbers.PMTUDISC_DO)
        assert probe.getsockopt(level, discover) == numbers.PMTUDISC_DO
        probe.connect(("127.0.0.1" if family == socket.AF_INET else "::1", 9))
        assert probe.getsockopt(level, mtu) >= 1280
