# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where files are on a node: every path that two packages must agree on. Only constants, so any file may import it."""

from __future__ import annotations

CNI_BIN_DIR = "/opt/cni/bin"
"""The runtime's plugin directory, and the home of the programs' launchers."""

CNI_LIB_DIR = "/opt/cni/lib"
"""The programs' code: one directory for each version, named by the launchers in CNI_BIN_DIR."""

DISTRIBUTION_CNI_DIR = "/usr/lib/cni"
"""Where Debian's package containernetworking-plugins has host-local, portmap and bandwidth."""

PLUGIN_DIRS = (CNI_BIN_DIR, DISTRIBUTION_CNI_DIR)
"""The directories in which to look for other CNI plugins."""

DEFAULT_CNI_PATH = ":".join(PLUGIN_DIRS)
"""CNI_PATH of an attachment whose journal entry is lost."""

CNI_CONF_DIR = "/etc/cni/net.d"
"""The directory from which the runtime reads its network."""

CONFLIST_NAME = "10-evio.conflist"
"""Our file in that directory."""

STATE_DIR = "/var/lib/evio-cni"
"""The plugin's state: the journal, one directory for each network, and the fence."""

INSTALLED_PACKAGES = "/var/lib/misc/evio-packages.json"
"""The Debian packages that this collection has installed: they were not there before. It outlives all else of ours."""

RUN_DIR = "/run/evio-cni"
"""State that ends with the boot."""

OVSDB = "unix:/var/run/openvswitch/db.sock"
"""Open vSwitch's database, as a connection method of ovsdb(7)."""

ETC_DIR = "/etc/evio"
"""Configuration that the role ``overlay`` writes."""

NODE_IDENTITY = ETC_DIR + "/node.json"
"""The node's name and cluster, by which a wrong host is recognised."""

OVERLAY_CONFIG = ETC_DIR + "/overlay.json"
"""This node's part of the host overlay: addresses, keys and endpoints of all nodes."""

POD_ROUTES_CONFIG = ETC_DIR + "/pod-routes.json"
"""The pod subnets of each node; written once they are claimed."""

KUBEADM_BEGUN = ETC_DIR + "/kubeadm-begun"
"""Says `init` or `join` while the role kubernetes runs kubeadm. It is still there if that run was interrupted."""

EDGEVPN_MEMBERS = ETC_DIR + "/edgevpn.json"
"""The nodes of EdgeVPN.io's overlays, for the agent beside EdgeVPN.io."""

WIREGUARD_KEY = ETC_DIR + "/wireguard.key"
"""This node's private key."""

EDGEVPN_STARTED = RUN_DIR + "/edgevpn-started.json"
"""The configuration with which EdgeVPN.io was started; copied by the drop-in of its service."""

OVERLAY_STATE = RUN_DIR + "/overlay.json"
"""The path to each node at present; written by the overlay's agent."""

PYTHON_PACKAGES = "/usr/lib/python3/dist-packages"
"""Where the distribution has ovs, pyroute2, etcd3 and grpc. The launcher's option -S keeps it out of sys.path."""

SYSCTL_FILE = "/etc/sysctl.d/60-evio.conf"
"""The kernel settings with which the node forwards packets of its pods; written with the pod bridge."""

MACHINE_ID = "/etc/machine-id"
"""The machine's id (machine-id(5))."""

KUBEADM_PKI_DIR = "/etc/kubernetes/pki"
"""kubeadm's certificates."""

ETCD_PKI_DIR = "/etc/evio-etcd"
"""The certificates of an etcd that the role etcd runs, if the inventory names no other directory."""

ETCD_DROP_IN = "/etc/systemd/system/etcd.service.d/evio.conf"
"""The drop-in with which the role etcd configures etcd.service; it names the certificates."""

XMPP_PKI_DIR = "/etc/prosody/evio-pki"
"""The signalling server's certificate, where the site has none of its own."""

XMPP_GROUPS_FILE = "/etc/prosody/evio-groups.txt"
"""The file of prosody's mod_groups: which accounts are in each other's rosters."""

XMPP_DATA_DIR = "/var/lib/prosody"
"""Where Debian's prosody keeps the accounts."""

CNI_RESULTS = "/var/lib/cni/results"
"""Where libcni caches the results of whole chains of plugins for the runtime, one file for each attachment."""

HOST_LOCAL_DATA = "/var/lib/cni/networks"
"""Where host-local keeps its reservations by default, in one directory for each network."""

METRICS_FILE = "evio.prom"
"""The file in the directory of node_exporter's textfile collector, which reads ``*.prom``."""

METRICS_RUN_DIR = "/run/evio-metrics"
"""Where the metrics are written that nothing but the unit for Prometheus reads. systemd makes it for the unit below."""

METRICS_UNIT = "/etc/systemd/system/evio-metrics.service"
"""The unit that writes the metrics; its command line has the directory."""
