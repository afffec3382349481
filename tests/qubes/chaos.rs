//! Everything at once, by a seed: what dom0 says last is what counts, and its daemons live.
//! `TIDEGATE_QUBES_SEEDS=1000` tries a thousand seeds.

use crate::world::World;
use std::time::Duration;

const SEEDS: u64 = 30;

#[test]
fn whatever_happens_the_last_word_of_dom0_counts() {
    let seeds = std::env::var("TIDEGATE_QUBES_SEEDS").ok().and_then(|n| n.parse().ok());
    for seed in 0..seeds.unwrap_or(SEEDS) {
        happen(seed);
    }
}

fn happen(seed: u64) {
    let world = World::new(seed);
    let sim = &world.machine.sim;
    let client = world.machine.client(10);
    let mut open = false;
    let mut database = true;
    for _ in 0..40 {
        match sim.random(9) {
            0..3 => {
                open = sim.random(2) == 0;
                let rule = if open { "action=accept" } else { "action=drop" };
                world.dom0.database(|db| db.set_rules("10.137.0.10", "drop", &[(0, rule)]));
            }
            3 => {
                world.dom0.database(|db| db.begin_rules("10.137.0.10", "drop", &[]));
                let rule = if open { "action=accept" } else { "action=drop" };
                world.dom0.database(|db| db.set_rules("10.137.0.10", "drop", &[(9, rule)]));
            }
            4 if database => {
                world.dom0.stop_database();
                database = false;
            }
            4 => {
                world.dom0.restart();
                database = true;
            }
            5 => world.dom0.restart_qrexec(),
            6 => {
                let _call = world.dom0.call("tidegate.Stats", b"");
            }
            7 if database => world.dom0.database(|db| db.corrupt(&[0xee; 9])),
            _ => {
                world.passes(&client, 4000);
            }
        }
        world.run(Duration::from_millis(sim.random(30)));
    }
    if !database {
        world.dom0.restart();
    }
    world.run(Duration::from_secs(10));
    world.machine.wait("the database to be read", || world.dom0.database(|db| db.is_live()));
    world.machine.settle();
    assert_eq!(world.passes(&client, 5000), open, "seed {seed}; {}", world.console());
    assert_eq!(world.call("tidegate.Status", b"").1, Some(0), "seed {seed}");
}
