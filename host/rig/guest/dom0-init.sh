#!/bin/busybox sh
# dom0 of the rig: the real toolstack, sys-net's part of the network, and the agent.
export PATH=/usr/lib/xen-4.17/bin:/usr/sbin:/usr/bin:/sbin:/bin
# busybox's shell prefers its own applets: where iproute2 is meant, /bin/ip says so.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /run/xen /run/xenstored /tmp /var/lib/xen /var/lib/xenstored /var/log/xen/console
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /run && mkdir -p /run/xen /run/xenstored
ln -s /run /var/run
while read -r module; do insmod "/modules/$module"; done </modules/order
mount -t xenfs xenfs /proc/xen

xenstored --pid-file=/run/xenstored.pid
until xenstore-read / >/dev/null 2>&1; do usleep 20000; done
xen-init-dom0
xenconsoled --log=all --log-dir=/var/log/xen/console --pid-file=/run/xenconsoled.pid

# sys-net: everything the clients call "the internet" lives on one interface here.
echo 1 >/proc/sys/net/ipv4/ip_forward
/bin/ip link set lo up
/bin/ip link add internet type dummy
/bin/ip link set internet up
for address in $(cat /etc/internet); do /bin/ip addr add "$address/32" dev internet; done

if grep -q tidegate.shell /proc/cmdline; then
    while true; do setsid sh -c 'exec sh -l </dev/hvc0 >/dev/hvc0 2>&1'; done &
fi
stty -F /dev/ttyS1 raw -echo 115200
tidegate-agent dom0 --line /dev/ttyS1
echo "the agent ended; powering off"
poweroff -f
