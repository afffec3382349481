#!/bin/busybox sh
# The Linux firewall Tidegate is compared with: what Qubes' sys-firewall does, in small.
# Masquerade, stateful filter, DNS redirect, anti-spoofing, one /32 route and permanent neighbour per client.
. /run/self
echo 1 >/proc/sys/net/ipv4/ip_forward
client-up
nft -f /etc/firewall.nft

# What `xl devd` and a hotplug script do in a driver domain. Between changes of the backend directory
# nothing runs: this is the firewall whose processor time is measured.
appear() {
    for look in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        [ -e "/sys/class/net/$1" ] && return
        usleep 50000
    done
    return 1
}

online() {
    peer=$(xenstore-read "$path/ip") || return
    mac=$(xenstore-read "$path/mac") || return
    appear "$vif" || return
    /bin/ip link set "$vif" address fe:ff:ff:ff:ff:ff
    /bin/ip link set "$vif" up
    /bin/ip route replace "$peer/32" dev "$vif" src "$ip"
    /bin/ip neigh replace "$peer" lladdr "$mac" dev "$vif" nud permanent
    echo 1 >"/proc/sys/net/ipv4/conf/$vif/proxy_arp"
    echo 1 >"/proc/sys/net/ipv4/conf/$vif/rp_filter"
    xenstore-write "$path/hotplug-status" connected
    touch "/run/$vif"
}

offline() {
    [ "$(xenstore-read "$path/state" 2>/dev/null || echo 6)" = 6 ] || return
    [ "$(xenstore-read "$path/online" 2>/dev/null || echo 0)" = 0 ] || return
    # libxl reads state 6 only after its watch fired; the directory must still be there.
    usleep 150000
    xenstore-rm "$path" 2>/dev/null
    rm -f "/run/$vif"
}

# Lines such as backend/vif/3/0/state. The first is backend/vif alone, for what was there before.
xenstore-watch backend/vif | while IFS=/ read -r _ _ domain handle node; do
    if [ -z "$domain" ]; then
        for vif in /sys/class/net/vif*; do
            [ -e "$vif" ] || continue
            vif=${vif##*/}
            pair=${vif#vif}
            path=backend/vif/${pair%.*}/${pair#*.}
            online
        done
        continue
    fi
    case $node in state | online) ;; *) continue ;; esac
    vif=vif$domain.$handle
    path=backend/vif/$domain/$handle
    # One that went before it was here has to be taken away as well, or its number stays in use.
    offline || [ -e "/run/$vif" ] || online
done
