#!/bin/sh
# Turn the root file system in $1 into that of a bare host: only sshd is enabled, because roles enable the rest; host keys
# and machine-id are removed, because each node gets its own; sysctl files are removed, because all nodes share a kernel.
set -e
mkdir -p "$1/etc/systemd/system-preset"
printf 'enable ssh.service\ndisable *\n' >"$1/etc/systemd/system-preset/00-lab.preset"
chroot "$1" systemctl --quiet preset-all 2>/dev/null
rm -r "$1/etc/systemd/system-preset"
rm -f "$1/etc/machine-id" "$1/etc/resolv.conf" "$1"/etc/ssh/ssh_host_*
rm -f "$1"/usr/lib/sysctl.d/*.conf "$1/etc/sysctl.d/99-sysctl.conf"
install -m 755 "$(dirname "$0")/node_init.sh" "$1/usr/local/sbin/lab-init"
