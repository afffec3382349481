#!/bin/busybox sh
# Hotplug script of the uplink's backend: what Qubes' vif-route-qubes does in sys-net.
# In: $1 (online or offline), $vif, $XENBUS_PATH from libxl; the peer's address from XenStore.
export PATH=/usr/lib/xen-4.17/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec >>/var/log/xen/vif-sysnet.log 2>&1
echo "$(date +%T) $1 $vif $XENBUS_PATH"
case $1 in
online)
    peer=$(xenstore-read "$XENBUS_PATH/ip")
    mac=$(xenstore-read "$XENBUS_PATH/mac")
    /bin/ip link set "$vif" address fe:ff:ff:ff:ff:ff
    /bin/ip addr add "$(cat /etc/gateway)/32" dev "$vif"
    /bin/ip link set "$vif" up
    /bin/ip route replace "$peer/32" dev "$vif"
    /bin/ip neigh replace "$peer" lladdr "$mac" dev "$vif" nud permanent
    xenstore-write "$XENBUS_PATH/hotplug-status" connected
    ;;
offline)
    /bin/ip link set "$vif" down
    ;;
esac
exit 0
