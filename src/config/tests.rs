//! Command lines that make sense, and those that do not.

use super::*;
use std::string::ToString;
use std::vec;

fn complaint(line: &str) -> std::string::String {
    Settings::parse(line).unwrap_err().to_string()
}

#[test]
fn every_word_is_understood() {
    let line = "ip=10.0.0.2/24 gw=10.0.0.1 dns=10.139.1.1,10.139.1.2 dnsto=9.9.9.9 log=all \
                ip6=fd00::2/64 gw6=fe80::1";
    let first = Addresses {
        addr4: Some(Ipv4Addr::new(10, 0, 0, 2)),
        addr6: Some("fd00::2".parse().unwrap()),
        gateway4: Some(Ipv4Addr::new(10, 0, 0, 1)),
        gateway6: Some("fe80::1".parse().unwrap()),
    };
    let want = Settings {
        uplinks: first.into(),
        dns: Some(DnsRedirect {
            virtuals: vec!["10.139.1.1".parse().unwrap(), "10.139.1.2".parse().unwrap()],
            reals: vec!["9.9.9.9".parse().unwrap()],
        }),
        log: LogLevel::All,
    };
    assert_eq!(Settings::parse(line), Ok(want));
}

#[test]
fn an_empty_line_asks_for_nothing() {
    assert_eq!(Settings::parse(" \t"), Ok(Settings::default()));
}

#[test]
fn words_for_linux_are_passed_over() {
    let line = "root=/dev/mapper/dmroot ro nomodeset console=hvc0 rd_NO_PLYMOUTH \
                rd.plymouth.enable=0 plymouth.enable=0 xen_scrub_pages=0 clocksource=tsc quiet \
                systemd.unit=x log=none";
    assert_eq!(Settings::parse(line).unwrap().log, LogLevel::None);
}

#[test]
fn a_gateway_is_asked_for_and_none_is_the_backend() {
    let gateway = Settings::parse("ip=10.0.0.2/24 gw=10.0.0.1").unwrap().firewall(None);
    let site = gateway.sites[Uplink::FIRST];
    assert_eq!(site.next_hop4, NextHop::Ask(IpAddr::from([10, 0, 0, 1])));
    assert_eq!(site.next_hop6, NextHop::Static(Mac::BACKEND));
}

#[test]
fn further_uplinks_have_words_of_their_own_and_are_there_if_they_have_an_address() {
    let line =
        "ip=10.0.0.2/24 gw6.3=fe80::1 ip.2=10.2.0.2/24 gw.2=10.2.0.1 ip6.3=fd03::2 gw=10.0.0.1";
    let config = Settings::parse(line).unwrap().firewall(None);
    let numbers = |config: &Config| config.uplinks().map(Uplink::number).collect::<vec::Vec<_>>();
    assert_eq!(numbers(&config), [0, 2, 3]);
    let [first, none, second, third] = Uplink::ALL.map(|uplink| config.sites[uplink]);
    assert_eq!(first.next_hop4, NextHop::Ask(IpAddr::from([10, 0, 0, 1])));
    assert_eq!(none, Site::default());
    assert_eq!(second.addr4, Some(Ipv4Addr::new(10, 2, 0, 2)));
    assert_eq!(second.next_hop4, NextHop::Ask(IpAddr::from([10, 2, 0, 1])));
    assert_eq!(third.addr6, Some("fd03::2".parse().unwrap()));
    assert_eq!(third.next_hop6, NextHop::Ask("fe80::1".parse().unwrap()));
    assert_eq!(numbers(&Settings::parse("").unwrap().firewall(None)), [0]);
}

#[test]
fn nonsense_is_named_with_its_place() {
    for (line, want) in [
        ("ip=10.0.0", "column 1: `ip=10.0.0`: not an IPv4 address"),
        ("ro ip=dhcp", "column 4: `ip=dhcp`: not an IPv4 address"),
        ("ip", "column 1: `ip`: not an IPv4 address"),
        ("ip=10.0.0.1/33", "column 1: `ip=10.0.0.1/33`: prefix length must be 0 to 32"),
        ("ip=10.0.0.1/+8", "prefix length must be 0 to 32"),
        ("ip=224.0.0.1", "not the address of a host"),
        ("ip=0.0.0.0", "not the address of a host"),
        ("ip6=10.0.0.1", "not an IPv6 address"),
        ("ip6=::1", "not the address of a host"),
        ("ip=10.0.0.1 ip=10.0.0.2", "column 13: `ip=10.0.0.2`: given twice"),
        ("gw=10.0.0.1", "column 1: `gw=10.0.0.1`: needs ip= beside it"),
        ("gw6=fe80::1", "needs ip6= beside it"),
        ("ip=10.0.0.1 gw=10.0.0.1", "cannot have our own address"),
        ("ip=10.0.0.1/24 gw=10.0.1.1", "column 16: `gw=10.0.1.1`: the gateway is outside"),
        ("ip6=fd00::1/64 gw6=fd01::1", "the gateway is outside"),
        ("ip=10.0.0.1 gw.1=10.0.0.2", "column 13: `gw.1=10.0.0.2`: needs ip.1= beside it"),
        ("ip6=fd00::1 gw6.2=fe80::1", "needs ip6.2= beside it"),
        ("ip.1=10.1.0.2/24 gw.1=10.2.0.1", "column 18: `gw.1=10.2.0.1`: the gateway is outside"),
        ("ip.1=10.0.0.1 ip.1=10.0.0.2", "column 15: `ip.1=10.0.0.2`: given twice"),
        ("ip=10.0.0.1 ip.3=10.0.0.1/8", "column 13: `ip.3=10.0.0.1/8`: another uplink has this"),
        ("ip6.1=fd00::1 ip6.2=fd00::1", "`ip6.2=fd00::1`: another uplink has this address"),
        ("ip.1=dhcp", "column 1: `ip.1=dhcp`: not an IPv4 address"),
        ("ip.0=10.0.0.1", "column 1: `ip.0=10.0.0.1`: further uplinks are 1 to 3"),
        ("gw6.4=fe80::1", "further uplinks are 1 to 3"),
        ("ip.01=10.0.0.1", "further uplinks are 1 to 3"),
        ("ip.=10.0.0.1", "further uplinks are 1 to 3"),
        ("dns.1=10.139.1.1", "column 1: `dns.1=10.139.1.1`: unknown word"),
        ("dns=10.139.1.1", "needs dnsto= beside it"),
        ("dnsto=9.9.9.9", "needs dns= beside it"),
        ("dns=fd00::1 dnsto=9.9.9.9", "column 1: `dns=fd00::1`: dnsto= has no resolver"),
        ("dns=10.139.1.1, dnsto=9.9.9.9", "not an IPv4 address"),
        ("log=loud", "log level must be none, drops or all"),
        ("gateway=10.0.0.1", "column 1: `gateway=10.0.0.1`: unknown word"),
        ("ü\u{7} ip=x", "column 1: `ü\\u{7}`: unknown word"),
        ("quiet  ü=", "column 8: `ü=`"),
    ] {
        let got = complaint(line);
        assert!(got.contains(want), "{line:?}: {got}");
    }
}

#[test]
fn networks_of_every_length_are_checked() {
    for line in [
        "ip=10.0.0.1 gw=192.168.0.1",
        "ip=10.0.0.1/0 gw=192.168.0.1",
        "ip=10.0.0.1/32 gw=192.168.0.1",
        "ip=10.0.0.1/8 gw=10.255.0.1",
        "ip6=fd00::1 gw6=fd01::1",
        "ip6=fd00::1/64 gw6=fe80::1",
        "ip6=fd00::1/0 gw6=2001:db8::1",
    ] {
        assert!(Settings::parse(line).is_ok(), "{line}");
    }
}
