"""The command line of lab/lab: its verbs and options, and errors as one line."""

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
from topology import ETHERNET_MTU, NAT_TYPES, RELEASES, plan


def main(argv: Sequence[str]) -> int:
    """Run one verb. Return 0; or 1, and 130 if interrupted, after a line on stderr that says why."""
    arguments = _parser().parse_args(argv)
    if os.geteuid() != 0:
        print("lab: the lab makes network namespaces and mounts: run this as root", file=sys.stderr)
        return 1
    try:
        arguments.verb(Lab(), arguments)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; lab/lab down removes what was begun", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lab/lab",
        description="A small internet on one machine: nodes behind NAT routers, for trying and testing evio.cni.",
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    up = verbs.add_parser("up", help="build a lab of public nodes and nodes behind NAT routers")
    up.add_argument("nodes", nargs="?", type=int, default=3, metavar="N", help="number of nodes (default: 3)")
    up.add_argument("--public", type=int, default=1, metavar="P", help="number of public nodes among them (default: 1)")
    up.add_argument("--per-router", type=int, default=1, metavar="K", help="nodes behind each router (default: 1)")
    up.add_argument(
        "--mtu", type=int, default=ETHERNET_MTU, help="of the public segment, in bytes (default: %(default)s)"
    )
    up.add_argument("--ipv6", action="store_true", help="IPv6 underlay: sites with prefixes, behind firewalls")
    up.add_argument(
        "--release",
        action="append",
        default=[],
        metavar="[NODE=]RELEASE",
        help=f"Debian release of all nodes, or of one: {' or '.join(RELEASES)} (default: {RELEASES[0]}); repeatable",
    )
    up.add_argument(
        "--kubernetes",
        action="store_true",
        help="nodes have kubeadm, kubelet and images, which setup/kubernetes builds",
    )
    up.add_argument(
        "--machines",
        action="store_true",
        help="nodes are virtual machines with the kernel's Open vSwitch and WireGuard; they are slow",
    )
    up.set_defaults(verb=_up)

    verbs.add_parser("down", help="remove the whole lab").set_defaults(verb=_down)

    show = verbs.add_parser("status", help="show nodes, addresses and routers as they are now")
    _add_json(show)
    show.set_defaults(verb=_status)

    pods = verbs.add_parser("pods", help="start two pods on each node by its container runtime; remove or list them")
    pods.add_argument("action", choices=("up", "down", "list"))
    pods.add_argument("nodes", nargs="*", metavar="NODE", help="with down: remove the pods of these nodes alone")
    _add_json(pods)
    pods.set_defaults(verb=_pods)

    prove = verbs.add_parser(
        "prove", help="prove that every pod reaches all that it must, and that no wire is readable"
    )
    _add_json(prove)
    prove.set_defaults(verb=_prove)

    kubernetes = verbs.add_parser(
        "prove-kubernetes",
        help="make a cluster with kubeadm in a lab with --kubernetes, and prove that all of it works",
    )
    kubernetes.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help="network, scaling, faults, daemonset (default: all of these), or changes",
    )
    kubernetes.set_defaults(verb=_prove_kubernetes)

    verbs.add_parser(
        "prove-kernel",
        help="set up a lab with --machines, prove that its pods talk by the kernel's Open vSwitch and WireGuard, and "
        "that they do again after losses",
    ).set_defaults(verb=_prove_kernel)

    verbs.add_parser(
        "prove-operator", help="follow docs/quick-start.md on the bare nodes, as an ordinary user of this machine"
    ).set_defaults(verb=_prove_operator)

    metrics = verbs.add_parser(
        "prove-metrics", help="prove that nodes' metrics are written, and served to nodes alone, by systemd"
    )
    metrics.add_argument(
        "--off", action="store_true", help="turn them off by bootstrap.yml, and prove that none is left"
    )
    metrics.set_defaults(verb=_prove_metrics)

    verbs.add_parser(
        "prove-preflight",
        help="in a bare lab of six nodes, two public: provoke faults, and prove that preflight.yml tells them",
    ).set_defaults(verb=_prove_preflight)

    verbs.add_parser(
        "prove-errors",
        help="with pods on three nodes: provoke likely errors, and prove that docs/troubleshooting.md has them",
    ).set_defaults(verb=_prove_errors)

    for name, run, help_text in (
        ("ssh", _ssh, "log into a node by ssh, or run a command there"),
        ("exec", _exec, "enter a node without ssh, or run a command there"),
    ):
        on_node = verbs.add_parser(name, help=help_text)
        on_node.add_argument("node")
        on_node.add_argument("command", nargs=argparse.REMAINDER)
        on_node.set_defaults(verb=run)

    for name, run, help_text in (
        ("cut", _cut, "drop all packets between a node's site and the public segment"),
        ("heal", _heal, "undo a cut"),
        ("nat-forget", _nat_forget, "delete the connections and translations of a node's router"),
        ("readdress", _readdress, "give a node's site another public address, with IPv6 also another prefix"),
        ("reboot", _reboot, "stop a node and start it again"),
    ):
        fault = verbs.add_parser(name, help=help_text)
        fault.add_argument("node")
        fault.set_defaults(verb=run)

    nat_type = verbs.add_parser("nat-type", help="change how a node's router translates; none: only filter (IPv6)")
    nat_type.add_argument("node")
    nat_type.add_argument("nat", choices=NAT_TYPES)
    nat_type.set_defaults(verb=_nat_type)

    scenarios = verbs.add_parser("scenarios", help="inject faults into labs, and measure how long pods are cut off")
    scenarios.add_argument(
        "names", nargs="*", metavar="NAME", help="two, three, relays, eight, idle, mtu1280 or ipv6 (default: all)"
    )
    scenarios.set_defaults(verb=_scenarios)

    restarts = verbs.add_parser(
        "restarts", help="restart a node's vswitchd, and measure how long its pods stand still and what passes"
    )
    restarts.add_argument("node")
    restarts.add_argument("--times", type=int, default=10, help="restarts of each kind (default: %(default)s)")
    restarts.set_defaults(verb=_restarts)

    verbs.add_parser("tour", help="list commands to look around with").set_defaults(verb=_tour)
    return parser


def _add_json(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", action="store_true", help="print JSON for programs")


def _up(lab: Lab, arguments: argparse.Namespace) -> None:
    topology = plan(
        arguments.nodes,
        public=arguments.public,
        per_router=arguments.per_router,
        version=6 if arguments.ipv6 else 4,
        mtu=arguments.mtu,
        has_kubernetes=arguments.kubernetes,
        has_machines=arguments.machines,
    ).with_releases(arguments.release)
    with lab.lock():
        life_cycle.up(lab, topology)


def _down(lab: Lab, arguments: argparse.Namespace) -> None:
    with lab.lock():
        life_cycle.down(lab)


def _status(lab: Lab, arguments: argparse.Namespace) -> None:
    statuses = status.read(lab)
    print(json.dumps(status.as_json(statuses), indent=1) if arguments.json else status.as_text(statuses), end="")


def _pods(lab: Lab, arguments: argparse.Namespace) -> None:
    _need_cri()
    import pods

    if arguments.action == "up":
        pods.up(lab)
    elif arguments.action == "down":
        pods.down(lab, arguments.nodes)
    else:
        running = pods.running(lab)
        print(json.dumps(pods.as_json(running), indent=1) if arguments.json else pods.as_text(running), end="")


def _prove(lab: Lab, arguments: argparse.Namespace) -> None:
    _need_cri()
    import proof
    import proof_table

    print("== proof: every pod asks every other, while the wire is captured", file=sys.stderr, flush=True)
    proved = proof.prove(lab)
    print(json.dumps(proof.as_json(proved), indent=1) if arguments.json else proof_table.render(proved), end="")
    if proved.failures:
        raise LabError(f"the proof failed: {len(proved.failures)} of {len(proved.checks)} checks do not hold")


def _prove_kubernetes(lab: Lab, arguments: argparse.Namespace) -> None:
    import kubernetes_proof

    unknown = set(arguments.parts) - set(kubernetes_proof.PARTS)
    if unknown:
        raise LabError(
            f"no part of the proof: {', '.join(sorted(unknown))}; there are {', '.join(kubernetes_proof.PARTS)}"
        )
    with lab.lock():
        rows = kubernetes_proof.prove(lab, arguments.parts or kubernetes_proof.DEFAULT_PARTS)
    failed = [row.subject for row in rows if row.holds is False]
    if failed:
        raise LabError(f"{len(failed)} of {len(rows)} rows failed: {'; '.join(failed)}")


def _prove_kernel(lab: Lab, arguments: argparse.Namespace) -> None:
    _need_cri()
    import kernel_proof

    with lab.lock():
        kernel_proof.prove(lab)


def _prove_operator(lab: Lab, arguments: argparse.Namespace) -> None:
    import operator_proof

    with lab.lock():
        operator_proof.prove(lab)


def _prove_metrics(lab: Lab, arguments: argparse.Namespace) -> None:
    _need_cri()
    import metrics_proof

    checks = metrics_proof.prove_off(lab) if arguments.off else metrics_proof.prove(lab)
    print(metrics_proof.as_text(checks), end="")
    metrics_proof.need_all(checks)


def _prove_preflight(lab: Lab, arguments: argparse.Namespace) -> None:
    import preflight_proof

    with lab.lock():
        preflight_proof.prove(lab)


def _prove_errors(lab: Lab, arguments: argparse.Namespace) -> None:
    _need_cri()
    import error_proof

    with lab.lock():
        error_proof.prove(lab)


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
    with lab.lock():
        topology = lab.topology()
        faults.switch_nat(lab, topology, topology.node(arguments.node), arguments.nat)


def _readdress(lab: Lab, arguments: argparse.Namespace) -> None:
    with lab.lock():
        topology = lab.topology()
        faults.readdress(lab, topology, topology.node(arguments.node))


def _reboot(lab: Lab, arguments: argparse.Namespace) -> None:
    with lab.lock():
        topology = lab.topology()
        faults.reboot(lab, topology, topology.node(arguments.node))


def _scenarios(lab: Lab, arguments: argparse.Namespace) -> None:
    _need_cri()
    import scenarios

    outcomes = scenarios.run_all(lab, arguments.names)
    print(scenarios.as_text(outcomes), end="")
    bad = [outcome.scenario for outcome in outcomes if not outcome.is_good]
    if bad:
        raise LabError(f"these scenarios ended otherwise than they must: {'; '.join(bad)}")


def _restarts(lab: Lab, arguments: argparse.Namespace) -> None:
    _need_cri()
    import restarts

    print(restarts.HEAD, flush=True)
    bad = 0
    for restart in restarts.measure(lab, lab.topology().node(arguments.node), arguments.times):
        print(restarts.as_line(restart), flush=True)
        bad += not restart.is_good
    if bad:
        raise LabError(f"{bad} restarts ended otherwise than they must")


def _tour(lab: Lab, arguments: argparse.Namespace) -> None:
    print(status.tour(lab), end="")


def _need_cri() -> None:
    """Run this program again with the virtual environment's Python if this Python has no CRI stubs."""
    if find_spec("cri_api") is None:
        python = REPOSITORY / ".venv/bin/python"
        if not python.exists() or sys.executable == str(python):
            raise LabError("the Python package container-runtime-interface-api is missing: run setup/machine")
        os.execv(python, [str(python), *sys.argv])
