# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A setting has the same default wherever it is written down: in the library, in the roles, and in their documentation.

YAML cannot import Python, so the roles repeat some of the library's defaults.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.evio.cni.plugins.module_utils import defaults, paths
from ansible_collections.evio.cni.plugins.module_utils.cni import cri
from ansible_collections.evio.cni.plugins.module_utils.etcd.options import ETCD_OPTIONS
from ansible_collections.evio.cni.plugins.module_utils.mtu import MOST_MTU
from ansible_collections.evio.cni.plugins.module_utils.pki import PKI_DIR

ROLES = Path(__file__).resolve().parents[2] / "roles"


def load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize(
    ("role", "variable", "value"),
    [
        ("cluster", "evio_cluster", defaults.CLUSTER),
        ("cluster", "evio_host_overlay_cidr", defaults.HOST_OVERLAY_CIDR),
        ("cluster", "evio_pod_cidr", defaults.POD_CIDR),
        ("cluster", "evio_cni_bin_dir", paths.CNI_BIN_DIR),
        ("cluster", "evio_cni_conf_dir", paths.CNI_CONF_DIR),
        ("cluster", "evio_cni_state_dir", paths.STATE_DIR),
        ("cluster", "evio_ovsdb", paths.OVSDB),
        ("cluster", "evio_ovs_timeout", defaults.OVS_TIMEOUT),
        ("cluster", "evio_cni_plugins_dir", paths.DISTRIBUTION_CNI_DIR),
        ("node_subnet", "evio_etcd_endpoints", ETCD_OPTIONS["endpoints"]["default"]),
    ],
)
def test_role_has_the_librarys_default(role: str, variable: str, value: object) -> None:
    assert load(ROLES / role / "defaults/main.yml")[variable] == value


@pytest.mark.parametrize("option", ["ca_cert", "client_cert", "client_key"])
def test_etcd_of_kubeadm_is_asked_with_the_librarys_certificates(option: str) -> None:
    default = load(ROLES / "node_subnet/defaults/main.yml")[f"evio_etcd_{option}"]
    assert default.replace("{{ evio_etcd_pki_dir }}", PKI_DIR) == ETCD_OPTIONS[option]["default"]
    assert f"else '{PKI_DIR}'" in load(ROLES / "cluster/defaults/main.yml")["evio_etcd_pki_dir"]


def test_roles_ask_containerd_at_the_librarys_socket() -> None:
    assert cri.CONTAINERD in (ROLES / "cluster/defaults/main.yml").read_text(encoding="utf-8")


def test_roles_have_the_librarys_bridge_for_wireguard() -> None:
    variables = load(ROLES / "cluster/vars/main.yml").values()
    assert defaults.BRIDGE in [value.get("wireguard") for value in variables if isinstance(value, dict)]


def test_overlay_role_has_the_librarys_mtu() -> None:
    variables = load(ROLES / "overlay/vars/main.yml").values()
    assert any(f"else {defaults.OVERLAY_MTU}" in value for value in variables if isinstance(value, str))


def test_default_datapath_is_one_that_exists() -> None:
    assert defaults.DATAPATH_TYPE in MOST_MTU


@pytest.mark.parametrize("role", sorted(path.parent.parent.name for path in ROLES.glob("*/defaults/main.yml")))
def test_documented_default_is_the_roles_own(role: str) -> None:
    specs = load(ROLES / role / "meta/argument_specs.yml")["argument_specs"].values()
    documented = {
        name: option["default"]
        for spec in specs
        for name, option in (spec.get("options") or {}).items()
        if "default" in option
    }
    own = load(ROLES / role / "defaults/main.yml")
    assert {name: str(own.get(name)) for name in documented} == {name: str(value) for name, value in documented.items()}
