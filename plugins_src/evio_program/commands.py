# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a person, or a unit of the node, asks of ``evio``: arguments in, words or JSON out."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from evio_cni import paths
from evio_cni.errors import EvioError

if TYPE_CHECKING:
    from evio_cni.cni.netconf import NetConf

_DISTRIBUTION = "/usr/lib/python3/dist-packages"
"""Where the host's ovs and pyroute2 are; the launcher's -S has hidden it."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; the exit status, 0 if all is well."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    sys.path.append(_DISTRIBUTION)
    try:
        if argv[:1] == ["overlay"]:
            from evio_cni.overlay.wireguard.agent import main

            status = main(argv[1:]) or 0
        else:
            options = _parser().parse_args(argv)
            status = options.command(options)
    except EvioError as error:
        sys.stderr.write(f"evio: {error}\n")
        status = 1
    except BrokenPipeError:
        status = 1
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(bool(end.code))
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="evio",
        description="The pods' network of this node. Called by a container runtime (CNI_COMMAND), a CNI plugin.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="for machines")
    common.add_argument(
        "--conf-dir", default=paths.CNI_CONF_DIR, metavar="DIR", help="the runtime's configuration (%(default)s)"
    )
    status = commands.add_parser("status", parents=[common], help="would a new pod get its network; who has one")
    status.set_defaults(command=_status)
    asking = status.add_argument_group(
        "the node's claim", "asked for in etcd where --etcd is given; a node whose claim is lost takes no new pods"
    )
    asking.add_argument("--etcd", metavar="URL", help="etcd's members, with commas between them")
    asking.add_argument("--cacert", metavar="FILE", help="certificate that vouches for etcd's; needed for https")
    asking.add_argument("--cert", metavar="FILE", help="certificate that is shown to etcd")
    asking.add_argument("--key", metavar="FILE", help="its key")
    asking.add_argument("--cluster", metavar="NAME", default="kubernetes", help="the cluster's name (%(default)s)")
    asking.add_argument(
        "--node", metavar="NAME", default=os.uname().nodename, help="this node's name in the claims (%(default)s)"
    )
    repair = commands.add_parser("repair", parents=[common], help="bring running pods back, without starting them anew")
    repair.set_defaults(command=_repair)
    collect = commands.add_parser("gc", parents=[common], help="remove what is left of pods that are gone")
    collect.set_defaults(command=_collect)
    explain = commands.add_parser("explain", parents=[common], help="why a pod is not reachable, link by link")
    explain.add_argument("pod", metavar="POD", help="the start of its container's id, or its address")
    explain.set_defaults(command=_explain)
    commands.add_parser("overlay", help="the overlay's agent: evio overlay --help", add_help=False)
    version = commands.add_parser("version", help="what is installed here")
    version.set_defaults(command=_version)
    return parser


def _status(options: argparse.Namespace) -> int:
    from evio_cni.node.report import network_status

    networks = _networks(options)
    if options.etcd:
        _check_claim(options, {conf.state_dir for conf in networks})
    states = [network_status(conf) for conf in networks]
    if options.json:
        _print_json([asdict(state) for state in states])
    for state in states if not options.json else ():
        verdict = "ready for pods" if state.verdict is None else state.verdict
        _print(f"network {state.network}: {verdict}")
        _print(f"  bridge     {state.bridge}, gateway {', '.join(state.gateways) or 'none'}, epoch {state.epoch}")
        _print(f"  addresses  {state.reserved} reserved")
        for pod in state.pods:
            _print(
                f"  pod        {pod.container_id[:13]:<13} {pod.ifname:<8} {', '.join(pod.addresses):<20} {pod.state}"
            )
    return 0 if all(state.verdict is None for state in states) else 1


def _check_claim(options: argparse.Namespace, state_dirs: set[str]) -> None:
    """What comes of it is in STATUS' verdict."""
    from evio_cni.etcd.client import Access
    from evio_cni.node.claim import check_claim

    access = Access(
        endpoints=tuple(options.etcd.split(",")),
        ca_cert=options.cacert,
        client_cert=options.cert,
        client_key=options.key,
    )
    for state_dir in sorted(state_dirs):
        check_claim(access, options.cluster, options.node, conf_dir=options.conf_dir, state_dir=state_dir)


def _repair(options: argparse.Namespace) -> int:
    from evio_cni.node.repair import repair_network

    repairs = [repair_network(conf) for conf in _networks(options)]
    if options.json:
        _print_json([asdict(repair) for repair in repairs])
    for repair in repairs if not options.json else ():
        done = [f"bridge: {name}" for name in repair.bridge]
        done += ["the node's rules"] if repair.rules else []
        for verb in ("raised", "plugged", "guarded", "removed"):
            done += [f"{verb} {one}" for one in getattr(repair, verb)]
        nothing = "nothing was mended" if repair.failures else "all in order"
        _print(f"network {repair.network}: {'; '.join(done) or nothing}")
    for repair in repairs:
        for failure in repair.failures:
            sys.stderr.write(f"evio repair: {repair.network}: {failure}\n")
    return 1 if any(repair.failures for repair in repairs) else 0


def _collect(options: argparse.Namespace) -> int:
    from evio_cni.plugin.gc import collect_network

    collections = [collect_network(conf) for conf in _networks(options)]
    if options.json:
        _print_json([one.to_json() for one in collections])
    for one in collections if not options.json else ():
        removed = "; ".join(f"removed {pod}" for pod in one.removed)
        _print(f"network {one.network}: {removed or 'nothing was removed'}")
    for one in collections:
        for failure in one.failures:
            sys.stderr.write(f"evio gc: {one.network}: {failure}\n")
    return 1 if any(one.failures for one in collections) else 0


def _explain(options: argparse.Namespace) -> int:
    from evio_cni.node.explain import explain

    findings = explain(_networks(options), options.pod)
    if options.json:
        _print_json([asdict(finding) for finding in findings])
    for finding in findings if not options.json else ():
        remedy = f"  -> {finding.remedy}" if finding.remedy else ""
        _print(f"{'ok    ' if finding.holds else 'BROKEN'}  {finding.link:<11} {finding.what}{remedy}")
    return 0 if all(finding.holds for finding in findings) else 1


def _version(_options: argparse.Namespace) -> int:
    from evio_cni.cni.spec import SUPPORTED_VERSIONS

    directory = os.path.basename(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    _print(f"{directory}, CNI {', '.join(SUPPORTED_VERSIONS)}, Python {sys.version.split()[0]}")
    return 0


def _networks(options: argparse.Namespace) -> list[NetConf]:
    from evio_cni.node.networks import read_networks

    return read_networks(options.conf_dir, lambda fault: print(f"evio: {fault}", file=sys.stderr))


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")


def _print_json(value: Any) -> None:
    _print(json.dumps(value, indent=2))
