#!/bin/sh
# Process 1 of a node, before systemd. The node may write its own control groups, for systemd and containerd, and of the
# kernel's settings only those of its network namespace: all others are the whole machine's, and become read-only.
set -e
mount --bind /proc/sys /proc/sys
mount --bind /proc/sys/net /proc/sys/net
mount -o remount,bind,ro /proc/sys
while read -r _ mountpoint type _; do
    case $type in cgroup | cgroup2) mount -o remount,bind,rw "$mountpoint" ;; esac
done </proc/mounts
exec /sbin/init
