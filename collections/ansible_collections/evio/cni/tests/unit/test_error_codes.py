# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The runtime is told each error of the library with the code that the CNI specification has for it."""

from __future__ import annotations

import pytest
from ansible_collections.evio.cni.plugins.module_utils.cni.spec import (
    FAILED,
    INVALID_CONFIG,
    INVALID_ENVIRONMENT,
    IO_FAILURE,
    NOT_AVAILABLE,
    TRY_AGAIN,
    CniError,
)
from ansible_collections.evio.cni.plugins.module_utils.errors import EvioError
from ansible_collections.evio.cni.plugins.module_utils.kernel.netns import NetnsError
from ansible_collections.evio.cni.plugins.module_utils.plugin.error_codes import cni_error
from ansible_collections.evio.cni.plugins.module_utils.state.directory import StateError
from ansible_collections.evio.cni.plugins.module_utils.state.fence import FenceError
from ansible_collections.evio.cni.plugins.module_utils.state.lock import AttachmentBusyError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StateError("the disk is full"), IO_FAILURE),
        (AttachmentBusyError("another call is at work"), TRY_AGAIN),
        (FenceError("the claim is lost"), NOT_AVAILABLE),
        (EvioError("the kernel refuses"), FAILED),
    ],
)
def test_error_has_its_code_and_keeps_its_message(error: EvioError, code: int) -> None:
    told = cni_error(error)
    assert (told.code, told.msg) == (code, str(error))


def test_error_of_a_namespace_names_the_variable_that_it_came_from() -> None:
    told = cni_error(NetnsError("'/run/netns/pod' is no network namespace"))
    assert told.code == INVALID_ENVIRONMENT
    assert told.msg.startswith("CNI_NETNS '/run/netns/pod' is no network namespace; ")


def test_cni_error_stays_as_it_is() -> None:
    error = CniError(INVALID_CONFIG, "mtu: -5", "details")
    assert cni_error(error) is error
