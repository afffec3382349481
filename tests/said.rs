//! What the firewall says to dom0, as files below dist/tests/said, which dom0's commands are tested
//! against: the words here and there are the same. `TIDEGATE_WRITE_SAID=1` writes them anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod machine;
mod tree;
#[path = "qubes/world.rs"]
#[allow(dead_code, reason = "shared with another test program")]
mod world;

use machine::SERVER;
use std::time::Duration;
use std::{env, fs};
use world::World;

const ANY: &str = "action=accept";

/// A firewall with one client of each kind, and a packet of each fate.
fn told() -> World {
    let world = World::new(1);
    let work = world.client(10, &["action=accept proto=udp dstports=7-7", "action=drop proto=udp"]);
    world.client(11, &[ANY, "action=accept dsthots=www.example.org"]);
    world.machine.client(12);
    world.dom0.database(|db| db.set_rules("10.137.0.77", "drop", &[(0, ANY)]));
    world.dom0.database(|db| db.set_rules("10.137.0.78", "drop", &[(0, "allow")]));
    world.machine.settle();
    assert!(world.passes(&work, 4000));
    assert!(world.out(&work, 4000, (SERVER, 25)).is_none());
    world
}

/// The words of a line: numbers and digests may be others at another time.
fn words(line: &str) -> String {
    let digest = |word: &&str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let line = line.split(' ').filter(|word| !digest(word)).collect::<Vec<_>>().join(" ");
    let mut shape: Vec<char> = line.trim_start().chars().collect();
    shape.iter_mut().filter(|c| c.is_ascii_digit()).for_each(|c| *c = '0');
    shape.dedup_by(|a, b| *a == '0' && *b == '0');
    shape.into_iter().collect()
}

/// Holds a file to what was said.
fn is_as_written(name: &str, said: &str) {
    let path = tree::root().join("dist/tests/said").join(name);
    if env::var_os("TIDEGATE_WRITE_SAID").is_some() {
        fs::write(&path, said).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap();
    let shape = |text: &str| text.lines().map(words).collect::<Vec<_>>();
    assert_eq!(
        shape(said),
        shape(&written),
        "{} says otherwise; said now:\n{said}",
        path.display()
    );
}

#[test]
fn services_answer_in_the_words_that_doctor_reads() {
    let world = told();
    for (service, file) in
        [("tidegate.Status", "status"), ("tidegate.Stats", "stats"), ("tidegate.Log", "log")]
    {
        is_as_written(file, &world.call(service, b"").0);
    }
    let questions = "10.137.0.10 93.184.216.34 udp 7\n10.137.0.10 93.184.216.34 udp 25\n\
        10.137.0.10 93.184.216.34 tcp 443\n10.137.0.11 93.184.216.34 icmp\nwhat?\n";
    is_as_written("explain", &world.call("tidegate.Explain", questions.as_bytes()).0);
}

#[test]
fn an_end_that_was_asked_for_is_the_last_line_of_the_console() {
    let world = told();
    world.machine.xs.set("/local/domain/2/control/shutdown", "poweroff");
    world.run(Duration::from_secs(1));
    assert_eq!(world.machine.ended(), Some(xen::hypervisor::Shutdown::Poweroff));
    is_as_written("console", &world.console());
}

/// The kernel's first line is said before there is anything that a simulation could run.
#[test]
fn the_first_line_is_put_together_as_doctor_takes_it_apart() {
    let boot = tree::read("src/boot/mod.rs");
    assert!(boot.contains("\"{name} {version} booting: {mode}, {mib} MiB, entropy: {entropy}\""));
    let entropy = tree::read("src/boot/entropy.rs");
    assert!(entropy.contains("Self::Jitter => \"clock jitter\""));
    for word in [" booting: ", "entropy: clock jitter"] {
        let doctor = tree::read("dist/qubes/lib/tidegate/tidegate_dom0/health.py");
        assert!(doctor.contains(word), "{word}");
    }
}
