#!/bin/sh
# Process 1 of a virtual machine, before systemd. The root file system is the lab's, with what the node has written above
# it, on its own disk. Node and kernel are alone together: nothing is hidden from either, as on a real host.
# machines.py puts ADDRESS and GATEWAY after the first line.
set -e
modprobe --all virtio_blk virtio_net ext4
until [ -b /dev/vda ]; do sleep 0.05; done
mkdir /base /disk /node
mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=524288 base /base
mount -o noatime /dev/vda /disk
mkdir -p /disk/files /disk/work /disk/containerd
mount -t overlay -o lowerdir=/base,upperdir=/disk/files,workdir=/disk/work overlay /node
# containerd's snapshots are overlays, which cannot be on an overlay.
mkdir -p /node/var/lib/containerd /node/lib/modules
mount --bind /disk/containerd /node/var/lib/containerd
mount --move /lib/modules /node/lib/modules
cp -a /run/vm/root/. /node/
umount --lazy /run/vm
ip link set eth0 up
ip address add "$ADDRESS" dev eth0
ip route add default via "$GATEWAY"
exec switch_root /node /sbin/init
