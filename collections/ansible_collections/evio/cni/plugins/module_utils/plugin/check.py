# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""CHECK: compare a pod's attachment with the result of its ADD. Nothing is changed.

Interfaces, addresses and routes that other plugins of the chain have made only need to exist. What is looked at, and in
which order: findings.
"""

from __future__ import annotations

import posix

from ..cni.attachment import Attachment
from ..cni.netconf import NetConf
from ..cni.spec import INVALID_CONFIG, NOT_AS_ATTACHED, TRY_AGAIN, Call, CniError
from ..deadline import CHECK_SECONDS, begin_call
from ..ipam.delegate import start_ipam
from ..kernel.netns import open_netns
from ..state.journal import Journal
from .expected import Expected, expected_by_result
from .findings import findings


def cmd_check(call: Call, conf: NetConf) -> None:
    """Raise CniError NOT_AS_ATTACHED for the first fault, or TRY_AGAIN where Open vSwitch does not answer.

    Raises the IPAM plugin's own error where that is the only one.
    """
    if conf.previous is None:
        raise CniError(INVALID_CONFIG, "CHECK needs the result of ADD: prevResult is not in the configuration")
    begin_call(CHECK_SECONDS)
    # Refuse a netns that is none before the IPAM plugin is asked.
    posix.close(open_netns(call.netns))
    attachment = Attachment(conf.name, call.container_id, call.ifname)
    ipam = start_ipam("CHECK", attachment, conf, call.path, call.netns)
    try:
        host_end = Journal(conf.state_dir).host_end(attachment)
        _check(conf, expected_by_result(conf, attachment, call.netns, host_end))
    finally:
        failure = ipam.result_or_error()
    if failure is not None:
        raise failure


def _check(conf: NetConf, expected: Expected) -> None:
    """Raise for the first known fault, whatever could not be found out before it."""
    unknown = None
    for finding in findings(conf, expected):
        if finding.is_known and not finding.holds:
            raise CniError(NOT_AS_ATTACHED, f"{finding.what}; to mend it: {finding.remedy}")
        if not finding.is_known:
            unknown = unknown or finding
    if unknown is not None:
        raise CniError(TRY_AGAIN, unknown.what)
