//! Event channels: EVTCHNOP_alloc_unbound, bind_interdomain, send and close.

use super::{Mismatch, Outcome, Row, expect, must, row};
use crate::hypervisor::{DomId, Errno, EvtPort, Hypervisor};
use alloc::vec;
use alloc::vec::Vec;

const ESRCH: Errno = Errno(3);
const EINVAL: Errno = Errno(22);

pub(super) fn rows<H: Hypervisor>() -> Vec<Row<H>> {
    vec![
        row("two unbound ports have different numbers, neither of them 0", distinct),
        row("binding makes the local port pending, the remote one not", bind_is_pending),
        row("a signal makes the other end pending, in both directions", both_ways),
        row("two signals are one pending bit", merged),
        row("taking what is pending clears it", taking_clears),
        row("a signal to an unbound port is lost without an error", unbound_is_silent),
        row("a signal on a closed port is EINVAL", closed_is_einval),
        row("closing clears what was pending", closing_clears),
        row(
            "a closed peer leaves a port that swallows signals and can be bound again",
            peer_closed,
        ),
        row("a port can be bound once", bound_once),
        row("binding to a port nobody offered is EINVAL", not_offered),
        row("binding to a domain that is not there is ESRCH", no_domain),
        row("binding to a port offered to another domain is EINVAL", not_for_us),
    ]
}

/// Both ends of a channel with nothing pending: the offered one and the bound one.
pub(super) fn pair<H: Hypervisor>(h: &mut H, own: DomId) -> Result<(EvtPort, EvtPort), Mismatch> {
    let a = must("alloc_unbound", h.alloc_unbound(own))?;
    let b = must("bind_interdomain", h.bind_interdomain(own, a.0))?;
    let _ = h.take_pending();
    Ok((a, b))
}

fn close<H: Hypervisor>(h: &mut H, ports: impl IntoIterator<Item = EvtPort>) -> Outcome {
    ports.into_iter().for_each(|port| h.close(port));
    Ok(())
}

fn pending<H: Hypervisor>(h: &mut H, ports: [EvtPort; 2]) -> [bool; 2] {
    let set = h.take_pending();
    ports.map(|port| set.contains(port))
}

fn distinct<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let a = must("first alloc_unbound", h.alloc_unbound(own))?;
    let b = must("second alloc_unbound", h.alloc_unbound(own))?;
    expect("same number", a == b, false)?;
    expect("one is 0", a.0 == 0 || b.0 == 0, false)?;
    close(h, [a, b])
}

fn bind_is_pending<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let _ = h.take_pending();
    let a = must("alloc_unbound", h.alloc_unbound(own))?;
    let b = must("bind_interdomain", h.bind_interdomain(own, a.0))?;
    expect("[remote, local] pending", pending(h, [a, b]), [false, true])?;
    close(h, [a, b])
}

fn both_ways<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let (a, b) = pair(h, own)?;
    must("notify", h.notify(a))?;
    expect("pending after a signal on the first", pending(h, [a, b]), [false, true])?;
    must("notify", h.notify(b))?;
    expect("pending after a signal on the second", pending(h, [a, b]), [true, false])?;
    close(h, [a, b])
}

fn merged<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let (a, b) = pair(h, own)?;
    must("first notify", h.notify(a))?;
    must("second notify", h.notify(a))?;
    expect("pending", pending(h, [a, b]), [false, true])?;
    expect("pending again", pending(h, [a, b]), [false, false])?;
    close(h, [a, b])
}

fn taking_clears<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let (a, b) = pair(h, own)?;
    must("notify", h.notify(a))?;
    let _ = h.take_pending();
    expect("pending after taking", h.take_pending().is_empty(), true)?;
    must("notify", h.notify(a))?;
    expect("pending after the next signal", pending(h, [a, b]), [false, true])?;
    close(h, [a, b])
}

fn unbound_is_silent<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let _ = h.take_pending();
    let a = must("alloc_unbound", h.alloc_unbound(own))?;
    expect("notify", h.notify(a), Ok(()))?;
    expect("pending", h.take_pending().is_empty(), true)?;
    close(h, [a])
}

fn closed_is_einval<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let a = must("alloc_unbound", h.alloc_unbound(own))?;
    h.close(a);
    expect("notify", h.notify(a), Err(EINVAL))
}

fn closing_clears<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let (a, b) = pair(h, own)?;
    must("notify", h.notify(a))?;
    h.close(b);
    expect("pending", pending(h, [a, b]), [false, false])?;
    close(h, [a])
}

fn peer_closed<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let (a, b) = pair(h, own)?;
    h.close(b);
    expect("notify", h.notify(a), Ok(()))?;
    let c = must("bind_interdomain again", h.bind_interdomain(own, a.0))?;
    let _ = h.take_pending();
    must("notify", h.notify(a))?;
    expect("pending", pending(h, [a, c]), [false, true])?;
    close(h, [a, c])
}

fn bound_once<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let (a, b) = pair(h, own)?;
    expect("second bind_interdomain", h.bind_interdomain(own, a.0), Err(EINVAL))?;
    close(h, [a, b])
}

fn not_offered<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let a = must("alloc_unbound", h.alloc_unbound(own))?;
    h.close(a);
    expect("bind_interdomain", h.bind_interdomain(own, a.0), Err(EINVAL))
}

fn no_domain<H: Hypervisor>(h: &mut H, _: DomId) -> Outcome {
    expect("bind_interdomain", h.bind_interdomain(super::copies::NOBODY, 1), Err(ESRCH))
}

fn not_for_us<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    // Xen lets a port be offered to a domain that is not there yet.
    let a = must("alloc_unbound", h.alloc_unbound(super::copies::NOBODY))?;
    expect("bind_interdomain", h.bind_interdomain(own, a.0), Err(EINVAL))?;
    close(h, [a])
}
