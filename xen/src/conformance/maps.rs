//! Grants, and mapping what another domain has granted.

use super::copies::{BAD_REF, NOBODY};
use super::{Outcome, Row, expect, must, pv_row, row};
use crate::hypervisor::{Access, DomId, GrantStatus, Hypervisor, Memory, StillMapped};
use alloc::vec;
use alloc::vec::Vec;

pub(super) fn rows<H: Hypervisor>() -> Vec<Row<H>> {
    vec![
        row("a fresh page is zero", fresh_page),
        row("grants in force have different numbers above the reserved ones", distinct),
        row("a grant nobody uses can be ended", ends),
        row("mapping a reference beyond the table is bad_gntref", bad_ref),
        row("mapping a grant that has ended is general_error", ended_ref),
        row("mapping a grant to another domain is general_error", not_for_us),
        row("mapping a grant of a domain that is not there is bad_domain", no_domain),
        row("mapping for writing what may only be read is general_error", read_only),
        pv_row(
            "what is written to a mapped page is in the page, and the other way",
            seen_both_ways,
        ),
        pv_row("a grant mapped for writing cannot be ended before it is unmapped", in_use_writing),
        pv_row("a grant mapped for reading cannot be ended before it is unmapped", in_use_reading),
        pv_row("a grant mapped twice cannot be ended before it is unmapped twice", mapped_twice),
    ]
}

fn fresh_page<H: Hypervisor>(h: &mut H, _: DomId) -> Outcome {
    let page = must("page", h.page())?;
    page.write(0, &[1; 4096]);
    h.free(page);
    let page = must("page", h.page())?;
    let mut bytes = [1; 4096];
    page.read(0, &mut bytes);
    expect("all zero", bytes.iter().all(|b| *b == 0), true)?;
    h.free(page);
    Ok(())
}

fn distinct<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let page = must("page", h.page())?;
    let a = must("grant", h.grant(own, &page, Access::ReadOnly))?;
    let b = must("grant", h.grant(own, &page, Access::ReadOnly))?;
    expect("same number", a == b, false)?;
    expect("a reserved number", a.number() < 8 || b.number() < 8, false)?;
    must("end", h.end(a))?;
    must("end", h.end(b))?;
    h.free(page);
    Ok(())
}

fn ends<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let page = must("page", h.page())?;
    let gref = must("grant", h.grant(own, &page, Access::ReadWrite))?;
    must("end", h.end(gref))?;
    h.free(page);
    Ok(())
}

/// Maps what must not be mapped and compares the status.
fn refused<H: Hypervisor>(
    h: &mut H,
    of: DomId,
    gref: u32,
    access: Access,
    expected: GrantStatus,
) -> Outcome {
    let result = h.map(of, gref, access).map(|_| "mapped");
    expect("map", result, Err(expected))
}

fn bad_ref<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    refused(h, own, BAD_REF, Access::ReadOnly, GrantStatus::BAD_GNTREF)
}

fn ended_ref<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let page = must("page", h.page())?;
    let gref = must("grant", h.grant(own, &page, Access::ReadWrite))?;
    let number = gref.number();
    must("end", h.end(gref))?;
    refused(h, own, number, Access::ReadOnly, GrantStatus::GENERAL_ERROR)?;
    h.free(page);
    Ok(())
}

fn not_for_us<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let page = must("page", h.page())?;
    let gref = must("grant", h.grant(NOBODY, &page, Access::ReadWrite))?;
    refused(h, own, gref.number(), Access::ReadOnly, GrantStatus::GENERAL_ERROR)?;
    must("end", h.end(gref))?;
    h.free(page);
    Ok(())
}

fn no_domain<H: Hypervisor>(h: &mut H, _: DomId) -> Outcome {
    refused(h, NOBODY, 8, Access::ReadOnly, GrantStatus::BAD_DOMAIN)
}

fn read_only<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let page = must("page", h.page())?;
    let gref = must("grant", h.grant(own, &page, Access::ReadOnly))?;
    refused(h, own, gref.number(), Access::ReadWrite, GrantStatus::GENERAL_ERROR)?;
    must("end", h.end(gref))?;
    h.free(page);
    Ok(())
}

fn seen_both_ways<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let page = must("page", h.page())?;
    let gref = must("grant", h.grant(own, &page, Access::ReadWrite))?;
    let mapped = must("map", h.map(own, gref.number(), Access::ReadWrite))?;
    mapped.store(8, 0x1234_5678);
    expect("in the page", page.load(8), 0x1234_5678)?;
    page.write(4000, b"there");
    let mut bytes = [0; 5];
    mapped.read(4000, &mut bytes);
    expect("in the mapping", &bytes, b"there")?;
    must("unmap", h.unmap(mapped))?;
    must("end", h.end(gref))?;
    h.free(page);
    Ok(())
}

fn in_use<H: Hypervisor>(h: &mut H, own: DomId, access: Access) -> Outcome {
    let page = must("page", h.page())?;
    let gref = must("grant", h.grant(own, &page, Access::ReadWrite))?;
    let mapped = must("map", h.map(own, gref.number(), access))?;
    let Err((gref, StillMapped)) = h.end(gref) else {
        return expect("end", "ended", "still mapped");
    };
    must("unmap", h.unmap(mapped))?;
    must("end after unmap", h.end(gref))?;
    h.free(page);
    Ok(())
}

fn in_use_writing<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    in_use(h, own, Access::ReadWrite)
}

fn in_use_reading<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    in_use(h, own, Access::ReadOnly)
}

fn mapped_twice<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let page = must("page", h.page())?;
    let gref = must("grant", h.grant(own, &page, Access::ReadWrite))?;
    let first = must("first map", h.map(own, gref.number(), Access::ReadOnly))?;
    let second = must("second map", h.map(own, gref.number(), Access::ReadWrite))?;
    must("first unmap", h.unmap(first))?;
    let Err((gref, StillMapped)) = h.end(gref) else {
        return expect("end", "ended", "still mapped");
    };
    must("second unmap", h.unmap(second))?;
    must("end after unmap", h.end(gref))?;
    h.free(page);
    Ok(())
}
