# Prints what is on a host, one thing a line: packages, users, groups, files, units, interfaces, addresses, rules, settings.
# Left out is what the system itself changes as it runs: apt's and dpkg's books, systemd's state, logs, and /run below its
# first level.
dpkg-query --show --showformat='package ${Package} ${db:Status-Status}\n' | grep -v ' not-installed$'
getent passwd | sed 's/:.*//; s/^/user /'
getent group | sed 's/:.*//; s/^/group /'
find /etc /usr/local -xdev -type f -exec sha256sum {} + | sed 's/^\([0-9a-f]*\)  /file \1 /'
find /etc /usr/local -xdev -type l -printf 'link %p %l\n'
find /etc /usr/local /opt /srv -xdev -type d -printf 'directory %p\n'
find /opt /srv /root /usr/lib/systemd /var/lib -xdev ! -type d -printf 'file %p\n'
find /var/lib -xdev -type d -printf 'directory %p\n'
find /run -mindepth 1 -maxdepth 1 -printf 'run %p\n'
systemctl list-unit-files --no-legend --plain | awk '{ print "unit-file", $1, $2 }'
systemctl list-units --no-legend --plain --type=service,path,timer,socket | awk '{ print "unit", $1, $3 }'
ls /sys/class/net | sed 's/^/interface /'
ip -o address | awk '{ print "address", $2, $4 }'
ip route show table all | sed 's/^/route /'
ip rule | sed 's/^/rule /'
if command -v nft >/dev/null; then nft list ruleset | sed 's/^/nft /'; fi
for program in iptables-legacy-save ip6tables-legacy-save; do
    if command -v $program >/dev/null; then $program | grep -v '^#' | sed 's/^/iptables /; s/\[.*\]//'; fi
done
sysctl --all --pattern '^(net[.](ipv4|ipv6|core|bridge|netfilter)|vm|kernel[.]panic)' 2>/dev/null |
    grep -Ev '[.](conf|neigh)[.](evio|evpod|br-|ovs-|eth|lo)' | sed 's/^/sysctl /'
ps -e -o comm= | sort -u | sed 's/^/process /'
true
