# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The CNI error codes of the library's errors. The layers below the verbs raise errors of their own, without codes."""

from __future__ import annotations

from ..cni.spec import FAILED, INVALID_ENVIRONMENT, IO_FAILURE, NOT_AVAILABLE, TRY_AGAIN, CniError
from ..kernel.netns import NetnsError
from ..state.directory import StateError
from ..state.fence import FenceError
from ..state.lock import AttachmentBusyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..errors import EvioError

_CODES = ((FenceError, NOT_AVAILABLE), (AttachmentBusyError, TRY_AGAIN), (StateError, IO_FAILURE))
"""The first class that fits counts."""


def cni_error(error: EvioError) -> CniError:
    """Return the error as the runtime is told it; errors that are not listed here get the code FAILED."""
    if isinstance(error, CniError):
        return error
    if isinstance(error, NetnsError):
        return CniError(
            INVALID_ENVIRONMENT,
            f"CNI_NETNS {error}; if the pod's sandbox has ended, kubelet makes another; else recreate the pod",
        )
    return CniError(next((code for kind, code in _CODES if isinstance(error, kind)), FAILED), str(error))
