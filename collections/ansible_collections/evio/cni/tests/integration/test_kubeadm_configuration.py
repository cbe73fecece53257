# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The configuration that the role kubernetes writes for kubeadm, in the form of each API version.

The lab runs kubeadm 1.20 with it, which reads v1beta2. The forms of later versions are compared with what
kubernetes.io documents: since v1beta4 arguments are a list of names and values.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = Path(__file__).resolve().parents[2] / "roles"
COLLECTIONS = ROLES.parents[3]

PLAYBOOK = """
- hosts: evio_nodes
  gather_facts: false
  roles: [evio.cni.cluster]
  vars_files: [{roles}/kubernetes/defaults/main.yml, {roles}/kubernetes/vars/main.yml]
  tasks:
    - ansible.builtin.template:
        src: {roles}/kubernetes/templates/kubeadm.yaml.j2
        dest: {directory}/init.yaml
        mode: "0600"
      vars:
        __evio_kubeadm_documents: "{{{{ __evio_init_documents }}}}"
      when: inventory_hostname == 'node1'
    - ansible.builtin.template:
        src: {roles}/kubernetes/templates/kubeadm.yaml.j2
        dest: {directory}/{{{{ inventory_hostname }}}}.yaml
        mode: "0600"
      vars:
        __evio_kubeadm_documents: ["{{{{ __evio_join_configuration }}}}"]
      when: inventory_hostname != 'node1'
"""

HOSTS = {f"node{number}": {"evio_host_overlay_address": f"10.10.0.{number}"} for number in (1, 2, 3)}
KEY = "0123456789abcdef" * 4
JOIN = f"kubeadm join 10.10.0.1:6443 --token abcdef.0123456789abcdef     --discovery-token-ca-cert-hash sha256:{KEY} \n"
PLAN = {"primary": "node1", "initialises": True, "joining": ["node2", "node3"], "version": "1.30.2"}


def render(directory: Path, version: str, **variables: Any) -> dict[str, list[dict[str, Any]]]:
    """Return the documents for `kubeadm init` on node1, and for the joins of node2, a control-plane host, and node3."""
    settings = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "evio_kubernetes": "kubeadm",
        "evio_kubernetes_endpoint": "api.example.org:6443",
        "__evio_kubernetes_plan": {**PLAN, "api_version": f"kubeadm.k8s.io/{version}"},
        "__evio_join_command": {"stdout": JOIN},
        "__evio_uploaded_certificates": {"stdout": f"[upload-certs] Using certificate key:\n{KEY}"},
    }
    groups = {
        "evio_nodes": {"hosts": HOSTS},
        "evio_pod_nodes": {"hosts": HOSTS},
        "evio_control_plane": {"hosts": {"node1": None, "node2": None}},
    }
    (directory / "hosts.json").write_text(json.dumps({"all": {"vars": settings, "children": groups}}))
    (directory / "play.yml").write_text(PLAYBOOK.format(roles=ROLES, directory=directory))
    (directory / "ansible.cfg").write_text("")
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            # As extra variables, because the play's vars_files hide those of the inventory.
            *("-i", str(directory / "hosts.json"), "-e", json.dumps(variables), str(directory / "play.yml")),
        ],
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_CONFIG": str(directory / "ansible.cfg"),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    names = ("init", "node2", "node3")
    return {name: list(yaml.safe_load_all((directory / f"{name}.yaml").read_text())) for name in names}


@pytest.mark.parametrize("version", ["v1beta2", "v1beta3", "v1beta4"])
def test_configuration_has_the_form_of_its_api_version(tmp_path: Path, version: str) -> None:
    documents = render(tmp_path, version)
    init, cluster = documents["init"]
    assert [document["kind"] for document in (init, cluster)] == ["InitConfiguration", "ClusterConfiguration"]
    assert init["localAPIEndpoint"] == {"advertiseAddress": "10.10.0.1"}
    assert init["bootstrapTokens"] == [{"ttl": "15m"}]
    scheme = "" if version == "v1beta2" else "unix://"
    assert init["nodeRegistration"] == {"name": "node1", "criSocket": f"{scheme}/run/containerd/containerd.sock"}
    assert (cluster["kubernetesVersion"], cluster["controlPlaneEndpoint"]) == ("v1.30.2", "api.example.org:6443")
    assert cluster["networking"] == {"podSubnet": "10.244.0.0/16", "serviceSubnet": "10.96.0.0/12"}
    address_types: Any = {"kubelet-preferred-address-types": "InternalIP"}
    if version == "v1beta4":
        address_types = [{"name": "kubelet-preferred-address-types", "value": "InternalIP"}]
    assert cluster["apiServer"]["extraArgs"] == address_types
    assert "etcd" not in cluster
    for name in ("node2", "node3"):
        (join,) = documents[name]
        assert join["apiVersion"] == f"kubeadm.k8s.io/{version}"
        assert join["discovery"]["bootstrapToken"] == {
            "apiServerEndpoint": "api.example.org:6443",
            "token": "abcdef.0123456789abcdef",
            "caCertHashes": [f"sha256:{KEY}"],
        }
    assert documents["node2"][0]["controlPlane"] == {
        "localAPIEndpoint": {"advertiseAddress": "10.10.0.2"},
        "certificateKey": KEY,
    }
    assert "controlPlane" not in documents["node3"][0]


def test_settings_of_the_site_override_and_extend_those_of_the_role(tmp_path: Path) -> None:
    documents = render(
        tmp_path,
        "v1beta3",
        evio_pod_cidr="10.244.0.0/16, fd00:10:244::/56",
        evio_service_network="10.43.0.0/16, fd43::/108",
        evio_kubeadm_cluster_config={"imageRepository": "registry.example.org", "apiServer": {"extraArgs": {"v": "4"}}},
        evio_kubeadm_node_registration={"taints": []},
        evio_kubelet_config={"failSwapOn": False},
        evio_kube_proxy_config={"mode": "ipvs"},
        evio_containerd_managed="true",
    )
    init, cluster, kubelet, proxy = documents["init"]
    assert init["nodeRegistration"]["taints"] == []
    assert cluster["imageRepository"] == "registry.example.org"
    assert cluster["apiServer"]["extraArgs"] == {"kubelet-preferred-address-types": "InternalIP", "v": "4"}
    networking = {"podSubnet": "10.244.0.0/16,fd00:10:244::/56", "serviceSubnet": "10.43.0.0/16,fd43::/108"}
    assert cluster["networking"] == networking
    assert (kubelet["cgroupDriver"], kubelet["failSwapOn"]) == ("systemd", False)
    assert (proxy["kind"], proxy["mode"]) == ("KubeProxyConfiguration", "ipvs")


def test_etcd_that_the_playbook_runs_is_an_external_etcd_for_kubeadm(tmp_path: Path) -> None:
    cluster = render(tmp_path, "v1beta3", evio_etcd_managed=True)["init"][1]
    assert cluster["etcd"] == {
        "external": {
            "endpoints": ["https://10.10.0.1:2379"],
            "caFile": "/etc/evio-etcd/etcd/ca.crt",
            "certFile": "/etc/evio-etcd/apiserver-etcd-client.crt",
            "keyFile": "/etc/evio-etcd/apiserver-etcd-client.key",
        }
    }
