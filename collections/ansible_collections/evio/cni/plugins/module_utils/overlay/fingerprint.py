# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How an agent notices that a file was replaced: its own program, or a file that it reads."""

from __future__ import annotations

import os
from typing import TypeAlias

Fingerprint: TypeAlias = "tuple[int, ...] | None"


def fingerprint(path: str) -> Fingerprint:
    """Return a value that differs once the file is replaced; None if there is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
