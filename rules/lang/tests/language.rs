//! What policies mean, told by what they decide.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use lang::compile;
use proptest::prelude::*;
use rules::qubes::Trees;
use rules::{
    Action, Decision, Header, HostTable, Policy, Query, RejectKind, Transport, Uplink, Zone,
};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

const HEAD: &str = "\
zone uplink = netfront 0
zone clients = netback
nat clients -> uplink masquerade
vm work = 10.137.0.10, fd09::a
vm mail = 10.137.0.11
";

fn policy(rest: &str) -> Policy {
    let text = format!("{HEAD}{rest}");
    let compiled = compile("dir/test.tide", &text).unwrap_or_else(|mistakes| {
        panic!("{}", mistakes.iter().map(lang::Diagnostic::render).collect::<Vec<_>>().join("\n\n"))
    });
    assert_eq!(Policy::decode(&compiled.blob).as_ref(), Ok(&compiled.policy));
    compiled.policy
}

/// A policy whose block towards the uplink has these rules.
fn rules(rules: &str) -> Policy {
    policy(&format!("policy clients -> uplink {{ {rules} }}"))
}

fn ask(policy: &Policy, src: &str, dst: &str, transport: Transport) -> Decision {
    let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
    let (from, to) = (Zone::Clients, Zone::Uplink(Uplink::FIRST));
    policy.decide(
        &Query { from, to, src, dst, transport, header: Header::PLAIN },
        &Trees::default(),
        &HostTable::new(),
    )
}

/// `tcp 1.1.1.1:443` or `icmp 8 1.1.1.1`, from the VM `work`: whether it is accepted.
fn accepts(policy: &Policy, packet: &str) -> bool {
    let words: Vec<_> = packet.split(' ').collect();
    let (dst, transport) = match words[..] {
        ["icmp", kind, dst] => (
            dst.parse::<IpAddr>().unwrap(),
            Transport::Icmp { kind: kind.parse().unwrap(), code: 0 },
        ),
        [proto, end] => {
            let end: SocketAddr = end.parse().unwrap();
            let (sport, dport) = (4711, end.port());
            let tcp = Transport::Tcp { sport, dport };
            (end.ip(), if proto == "tcp" { tcp } else { Transport::Udp { sport, dport } })
        }
        _ => panic!("{packet}"),
    };
    let src = if dst.is_ipv4() { "10.137.0.10" } else { "fd09::a" };
    ask(policy, src, &dst.to_string(), transport).action == Action::Accept
}

#[test]
fn conditions_mean_what_they_say() {
    for (rule, passes, fails) in [
        ("accept", "udp 1.1.1.1:1", ""),
        ("accept tcp", "tcp 1.1.1.1:1", "udp 1.1.1.1:1"),
        ("accept tcp 80, 8000-8099", "tcp 1.1.1.1:8099", "tcp 1.1.1.1:8100"),
        ("accept tcp [80, 443]", "tcp [2001:db8::1]:443", "tcp 1.1.1.1:81"),
        ("accept tcp 80, udp 53", "udp 1.1.1.1:53", "udp 1.1.1.1:80"),
        ("accept icmp", "icmp 13 1.1.1.1", "tcp 1.1.1.1:1"),
        ("accept icmp echo-request", "icmp 8 1.1.1.1", "icmp 13 1.1.1.1"),
        ("accept icmp echo-request", "icmp 128 2001:db8::1", "icmp 8 2001:db8::1"),
        ("accept to 10.0.0.0/8", "tcp 10.255.0.1:1", "tcp 11.0.0.0:1"),
        ("accept to 0.0.0.0/0", "tcp 203.0.113.1:1", "tcp [2001:db8::1]:1"),
        ("accept to ::/0", "tcp [2001:db8::1]:1", "tcp 203.0.113.1:1"),
        ("accept to 10.0.0.1-10.0.0.3", "tcp 10.0.0.3:1", "tcp 10.0.0.4:1"),
        ("accept to [10.0.0.1, fd00::/8]", "tcp [fd11::1]:1", "tcp 10.0.0.2:1"),
        ("accept from work", "tcp 1.1.1.1:1", ""),
        ("accept from work", "tcp [2001:db8::1]:1", ""),
        ("accept from mail", "", "tcp 1.1.1.1:1"),
        ("accept from [mail, 10.137.0.8/30]", "tcp 1.1.1.1:1", "tcp [2001:db8::1]:1"),
        ("accept tcp sport 4711", "tcp 1.1.1.1:1", "udp 1.1.1.1:1"),
        ("accept tcp 80 sport 1-4710", "", "tcp 1.1.1.1:80"),
        ("drop tcp 80; accept tcp", "tcp 1.1.1.1:81", "tcp 1.1.1.1:80"),
        ("accept tcp 80 drop tcp", "tcp 1.1.1.1:80", "tcp 1.1.1.1:81"),
        ("accept tcp 80 log\naccept udp\n from work", "udp 1.1.1.1:1", "tcp 1.1.1.1:81"),
    ] {
        let last = if rule == "accept" { "" } else { "; drop" };
        let policy = rules(&format!("{rule}{last}"));
        assert!(passes.is_empty() || accepts(&policy, passes), "{rule}: {passes}");
        assert!(fails.is_empty() || !accepts(&policy, fails), "{rule}: {fails}");
    }
}

#[test]
fn names_may_be_declared_after_their_use_and_nested() {
    let policy = policy(
        "policy clients->uplink { accept office to far; drop }
         service office = mailing, web, tcp 22
         set far = [near, 192.0.2.0/24, mail]
         service mailing = tcp 25, 587, udp 500
         set near = 198.51.100.7, 198.51.100.9
         service web = tcp 443, icmp echo-request",
    );
    for passes in
        ["tcp 192.0.2.9:22", "tcp 198.51.100.9:587", "udp 10.137.0.11:500", "icmp 8 192.0.2.1"]
    {
        assert!(accepts(&policy, passes), "{passes}");
    }
    for fails in ["tcp 192.0.3.0:22", "tcp 198.51.100.8:25", "udp 192.0.2.1:25"] {
        assert!(!accepts(&policy, fails), "{fails}");
    }
}

#[test]
fn verdicts_logs_and_places_arrive() {
    let policy = rules(
        "\n reject tcp-reset tcp 1\n reject host-unreachable tcp 2 log\n reject tcp 3
         reject net-unreachable tcp 4\n reject port-unreachable tcp 5\n drop log",
    );
    let expected = [
        (Action::Reject(RejectKind::TcpReset), false, "test.tide:7"),
        (Action::Reject(RejectKind::HostUnreachable), true, "test.tide:8"),
        (Action::Reject(RejectKind::AdminProhibited), false, "test.tide:9"),
        (Action::Reject(RejectKind::NetUnreachable), false, "test.tide:10"),
        (Action::Reject(RejectKind::PortUnreachable), false, "test.tide:11"),
        (Action::Drop, true, "test.tide:12"),
    ];
    for (port, (action, log, place)) in (1..).zip(expected) {
        let found =
            ask(&policy, "10.137.0.10", "1.1.1.1", Transport::Tcp { sport: 1, dport: port });
        let at = policy.location(found.rule).to_string();
        assert_eq!((found.action, found.log.is_some(), at.as_str()), (action, log, place));
    }
    assert_eq!(policy.vm_name("fd09::a".parse().unwrap()), Some("work"));
    assert!(policy.masquerades(Zone::Clients, Zone::Uplink(Uplink::FIRST)));
}

#[test]
fn expectations_see_the_redirect() {
    let redirected = "redirect dns 10.139.1.1 to 9.9.9.9
         policy clients -> uplink { accept udp to 9.9.9.9; drop }
         expect accept udp from work to 10.139.1.1:53
         expect drop udp from work to 10.139.1.1:54
         expect drop udp from work to 10.139.1.2:53
         expect drop clients -> clients tcp from 10.0.0.1 to 10.0.0.2:22
         expect drop tcp from 192.0.2.1:80 to work:4711";
    let policy = policy(redirected);
    assert_eq!(policy.dns_target("10.139.1.1".parse().unwrap()), "9.9.9.9".parse().ok());
}

#[test]
fn what_no_kernel_takes_is_refused() {
    let refused = |name: &str, text: &str| compile(name, text).unwrap_err()[0].render();
    let name = "x".repeat(300) + ".tide";
    let why =
        "error[invalid]: this file makes no policy: a name is empty, too long or not printable";
    assert!(refused(&name, HEAD).starts_with(why), "{}", refused(&name, HEAD));
    let routes = |n: u8| (0..n).map(|n| format!("route 10.0.{n}.0/24 via 192.0.2.1\n")).collect();
    let text = |n| [HEAD, &routes(n) as &String].concat();
    assert!(compile("x", &text(64)).is_ok());
    let why = "error[too-many]: a policy has 64 routes at most";
    assert!(refused("x", &text(65)).starts_with(why), "{}", refused("x", &text(65)));
    let all =
        |one: &dyn Fn(u16) -> String, n: u16| [HEAD, &(0..n).map(one).collect::<String>()].concat();
    let sources =
        |n: u16| format!("nat clients -> uplink snat udp from work:{} to 192.0.2.7\n", n + 1);
    let outside = |n: u16| format!("192.0.{}.{}", 8 + n / 250, 1 + n % 250);
    let pairs = |n: u16| {
        let inside = format!("10.138.{}.{}", n / 250, 1 + n % 250);
        format!("nat clients -> uplink one-to-one {inside} to {}\n", outside(n))
    };
    let ports = |n: u16| format!("nat uplink -> clients dnat tcp {} to 10.137.0.10\n", n + 1);
    for one in [&sources as &dyn Fn(u16) -> String, &pairs, &ports] {
        let told = |n| compile("x", &all(one, n)).err().map(|found| found[0].code);
        assert_eq!((told(1024), told(1025)), (None, Some("too-many")), "{}", one(0));
    }
}

#[test]
fn the_same_text_gives_the_same_bytes_and_another_text_others() {
    let (a, b) = (compile("a", HEAD).unwrap(), compile("a", HEAD).unwrap());
    assert_eq!(a.blob, b.blob);
    assert_ne!(compile("b", HEAD).unwrap().policy.digest(), a.policy.digest());
}

/// Every block of docs/POLICY.md marked `tide` is a policy with which nothing is the matter, and every example is too.
#[test]
fn what_the_documents_show_compiles() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(root.join("docs/POLICY.md")).unwrap();
    let blocks: Vec<_> =
        text.split("```tide\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 5, "the examples are no longer found");
    let odd = |told: Vec<lang::Diagnostic>| -> String {
        let odd = told.iter().filter(|one| one.level != lang::Level::Note);
        odd.map(lang::Diagnostic::render).collect()
    };
    for block in blocks {
        assert_eq!(odd(lang::check("docs/POLICY.md", block).1), "", "{block}");
    }
    let mut examples = 0;
    for entry in std::fs::read_dir(root.join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension() == Some("tide".as_ref()) {
            let text = std::fs::read_to_string(&path).unwrap();
            let (compiled, told) = lang::check(&path.to_string_lossy(), &text);
            let told = odd(told);
            assert!(compiled.is_some_and(|compiled| compiled.expectations > 0), "{told}");
            assert_eq!(told, "");
            examples += 1;
        }
    }
    assert!(examples >= 2);
}

/// Every word the language knows is told in its document.
#[test]
fn the_document_tells_every_word() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(root.join("docs/POLICY.md")).unwrap();
    let words = "zone netfront netback vm set service policy accept drop reject qubes tcp udp icmp \
        echo-request timestamp-request icmp4 icmp6 sport from to log nat masquerade redirect dns \
        expect group use forward at balance round-robin hash dnat snat one-to-one hairpin route via \
        syslog accepted refused timeout flows state new established ttl dscp length flags no-flags \
        limit burst mac host firewall tcp-established tcp-transitory tcp-closed emergency alert critical \
        error warning notice info debug";
    let kinds = RejectKind::ALL.map(RejectKind::name);
    for word in words.split_whitespace().chain(kinds) {
        assert!(
            text.contains(&format!("`{word}`")) || text.contains(&format!("\"{word}\"")),
            "{word}"
        );
    }
}

/// Texts made of what policies are made of, so that the parser gets deep into them.
fn likely_text() -> impl Strategy<Value = String> {
    let words = proptest::sample::select(vec![
        "zone",
        "group",
        "use",
        "forward",
        "at",
        "balance",
        "hash",
        "dnat",
        "snat",
        "one-to-one",
        "hairpin",
        "route",
        "via",
        "syslog",
        "refused",
        "timeout",
        "flows",
        "per",
        "client",
        "state",
        "established",
        "ttl",
        "dscp",
        "af11",
        "length",
        "flags",
        "no-flags",
        "ece",
        "limit",
        "burst",
        "10/s",
        "5min",
        "warning",
        "mac",
        "00:16:3e:5e:6c:10",
        "firewall:80",
        "icmp4",
        "type",
        "8",
        "uplink",
        "clients",
        "=",
        "netfront",
        "netback",
        "0",
        "vm",
        "work",
        "set",
        "[",
        "]",
        ",",
        "service",
        "policy",
        "->",
        "{",
        "}",
        ";",
        "accept",
        "drop",
        "reject",
        "tcp-reset",
        "qubes",
        "tcp",
        "udp",
        "icmp",
        "echo-request",
        "53",
        "80-90",
        "sport",
        "from",
        "to",
        "log",
        "nat",
        "masquerade",
        "redirect",
        "dns",
        "10.0.0.1",
        "10.0.0.0/8",
        "fd00::1",
        "expect",
        "work:80",
        ":80",
        "#",
        "\n",
        "é",
        "\u{7}",
        "\"",
        "-",
        "not",
        "limit",
        "a",
        "b",
    ]);
    proptest::collection::vec(words, 0..40).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(likely in likely_text(), any in ".{0,80}", cut: prop::sample::Index) {
        let whole = format!("{HEAD}{likely}");
        let cut = cut.index(whole.len() + 1);
        let start = whole.char_indices().map(|(at, _)| at).take_while(|at| *at <= cut).last();
        for text in [&likely, &any, &whole, &whole[..start.unwrap_or(0)], &format!("{any}{likely}")] {
            for mistake in compile("x.tide", text).err().into_iter().flatten() {
                prop_assert!(mistake.render().starts_with("error["));
                prop_assert!(mistake.place().line >= 1 && mistake.place().column >= 1);
            }
        }
    }
}

/// Real policies with pieces cut out, doubled or exchanged: whatever is asked about them, nothing
/// panics, and what can be formatted stays the same policy.
fn damaged_text() -> impl Strategy<Value = String> {
    let texts = vec![
        include_str!("../../../examples/laptop.tide"),
        include_str!("../../../examples/dmz.tide"),
        include_str!("../../../examples/gateway.tide"),
        include_str!("../../../examples/two-uplinks.tide"),
        include_str!("broken/typos.tide"),
        include_str!("odd/shadowed.tide"),
        include_str!("odd/never_asked.tide"),
    ];
    let piece = (any::<prop::sample::Index>(), 0usize..12, 0u8..4, any::<char>());
    let edits = proptest::collection::vec(piece, 0..6);
    (proptest::sample::select(texts), edits).prop_map(|(text, edits)| {
        let mut chars: Vec<char> = text.chars().collect();
        for (at, len, what, new) in edits {
            let at = at.index(chars.len());
            let end = (at + len).min(chars.len());
            let piece = chars[at..end].to_vec();
            match what {
                0 => drop(chars.splice(at..end, [])),
                1 => drop(chars.splice(at..at, piece)),
                2 => chars.insert(at, new),
                _ => chars.insert(at, ['\n', ';', '#', '[', '}', '-'][len % 6]),
            }
        }
        chars.into_iter().collect()
    })
}

/// The policy in `text` without the lines rules stand on.
fn without_lines(text: &str) -> Option<rules::Parts> {
    let mut parts = compile("x", text).ok()?.policy.parts().clone();
    parts.blocks.iter_mut().flat_map(|block| &mut block.rules).for_each(|rule| rule.line = 0);
    Some(parts)
}

fn comments(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.split_once('#')).map(|(_, told)| told.trim_end()).collect()
}

proptest! {
    #[test]
    fn damaged_policies_make_nothing_panic(text in damaged_text(), likely in likely_text()) {
        for text in [&text, &format!("{HEAD}{likely}")] {
            for found in lang::check("x", text).1 {
                prop_assert!(found.render().contains(found.code));
            }
            let _ = lang::graph("x", text);
            let _ = lang::diff(("x", text), ("y", include_str!("../../../examples/open.tide")));
            let _ = lang::expectations(("x", text));
            if let Ok(formatted) = lang::format("x", text) {
                let again = lang::format("x", &formatted);
                prop_assert_eq!(again.as_ref(), Ok(&formatted), "{}", text);
                prop_assert_eq!(without_lines(&formatted), without_lines(text), "{}", formatted);
                prop_assert_eq!(comments(&formatted), comments(text));
            }
        }
        let examples = include_str!("../../../examples/laptop.tide");
        let _ = lang::explain(("x", examples), &likely);
        let _ = lang::prove(("x", examples), &likely);
    }
}

#[test]
fn the_one_layout() {
    let written = "# Head\n\n\n\nzone uplink=netfront 0 # the world\nzone  clients =   netback\n\
        vm a = 10.137.0.10,fd09::a\nvm longer=10.137.0.11 # b\nset c = [ 10.0.0.1,\n10.0.0.2 # two\n]\n\
        policy clients->uplink{accept tcp 80,443 from a;accept udp\n53 log # names\n\n\n\
        # all else\ndrop\n\n}\npolicy uplink -> clients {drop;}\n\
        expect drop udp from a to [2001:db8::1]:53\nnat clients->uplink masquerade";
    let layout = "# Head\n\nzone uplink  = netfront 0  # the world\nzone clients = netback\n\
        vm a      = 10.137.0.10, fd09::a\nvm longer = 10.137.0.11  # b\nset c = [10.0.0.1,\n    10.0.0.2  # two\n]\n\
        policy clients -> uplink {\n    accept tcp 80, 443 from a\n    accept udp\n        53 log  # names\n\n    \
        # all else\n    drop\n}\npolicy uplink -> clients { drop }\n\
        expect drop udp from a to [2001:db8::1]:53\nnat clients -> uplink masquerade\n";
    assert_eq!(lang::format("x", written).unwrap(), layout);
    assert_eq!(lang::format("x", layout).unwrap(), layout);
    assert_eq!(lang::format("x", "zone = 5").unwrap_err()[0].code, "expected");
}

#[test]
fn the_picture_shows_what_may_flow_and_nothing_else() {
    let text = format!(
        "{HEAD}set printers = 10.0.0.9
        policy clients -> uplink {{
            reject from mail
            accept tcp 631 from [work, mail] to printers
            qubes from work
            drop
        }}"
    );
    let svg = lang::graph("a<b.tide", &text).unwrap();
    let titles: Vec<_> =
        svg.split("<title>line ").skip(1).map(|rest| rest.split('<').next().unwrap()).collect();
    assert_eq!(titles, ["9: tcp 631 to printers", "10: everything to anywhere outside"]);
    assert!(svg.contains("a&lt;b.tide") && svg.contains(">mail</text>"));
    assert_eq!(svg.matches("stroke-dasharray").count(), 1);
    assert_eq!(svg.matches("<g>").count(), svg.matches("</g>").count());

    let dmz = lang::graph("dmz.tide", include_str!("../../../examples/dmz.tide")).unwrap();
    for line in ["tcp [80, 443] to [web1, web2]", "tcp 25, 587, 993 to mail", "tcp 2001 to web1:22"]
    {
        assert!(dmz.contains(&format!(": {line}</title>")), "{line}: {dmz}");
    }
}

#[test]
fn deep_and_long_files_are_no_trouble() {
    let chain: String =
        (0..20_000).map(|n| format!("set s{n} = [s{}, 10.0.0.1]\n", n + 1)).collect();
    let circle = format!("{chain}set s20000 = s0\n");
    let line = format!("{chain}set s20000 = 10.0.0.2\n");
    assert!(compile("x", &line).is_ok());
    assert_eq!(compile("x", &circle).unwrap_err()[0].code, "cycle");
    let doubling: String = (1..60).map(|n| format!("service d{n} = d{0}, d{0}\n", n - 1)).collect();
    assert!(compile("x", &format!("service d0 = tcp 80\n{doubling}")).is_ok());
    assert!(compile("x", &"[".repeat(100_000)).is_err());
    assert!(compile("x", &format!("set a = {}", "[".repeat(100_000))).is_err());
}
