"""What is mounted where in the machine's own mount namespace, by the kernel's own list."""

from __future__ import annotations

import re
from pathlib import Path

_OCTAL = re.compile(r"\\([0-7]{3})")
"""How the kernel writes a blank in a path (proc(5), mountinfo)."""


def mount_points() -> list[str]:
    """Every mount point, oldest first; bind mounts of a directory on itself too, which os.path.ismount misses."""
    with open("/proc/self/mountinfo") as mounts:
        return [_OCTAL.sub(lambda match: chr(int(match[1], 8)), line.split()[4]) for line in mounts]


def below(directory: Path) -> list[str]:
    """Mount points in a directory, innermost first."""
    return sorted((point for point in mount_points() if point.startswith(f"{directory}/")), key=len, reverse=True)
