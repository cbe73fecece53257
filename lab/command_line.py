"""What a person types: the verbs of lab/lab, their options, and errors as one line."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec

import faults
import life_cycle
import nodes
import ssh
import status
from commands import LabError
from state import REPOSITORY, Lab
from topology import ETHERNET_MTU, NAT_TYPES, plan


def main(argv: Sequence[str]) -> int:
    """Run one verb; the exit code is 0, or 1 (interrupted: 130) with one line on stderr that says why."""
    arguments = _parser().parse_args(argv)
    if os.geteuid() != 0:
        print("lab: makes network namespaces and mounts: run as root", file=sys.stderr)
        return 1
    try:
        arguments.verb(Lab(), arguments)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; lab/lab down takes away what was begun", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab/lab", description="One machine as a small internet.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    up = verbs.add_parser("up", help="bring up nodes, public ones and ones behind NAT routers")
    up.add_argument("nodes", nargs="?", type=int, default=3, metavar="N", help="how many (default: 3)")
    up.add_argument("--public", type=int, default=1, metavar="P", help="how many of them are public (default: 1)")
    up.add_argument("--per-router", type=int, default=1, metavar="K", help="nodes behind one router (default: 1)")
    up.add_argument("--mtu", type=int, default=ETHERNET_MTU, help="of the public segment (default: %(default)s)")
    up.add_argument("--ipv6", action="store_true", help="an underlay of IPv6: sites with prefixes behind firewalls")
    up.set_defaults(verb=_up)

    verbs.add_parser("down", help="take everything away").set_defaults(verb=_down)

    status = verbs.add_parser("status", help="nodes, addresses, routers, as they are now")
    _add_json(status)
    status.set_defaults(verb=_status)

    pods = verbs.add_parser("pods", help="start two pods on each node through its container runtime, or remove them")
    pods.add_argument("action", choices=("up", "down", "list"))
    _add_json(pods)
    pods.set_defaults(verb=_pods)

    prove = verbs.add_parser("prove", help="show that every pod reaches all it should, and what is on the wire")
    _add_json(prove)
    prove.set_defaults(verb=_prove)

    for name, run, help_text in (
        ("ssh", _ssh, "log into a node, or run a command there"),
        ("exec", _exec, "the same without ssh"),
    ):
        inside = verbs.add_parser(name, help=help_text)
        inside.add_argument("node")
        inside.add_argument("command", nargs=argparse.REMAINDER)
        inside.set_defaults(verb=run)

    for name, run, help_text in (
        ("cut", _cut, "let nothing pass between a node's site and the public segment"),
        ("heal", _heal, "undo a cut"),
        ("nat-forget", _nat_forget, "make a node's router lose its connections and translations"),
        ("readdress", _readdress, "give a node's site another public address, with IPv6 another prefix"),
        ("reboot", _reboot, "stop a node and start it again"),
    ):
        fault = verbs.add_parser(name, help=help_text)
        fault.add_argument("node")
        fault.set_defaults(verb=run)

    nat_type = verbs.add_parser("nat-type", help="make a node's router translate in another way; none: IPv6's firewall")
    nat_type.add_argument("node")
    nat_type.add_argument("nat", choices=NAT_TYPES)
    nat_type.set_defaults(verb=_nat_type)

    scenarios = verbs.add_parser("scenarios", help="what life does to labs, and how long pods are cut off")
    scenarios.add_argument(
        "names", nargs="*", metavar="NAME", help="two, three, relays, eight, mtu1280, ipv6 (default: all)"
    )
    scenarios.set_defaults(verb=_scenarios)

    verbs.add_parser("tour", help="what to look at, and how").set_defaults(verb=_tour)
    return parser


def _add_json(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", action="store_true", help="for programs")


def _up(lab: Lab, arguments: argparse.Namespace) -> None:
    topology = plan(
        arguments.nodes,
        public=arguments.public,
        per_router=arguments.per_router,
        version=6 if arguments.ipv6 else 4,
        mtu=arguments.mtu,
    )
    with lab.changed_by_one():
        life_cycle.up(lab, topology)


def _down(lab: Lab, arguments: argparse.Namespace) -> None:
    with lab.changed_by_one():
        life_cycle.down(lab)


def _status(lab: Lab, arguments: argparse.Namespace) -> None:
    surveyed = status.survey(lab)
    print(json.dumps(status.as_json(surveyed), indent=1) if arguments.json else status.as_text(surveyed), end="")


def _pods(lab: Lab, arguments: argparse.Namespace) -> None:
    _need_cri()
    import pods

    if arguments.action == "up":
        pods.up(lab)
    elif arguments.action == "down":
        pods.down(lab)
    else:
        running = pods.running(lab)
        print(json.dumps(pods.as_json(running), indent=1) if arguments.json else pods.as_text(running), end="")


def _prove(lab: Lab, arguments: argparse.Namespace) -> None:
    _need_cri()
    import proof
    import proof_table

    proved = proof.prove(lab)
    print(json.dumps(proof.as_json(proved), indent=1) if arguments.json else proof_table.render(proved), end="")
    if proved.failures:
        raise LabError(f"the proof failed: {len(proved.failures)} of {len(proved.checks)} checks do not hold")


def _ssh(lab: Lab, arguments: argparse.Namespace) -> None:
    node = lab.topology().node(arguments.node)
    os.execvp("ssh", ["ssh", "-F", str(ssh.configuration(lab)), node.name, *arguments.command])


def _exec(lab: Lab, arguments: argparse.Namespace) -> None:
    node = lab.topology().node(arguments.node)
    command = nodes.command(lab, node, arguments.command or ["/bin/bash", "-l"])
    os.execvp(command[0], command)


def _cut(lab: Lab, arguments: argparse.Namespace) -> None:
    faults.cut(lab, lab.topology().node(arguments.node))


def _heal(lab: Lab, arguments: argparse.Namespace) -> None:
    faults.heal(lab, lab.topology().node(arguments.node))


def _nat_forget(lab: Lab, arguments: argparse.Namespace) -> None:
    topology = lab.topology()
    faults.forget(lab, topology, topology.node(arguments.node))


def _nat_type(lab: Lab, arguments: argparse.Namespace) -> None:
    with lab.changed_by_one():
        topology = lab.topology()
        faults.switch_nat(lab, topology, topology.node(arguments.node), arguments.nat)


def _readdress(lab: Lab, arguments: argparse.Namespace) -> None:
    with lab.changed_by_one():
        topology = lab.topology()
        faults.readdress(lab, topology, topology.node(arguments.node))


def _reboot(lab: Lab, arguments: argparse.Namespace) -> None:
    with lab.changed_by_one():
        topology = lab.topology()
        faults.reboot(lab, topology, topology.node(arguments.node))


def _scenarios(lab: Lab, arguments: argparse.Namespace) -> None:
    _need_cri()
    import scenarios

    outcomes = scenarios.run_all(lab, arguments.names)
    print(scenarios.as_text(outcomes), end="")
    bad = [outcome.scenario for outcome in outcomes if not outcome.is_good]
    if bad:
        raise LabError(f"not as it shall be after: {'; '.join(bad)}")


def _tour(lab: Lab, arguments: argparse.Namespace) -> None:
    print(status.tour(lab), end="")


def _need_cri() -> None:
    """Go on in the project's virtual environment where this Python has no stubs of CRI."""
    if find_spec("cri_api") is None:
        python = REPOSITORY / ".venv/bin/python"
        if not python.exists() or sys.executable == str(python):
            raise LabError("the Python package container-runtime-interface-api is missing: run setup/machine")
        os.execv(python, [str(python), *sys.argv])
