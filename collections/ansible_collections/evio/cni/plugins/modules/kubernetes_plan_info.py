# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of this name, which needs no module: it looks at what the hosts have said."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_plan_info
short_description: Decide what kubeadm has to do on the hosts of a run
version_added: 0.1.0
description:
  - Fails with a message that names the host if kubeadm or kubelet is missing, if versions do not fit, if a host is in
    another cluster, or if a cluster would be created where there may be one already.
  - Changes nothing. Runs in Ansible itself and connects to no host. Run it once, with C(run_once).
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  hosts:
    description:
      - What M(evio.cni.kubeadm_info) has returned as C(host) on each host, by the host's name. It has all hosts of the
        run. A control-plane host outside of the run is missing if it could not be reached.
    type: dict
    required: true
  run:
    description: The hosts of this run.
    type: list
    elements: str
    required: true
  control_plane:
    description: The hosts of the group C(evio_control_plane).
    type: list
    elements: str
    required: true
  members:
    description: All hosts that shall be nodes of the cluster.
    type: list
    elements: str
    required: true
  endpoint:
    description: Address or name and port of the API server, under which all nodes reach it.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Decide what kubeadm has to do
  evio.cni.kubernetes_plan_info:
    hosts: "{{ __evio_kubeadm_hosts }}"
    run: "{{ ansible_play_hosts }}"
    control_plane: "{{ groups['evio_control_plane'] }}"
    members: "{{ groups['evio_pod_nodes'] }}"
    endpoint: 10.10.0.1:6443
  run_once: true
"""

RETURN = r"""
primary:
  description: The control-plane host that creates the cluster, or admits the other hosts to it.
  returned: success
  type: str
initialises:
  description: Whether C(kubeadm init) has to run on RV(primary).
  returned: success
  type: bool
joining:
  description: Hosts of the run on which C(kubeadm join) has to run.
  returned: success
  type: list
  elements: str
reset_first:
  description: Those of RV(joining) on which an interrupted join has to be reset first.
  returned: success
  type: list
  elements: str
etcd_is_expected:
  description: Whether the stacked etcd of RV(primary) should answer already.
  returned: success
  type: bool
api_version:
  description: API version of kubeadm's configuration files.
  returned: success
  type: str
  sample: kubeadm.k8s.io/v1beta3
version:
  description: Version of kubeadm on RV(primary).
  returned: success
  type: str
"""
