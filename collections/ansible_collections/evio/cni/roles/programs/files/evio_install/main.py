# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The archive of the programs, run by Python: installs itself, on this host or from a container on its host.

    python3 evio-programs.zip --root /host --copies /usr/lib/cni

This file reads the options and prints what was done; ``programs`` in the library does the work, for the module
``programs`` too.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from evio_cni import paths
from evio_cni.errors import EvioError
from evio_cni.programs.cni_plugins import broken_plugins, missing_plugins, provide_plugins
from evio_cni.programs.command_links import apply_command_links, read_command_links
from evio_cni.programs.installation import InstallationError, install, missing_libraries

_NEEDED_PLUGINS = ("host-local", "loopback")
"""Without them no pod gets its network: our plugin calls host-local, and the runtime loopback."""

_CHAINED_PLUGINS = ("portmap", "bandwidth")


def main(archive: Path) -> None:
    """Install the archive and exit: 0 if its programs are in place, 1 if they are not, 2 for unknown options."""
    options = _parser().parse_args()
    try:
        done, warnings = _install(archive, options)
    except EvioError as error:
        sys.exit(f"evio-programs: {' '.join(str(error).split())}")
    for warning in warnings:
        print(f"evio-programs: {warning}", file=sys.stderr)
    print(done)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="evio-programs",
        description="Installs the CNI plugin evio and evio-config-gen, and provides the CNI plugins that they call. "
        "Nothing that belongs to others is replaced. A second run changes nothing.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--root",
        default="/",
        metavar="DIR",
        help="where a container sees the host's directories /usr and /opt/cni (default: %(default)s)",
    )
    parser.add_argument(
        "--copies",
        metavar="DIR",
        help="directory of this container from which plugins are copied that the host's distribution does not have",
    )
    parser.add_argument(
        "--bin-dir", default=paths.CNI_BIN_DIR, metavar="DIR", help="the runtime's plugins (default: %(default)s)"
    )
    parser.add_argument(
        "--lib-dir", default=paths.CNI_LIB_DIR, metavar="DIR", help="the programs' code (default: %(default)s)"
    )
    parser.add_argument(
        "--commands-prefix",
        metavar="DIR",
        help="directory of the host below which the programs, manual pages and shell completions are linked, such "
        "as /usr/local (default: no links)",
    )
    return parser


def _install(archive: Path, options: argparse.Namespace) -> tuple[str, list[str]]:
    """Return a line that says what was done, and warnings. Raises EvioError; then the host is as it was."""
    libraries = missing_libraries(options.root)
    if libraries:
        raise InstallationError(
            f"the host has not all libraries that the programs import: install {' and '.join(libraries)}; looked in "
            f"{paths.PYTHON_PACKAGES} below {options.root}"
        )
    place = {"bin_dir": options.bin_dir, "root": options.root}
    missing = missing_plugins(_NEEDED_PLUGINS, **place)
    broken = broken_plugins([name for name in _NEEDED_PLUGINS if name not in missing], **place)
    if broken:
        raise InstallationError(
            f"{'; '.join(broken)}; no pod would get its network, and what is there is not replaced: put it right or "
            "remove it"
        )
    installation = install(archive.read_bytes(), lib_dir=options.lib_dir, **place)
    names = (*_NEEDED_PLUGINS, *_CHAINED_PLUGINS)
    provided = provide_plugins(names, copies=options.copies, **place)
    warnings = [installation.warning] if installation.warning else []
    if options.commands_prefix:
        commands = read_command_links(
            options.commands_prefix, lib_dir=options.lib_dir, version=installation.version, **place
        )
        apply_command_links(commands)
        warnings += [f"{path} is not a link of evio.cni and stays as it is" for path in commands.foreign]
    warnings += [f"{sentence}; it stays as it is" for sentence in broken_plugins(_CHAINED_PLUGINS, **place)]
    state = "installed" if installation.changed else "up to date"
    more = f"; provided {', '.join(provided)}" if provided else ""
    return f"{options.bin_dir}: {installation.version} {state}{more}", warnings
