//! The simulation behaves as the rows say, which hold on real Xen as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use xen::conformance::rows;
use xen::hypervisor::DomId;
use xen::sim::{Holdings, Sim, SimHypervisor};

#[test]
fn every_row_holds_on_the_simulation_and_leaves_nothing_behind() {
    let own = DomId(3);
    let mut wrong = Vec::new();
    for row in rows::<SimHypervisor>() {
        let sim = Sim::new(1);
        let mut h = sim.domain(own);
        if let Err(mismatch) = (row.run)(&mut h, own) {
            wrong.push(format!("{}: {mismatch}", row.name));
            continue;
        }
        // Private memory is for the life of a domain.
        let left = Holdings { private: 0, ..sim.holdings(own) };
        if left != Holdings::default() {
            wrong.push(format!("{}: leaves {left:?}", row.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
