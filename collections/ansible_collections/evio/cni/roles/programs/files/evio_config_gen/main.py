# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The program ``evio-config-gen``: writes a node's CNI configuration from PodCIDR and NodeBits, in an init container.

This file prints the result and sets the exit status; ``options`` reads the settings, the library does the work.
"""

from __future__ import annotations

import sys

from evio_cni.errors import EvioError
from evio_cni.node.config_generator import generate
from evio_cni.paths import PYTHON_PACKAGES

from .options import parse_settings


def main() -> None:
    """Run the program and exit: 0 if the conflist is in place, 1 if it is not, 2 for unknown options."""
    # For etcd3 and grpc, which the library imports when it calls etcd.
    if PYTHON_PACKAGES not in sys.path:
        sys.path.append(PYTHON_PACKAGES)
    try:
        generated = generate(parse_settings(sys.argv[1:]))
    except EvioError as error:
        sys.exit(f"evio-config-gen: {' '.join(str(error).split())}")
    for warning in generated.warnings:
        print(f"evio-config-gen: {warning}", file=sys.stderr)
    state = "written" if generated.changed else "up to date"
    print(f"{generated.path} {state}: {', '.join(generated.cidrs)}, epoch {generated.epoch}")
    sys.exit(0)
