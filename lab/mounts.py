"""Mount points of this machine's mount namespace, from /proc/self/mountinfo."""

from __future__ import annotations

import re
from pathlib import Path

_OCTAL = re.compile(r"\\([0-7]{3})")
"""The kernel's escape of a blank in a path (proc(5), mountinfo)."""


def mount_points() -> list[str]:
    """Return every mount point, oldest first; os.path.ismount would miss bind mounts of a directory on itself."""
    with open("/proc/self/mountinfo") as mounts:
        return [_OCTAL.sub(lambda match: chr(int(match[1], 8)), line.split()[4]) for line in mounts]


def below(directory: Path) -> list[str]:
    """Return the mount points in a directory, innermost first."""
    return sorted((point for point in mount_points() if point.startswith(f"{directory}/")), key=len, reverse=True)
