# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A node's own firewalls as people have them: pods pass, or the chain that drops is named. Real packets decide."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
from ansible_collections.evio.cni.plugins.module_utils.firewall import forwarding
from ansible_collections.evio.cni.plugins.module_utils.firewall.forwarding import Blocked, Need
from ansible_collections.evio.cni.plugins.module_utils.firewall.verdict import Packet
from ansible_collections.evio.cni.plugins.module_utils.kernel.netns import in_netns

from .overlay_lab import COLLECTIONS, Namespace, wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

BRIDGE, OVERLAY, UPLINK = "br-evio", "evio0", "eth0"
POD, REMOTE_POD, INTERNET = "10.244.1.2", "10.244.2.2", "8.8.8.8"
T = TypeVar("T")


class Firewall:
    """A node between a pod, another node's pod and the internet; each is a namespace."""

    def __init__(self) -> None:
        self.node = Namespace()
        self.namespaces = [self.node]
        self.node.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        self.pod = self._neighbour(BRIDGE, "10.244.1.1", POD)
        self.remote_pod = self._neighbour(OVERLAY, "10.244.2.1", REMOTE_POD)
        self.internet = self._neighbour(UPLINK, "8.8.8.1", INTERNET)
        self.node.run("ip", "route", "add", "default", "via", INTERNET)
        for namespace in (self.pod, self.remote_pod, self.internet):
            # Ends with its namespace.
            subprocess.Popen(namespace.command("nc", "-l", "-k", "8080"), stdin=subprocess.DEVNULL)
        wait_until(self._are_listening, 10, "all listen")

    def close(self) -> None:
        for namespace in self.namespaces:
            namespace.close()

    def rules(self, text: str) -> None:
        """Run each line as a command of the node."""
        for line in text.strip().splitlines():
            self.node.run("sh", "-c", line.strip())

    def passes(self) -> bool:
        """Return whether new connections pass: from pod to pod in both directions, and from the pod to the internet."""
        return all(
            self.connects(source, address)
            for source, address in ((self.pod, REMOTE_POD), (self.remote_pod, POD), (self.pod, INTERNET))
        )

    def inside(self, function: Callable[[], T]) -> T:
        netns = os.open(f"/proc/{self.node.pid}/ns/net", os.O_RDONLY)
        try:
            return in_netns(netns, function)
        finally:
            os.close(netns)

    def accept(self) -> list[Blocked]:
        return self.inside(lambda: forwarding.accept(needs()))

    def blocked(self) -> list[Blocked]:
        return self.inside(lambda: forwarding.blocked(needs()))

    def as_a_process(self, function: str, *arguments: object) -> str:
        """Call a function of forwarding in the node's network and mount namespace; return its result as text."""
        code = (
            "import pickle, sys; from ansible_collections.evio.cni.plugins.module_utils.firewall import forwarding\n"
            "name, arguments = pickle.load(sys.stdin.buffer); print(getattr(forwarding, name)(*arguments))"
        )
        done = subprocess.run(
            self.node.command(sys.executable, "-c", code),
            input=pickle.dumps((function, arguments)),
            env={**os.environ, "PYTHONPATH": str(COLLECTIONS)},
            capture_output=True,
            timeout=60,
            check=True,
        )
        return done.stdout.decode().strip()

    def saved(self) -> str:
        """Return all rules, without their counters."""
        lines = self.node.run("nft", "--stateless", "list", "ruleset").stdout.splitlines()
        for program in ("iptables-legacy-save", "ip6tables-legacy-save"):
            lines += self.node.run(program).stdout.splitlines()
        # Of iptables-legacy the rules alone: reading a table makes it.
        kept = [line for line in lines if not line.startswith(("#", ":", "*", "COMMIT"))]
        return "\n".join(line for line in kept if line.strip() and not line.startswith("# Warning"))

    def connects(self, source: Namespace, address: str) -> bool:
        return source.run("nc", "-z", "-w", "1", address, "8080", check=False).returncode == 0

    def _are_listening(self) -> bool:
        others = (self.pod, self.remote_pod, self.internet)
        return all(":8080" in namespace.run("ss", "-Hltn").stdout for namespace in others)

    def _neighbour(self, device: str, own: str, address: str) -> Namespace:
        namespace = Namespace()
        self.namespaces.append(namespace)
        self.node.run(
            *("ip", "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", str(namespace.pid))
        )
        for host, name, cidr in ((self.node, device, f"{own}/24"), (namespace, "eth0", f"{address}/24")):
            host.run("ip", "address", "add", cidr, "dev", name)
            host.run("ip", "link", "set", name, "up")
        namespace.run("ip", "route", "add", "default", "via", own)
        return namespace


def needs() -> list[Need]:
    packets = [Packet(POD, REMOTE_POD, BRIDGE, OVERLAY), Packet(REMOTE_POD, POD, OVERLAY, BRIDGE)]
    return [
        *forwarding.forwarding_needs(OVERLAY, packets),
        *forwarding.forwarding_needs(BRIDGE, packets),
        *forwarding.pod_needs(BRIDGE, ["10.244.1.1/24"]),
    ]


def carry_out(firewall: Firewall, found: list[Blocked]) -> None:
    """Run the remedies on the node."""
    for blocked in found:
        command, _comma, _where = blocked.remedy.partition(", there")
        firewall.rules(command)


@pytest.fixture
def firewall() -> Iterator[Firewall]:
    firewall = Firewall()
    try:
        yield firewall
    finally:
        firewall.close()


IPTABLES = {
    "policy drop": "{0} -P FORWARD DROP",
    "accept that ends in reject": """
        {0} -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        {0} -A FORWARD -j REJECT --reject-with icmp-host-prohibited""",
    "reject behind a jump": """
        {0} -N SITE
        {0} -A SITE -p tcp --dport 22 -j ACCEPT
        {0} -A SITE -m comment --comment "all else" -j DROP
        {0} -A FORWARD -i lo -j ACCEPT
        {0} -A FORWARD -j SITE""",
    "drop of all tcp": "{0} -A FORWARD -p tcp -j DROP",
    "ufw": """
        {0} -N ufw-before-forward
        {0} -N ufw-reject-forward
        {0} -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        {0} -A ufw-before-forward -p icmp -m icmp --icmp-type 8 -j ACCEPT
        {0} -A ufw-reject-forward -j REJECT --reject-with icmp-port-unreachable
        {0} -A FORWARD -j ufw-before-forward
        {0} -A FORWARD -j ufw-reject-forward
        {0} -P FORWARD DROP""",
}


@pytest.mark.parametrize("program", ["iptables-nft", "iptables-legacy"])
@pytest.mark.parametrize("rules", IPTABLES.values(), ids=IPTABLES.keys())
def test_iptables_is_given_accepting_rules_and_gives_them_back(firewall: Firewall, program: str, rules: str) -> None:
    assert firewall.passes()
    firewall.rules(rules.format(program))
    before = firewall.saved()
    assert not firewall.passes()
    assert firewall.inside(lambda: forwarding.lacks_rules(needs()))
    assert firewall.accept() == []
    assert firewall.passes()
    after = firewall.saved()
    assert firewall.accept() == []
    assert firewall.saved() == after, "the second look changes nothing"
    for interface in (BRIDGE, OVERLAY):
        firewall.inside(lambda interface=interface: forwarding.withdraw(interface))  # type: ignore[misc]
    assert firewall.saved() == before


@pytest.mark.parametrize("program", ["iptables-nft", "iptables-legacy"])
@pytest.mark.parametrize("match", ["-s 10.244.0.0/16", "-i evio+", "-i br-+"])
def test_rule_against_pods_cuts_none_off_from_other_pods(firewall: Firewall, program: str, match: str) -> None:
    firewall.rules(f"{program} -A FORWARD {match} -j DROP")
    to_internet = firewall.connects(firewall.pod, INTERNET)
    assert not firewall.passes()
    assert firewall.accept() == []
    assert firewall.connects(firewall.pod, REMOTE_POD)
    assert firewall.connects(firewall.remote_pod, POD)
    assert firewall.connects(firewall.pod, INTERNET) == to_internet


@pytest.mark.parametrize("program", ["iptables-nft", "iptables-legacy"])
def test_what_the_site_drops_before_its_last_rule_stays_dropped(firewall: Firewall, program: str) -> None:
    firewall.rules(
        f"""
        {program} -A FORWARD -d {REMOTE_POD} -p icmp -j DROP
        {program} -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT
        {program} -A FORWARD -j DROP"""
    )
    firewall.accept()
    assert firewall.passes()
    pings = [
        firewall.pod.run("ping", "-c1", "-W1", address, check=False).returncode for address in (INTERNET, REMOTE_POD)
    ]
    assert pings == [0, 1]


@pytest.mark.parametrize("program", ["iptables-nft", "iptables-legacy"])
def test_pods_that_the_site_keeps_from_the_internet_stay_so(firewall: Firewall, program: str) -> None:
    firewall.rules(f"{program} -A FORWARD -i {BRIDGE} -o {UPLINK} -j DROP")
    before = firewall.saved()
    assert firewall.accept() == []
    assert firewall.saved() == before
    assert not firewall.connects(firewall.pod, INTERNET)
    assert firewall.connects(firewall.pod, REMOTE_POD)


def test_default_of_the_site_that_drops_what_pods_send_out_is_named(firewall: Firewall) -> None:
    firewall.node.run(
        "nft",
        "-f",
        "-",
        text="""
        table inet site {
            chain ward { type filter hook forward priority 0; policy drop;
                ct state established,related accept
                ip saddr 10.244.0.0/16 ip daddr 10.244.0.0/16 accept
            }
        }""",
    )
    [blocked] = firewall.accept()
    assert (blocked.chain, blocked.reach) == ("inet site ward", forwarding.INTERNET)
    assert firewall.connects(firewall.pod, REMOTE_POD)


def test_drop_that_is_inserted_later_is_seen(firewall: Firewall) -> None:
    firewall.rules("iptables-nft -P FORWARD DROP")
    firewall.accept()
    firewall.rules("iptables-nft -I FORWARD -j REJECT")
    assert not firewall.passes()
    assert firewall.accept() == []
    assert firewall.passes()
    rules = firewall.node.run("iptables-nft", "-S", "FORWARD").stdout
    # The policy, a rule each for what comes from and goes to the overlay and the bridge, one within it, and REJECT.
    assert len(rules.splitlines()) == 7, rules


NFT = {
    "policy drop": "policy drop;",
    "reject at the end": "policy accept; ct state established,related accept; tcp dport 22 accept; reject",
    "a map of interfaces": 'policy drop; iifname vmap { "lo" : accept, "eth1" : accept }',
    "a map with a prefix": 'policy accept; iifname vmap { "br-*" : drop, "eth0" : accept }',
    "addresses": "policy accept; ip saddr { 10.244.0.0/16, 192.168.0.1-192.168.0.9 } meta l4proto tcp drop",
    "a named set": "policy accept; ip saddr @pods drop",
    "goto": "policy accept; goto last",
}


@pytest.mark.parametrize("rules", NFT.values(), ids=NFT.keys())
@pytest.mark.parametrize("family", ["ip", "inet"])
def test_chain_of_nft_is_named_with_its_remedy(firewall: Firewall, family: str, rules: str) -> None:
    policy, _semicolon, chain = rules.partition("; ")
    lines = "\n".join(chain.split("; "))
    table = f"""
    table {family} site {{
        set pods {{ type ipv4_addr; flags interval; elements = {{ 10.244.0.0/16 }}; }}
        chain last {{ counter drop; }}
        chain ward {{ type filter hook forward priority 10; {policy.rstrip(";")};
            {lines}
        }}
    }}
    """
    firewall.node.run("nft", "-f", "-", text=table)
    before = firewall.saved()
    assert not firewall.passes()
    found = firewall.accept()
    assert {blocked.chain for blocked in found} == {f"{family} site ward"}
    assert firewall.saved() == before
    carry_out(firewall, found)
    assert firewall.blocked() == []
    assert firewall.passes()


PASSING = {
    "accepts of the site": "ip saddr 10.244.0.0/16 accept; ip daddr 10.244.0.0/16 accept; drop",
    "answers and pods": 'ct state established,related accept; iifname { "br-evio", "evio0" } accept; drop',
    "drops of others": "ip saddr 10.0.0.0/16 drop; tcp dport 25 drop; ct state invalid drop; meta mark 7 drop",
    "a rule that is not understood": "numgen inc mod 1 0 accept; drop",
    "return": "jump aside; drop",
}


@pytest.mark.parametrize("rules", PASSING.values(), ids=PASSING.keys())
def test_chain_that_lets_pods_pass_is_not_named(firewall: Firewall, rules: str) -> None:
    lines = "\n".join(rules.split("; "))
    firewall.node.run(
        "nft",
        "-f",
        "-",
        text=f"""
        table inet site {{
            chain aside {{ tcp dport 1 return; accept; }}
            chain ward {{ type filter hook forward priority 10; policy accept;
                {lines}
            }}
        }}""",
    )
    assert firewall.passes()
    assert firewall.blocked() == []


BEFORE_AND_AFTER_ROUTING = {
    "raw, by address": "{0} -t raw -A PREROUTING -s 10.244.0.0/16 -j DROP",
    "raw, by interface": "{0} -t raw -A PREROUTING -i br-+ -j DROP",
    "mangle": "{0} -t mangle -A PREROUTING -i evio0 -p tcp -j DROP",
    "mangle, forwarded": "{0} -t mangle -A FORWARD -o evio0 -j DROP",
    "mangle, leaving": "{0} -t mangle -A POSTROUTING -d 10.244.2.0/24 -j DROP",
    "mangle, policy": """
        {0} -t mangle -P PREROUTING DROP
        {0} -t mangle -A PREROUTING -i eth0 -j ACCEPT""",
}


@pytest.mark.parametrize("program", ["iptables-nft", "iptables-legacy"])
@pytest.mark.parametrize("rules", BEFORE_AND_AFTER_ROUTING.values(), ids=BEFORE_AND_AFTER_ROUTING.keys())
def test_other_tables_of_iptables_are_named_with_their_remedy(firewall: Firewall, program: str, rules: str) -> None:
    firewall.rules(rules.format(program))
    before = firewall.saved()
    assert not firewall.passes()
    found = firewall.accept()
    assert len({blocked.chain for blocked in found}) == 1
    assert firewall.saved() == before
    carry_out(firewall, found)
    assert firewall.blocked() == []
    assert firewall.passes()


def test_policy_of_table_nat_is_named(firewall: Firewall) -> None:
    firewall.rules("iptables-nft -t nat -A PREROUTING -i lo -j RETURN")
    assert firewall.blocked() == []
    firewall.node.run("nft", "-f", "-", text=CONNTRACK)
    # iptables itself refuses to drop there.
    firewall.rules("nft 'add chain ip nat PREROUTING { policy drop; }'")
    assert not firewall.passes()
    found = firewall.accept()
    assert {blocked.chain for blocked in found} == {"ip nat PREROUTING"}
    carry_out(firewall, found)
    assert firewall.blocked() == []
    assert firewall.passes()


CONNTRACK = """
table ip node {
    chain leaving { type nat hook postrouting priority srcnat;
        oifname "eth0" ip saddr 10.244.0.0/16 masquerade
    }
}
"""
"""As on every node. Without a rule that needs conntrack, no packet passes the chains of type nat."""

NFT_HOOKS = {
    "before conntrack": "type filter hook prerouting priority raw; policy accept; ip saddr 10.244.0.0/16 drop",
    "before routing": 'type filter hook prerouting priority mangle; policy accept; iifname "evio*" drop',
    "type nat": "type nat hook prerouting priority dstnat; policy accept; ip daddr 10.244.0.0/16 drop",
    "after routing": "type filter hook postrouting priority mangle; policy accept; ip daddr @pods drop",
    "behind translation": 'type filter hook postrouting priority 300; policy accept; oifname "evio0" drop',
}


@pytest.mark.parametrize("rules", NFT_HOOKS.values(), ids=NFT_HOOKS.keys())
@pytest.mark.parametrize("family", ["ip", "inet"])
def test_chain_of_nft_before_or_after_routing_is_named_with_its_remedy(
    firewall: Firewall, family: str, rules: str
) -> None:
    lines = rules.replace("; ", ";\n")
    pods = "set pods { type ipv4_addr; flags interval; elements = { 10.244.0.0/16 }; }"
    table = f"table {family} site {{\n{pods}\nchain ward {{\n{lines}\n}}\n}}\n"
    firewall.node.run("nft", "-f", "-", text=CONNTRACK + table)
    before = firewall.saved()
    assert not firewall.passes()
    found = firewall.accept()
    assert {blocked.chain for blocked in found} == {f"{family} site ward"}
    assert firewall.saved() == before
    carry_out(firewall, found)
    assert firewall.blocked() == []
    assert firewall.passes()


HARMLESS_HOOKS = {
    "state before conntrack": "type filter hook prerouting priority raw; policy accept; ct state new drop",
    "reverse path": "type filter hook prerouting priority raw; policy accept; fib saddr . iif oif missing drop",
    "other interface": 'type filter hook prerouting priority raw; policy accept; iifname "eth0" ip saddr 10.0.0.1 drop',
    "translated first": (
        "type nat hook postrouting priority srcnat; policy accept; "
        'ip saddr 10.244.0.0/16 oifname "eth0" masquerade; oifname "eth0" drop'
    ),
}


@pytest.mark.parametrize("rules", HARMLESS_HOOKS.values(), ids=HARMLESS_HOOKS.keys())
def test_chain_before_or_after_routing_that_lets_pods_pass_is_not_named(firewall: Firewall, rules: str) -> None:
    lines = rules.replace("; ", ";\n")
    firewall.node.run("nft", "-f", "-", text=f"table inet site {{\nchain ward {{\n{lines}\n}}\n}}\n")
    assert firewall.passes()
    assert firewall.blocked() == []


@pytest.mark.parametrize("program", ["iptables-nft", "iptables-legacy"])
def test_udp_port_of_a_relay_is_opened(firewall: Firewall, program: str) -> None:
    firewall.rules(
        f"""
        {program} -A INPUT -i lo -j ACCEPT
        {program} -A INPUT -p tcp --dport 22 -j ACCEPT
        {program} -A INPUT -j REJECT"""
    )
    before = firewall.saved()
    need = forwarding.input_need(Packet(INTERNET, None, UPLINK, None, "udp", None, 51820))
    [blocked] = firewall.inside(lambda: forwarding.blocked([need]))
    assert "drops the overlay's packets to this node" in str(blocked)
    assert firewall.inside(lambda: forwarding.accept([need])) == []
    assert "51820" in firewall.node.run(program, "-S", "INPUT").stdout.splitlines()[3]
    firewall.inside(lambda: forwarding.withdraw(OVERLAY, 51820))
    assert firewall.saved() == before


def test_without_any_firewall_nothing_is_made(firewall: Firewall) -> None:
    assert firewall.accept() == []
    assert firewall.saved() == ""


BUS = """
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/bus</listen>
  <policy context="default">
    <allow user="*"/> <allow own="*"/> <allow send_destination="*"/> <allow receive_sender="*"/>
  </policy>
</busconfig>
"""
"""A D-Bus that starts no other program."""


def start(firewall: Firewall, *command: str) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    return subprocess.Popen(firewall.node.command(*command), stdin=quiet, stdout=quiet, stderr=quiet)


@pytest.fixture
def firewalld(firewall: Firewall) -> Iterator[Firewall]:
    """The real firewalld on the node, with the configuration of its package and a D-Bus of its own."""
    if shutil.which("firewalld", path="/usr/sbin") is None:
        pytest.skip("needs firewalld")
    for directory in ("/run", "/var/log"):
        firewall.node.run("mount", "-t", "tmpfs", "tmpfs", directory)
    copy = "cp -a /etc/firewalld /run/copy && mount -t tmpfs tmpfs /etc/firewalld && cp -a /run/copy/. /etc/firewalld"
    firewall.node.run("sh", "-c", copy)
    firewall.node.run("tee", "/run/bus.conf", text=BUS)
    bus = start(firewall, "dbus-daemon", "--config-file=/run/bus.conf", "--nofork", "--nopidfile")
    wait_until(lambda: firewall.node.run("test", "-S", "/run/bus", check=False).returncode == 0, 10, "D-Bus")
    firewall.node.run("sh", "-c", "mkdir /run/dbus && ln -s /run/bus /run/dbus/system_bus_socket")
    daemon = start(firewall, "firewalld", "--nofork", "--nopid")
    try:
        wait_until(lambda: firewall.node.run("firewall-cmd", "--state", check=False).returncode == 0, 30, "firewalld")
        yield firewall
    finally:
        for process in (daemon, bus):
            process.kill()
            process.wait(10)


def test_firewalld_takes_the_interfaces_into_its_trusted_zone(firewalld: Firewall) -> None:
    assert not firewalld.passes()
    assert {blocked.chain for blocked in firewalld.blocked()} == {"inet firewalld filter_FORWARD"}
    # By the program as the agent runs it: firewall-cmd looks for D-Bus in the node's own /run.
    port = forwarding.input_need(Packet(INTERNET, None, UPLINK, None, "udp", None, 51820))
    assert firewalld.as_a_process("accept", [*needs(), port]) == "[]"
    assert firewalld.as_a_process("lacks_rules", [*needs(), port]) == "False"
    assert firewalld.passes()
    zone = firewalld.node.run("firewall-cmd", "--zone=trusted", "--list-interfaces").stdout.split()
    assert sorted(zone) == [BRIDGE, OVERLAY]
    firewalld.node.run("firewall-cmd", "--reload")
    assert firewalld.passes()
    assert firewalld.inside(lambda: forwarding.blocked([port])) == []
    for interface in (BRIDGE, OVERLAY):
        firewalld.as_a_process("withdraw", interface, 51820)
    firewalld.node.run("firewall-cmd", "--reload")
    assert not firewalld.passes()
    assert firewalld.node.run("firewall-cmd", "--list-rich-rules").stdout.strip() == ""
    assert firewalld.node.run("firewall-cmd", "--zone=trusted", "--list-interfaces").stdout.strip() == ""


def test_real_ufw_lets_pods_pass(firewall: Firewall) -> None:
    if shutil.which("ufw", path="/usr/sbin") is None:
        pytest.skip("needs ufw")
    for directory in ("/etc/ufw", "/etc/default"):
        copy = f"cp -a {directory} /mnt/copy && mount -t tmpfs tmpfs {directory} && cp -a /mnt/copy/. {directory}"
        firewall.node.run("sh", "-c", f"mount -t tmpfs tmpfs /mnt && {copy}")
    firewall.node.run("mount", "-t", "tmpfs", "tmpfs", "/run")
    firewall.node.run("sed", "-i", "s/^IPV6=yes/IPV6=no/", "/etc/default/ufw")
    assert firewall.passes()
    firewall.node.run("ufw", "--force", "enable")
    assert not firewall.passes()
    assert firewall.accept() == []
    assert firewall.passes()
    # ufw writes its chains anew, and leaves the rest of FORWARD.
    firewall.node.run("ufw", "reload")
    assert firewall.accept() == []
    assert firewall.passes()
