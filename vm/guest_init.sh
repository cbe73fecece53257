#!/bin/sh
# The virtual machine's process 1: prepare what a booted host has, run the command, leave its exit status and power off.
# machine.py puts the environment and the function run_command after the first line.
mkdir -p /dev/shm /dev/pts /run/netns /run/lock
mount -t tmpfs tmpfs /dev/shm
mount -t devpts -o ptmxmode=666 devpts /dev/pts
mount -t tmpfs tmpfs "$TMPDIR"
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
hostname kernel-vm
ip link set lo up
# Other modules are loaded when they are first used. These have no user that asks the kernel for them.
modprobe --all openvswitch wireguard tun sch_netem nf_conntrack
until printer=$(ls /dev/vport*p1 2>/dev/null); do sleep 0.05; done
(run_command) </dev/null >"$printer" 2>&1
echo $? >/run/vm/status
# The host must have the files before the machine ends.
sync
echo o >/proc/sysrq-trigger
exec sleep 60
