# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The identity of the host's current boot. State on disk that carries another one was written before a reboot."""

from __future__ import annotations

import posix

_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def boot_id() -> str:
    """Return the UUID that the kernel gave this boot (random(4)). Raises OSError where /proc is not mounted."""
    descriptor = posix.open(_BOOT_ID, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.read(descriptor, 64).decode().strip()
    finally:
        posix.close(descriptor)
