# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The program ``evio-config-gen``: a CNI configuration out of PodCIDR and NodeBits, as an init container runs it.

Only output and exit status are this file's subject; settings are options', what is done with them the library's.
"""

from __future__ import annotations

import sys

_DISTRIBUTION = "/usr/lib/python3/dist-packages"
"""Where the distribution has etcd3 and grpc; the launcher starts an interpreter that knows of no packages."""


def main() -> None:
    """Never returns; status 0 when the conflist is in place, 1 when it is not, 2 for arguments that make no sense."""
    if _DISTRIBUTION not in sys.path:
        sys.path.append(_DISTRIBUTION)
    from evio_cni.errors import EvioError
    from evio_cni.node.config_generator import generate
    from evio_config_gen.options import parse_settings

    try:
        generated = generate(parse_settings(sys.argv[1:]))
    except EvioError as error:
        sys.exit(f"evio-config-gen: {' '.join(str(error).split())}")
    done = "written" if generated.changed else "up to date"
    print(f"{generated.path} {done}: {', '.join(generated.cidrs)}, epoch {generated.epoch}")
    sys.exit(0)
