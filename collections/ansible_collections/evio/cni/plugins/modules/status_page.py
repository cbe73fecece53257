#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of this name, which needs no module: it works on the control machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: status_page
short_description: Write a page that shows the whole cluster
version_added: 0.1.0
description:
  - Puts together what M(evio.cni.node_status_info) has returned on each host in C(__evio_status_answer), and what etcd
    has of claims, and writes C(status.html) and C(status.json) on the control machine.
  - The page is one file without any request to anywhere. It says first what is wrong, each with the command that mends
    it, and shows sites, nodes and the ways between them, the pod network, and each node.
  - Runs in Ansible itself and connects to no host, so it needs no rights on the control machine. Run it once, with
    C(run_once), from the role C(status), which has the page's template.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
attributes:
  check_mode:
    support: full
    details: The files are written in check mode too, since they are a report and no state of the cluster.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  cluster:
    description: The cluster's name.
    type: str
    required: true
  nodes:
    description: Names of all nodes. A node without an answer is shown as silent.
    type: list
    elements: str
    required: true
  registry:
    description: Result of M(evio.cni.subnet_pool_info). If it is not given, the page has no picture of the pod network.
    type: dict
  directory:
    description: Directory on the control machine for both files. It is made if it does not exist.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Write the status page
  evio.cni.status_page:
    cluster: kubernetes
    nodes: "{{ groups['evio_nodes'] }}"
    registry: "{{ pool }}"
    directory: build/evio-status
  run_once: true
"""

RETURN = r"""
page:
  description: Path of the page.
  returned: success
  type: str
json:
  description:
    - Path of the same as JSON. C(docs/cluster-status.schema.json) in the repository, U(https://github.com/evio-cni/evio.cni),
      describes it.
  returned: success
  type: str
summary:
  description: One sentence about the cluster.
  returned: success
  type: str
  sample: "3 nodes answered, 6 pods; nothing is wrong; ways: 2 direct, 1 idle"
problems:
  description: What is wrong, the worst first, each with the command that mends it.
  returned: success
  type: list
  elements: dict
  sample:
    - {severity: error, what: there is no way to node3, remedy: evio overlay status, run_on: node, nodes: [node2]}
is_well:
  description: Whether no problem is an error.
  returned: success
  type: bool
"""
