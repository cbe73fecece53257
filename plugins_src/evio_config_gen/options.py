# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where the settings of ``evio-config-gen`` come from: a flag, else the environment, else a file, else the default.

One table makes all four, so that an option has one name: ``--pod-cidr``, ``EVIO_POD_CIDR``, ``pod_cidr``.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from evio_cni import paths
from evio_cni.errors import EvioError
from evio_cni.etcd.access import Access
from evio_cni.node.claim import MACHINE_ID
from evio_cni.node.config_generator import PLUGIN_DIRS, Settings, read_password

_DATAPATHS = ("system", "netdev")


class OptionError(EvioError):
    """A setting that is missing or cannot be used; the message names it."""


@dataclass(frozen=True)
class Option:
    """One setting; ``default`` is as it would be written in the environment."""

    name: str
    """As the flag has it, without the two dashes."""
    help: str
    metavar: str
    default: str | None = None
    required: bool = False

    @property
    def key(self) -> str:
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        return f"EVIO_{self.key.upper()}"


OPTIONS = (
    Option("pod-cidr", "the pod network, or one a family with a comma between them", "CIDR", required=True),
    Option("node-bits", "how many bits of it tell nodes apart, or one number a family", "N", required=True),
    Option("cluster", "the cluster's name, a part of the keys in etcd", "NAME", "kubernetes"),
    Option("node", "this node's name", "NAME", required=True),
    Option("etcd", "etcd's members, with commas between them", "URL", required=True),
    Option("cacert", "certificate that vouches for etcd's; needed for https", "FILE"),
    Option("cert", "certificate that is shown to etcd", "FILE"),
    Option("key", "its key", "FILE"),
    Option("user", "name of an etcd user", "NAME"),
    Option("password-file", "file with the user's password on its first line", "FILE"),
    Option("timeout", "seconds that one call to one member may take", "S", "5"),
    Option("out-dir", "the directory that the container runtime reads", "DIR", "/etc/cni/net.d"),
    Option("bridge", "the OVS bridge that pods are plugged into", "NAME", "br-evio"),
    Option("mtu", "MTU of pods and bridge in bytes", "N", "1420"),
    Option("datapath-type", f"datapath of the bridge: {' or '.join(_DATAPATHS)}", "TYPE", "system"),
    Option(
        "cluster-cidr", "networks not masqueraded besides the pod network: the host overlay", "CIDR", "10.10.0.0/16"
    ),
    Option("reserved-cidr", "networks that no node is given, such as the service CIDR", "CIDR", ""),
    Option("subnet", "the subnet this node shall have and no other, such as its spec.podCIDR", "CIDR", ""),
    Option("replaced", "yes: this machine has taken the place of the one that has the node's claim", "yes|no", "no"),
    Option("restore", "yes: claim again what this node is set up with, etcd has lost it", "yes|no", "no"),
    Option("state-dir", "the CNI plugin's state directory", "DIR", paths.STATE_DIR),
    Option("machine-id", "file with this machine's id", "FILE", MACHINE_ID),
    Option("plugin-dir", "where portmap and bandwidth are looked for", "DIR", ",".join(PLUGIN_DIRS)),
)


def parse_settings(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of one run. Raises EvioError; leaves the program for ``--help`` and for unknown flags."""
    flags = {name: value for name, value in vars(_parser().parse_args(arguments)).items() if value is not None}
    environment = os.environ if environment is None else environment
    file = flags.pop("config", None) or environment.get("EVIO_CONFIG")
    from_file = _read_file(file) if file else {}
    values = {option.key: _value(option, flags, environment, from_file) for option in OPTIONS}
    missing = [option for option in OPTIONS if option.required and not values[option.key]]
    if missing:
        named = ", ".join(f"--{option.name} ({option.variable})" for option in missing)
        raise OptionError(f"{named} must be given; see evio-config-gen --help")
    return _settings({key: value or "" for key, value in values.items()})


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="evio-config-gen",
        description="Claims this node's subnet of the pod network in etcd and writes its CNI configuration.",
        epilog="Each option can be given as EVIO_<NAME> in the environment, or as a key of the file: --pod-cidr is "
        "EVIO_POD_CIDR and pod_cidr. The flag counts first, then the environment, then the file.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="JSON file with one object of options (EVIO_CONFIG)")
    for option in OPTIONS:
        default = f" (default {option.default})" if option.default else ""
        # append: what takes several values may be given several times, or once with commas.
        parser.add_argument(f"--{option.name}", metavar=option.metavar, action="append", help=option.help + default)
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, where argparse itself would show its usage before it."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _value(
    option: Option, flags: Mapping[str, list[str]], environment: Mapping[str, str], from_file: Mapping[str, str]
) -> str | None:
    if option.key in flags:
        return ",".join(flags[option.key])
    return environment.get(option.variable) or from_file.get(option.key) or option.default


def _read_file(path: str) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
    except OSError as error:
        raise OptionError(f"cannot read the configuration: {error}") from error
    except ValueError as error:
        raise OptionError(f"{path} holds no JSON: {error}") from error
    if not isinstance(content, dict):
        raise OptionError(f"{path} holds no JSON object of options")
    keys = {_plain(option.key): option.key for option in OPTIONS}
    unknown = [key for key in content if _plain(key) not in keys]
    if unknown:
        raise OptionError(f"{path}: {unknown[0]!r} is no option; there are {', '.join(keys.values())}")
    return {keys[_plain(key)]: _text(path, key, value) for key, value in content.items()}


def _plain(key: str) -> str:
    """``pod_cidr``, ``pod-cidr`` and upstream's ``PodCIDR`` are one key."""
    return key.replace("_", "").replace("-", "").lower()


def _text(path: str, key: str, value: Any) -> str:
    if isinstance(value, list):
        return ",".join(_text(path, key, one) for one in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise OptionError(f"{path}: {key} is {json.dumps(value)}; give a string, a number or a list of them")


def _settings(values: Mapping[str, str]) -> Settings:
    if bool(values["user"]) != bool(values["password_file"]):
        raise OptionError("--user and --password-file are given together or not at all")
    if values["datapath_type"] not in _DATAPATHS:
        raise OptionError(f"--datapath-type: {values['datapath_type']!r} is neither of {', '.join(_DATAPATHS)}")
    access = Access(
        endpoints=_several(values["etcd"]),
        ca_cert=values["cacert"] or None,
        client_cert=values["cert"] or None,
        client_key=values["key"] or None,
        user=values["user"] or None,
        password=read_password(values["password_file"]) if values["password_file"] else None,
        timeout=_positive("timeout", values["timeout"]),
    )
    return Settings(
        pod_cidr=values["pod_cidr"],
        node_bits=values["node_bits"],
        node=values["node"],
        access=access,
        cluster=values["cluster"],
        out_dir=values["out_dir"],
        bridge=values["bridge"],
        mtu=int(_positive("mtu", values["mtu"])),
        cluster_cidrs=_several(values["cluster_cidr"]),
        reserved_cidrs=_several(values["reserved_cidr"]),
        subnet=values["subnet"],
        replaced=_boolean("replaced", values["replaced"]),
        restore=_boolean("restore", values["restore"]),
        datapath_type=values["datapath_type"],
        state_dir=values["state_dir"],
        machine_id_file=values["machine_id"],
        plugin_dirs=_several(values["plugin_dir"]),
    )


def _several(text: str) -> tuple[str, ...]:
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
