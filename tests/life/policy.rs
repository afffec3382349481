//! What a policy that comes while the firewall runs takes of its memory.

use crate::ledger;
use crate::machine::{FREE, Machine, TIDEGATE};
use crate::traffic::count_heap;
use tidegate::appliance::delivery::offer::{ANSWER, COMMIT, MOST, Offer, PART, hex};

/// A blob of about so many bytes, its rules of several kinds.
fn blob(bytes: usize, name: &str) -> Vec<u8> {
    let rules = |count: usize| -> String {
        let rule = |n: usize| {
            let (a, b) = (n / 250 % 250, n % 250);
            match n % 4 {
                0 => format!("drop tcp {n} to 192.0.{a}.{b}\n", n = 1 + n % 60_000),
                1 => format!(
                    "accept udp {n}, {m} from 10.{a}.{b}.0/24\n",
                    n = 1 + n % 60_000,
                    m = 60_001
                ),
                2 => format!("reject tcp-reset tcp to 2001:db8:{a:x}::{b:x}\n"),
                _ => format!("drop icmp to 198.{a}.{b}.7 log\n"),
            }
        };
        (1..=count).map(rule).collect()
    };
    let make = |count: usize| {
        let text = format!(
            "zone clients = netback\nzone uplink = netfront 0\npolicy clients -> uplink {{\n{}drop }}\n\
             nat clients -> uplink masquerade\n",
            rules(count)
        );
        lang::compile(name, &text).expect("a policy").blob
    };
    let each = make(1000).len() / 1000;
    make(bytes / each * 15 / 16)
}

/// Loads a blob and returns the most heap that was held meanwhile.
fn load(machine: &Machine, id: &str, blob: &[u8]) -> usize {
    let home = |path: &str| format!("/local/domain/{}/{path}", TIDEGATE.0);
    let digest = rules::Policy::decode(blob).expect("a policy").digest();
    let offer = Offer::new(id, blob.len(), digest).expect("an offer");
    for (n, part) in blob.chunks(PART).enumerate() {
        machine.xs.set(&home(&offer.part(n)), &hex(part));
    }
    ledger::take_peak();
    machine.xs.set(&home(COMMIT), &offer.to_string());
    let loaded = format!("{id} loaded");
    machine.wait("the policy", || machine.xs.value(&home(ANSWER)).as_deref() == Some(&*loaded));
    machine.settle();
    ledger::take_peak()
}

#[test]
fn the_longest_policy_there_is_room_for_takes_no_more_than_was_set_aside() {
    for more in [0, 4 << 20] {
        let machine = Machine::open_in(3, FREE + more);
        count_heap(&machine);
        let most = machine.xs.value(&format!("/local/domain/{}/{MOST}", TIDEGATE.0));
        let most: usize = most.expect("how much there is room for").parse().expect("a number");
        let before = ledger::held();
        let first = load(&machine, "first", &blob(most, "first.tide")) - before;
        let second = load(&machine, "second", &blob(most, "second.tide")) - before;
        println!("{most} bytes at most: {first} bytes of heap, {second} to replace it");
        assert!(second <= 16 * most, "{} bytes for each", second / most);
    }
}
