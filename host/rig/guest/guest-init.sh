#!/bin/busybox sh
# Init of every Linux guest of the rig. Words of the kernel's command line say who it is:
# tidegate.role=client|firewall .name= .ip= .gw= .dns=
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /run /tmp
mount -t tmpfs tmpfs /run
for word in $(cat /proc/cmdline); do
    case $word in tidegate.*=*) echo "${word#tidegate.}" >>/run/self ;; esac
done
. /run/self
hostname "$name"
/bin/ip link set lo up
# Kernel messages would break the agent's lines on this console; panics still come.
dmesg -n 1
while read -r module; do insmod "/modules/$role/$module"; done <"/modules/$role/order"
echo "$dns" | tr , '\n' | sed 's/^/nameserver /' >/etc/resolv.conf
"/bin/$role-up" &
stty raw -echo
echo "$name: up"
tidegate-agent guest
echo "$name: the agent ended"
poweroff -f
