# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""``evio overlay``: the command line of the overlay's agent, which runs it, asks for its state, or undoes it.

The agents themselves are the library's: overlay/wireguard/agent, and overlay/edgevpn/agent beside EdgeVPN.io.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence

from evio_cni import paths
from evio_cni.errors import EvioError
from evio_cni.overlay.edgevpn.agent import EdgeVpnAgent, EdgeVpnFiles
from evio_cni.overlay.edgevpn.start import remove_bridges_of_other_protocol
from evio_cni.overlay.endpoint import OverlayError
from evio_cni.overlay.state import DIRECT, OverlayState, PeerPath, read_state
from evio_cni.overlay.wireguard.agent import OverlayAgent
from evio_cni.overlay.wireguard.agent_files import AgentFiles
from evio_cni.overlay.wireguard.interface import remove_link
from evio_cni.programs.installation import version_in_use
from evio_program.stderr import complain, log_to_stderr
from evio_program.terminal import table, wrapped


def run_overlay(argv: Sequence[str]) -> int:
    """Run one subcommand of ``evio overlay`` and return its exit status."""
    arguments = build_parser().parse_args(argv)
    files = AgentFiles(arguments.config, arguments.pod_routes, arguments.key, arguments.state)
    try:
        status: int = arguments.command(files, arguments)
    except EvioError as error:
        complain(f"evio overlay: {error}")
        return 1
    return status


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``evio overlay``."""
    parser = argparse.ArgumentParser(prog="evio overlay", description="The overlay of this node.")
    for option, default, content in (
        ("--config", paths.OVERLAY_CONFIG, "the host overlay: this node and its peers"),
        ("--pod-routes", paths.POD_ROUTES_CONFIG, "the pod subnets of all nodes"),
        ("--key", paths.WIREGUARD_KEY, "this node's private key"),
        ("--state", paths.OVERLAY_STATE, "how the agent reaches each node, written by the agent"),
    ):
        parser.add_argument(option, default=default, metavar="FILE", help=f"{content} (default: %(default)s)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run the agent, which keeps the overlay up (evio-overlay.service does this)")
    run.set_defaults(command=_run)
    watch = commands.add_parser("watch", help="run the agent beside EdgeVPN.io (evio-edgevpn-agent.service does this)")
    watch.set_defaults(command=_watch)
    prepare = commands.add_parser(
        "prepare", help="remove EdgeVPN.io's bridges that have another switch protocol (evio.service does this first)"
    )
    prepare.set_defaults(command=_prepare)
    for command in (watch, prepare):
        command.add_argument(
            "--ovsdb", default=paths.OVSDB, metavar="METHOD", help="Open vSwitch's database (default: %(default)s)"
        )
    status = commands.add_parser("status", help="show the path to each node; exit status 0 if each has one, else 1")
    status.add_argument("--json", action="store_true", help="print the agent's state as JSON")
    status.set_defaults(command=_status)
    down = commands.add_parser("down", help="remove WireGuard's interface (stop evio-overlay.service first)")
    down.set_defaults(command=_down)
    return parser


def _run(files: AgentFiles, _arguments: argparse.Namespace) -> int:
    log_to_stderr()
    with version_in_use():
        OverlayAgent(files).run()
    return 0


def _watch(files: AgentFiles, arguments: argparse.Namespace) -> int:
    log_to_stderr()
    with version_in_use():
        EdgeVpnAgent(EdgeVpnFiles(state=files.state, ovsdb=arguments.ovsdb)).run()
    return 0


def _prepare(_files: AgentFiles, arguments: argparse.Namespace) -> int:
    config, _members = EdgeVpnFiles().load()
    for removed in remove_bridges_of_other_protocol(config, ovsdb=arguments.ovsdb):
        sys.stderr.write(f"evio overlay: removed the bridge of another switch protocol, {removed}\n")
    return 0


def _status(files: AgentFiles, arguments: argparse.Namespace) -> int:
    state = read_state(files.state)
    if state is None or not state.is_fresh():
        raise OverlayError(
            f"the overlay's agent has not written {files.state} lately; look at: "
            "systemctl status evio-overlay evio-edgevpn-agent"
        )
    for sentence in filter(None, (state.summary, state.fault, *state.blocked)):
        sys.stderr.write(wrapped(f"evio overlay: {sentence}") + "\n")
    sys.stdout.write(json.dumps(state.to_json(), indent=2) + "\n" if arguments.json else _table(state))
    return 0 if not state.fault and not state.blocked and all(peer.path for peer in state.peers) else 1


def _table(state: OverlayState) -> str:
    rows = [("NODE", "ADDRESS", "PATH", "RTT ms", "ENDPOINT"), *(_row(peer) for peer in state.peers)]
    return "".join(line + "\n" for line in table(rows, flexible=(0, 2, 4)))


def _row(peer: PeerPath) -> tuple[str, ...]:
    path = peer.path if peer.path in (DIRECT, None) else f"relay {peer.path}{'' if peer.in_use else ', idle'}"
    rtt = f"{peer.rtt_ms:.0f}" if peer.rtt_ms is not None else "-"
    return (peer.name, peer.address, path or "none", rtt, peer.endpoint or "-")


def _down(files: AgentFiles, _arguments: argparse.Namespace) -> int:
    remove_link(files.load_config().interface)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(files.state)
    return 0
