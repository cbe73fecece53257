# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where things are on a node: every path that two rooms must agree on. Constants only: anything may import it."""

from __future__ import annotations

CNI_BIN_DIR = "/opt/cni/bin"
CNI_LIB_DIR = "/opt/cni/lib"
"""Home of the programs' code: one directory a version below it, named by its launcher in CNI_BIN_DIR."""
DISTRIBUTION_CNI_DIR = "/usr/lib/cni"
"""Where Debian's package containernetworking-plugins has host-local, portmap and bandwidth."""

DEFAULT_CNI_PATH = f"{CNI_BIN_DIR}:{DISTRIBUTION_CNI_DIR}"
"""CNI_PATH of attachments whose journal entry has been lost."""
CNI_CONF_DIR = "/etc/cni/net.d"
CONFLIST_NAME = "10-evio.conflist"
STATE_DIR = "/var/lib/evio-cni"
"""The plugin's journal: one directory a network below it."""
RUN_DIR = "/run/evio-cni"
"""What is true until the next boot."""
OVSDB = "unix:/var/run/openvswitch/db.sock"
ETC_DIR = "/etc/evio"
OVERLAY_CONFIG = ETC_DIR + "/overlay.json"
"""The host overlay of this node: written by the overlay role alone."""
POD_ROUTES_CONFIG = ETC_DIR + "/pod-routes.json"
"""Which node holds which pod subnet: written once the subnets are claimed."""
WIREGUARD_KEY = ETC_DIR + "/wireguard.key"
OVERLAY_STATE = RUN_DIR + "/overlay.json"
"""Which way leads to each node now: written by the overlay's agent."""
PYTHON_PACKAGES = "/usr/lib/python3/dist-packages"
"""Where the distribution has ovs, pyroute2, etcd3 and grpc; the launcher's -S hides it from sys.path."""

SYSCTL_FILE = "/etc/sysctl.d/60-evio.conf"
"""What lets the node forward for its pods from its boot on: written with the pod bridge."""
