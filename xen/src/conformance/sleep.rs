//! Time and SCHEDOP_poll.

use super::events::pair;
use super::{Outcome, Row, expect, must, row};
use crate::hypervisor::{DomId, Errno, EvtPort, Hypervisor};
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

const EINVAL: Errno = Errno(22);
/// Long enough to be told from returning at once.
const SHORT: Duration = Duration::from_millis(20);
/// Never waited for if the row holds.
const LONG: Duration = Duration::from_secs(30);

pub(super) fn rows<H: Hypervisor>() -> Vec<Row<H>> {
    vec![
        row("time does not go back", monotonic),
        row("a poll ends at its time", times_out),
        row("a poll of no ports ends at its time", times_out_without_ports),
        row("a poll until a time that has passed returns", in_the_past),
        row("a poll of a pending port returns at once", pending_returns),
        row("a poll of two ports, one pending, returns at once", one_of_two),
        row("a poll leaves the pending bit", bit_stays),
        row("a pending port that is not listed does not end a poll of one port", unlisted_one),
        row("a pending port that is not listed does not end a poll of two ports", unlisted_two),
        row("a poll of more than 128 ports is EINVAL", too_many),
    ]
}

fn monotonic<H: Hypervisor>(h: &mut H, _: DomId) -> Outcome {
    let mut last = h.now();
    for _ in 0..1000 {
        let now = h.now();
        expect("time went back", now < last, false)?;
        last = now;
    }
    Ok(())
}

/// Polls for [`SHORT`] and says whether it took that long.
fn sleeps<H: Hypervisor>(h: &mut H, ports: &[EvtPort]) -> Outcome {
    let until = h.now() + SHORT;
    must("poll", h.poll(ports, Some(until)))?;
    expect("ended before its time", h.now() < until, false)
}

/// Polls for [`LONG`] and says whether it did not take that long.
fn returns<H: Hypervisor>(h: &mut H, ports: &[EvtPort]) -> Outcome {
    let until = h.now() + LONG;
    must("poll", h.poll(ports, Some(until)))?;
    expect("ended before its time", h.now() < until, true)
}

fn times_out<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let (a, b) = pair(h, own)?;
    sleeps(h, &[b])?;
    h.close(a);
    h.close(b);
    Ok(())
}

fn times_out_without_ports<H: Hypervisor>(h: &mut H, _: DomId) -> Outcome {
    sleeps(h, &[])
}

fn in_the_past<H: Hypervisor>(h: &mut H, _: DomId) -> Outcome {
    let past = h.now() - SHORT;
    expect("poll", h.poll(&[], Some(past)), Ok(()))
}

fn pending_returns<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let (a, b) = pair(h, own)?;
    must("notify", h.notify(a))?;
    returns(h, &[b])?;
    h.close(a);
    h.close(b);
    Ok(())
}

fn one_of_two<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let (a, b) = pair(h, own)?;
    must("notify", h.notify(a))?;
    returns(h, &[a, b])?;
    h.close(a);
    h.close(b);
    Ok(())
}

fn bit_stays<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let (a, b) = pair(h, own)?;
    must("notify", h.notify(a))?;
    returns(h, &[b])?;
    expect("pending after the poll", h.take_pending().contains(b), true)?;
    h.close(a);
    h.close(b);
    Ok(())
}

fn unlisted_one<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let (a, b) = pair(h, own)?;
    must("notify", h.notify(a))?;
    sleeps(h, &[a])?;
    h.close(a);
    h.close(b);
    Ok(())
}

fn unlisted_two<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let (a, b) = pair(h, own)?;
    let (c, d) = pair(h, own)?;
    must("notify", h.notify(a))?;
    sleeps(h, &[c, d])?;
    [a, b, c, d].into_iter().for_each(|port| h.close(port));
    Ok(())
}

fn too_many<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let (a, b) = pair(h, own)?;
    let until = h.now() + SHORT;
    expect("poll of 128", h.poll(&[a; 128], Some(until)), Ok(()))?;
    expect("poll of 129", h.poll(&[a; 129], Some(until)), Err(EINVAL))?;
    h.close(a);
    h.close(b);
    Ok(())
}
