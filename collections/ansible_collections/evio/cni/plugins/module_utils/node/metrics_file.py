# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The file of the node's metrics that evio-metrics.service writes, and its removal when nobody writes it any more.

node_exporter would go on telling the values of a file that is left behind. The unit's command line is the only place
that says where the file is.
"""

from __future__ import annotations

import contextlib
import os
import re

from .. import paths
from ..atomic_file import remove_file
from ..errors import EvioError
from ..state.event_log import log_file

_DIRECTORY = re.compile(r"(?m)^ExecStart=(?:.*\\\n)*.* --textfile-directory (/\S+)")


class MetricsFileError(EvioError):
    """The file cannot be removed."""


def metrics_file(unit_text: str | None) -> str | None:
    """Return the path of the file that a unit with this text writes; None without a unit."""
    match = _DIRECTORY.search(unit_text or "")
    return None if match is None else os.path.join(match[1], paths.METRICS_FILE)


def remove_metrics(file: str) -> None:
    """Remove the file. Raises MetricsFileError."""
    try:
        remove_file(file)
    except OSError as error:
        raise MetricsFileError(f"cannot remove {file}: {error.strerror}") from error


def stop_counting(state_dir: str) -> None:
    """Remove the log of calls and repairs, so that nothing is counted, and the unit's own directory.

    The sums stay. Raises MetricsFileError.
    """
    # systemd keeps it when the unit is gone (RuntimeDirectoryPreserve).
    with contextlib.suppress(OSError):
        os.rmdir(paths.METRICS_RUN_DIR)
    for log in (log_file(state_dir), f"{log_file(state_dir)}.old"):
        try:
            remove_file(log)
        except OSError as error:
            raise MetricsFileError(f"cannot remove {log}: {error.strerror}") from error
