"""What a person types: the verbs of lab/lab, their options, and errors as one line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import access
import life_cycle
import nodes
from commands import LabError
from places import Lab
from topology import plan


def main(argv: Sequence[str]) -> int:
    """Run one verb; the exit code is 0, or 1 with one line on stderr that says why."""
    arguments = _parser().parse_args(argv)
    if os.geteuid() != 0:
        print("lab: makes network namespaces and mounts: run as root", file=sys.stderr)
        return 1
    try:
        arguments.verb(Lab(), arguments)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab/lab", description="One machine as a small internet.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    up = verbs.add_parser("up", help="bring up nodes, public ones and ones behind NAT routers")
    up.add_argument("nodes", nargs="?", type=int, default=3, metavar="N", help="how many (default: 3)")
    up.add_argument("--public", type=int, default=1, metavar="P", help="how many of them are public (default: 1)")
    up.add_argument("--per-router", type=int, default=1, metavar="K", help="nodes behind one router (default: 1)")
    up.set_defaults(verb=_up)

    down = verbs.add_parser("down", help="take everything away")
    down.set_defaults(verb=_down)

    ssh = verbs.add_parser("ssh", help="log into a node, or run a command there")
    ssh.add_argument("node")
    ssh.add_argument("command", nargs=argparse.REMAINDER)
    ssh.set_defaults(verb=_ssh)

    execute = verbs.add_parser("exec", help="run a command in a node without ssh")
    execute.add_argument("node")
    execute.add_argument("command", nargs=argparse.REMAINDER)
    execute.set_defaults(verb=_exec)
    return parser


def _up(lab: Lab, arguments: argparse.Namespace) -> None:
    topology = plan(arguments.nodes, public=arguments.public, per_router=arguments.per_router)
    with lab.changed_by_one():
        life_cycle.up(lab, topology)


def _down(lab: Lab, arguments: argparse.Namespace) -> None:
    with lab.changed_by_one():
        life_cycle.down(lab)


def _ssh(lab: Lab, arguments: argparse.Namespace) -> None:
    node = lab.topology().node(arguments.node)
    os.execvp("ssh", ["ssh", "-F", str(access.configuration(lab)), node.name, *arguments.command])


def _exec(lab: Lab, arguments: argparse.Namespace) -> None:
    node = lab.topology().node(arguments.node)
    command = nodes.command(lab, node, arguments.command or ["/bin/bash", "-l"])
    os.execvp(command[0], command)
