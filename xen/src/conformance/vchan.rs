//! vchan's pages, grants and events, with both ends in one domain.

use super::{Outcome, Row, expect, must, pv_row};
use crate::hypervisor::{DomId, Hypervisor};
use crate::vchan::{Channel, ConnectError, Offer, Order, Orders, Peer, close, connect};
use alloc::vec;
use alloc::vec::Vec;

pub(super) fn rows<H: Hypervisor>() -> Vec<Row<H>> {
    vec![
        pv_row("bytes pass both ways through rings of every layout", both_ways),
        pv_row("a reader is signalled once for each time it found too little", signals),
        pv_row("a client that closes is seen, and every page comes back", client_closes),
        pv_row("a server that closes leaves what it sent to be read", server_closes),
        pv_row("what is not offered cannot be connected to", not_offered),
    ]
}

type Ends<H> = (Offer<H>, Channel<<H as Hypervisor>::Mapped>);

fn open<H: Hypervisor>(h: &mut H, own: DomId, orders: Orders) -> Result<Ends<H>, super::Mismatch> {
    let offer = must("offer", Offer::new(h, own, orders))?;
    expect("peer", offer.peer(), Peer::NotYet)?;
    let port = offer.channel.port().0;
    let client = must("connect", connect(h, own, offer.ring_ref(), port, Order::MAX))?;
    expect("peer", (offer.peer(), client.peer()), (Peer::There, Peer::There))?;
    Ok((offer, client))
}

fn end<H: Hypervisor>(h: &mut H, (offer, client): Ends<H>) -> Outcome {
    close(h, client);
    expect("peer", offer.peer(), Peer::Gone)?;
    expect("all given back", offer.close(h).is_empty(), true)
}

fn both_ways<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let data: Vec<u8> = (0..10_000_u32).map(|n| (n ^ n >> 8) as u8).collect();
    let sizes = [(Order::SMALL, Order::LARGE), (Order::LARGE, Order::SMALL)];
    let more =
        [(Order::PAGE, Order::PAGE), (Order::LARGE, Order::PAGE), (Order::DATA, Order::DATA)];
    for (left, right) in sizes.into_iter().chain(more) {
        let orders = Orders::new(left, right).unwrap_or(Orders::PAGE);
        let (mut offer, mut client) = open(h, own, orders)?;
        // So often that each ring is passed through several times, in steps that do not divide it.
        for _ in 0..20 {
            let sent = must("write", client.write(h, &data))?;
            expect("fits", sent, data.len().min(left.bytes() as usize))?;
            let mut got = vec![0; data.len()];
            let len = must("read", offer.channel.read(h, &mut got))?;
            expect("came", got.get(..len) == data.get(..sent), true)?;
            let sent = must("write back", offer.channel.write(h, &data))?;
            expect("fits", sent, data.len().min(right.bytes() as usize))?;
            let len = must("read back", client.read(h, &mut got))?;
            expect("came back", got.get(..len) == data.get(..sent), true)?;
        }
        end(h, (offer, client))?;
    }
    Ok(())
}

fn signals<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let (mut offer, mut client) = open(h, own, Orders::PAGE)?;
    let (server, _) = (offer.channel.port(), client.port());
    let pending = |h: &mut H| h.take_pending().contains(server);
    expect("pending after the client came", pending(h), true)?;
    must("write", client.write(h, b"one"))?;
    expect("pending after the first bytes", pending(h), true)?;
    must("write", client.write(h, b"two"))?;
    expect("pending after more that nobody asked about", pending(h), false)?;
    let mut got = [0; 6];
    must("read", offer.channel.read(h, &mut got))?;
    expect("came", &got, b"onetwo")?;
    must("write", client.write(h, b"three"))?;
    expect("pending: the reader had all it wanted", pending(h), false)?;
    must("read", offer.channel.read(h, &mut got))?;
    must("write", client.write(h, b"four"))?;
    expect("pending: the reader found less than it wanted", pending(h), true)?;
    end(h, (offer, client))
}

fn client_closes<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let ends = open(h, own, Orders::DATA)?;
    end(h, ends)
}

fn server_closes<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let (mut offer, mut client) = open(h, own, Orders::PAGE)?;
    must("write", offer.channel.write(h, b"farewell"))?;
    let mut remains = offer.close(h);
    expect("all given back", remains.is_empty(), false)?;
    expect("peer", client.peer(), Peer::Gone)?;
    let mut got = [0; 8];
    must("read", client.read(h, &mut got))?;
    expect("came", &got, b"farewell")?;
    close(h, client);
    remains.retry(h);
    expect("all given back", remains.is_empty(), true)
}

fn not_offered<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let offer = must("offer", Offer::new(h, own, Orders::PAGE))?;
    let (gref, port) = (offer.ring_ref(), offer.channel.port());
    expect("all given back", offer.close(h).is_empty(), true)?;
    match connect(h, own, gref, port.0, Order::MAX) {
        Err(ConnectError::Event(_)) => Ok(()),
        Err(other) => expect("why not", Some(other), None),
        Ok(channel) => {
            close(h, channel);
            expect("connected", true, false)
        }
    }
}
