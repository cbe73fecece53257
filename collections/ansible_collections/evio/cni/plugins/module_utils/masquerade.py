# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Masquerade: what pods send out of the overlays gets the node's address, by one nftables chain a network.

The rules speak of the node's subnet and not of pods, so a pod's DEL has nothing to undo. They are there from the first
ADD after a boot on; each ADD asks the kernel, by one netlink message, whether they still are.
"""

from __future__ import annotations

from _struct import pack, unpack_from

from .errors import EvioError
from .netlink import NETLINK_NETFILTER, NetlinkError, NetlinkSocket, attributes, text
from .ownership import short_hash

TABLE = "evio_cni"
_FAMILY = "inet"

_NFT_MSG_GETCHAIN = (10 << 8) | 4
"""NFNL_SUBSYS_NFTABLES of linux/netfilter/nfnetlink.h, and its message."""
_NFPROTO_INET = 1
_NFTA_CHAIN_TABLE, _NFTA_CHAIN_NAME, _NFTA_CHAIN_USE = 1, 3, 6
_ENOENT = 2

_MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}
_PROGRAMS = ("/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft")
_TIMEOUT_SECONDS = 10


class MasqueradeError(EvioError):
    """The rules cannot be put in place."""


class Masquerade:
    """The rules of one network: its subnets, and the networks towards which pods keep their addresses."""

    __slots__ = ("_bridge", "_excluded", "_network", "_subnets", "chain")

    def __init__(self, network: str, bridge: str, subnets: list[str], excluded: list[str]) -> None:
        self._network = network
        self._bridge = bridge
        self._subnets = subnets
        self._excluded = excluded
        content = " ".join([bridge, *subnets, "-", *excluded])
        self.chain = f"{self._prefix}{short_hash(content)}"
        """Named by what is in it: a chain of this name is the chain that is wanted."""

    def is_there(self) -> bool:
        """Whether the kernel has the chain with all its rules. Raises NetlinkError."""
        netlink = NetlinkSocket(NETLINK_NETFILTER)
        query = pack("=BBH", _NFPROTO_INET, 0, 0) + text(_NFTA_CHAIN_TABLE, TABLE) + text(_NFTA_CHAIN_NAME, self.chain)
        try:
            answers = netlink.talk("masquerade", [(_NFT_MSG_GETCHAIN, 0, query)])
        except NetlinkError as error:
            if error.errno == _ENOENT:
                return False
            raise
        finally:
            netlink.close()
        used = attributes(answers[0], 4).get(_NFTA_CHAIN_USE, b"\0\0\0\0")
        return bool(unpack_from(">I", used)[0] >= len(self._rules()))

    def ensure(self) -> bool:
        """Put the rules in place, and away with those that the network had before; False if they were there."""
        if self.is_there():
            return False
        stale = [chain for chain in _chains() if chain.startswith(self._prefix) and chain != self.chain]
        _run(["-f", "-"], self.ruleset(stale))
        return True

    def ruleset(self, stale: list[str]) -> str:
        """What nft is told, as one transaction that may be repeated."""
        lines = [
            f"add table {_FAMILY} {TABLE}",
            f"add chain {_FAMILY} {TABLE} {self.chain} {{ type nat hook postrouting priority srcnat; policy accept; }}",
            f"flush chain {_FAMILY} {TABLE} {self.chain}",
            *(f"add rule {_FAMILY} {TABLE} {self.chain} {rule}" for rule in self._rules()),
        ]
        for chain in stale:
            lines += [f"flush chain {_FAMILY} {TABLE} {chain}", f"delete chain {_FAMILY} {TABLE} {chain}"]
        return "\n".join(lines) + "\n"

    @property
    def _prefix(self) -> str:
        return f"net-{short_hash(self._network)}-"

    def _rules(self) -> list[str]:
        rules = []
        for subnet in self._subnets:
            family = 6 if ":" in subnet else 4
            match = f"{'ip6' if family == 6 else 'ip'} saddr {subnet}"
            kept = [cidr for cidr in [subnet, *self._excluded] if (6 if ":" in cidr else 4) == family]
            for cidr in dict.fromkeys([*kept, _MULTICAST[family]]):
                rules.append(f"{match} {'ip6' if family == 6 else 'ip'} daddr {cidr} accept")
            rules.append(f'{match} oifname != "{self._bridge}" masquerade comment "{self._network[:60]}"')
        return rules


def _chains() -> list[str]:
    import json

    output = _run(["-j", "list", "chains", _FAMILY], "")
    entries = json.loads(output or "{}").get("nftables", [])
    return [entry["chain"]["name"] for entry in entries if entry.get("chain", {}).get("table") == TABLE]


def _run(arguments: list[str], stdin: str) -> str:
    import os
    import subprocess

    program = next((path for path in _PROGRAMS if os.path.exists(path)), None)
    if program is None:
        raise MasqueradeError("masquerading needs nft: install the package nftables")
    try:
        done = subprocess.run(
            [program, *arguments], input=stdin, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise MasqueradeError(f"nft did not end within {_TIMEOUT_SECONDS} s") from None
    if done.returncode != 0:
        raise MasqueradeError(f"nft refuses the masquerade rules: {done.stderr.strip()}")
    return done.stdout
