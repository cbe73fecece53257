# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The operator's commands of ``evio``: parse the arguments, call the library, print text or JSON.

What the commands do is in the library's ``node`` package. ``evio overlay`` has a file of its own: overlay_commands.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any

from evio_cni import paths
from evio_cni.cidr import is_cidr
from evio_cni.cni.cri import CONTAINERD, PodName, pod_names
from evio_cni.cni.netconf import NetConf
from evio_cni.cni.spec import SUPPORTED_VERSIONS
from evio_cni.defaults import CLUSTER
from evio_cni.errors import EvioError
from evio_cni.kernel.journald import WARNING
from evio_cni.node.networks import read_networks
from evio_cni.plugin.gc import collect_network
from evio_program.stderr import complain

if TYPE_CHECKING:
    from evio_cni.etcd.access import Access
    from evio_cni.node.repair import Repair

_NAMES_SECONDS = 2.0
"""How long a command that has done its work waits for the pods' names."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit status, 0 if nothing is wrong."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    sys.path.append(paths.PYTHON_PACKAGES)
    try:
        if argv[:1] == ["overlay"]:
            # Importing pyroute2 takes longer than the other commands need.
            from evio_program.overlay_commands import run_overlay

            status = run_overlay(argv[1:])
        else:
            options = build_parser().parse_args(argv)
            status = options.command(options)
    except EvioError as error:
        complain(f"evio: {error}")
        status = 1
    except BrokenPipeError:
        status = 1
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(bool(end.code))
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def build_parser(overlay: argparse.ArgumentParser | None = None) -> argparse.ArgumentParser:
    """Return the parser of all commands. ``overlay`` is the parser of ``evio overlay``, to document both as one."""
    parser = argparse.ArgumentParser(
        prog="evio",
        description="Show and repair the pod network of this node. A container runtime, which sets CNI_COMMAND, calls "
        "the same program as its CNI plugin.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print JSON")
    common.add_argument(
        "--conf-dir",
        default=paths.CNI_CONF_DIR,
        metavar="DIR",
        help="directory of the runtime's conflists (default: %(default)s)",
    )
    runtime = argparse.ArgumentParser(add_help=False)
    runtime.add_argument(
        "--cri-socket",
        default=CONTAINERD,
        metavar="FILE",
        help="socket of the container runtime, which tells the pods' names (default: %(default)s)",
    )
    status = commands.add_parser(
        "status",
        parents=[common, runtime],
        help="show what is wrong, whether a new pod would get its network, and the pods",
    )
    status.set_defaults(command=_status)
    claim = status.add_argument_group(
        "the node's claim",
        "With --etcd, etcd is asked whether the node's claim on its pod subnet holds. If not, new pods are refused.",
    )
    _add_etcd(claim)
    claim.add_argument(
        "--node",
        metavar="NAME",
        default=os.uname().nodename,
        help="this node's name in the claims (default: the host's name)",
    )
    repair = commands.add_parser(
        "repair", parents=[common, runtime], help="give running pods back what they have lost, without restarting them"
    )
    repair.set_defaults(command=_repair)
    watch = commands.add_parser(
        "watch",
        help="repair now, whenever Open vSwitch is started again, and at intervals; for a container, where no systemd "
        "runs evio-repair.service",
    )
    watch.add_argument("--conf-dir", default=paths.CNI_CONF_DIR, metavar="DIR", help="as for repair")
    watch.add_argument(
        "--interval",
        type=_seconds,
        default=60.0,
        metavar="S",
        help="seconds between two repairs (default: %(default)g)",
    )
    _add_etcd(
        watch.add_argument_group(
            "the claims of other nodes",
            "With --etcd, the WireGuard overlay routes the pods of nodes that claim their subnets while this runs.",
        )
    )
    watch.set_defaults(command=_watch)
    collect = commands.add_parser(
        "gc", parents=[common, runtime], help="remove what pods that are gone have left behind"
    )
    collect.set_defaults(command=_collect)
    explanation = commands.add_parser(
        "explain",
        parents=[common, runtime],
        help="show why a pod is not reachable: each link of its chain, and what mends it",
    )
    explanation.add_argument(
        "pod", metavar="POD", help="the pod's NAMESPACE/NAME, the start of its container id, or one of its addresses"
    )
    explanation.set_defaults(command=_explain)
    metrics = commands.add_parser("metrics", help="print the node's metrics in Prometheus' text format")
    metrics.set_defaults(command=_metrics)
    metrics.add_argument("--conf-dir", default=paths.CNI_CONF_DIR, metavar="DIR", help="as for repair")
    metrics.add_argument(
        "--state-dir",
        default=paths.STATE_DIR,
        metavar="DIR",
        help="the networks' stateDir, in which calls of the plugin are counted (default: %(default)s)",
    )
    metrics.add_argument(
        "--textfile-directory",
        metavar="DIR",
        help="write them to a file there, for node_exporter's textfile collector, instead of printing them; from the "
        "first time on, calls of the plugin are counted",
    )
    metrics.add_argument(
        "--answer-http",
        action="store_true",
        help="instead of reading the node, answer the HTTP request on standard input, which must be a socket, with the "
        "file in --textfile-directory (evio-metrics.socket runs this)",
    )
    metrics.add_argument(
        "--allow",
        action="append",
        type=_cidr,
        metavar="CIDR",
        help="with --answer-http, a network from which the metrics may be read, once for each; others are refused "
        "(default: all)",
    )
    commands.add_parser(
        "overlay",
        parents=[overlay] if overlay else [],
        help="the overlay's agent: see evio overlay --help",
        add_help=False,
    )
    version = commands.add_parser("version", help="show the installed version")
    version.set_defaults(command=_version)
    return parser


def _add_etcd(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--etcd", metavar="URL", help="URLs of etcd's members, separated by commas")
    group.add_argument("--cacert", metavar="FILE", help="CA certificate that signed etcd's; needed for https")
    group.add_argument("--cert", metavar="FILE", help="client certificate")
    group.add_argument("--key", metavar="FILE", help="key of the client certificate")
    group.add_argument("--cluster", metavar="NAME", default=CLUSTER, help="the cluster (default: %(default)s)")


def _status(options: argparse.Namespace) -> int:
    # evio repair, for which pods may be waiting, does not need it.
    from evio_cni.node.status import read_status, to_json

    if options.etcd:
        _check_claim(options, {conf.state_dir for conf in _networks(options)})
    status = read_status(conf_dir=options.conf_dir, cri_socket=options.cri_socket, has_pods=True)
    if options.json:
        _print_json(to_json(status))
    else:
        from evio_program.status_text import status_lines

        for line in status_lines(status):
            _print(line)
    for fault in [*status.faults, *([status.networks_fault] if status.networks_fault else ())]:
        complain(f"evio: {fault}")
    # Readiness probes ask: a node that reaches no other node still gives new pods their network.
    is_ready = bool(status.networks) and all(network.verdict is None for network in status.networks)
    return 0 if is_ready else 1


def _check_claim(options: argparse.Namespace, state_dirs: set[str]) -> None:
    """Ask etcd, and fence the node or remove its fence; STATUS reads the fence."""
    # Importing etcd3 and grpc takes longer than the other commands need.
    from evio_cni.node.claim import check_claim

    access = _access(options)
    for state_dir in sorted(state_dirs):
        check_claim(access, options.cluster, options.node, conf_dir=options.conf_dir, state_dir=state_dir)


def _access(options: argparse.Namespace) -> Access:
    from evio_cni.etcd.options import build_access

    return build_access(options.etcd, ca_cert=options.cacert, client_cert=options.cert, client_key=options.key)


def _repair_json(fields: dict[str, Any]) -> dict[str, Any]:
    """Return what --json prints: ``reserved``, which is rare, only where it says something."""
    return {key: value for key, value in fields.items() if value or key != "reserved"}


def _repair(options: argparse.Namespace) -> int:
    # Importing ovs and pyroute2 takes longer than the other commands need.
    from evio_cni.node.repair import repair_networks

    repairs = repair_networks(_networks(options))
    if options.json:
        _print_json([_repair_json(asdict(repair)) for repair in repairs])
    name_pods = _namer(options.cri_socket)
    for repair in repairs if not options.json else ():
        done = _mended(repair)
        nothing = "nothing was mended" if repair.failures else "all in order"
        _print(f"network {repair.network}: {name_pods('; '.join(done)) or nothing}")
    for repair in repairs:
        for failure in repair.failures:
            complain(f"evio repair: {repair.network}: {name_pods(failure)}")
    return 1 if any(repair.failures for repair in repairs) else 0


def _mended(repair: Repair) -> list[str]:
    """Return what was done for one network, in words."""
    done = [f"corrected the bridge: {', '.join(repair.bridge)}"] if repair.bridge else []
    done += ["installed the node's rules"] if repair.rules else []
    done += [f"set the host end of {pod} up" for pod in repair.raised]
    done += [f"added the port of {pod} to the bridge" for pod in repair.plugged]
    done += [f"installed the port-security flows of {pod}" for pod in repair.guarded]
    done += [f"reserved {address} again" for address in repair.reserved]
    done += [f"removed {pod}" for pod in repair.removed]
    return done


def _watch(options: argparse.Namespace) -> int:
    # Importing ovs and pyroute2 takes longer than the other commands need.
    import signal
    from threading import Event, Thread

    from evio_cni.node.pod_routes import PodRoutesKeeper
    from evio_cni.node.watch import Watch, keep_pod_routes
    from evio_cni.programs.installation import version_in_use

    def report(repairs: list[Repair]) -> None:
        for repair in repairs:
            if done := _mended(repair):
                print(f"network {repair.network}: {'; '.join(done)}", flush=True)

    def report_routes(nodes: list[str]) -> None:
        if nodes:
            print(f"wrote the pod routes of {', '.join(nodes)}", flush=True)

    def warn(fault: str) -> None:
        complain(f"evio watch: {fault}", WARNING)

    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        # A container's first process does not end at a signal that it has no handler for.
        signal.signal(number, lambda *_arguments: stop.set())
    with version_in_use():
        if options.etcd:
            keeper = PodRoutesKeeper(_access(options), options.cluster)
            # A thread of its own: an etcd that does not answer must not hold up a repair.
            Thread(
                target=keep_pod_routes,
                args=(keeper, stop),
                kwargs={"report": report_routes, "warn": warn},
                daemon=True,
            ).start()
        Watch(options.conf_dir, report=report, warn=warn, interval=options.interval).run(stop)
    return 0


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 1 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 86400 seconds")
    return seconds


def _cidr(text: str) -> str:
    if not is_cidr(text):
        raise argparse.ArgumentTypeError(f"{text} is no network in CIDR notation")
    return text


def _collect(options: argparse.Namespace) -> int:
    collections = [collect_network(conf) for conf in _networks(options)]
    if options.json:
        _print_json([collection.to_json() for collection in collections])
    name_pods = _namer(options.cri_socket)
    for collection in collections if not options.json else ():
        removed = "; ".join(f"removed {pod}" for pod in collection.removed)
        _print(f"network {collection.network}: {name_pods(removed) or 'nothing was removed'}")
    for collection in collections:
        for failure in collection.failures:
            complain(f"evio gc: {collection.network}: {name_pods(failure)}")
    return 1 if any(collection.failures for collection in collections) else 0


def _metrics(options: argparse.Namespace) -> int:
    directory = options.textfile_directory
    if options.answer_http:
        return _answer_http(directory, options.allow)
    # evio repair, for which pods may be waiting, does not need it.
    from evio_cni.atomic_file import write_atomic
    from evio_cni.node.metrics import read_metrics

    text, faults = read_metrics(conf_dir=options.conf_dir, state_dir=options.state_dir, create=bool(directory))
    for fault in faults:
        complain(f"evio metrics: {fault}", WARNING)
    if not directory:
        sys.stdout.write(text)
        return 0
    path = os.path.join(directory, paths.METRICS_FILE)
    try:
        write_atomic(path, text, mode=0o644)
    except OSError as error:
        raise EvioError(f"cannot write {path}: {error.strerror}") from error
    return 0


def _answer_http(directory: str | None, allowed: list[str] | None) -> int:
    # The node's metrics are not read: a scrape need not wait for what that imports.
    import socket

    from evio_cni.node.metrics_http import answer

    if not directory:
        raise EvioError("--answer-http needs --textfile-directory")
    try:
        with socket.socket(fileno=os.dup(0)) as connection:
            answer(connection, os.path.join(directory, paths.METRICS_FILE), allowed)
    except OSError as error:
        raise EvioError(f"cannot answer on standard input: {error.strerror or error}") from error
    return 0


def _namer(cri_socket: str) -> Callable[[str], str]:
    """Return a function that puts the pods' names before their container ids, where the runtime tells them.

    The runtime is asked when the first text comes that may have a pod in it. At boot it does not run yet.
    """

    @cache
    def names() -> dict[str, PodName]:
        if not os.path.exists(cri_socket):
            return {}
        try:
            return pod_names(cri_socket, timeout=_NAMES_SECONDS)
        except EvioError:
            return {}

    def name_pods(text: str) -> str:
        for container_id, pod in names().items() if text else ():
            # The name is another program's text: it must not look like a line of ours.
            name = f"{pod.namespace}/{pod.name}"
            text = text.replace(container_id, f"{name} {container_id}") if container_id and name.isprintable() else text
        return text

    return name_pods


def _explain(options: argparse.Namespace) -> int:
    # evio repair, for which pods may be waiting, does not need it.
    from evio_cni.node.explain import explain

    reports = explain(_networks(options), options.pod, cri_socket=options.cri_socket)
    if options.json:
        _print_json([asdict(report) for report in reports])
    for report in reports if not options.json else ():
        remedy = f"  -> {report.remedy}" if report.remedy else ""
        _print(f"{'ok    ' if report.holds else 'BROKEN'}  {report.link:<11} {report.what}{remedy}")
    return 0 if all(report.holds for report in reports) else 1


def _version(_options: argparse.Namespace) -> int:
    # No other command needs it.
    from pathlib import Path

    from evio_cni.programs.installation import collection_of

    directory = Path(__file__).resolve().parents[1]
    collection = collection_of(directory)
    name = f"{directory.name} (evio.cni {collection})" if collection else directory.name
    _print(f"{name}, CNI {', '.join(SUPPORTED_VERSIONS)}, Python {sys.version.split()[0]}")
    return 0


def _networks(options: argparse.Namespace) -> list[NetConf]:
    return read_networks(options.conf_dir, warn=lambda fault: complain(f"evio: {fault}", WARNING))


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")


def _print_json(value: Any) -> None:
    _print(json.dumps(value, indent=2))
