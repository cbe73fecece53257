# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""vm/copy_programs, on an overlay over this machine's files, as the virtual machine has one over the host's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

REPOSITORY = Path(__file__).resolve().parents[2]

ON_AN_OVERLAY = """\
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
mount --bind /dev "$1/root/dev"
mount -t proc proc "$1/root/proc"
cd "$1/root"
chroot . env PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -c 'cd "$1" && vm/copy_programs echo "the command runs"' sh "$2"
find "$1/upper" -type f -printf '/%P\\n'
"""


def test_programs_and_what_they_read_are_copied_before_the_command_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", ON_AN_OVERLAY, "sh", tmp_path, REPOSITORY],
        capture_output=True,
        text=True,
        check=True,
    )
    first, *copied = done.stdout.splitlines()
    assert first == "the command runs"
    assert {"/usr/bin/wg", "/usr/bin/ping", "/etc/ld.so.cache"} <= set(copied)
    assert any(path.endswith("/libc.so.6") for path in copied)
    assert any("/json/__pycache__/" in path for path in copied)
    assert not [path for path in copied if path.startswith(str(REPOSITORY / "collections"))]
