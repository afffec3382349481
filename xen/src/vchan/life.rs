//! What either end does next: pure tables, asked again whenever something may have changed.
//!
//! | server has | the client | step |
//! |---|---|---|
//! | nothing | – | offer a channel |
//! | an offer | is not there yet | – |
//! | an offer | is there | accept it: nobody else is to find the offer |
//! | an offer | has come and gone | close |
//! | a channel | is there | – |
//! | a channel | has gone, and left bytes | – |
//! | a channel | has gone, or says it never came | close |
//!
//! | client has | the server | step |
//! |---|---|---|
//! | nothing | tells where it is | connect |
//! | a channel | is there | – |
//! | a channel | has gone, and left bytes | – |
//! | a channel | has gone | close |
//!
//! Whatever there is of a channel that is broken or not wanted is closed.
#![deny(clippy::arithmetic_side_effects)]

use super::Peer;

/// What a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Has {
    /// Nothing.
    Nothing,
    /// A channel no client has come to.
    Offer,
    /// A channel with a client.
    Channel,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing, until something changes.
    Rest,
    /// A server makes a channel.
    Offer,
    /// A server takes its client.
    Accept,
    /// A client connects.
    Connect,
    /// The channel comes down.
    Close,
}

/// What is seen of a channel: the peer, whether bytes of it are unread, whether its indices were
/// nonsense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) peer: Peer,
    pub(super) unread: bool,
    pub(super) broken: bool,
}

/// The step of a server.
pub(super) fn server(wanted: bool, has: Has, seen: Seen) -> Step {
    match (has, seen.peer) {
        (Has::Nothing, _) if wanted => Step::Offer,
        (Has::Nothing, _) => Step::Rest,
        _ if !wanted || seen.broken => Step::Close,
        (Has::Offer, Peer::NotYet) => Step::Rest,
        (Has::Offer, Peer::There) => Step::Accept,
        (Has::Channel, Peer::There) => Step::Rest,
        (Has::Channel, Peer::Gone) if seen.unread => Step::Rest,
        (Has::Offer | Has::Channel, _) => Step::Close,
    }
}

/// The step of a client; `seen` is `None` without a channel.
pub(super) fn client(wanted: bool, told: bool, seen: Option<Seen>) -> Step {
    match seen {
        None if wanted && told => Step::Connect,
        None => Step::Rest,
        Some(seen) if !wanted || seen.broken => Step::Close,
        Some(Seen { peer: Peer::There | Peer::NotYet, .. }) => Step::Rest,
        Some(Seen { peer: Peer::Gone, unread: true, .. }) => Step::Rest,
        Some(_) => Step::Close,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const PEERS: [Peer; 3] = [Peer::NotYet, Peer::There, Peer::Gone];

    fn all() -> Vec<Seen> {
        let bools = [false, true];
        let mut all = Vec::new();
        for peer in PEERS {
            for unread in bools {
                all.extend(bools.map(|broken| Seen { peer, unread, broken }));
            }
        }
        all
    }

    #[test]
    fn a_server_holds_a_channel_as_long_as_it_serves_somebody() {
        for seen in all() {
            for has in [Has::Nothing, Has::Offer, Has::Channel] {
                let step = server(true, has, seen);
                let held = has != Has::Nothing;
                assert_eq!(step == Step::Offer, !held);
                assert!(!held || !seen.broken || step == Step::Close);
                if held && !seen.broken {
                    let accepted = has == Has::Offer && seen.peer == Peer::There;
                    assert_eq!(step == Step::Accept, accepted, "{has:?} {seen:?}");
                    let stays = match seen.peer {
                        Peer::NotYet => has == Has::Offer,
                        Peer::There => true,
                        Peer::Gone => has == Has::Channel && seen.unread,
                    };
                    assert_eq!(step == Step::Close, !stays, "{has:?} {seen:?}");
                }
                let unwanted = server(false, has, seen);
                assert_eq!(unwanted, if held { Step::Close } else { Step::Rest });
            }
        }
    }

    #[test]
    fn a_client_connects_once_and_reads_all_before_it_closes() {
        for told in [false, true] {
            assert_eq!(client(true, told, None) == Step::Connect, told);
            assert_eq!(client(false, told, None), Step::Rest);
            for seen in all() {
                let stays = !seen.broken && (seen.peer != Peer::Gone || seen.unread);
                let step = if stays { Step::Rest } else { Step::Close };
                assert_eq!(client(true, told, Some(seen)), step, "{seen:?}");
                assert_eq!(client(false, told, Some(seen)), Step::Close);
            }
        }
    }
}
