# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The options of ``evio-config-gen``: read from the command line, the environment and a file, in this order.

One table defines them all; each has the same name everywhere: ``--pod-cidr``, ``EVIO_POD_CIDR``, ``pod_cidr``.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from evio_cni import defaults, paths
from evio_cni.errors import EvioError
from evio_cni.etcd.access import Access
from evio_cni.etcd.options import build_access
from evio_cni.names import DATAPATH_TYPES
from evio_cni.node.config_generator import Settings


class OptionError(EvioError):
    """An option is missing or cannot be used; the message names it."""


@dataclass(frozen=True)
class Option:
    """One option."""

    name: str
    """As on the command line, without the two dashes."""
    help: str
    metavar: str
    default: str | None = None
    """In the spelling of the environment."""
    required: bool = False

    @property
    def key(self) -> str:
        """The option's name in a file."""
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        """The option's name in the environment."""
        return f"EVIO_{self.key.upper()}"


OPTIONS = (
    Option("pod-cidr", "the pod network, or one of each family, separated by a comma", "CIDR", required=True),
    Option(
        "node-bits",
        "bits of the pod network that number the nodes, or one number for each network",
        "N",
        required=True,
    ),
    Option("cluster", "name of the cluster, a part of its keys in etcd", "NAME", defaults.CLUSTER),
    Option("node", "name of this node", "NAME", required=True),
    Option("etcd", "URLs of etcd's members, separated by commas", "URL", required=True),
    Option("cacert", "CA certificate to verify etcd's certificate with; required for https", "FILE"),
    Option("cert", "client certificate to show to etcd", "FILE"),
    Option("key", "private key of the client certificate", "FILE"),
    Option("user", "name of an etcd user", "NAME"),
    Option("password-file", "file whose first line is the user's password", "FILE"),
    Option("timeout", "seconds that one call to one member of etcd may take", "S", f"{Access.timeout:g}"),
    Option("out-dir", "directory from which the container runtime reads its network", "DIR", paths.CNI_CONF_DIR),
    Option("bridge", "the OVS bridge that pods are connected to", "NAME", defaults.BRIDGE),
    Option("mtu", "MTU of pods and bridge in bytes", "N", str(defaults.OVERLAY_MTU)),
    Option("datapath-type", f"datapath of the bridge: {' or '.join(DATAPATH_TYPES)}", "TYPE", defaults.DATAPATH_TYPE),
    Option(
        "cluster-cidr",
        "networks that are not masqueraded, besides the pod network: the host overlay",
        "CIDR",
        defaults.HOST_OVERLAY_CIDR,
    ),
    Option("reserved-cidr", "networks from which no node gets a subnet, such as the service CIDR", "CIDR", ""),
    Option("subnet", "the subnet that this node must get, such as its spec.podCIDR; empty for any", "CIDR", ""),
    Option("replaced", "yes: this machine has replaced the machine that made the node's claim", "yes|no", "no"),
    Option("restore", "yes: claim the subnets of the present configuration again, etcd has lost them", "yes|no", "no"),
    Option("keep", "yes: keep the present configuration if etcd cannot be asked, and end well", "yes|no", "no"),
    Option("state-dir", "state directory of the CNI plugin", "DIR", paths.STATE_DIR),
    Option("machine-id", "file with the id of this machine", "FILE", paths.MACHINE_ID),
    Option("plugin-dir", "directories in which to look for portmap and bandwidth", "DIR", ",".join(paths.PLUGIN_DIRS)),
    Option("host-root", "directory below which a container sees the host's plugin directories", "DIR", "/"),
)


def parse_settings(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of one run. Raises EvioError; exits for ``--help`` and for unknown options."""
    flags = {name: value for name, value in vars(build_parser().parse_args(arguments)).items() if value is not None}
    environment = os.environ if environment is None else environment
    file = flags.pop("config", None) or environment.get("EVIO_CONFIG")
    from_file = _read_file(file) if file else {}
    values = {option.key: _value(option, flags, environment, from_file) for option in OPTIONS}
    missing = [option for option in OPTIONS if option.required and not values[option.key]]
    if missing:
        names = ", ".join(f"--{option.name} ({option.variable})" for option in missing)
        raise OptionError(f"{names} must be given; see evio-config-gen --help")
    return _settings({key: value or "" for key, value in values.items()})


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line, where each option can be given several times."""
    parser = _Parser(
        prog="evio-config-gen",
        description="Claims a subnet of the pod network for this node in etcd, and writes its CNI configuration.",
        epilog="Each option can also be set in the environment, or in the file: --pod-cidr is EVIO_POD_CIDR in the "
        "environment and pod_cidr in the file. The command line overrides the environment, and the environment the "
        "file. An option that takes several values can be given several times, or once with commas between them.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="file with the options as one JSON object (EVIO_CONFIG)")
    for option in OPTIONS:
        default = f" (default {option.default})" if option.default else ""
        parser.add_argument(f"--{option.name}", metavar=option.metavar, action="append", help=option.help + default)
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exit with one line; argparse would print the usage before it."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _read_file(path: str) -> dict[str, str]:
    """Return the options in a file, by key."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"cannot read the configuration: {error}") from error
    except ValueError as error:
        raise OptionError(f"{path} holds no JSON: {error}") from error
    if not isinstance(content, dict):
        raise OptionError(f"{path} holds no JSON object of options")
    keys = {_normalized(option.key): option.key for option in OPTIONS}
    unknown = [key for key in content if _normalized(key) not in keys]
    if unknown:
        raise OptionError(f"{path}: {unknown[0]!r} is no option; there are {', '.join(keys.values())}")
    return {keys[_normalized(key)]: _text(path, key, value) for key, value in content.items()}


def _normalized(key: str) -> str:
    """Return a key so that ``pod_cidr``, ``pod-cidr`` and upstream's ``PodCIDR`` are the same."""
    return key.replace("_", "").replace("-", "").lower()


def _text(path: str, key: str, value: Any) -> str:
    """Return a value of a file in the spelling of the environment."""
    if isinstance(value, list):
        return ",".join(_text(path, key, item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise OptionError(f"{path}: {key} is {json.dumps(value)}; give a string, a number or a list of them")


def _value(
    option: Option, flags: Mapping[str, list[str]], environment: Mapping[str, str], from_file: Mapping[str, str]
) -> str | None:
    if option.key in flags:
        return ",".join(flags[option.key])
    return environment.get(option.variable) or from_file.get(option.key) or option.default


def _settings(values: Mapping[str, str]) -> Settings:
    if bool(values["user"]) != bool(values["password_file"]):
        raise OptionError("--user and --password-file are given together or not at all")
    if values["datapath_type"] not in DATAPATH_TYPES:
        raise OptionError(f"--datapath-type: {values['datapath_type']!r} is neither of {', '.join(DATAPATH_TYPES)}")
    return Settings(
        pod_cidr=values["pod_cidr"],
        node_bits=values["node_bits"],
        node=values["node"],
        access=build_access(
            values["etcd"],
            ca_cert=values["cacert"],
            client_cert=values["cert"],
            client_key=values["key"],
            user=values["user"],
            password=_read_password(values["password_file"]) if values["password_file"] else None,
            timeout=_positive("timeout", values["timeout"]),
        ),
        cluster=values["cluster"],
        out_dir=values["out_dir"],
        bridge=values["bridge"],
        mtu=int(_positive("mtu", values["mtu"])),
        cluster_cidrs=_list(values["cluster_cidr"]),
        reserved_cidrs=_list(values["reserved_cidr"]),
        pins=_list(values["subnet"]),
        replaced=_boolean("replaced", values["replaced"]),
        restore=_boolean("restore", values["restore"]),
        keep=_boolean("keep", values["keep"]),
        datapath_type=values["datapath_type"],
        state_dir=values["state_dir"],
        machine_id_file=values["machine_id"],
        plugin_dirs=_list(values["plugin_dir"]),
        host_root=_directory("host-root", values["host_root"]),
    )


def _read_password(path: str) -> str:
    """Return the first line of a file. On the command line, a password would be in the list of processes."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"cannot read the password of etcd's user: {error}") from error
    if not lines or not lines[0]:
        raise OptionError(f"{path} holds no password on its first line")
    return lines[0]


def _directory(name: str, path: str) -> str:
    """Return the absolute path of a directory that exists."""
    if not (os.path.isabs(path) and os.path.isdir(path)):
        raise OptionError(f"--{name}: {path!r} is not the absolute path of a directory")
    return path


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _positive(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise OptionError(f"--{name}: {text!r} is no number above 0")
    return number


def _boolean(name: str, text: str) -> bool:
    if text.lower() in ("yes", "true", "1"):
        return True
    if text.lower() in ("no", "false", "0"):
        return False
    raise OptionError(f"--{name}: {text!r} is neither yes nor no")
