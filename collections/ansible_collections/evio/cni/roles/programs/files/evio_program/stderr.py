# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the programs write to standard error: lines that have a priority where the journal reads them."""

from __future__ import annotations

import logging
import sys

from evio_cni.kernel.journald import ERROR, INFO, WARNING, with_priority


def complain(text: str, priority: int = ERROR) -> None:
    """Write a line with this priority (kernel/journald)."""
    sys.stderr.write(with_priority(text, priority, sys.stderr) + "\n")
    sys.stderr.flush()


def log_to_stderr() -> None:
    """Let an agent's records from INFO on go to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PriorityFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


class _PriorityFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        priority = ERROR if record.levelno >= logging.ERROR else WARNING if record.levelno >= logging.WARNING else INFO
        return with_priority(super().format(record), priority, sys.stderr)
