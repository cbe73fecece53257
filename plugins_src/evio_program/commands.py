# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a person, or a unit of the node, asks of ``evio``: its subcommands, each a room of the library."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

_USAGE = """\
usage: evio COMMAND [...]

Called by a container runtime (CNI_COMMAND is set), evio is a CNI plugin. Called by a person:

  overlay   the overlay's agent; `evio overlay --help`
  version   what is installed here
"""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; the exit status."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if not argv or argv[0] in ("-h", "--help", "help"):
        sys.stdout.write(_USAGE)
        sys.stdout.flush()
        return 0 if argv else 2
    command = _COMMANDS.get(argv[0])
    if command is None:
        sys.stderr.write(f"evio: {argv[0]!r} is no command; see evio --help\n")
        return 2
    from evio_cni.errors import EvioError

    try:
        status = command(argv[1:])
    except EvioError as error:
        sys.stderr.write(f"evio {argv[0]}: {error}\n")
        status = 1
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(bool(end.code))
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _overlay(arguments: list[str]) -> int:
    from evio_cni.overlay_agent import main

    return main(arguments) or 0


def _version(_: list[str]) -> int:
    import os

    from evio_cni.cni_protocol import SUPPORTED_VERSIONS

    directory = os.path.basename(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    sys.stdout.write(f"{directory}, CNI {', '.join(SUPPORTED_VERSIONS)}, Python {sys.version.split()[0]}\n")
    return 0


_COMMANDS: dict[str, Callable[[list[str]], int]] = {"overlay": _overlay, "version": _version}
