#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that tells other hosts for some seconds from where their packets come; overlay/nat_mapping answers."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nat_responder
short_description: Tell other hosts for some seconds from where their packets come
version_added: 0.1.0
description:
  - Answers UDP requests of M(evio.cni.preflight_info) on other hosts with the address and port that they come from, so
    that those hosts learn the kind of their NAT. Run it with C(async) and C(poll) 0 on hosts with public endpoints.
  - Answers only requests with this run's token, and never sends more than it gets. It ends by itself.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
attributes:
  check_mode:
    support: full
    details: Answers in check mode too, since nothing on the host changes.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  listen_port:
    description: UDP port. If a program has it already, port 51822 is taken.
    type: int
    default: 51820
  nat_token:
    description: The token of this run, 16 to 64 ASCII characters.
    type: str
    required: true
  seconds:
    description: Seconds for which requests are answered, at most 600.
    type: float
    default: 60.0
"""

EXAMPLES = r"""
- name: Tell the other nodes from where their packets come
  evio.cni.nat_responder:
    nat_token: "{{ token }}"
  async: 120
  poll: 0
"""

RETURN = r"""
answered:
  description: Number of requests that were answered.
  returned: success
  type: int
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.errors import EvioError
from ..module_utils.module_runner import Module, run_module
from ..module_utils.overlay.endpoint import LISTEN_PORT
from ..module_utils.overlay.nat_mapping import RESPONDER_PORT, respond

_MOST_SECONDS = 600.0


class NatResponder:
    """One run: answer until the time is over."""

    def __init__(self, module: Module) -> None:
        self.params = module.params

    def run(self) -> dict[str, Any]:
        seconds = min(_MOST_SECONDS, self.params["seconds"])
        ports = (self.params["listen_port"], RESPONDER_PORT)
        try:
            answered = respond(ports, self.params["nat_token"], seconds)
        except (OSError, ValueError) as error:
            raise EvioError(f"cannot answer on UDP port {' or '.join(map(str, ports))}: {error}") from error
        return {"changed": False, "answered": answered}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "listen_port": {"type": "int", "default": LISTEN_PORT},
            "nat_token": {"type": "str", "required": True, "no_log": False},
            "seconds": {"type": "float", "default": 60.0},
        },
        supports_check_mode=True,
    )
    run_module(module, NatResponder)


if __name__ == "__main__":
    main()
