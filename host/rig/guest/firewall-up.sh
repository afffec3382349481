#!/bin/busybox sh
# The Linux firewall Tidegate is compared with: what Qubes' sys-firewall does, in small.
# Masquerade, stateful filter, DNS redirect, anti-spoofing, one /32 route and permanent neighbour per client.
. /run/self
echo 1 >/proc/sys/net/ipv4/ip_forward
client-up
nft -f /etc/firewall.nft

# What `xl devd` and a hotplug script do in a driver domain.
while true; do
    for vif in /sys/class/net/vif*; do
        [ -e "$vif" ] || continue
        vif=${vif##*/}
        [ -e "/run/$vif" ] && continue
        pair=${vif#vif}
        path="backend/vif/${pair%.*}/${pair#*.}"
        peer=$(xenstore-read "$path/ip") || continue
        mac=$(xenstore-read "$path/mac") || continue
        /bin/ip link set "$vif" address fe:ff:ff:ff:ff:ff
        /bin/ip link set "$vif" up
        /bin/ip route replace "$peer/32" dev "$vif" src "$ip"
        /bin/ip neigh replace "$peer" lladdr "$mac" dev "$vif" nud permanent
        echo 1 >"/proc/sys/net/ipv4/conf/$vif/proxy_arp"
        echo 1 >"/proc/sys/net/ipv4/conf/$vif/rp_filter"
        xenstore-write "$path/hotplug-status" connected
        echo "$path" >"/run/$vif"
    done
    for done in /run/vif*; do
        [ -e "$done" ] || continue
        path=$(cat "$done")
        [ "$(xenstore-read "$path/state" 2>/dev/null || echo 6)" = 6 ] || continue
        [ "$(xenstore-read "$path/online" 2>/dev/null || echo 0)" = 0 ] || continue
        # libxl reads state 6 only after its watch fired; the directory must still be there.
        usleep 150000
        xenstore-rm "$path" 2>/dev/null
        rm -f "$done"
    done
    usleep 20000
done
