# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The errors of the node's state. Which CNI error code each of them becomes is told by plugin/error_codes."""

from __future__ import annotations

from ..errors import EvioError


class StateError(EvioError):
    """A file of the state directory cannot be read or written."""


class AttachmentBusyError(StateError):
    """Another call works on the same attachment, and has not finished in time."""


class FenceError(StateError):
    """The node has lost its claim on its pod subnet: no new pod may get an address of it."""
