#!/usr/bin/python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where the npm packages of setup/npm are installed: run as a program, it prints the directory. `machine` fills it."""

from __future__ import annotations

from pathlib import Path

from debian_packages import cache_directory


def npm_packages() -> Path:
    """Return the directory that has node_modules."""
    return cache_directory("npm")


if __name__ == "__main__":
    print(npm_packages())
