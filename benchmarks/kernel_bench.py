#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Measure both ways of a node, each beside its peers, in one virtual machine with Debian's kernel.

The ways: Open vSwitch's userspace datapath with wireguard-go, and the kernel's Open vSwitch and WireGuard. The machine
of vm/ runs plugin_bench.py with both datapaths, same_node_bench.py with each, and overlay_bench.py with each way. Its
only processor is emulated, at 1 ns for an instruction, so times count instructions: the load of this machine changes
nothing, and the figures say what each way costs. They do not say how fast it is on a real processor, which has
instructions for ciphers.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "vm"))

from machine import run_in_machine  # noqa: E402

SCRIPT = """\
set -e
echo "== plugin: ADD and DEL"
.venv/bin/python benchmarks/plugin_bench.py --datapath netdev system --rounds {rounds} --bursts {bursts}
echo "== pods of one node"
.venv/bin/python benchmarks/same_node_bench.py --datapath netdev --rounds {overlay_rounds} --seconds {seconds}
.venv/bin/python benchmarks/same_node_bench.py --datapath system --rounds {overlay_rounds} --seconds {seconds}
echo "== between nodes: the kernel's Open vSwitch and WireGuard"
between_nodes="benchmarks/overlay_bench.py --rounds {overlay_rounds} --seconds {seconds}"
.venv/bin/python $between_nodes --datapath system
echo "== between nodes: the userspace datapath and wireguard-go"
modprobe --remove wireguard
echo "install wireguard /bin/false" >/etc/modprobe.d/no-wireguard.conf
.venv/bin/python $between_nodes --datapath netdev --whole-machine
"""
"""Its changes are in the memory of the virtual machine."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="rounds of one ADD and one DEL (default: %(default)s)")
    parser.add_argument("--bursts", type=int, default=2, help="bursts of 50 ADDs and 50 DELs (default: %(default)s)")
    parser.add_argument("--overlay-rounds", type=int, default=5, help="of each path (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=1, help="of TCP in each of them (default: %(default)s)")
    arguments = parser.parse_args()
    os.chdir(REPOSITORY)
    # Into the cache, because the machine has no network. overlay_bench.py says which wireguard-go it takes.
    subprocess.run([REPOSITORY / "setup/wireguard-go"], stdout=subprocess.DEVNULL, check=False)
    return run_in_machine("kernel_bench", ["sh", "-c", SCRIPT.format_map(vars(arguments))], timeout=3600)


if __name__ == "__main__":
    sys.exit(main())
