#!/bin/sh
# First process of a node. Control groups are the node's own, so systemd and containerd may write them; of the kernel's
# settings only the network's belong to the node: the others are the whole machine's.
set -e
mount --bind /proc/sys /proc/sys
mount --bind /proc/sys/net /proc/sys/net
mount -o remount,bind,ro /proc/sys
while read -r _ mountpoint type _; do
    case $type in cgroup | cgroup2) mount -o remount,bind,rw "$mountpoint" ;; esac
done </proc/mounts
exec /sbin/init
