#!/bin/busybox sh
# The first process of the virtual machine: this system's files, read-only, below directories that can be written to.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module"; done </modules/order
share=trans=virtio,version=9p2000.L,msize=500000
mount -t 9p -o "ro,cache=loose,$share" root /new || poweroff -f
for kind in proc sys dev; do mount --move "/$kind" "/new/$kind"; done
for directory in tmp run mnt var/cache var/tmp; do mount -t tmpfs tmpfs "/new/$directory"; done
mkdir -p /new/dev/shm /new/dev/pts /new/run/outside
mount -t tmpfs tmpfs /new/dev/shm
ln -s /proc/self/fd /new/dev/fd
mount -t devpts devpts /new/dev/pts
mount -t tracefs tracefs /new/sys/kernel/tracing
mount -t 9p -o "cache=none,$share" outside /new/run/outside
ifconfig lo up
hostname "kernel-$(uname -r)"
exec switch_root /new /bin/sh /run/outside/job.sh
