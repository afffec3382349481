//! What exists between state 4 and the end of it: two mapped rings and an event channel.
//!
//! In: what a frontend has published about its rings. Out: a [`Link`], which has to be given back to
//! [`Link::cut`], or the reason why not, with nothing left behind. Never: frames; they are in `tx` and
//! `rx`.

use crate::{rx::RxPath, tx::TxPath};
use core::fmt;
use core::time::Duration;
use wire::{Instant, Takes};
use xen::hypervisor::{Access, DomId, Errno, EvtPort, GrantStatus, Hypervisor};
use xen::netif::TxFault;
use xen::ring::{Back, RingBroken};

/// How long a client may not be signalled that small frames of its are sent. It sees the answers before
/// that when it sends the next, and needs no signal for that.
const QUIET: Duration = Duration::from_millis(10);

/// How a frontend wants to be signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channels {
    /// `event-channel`: one for both rings.
    One(u32),
    /// `event-channel-tx` and `event-channel-rx`.
    Split {
        /// For the TX ring.
        tx: u32,
        /// For the RX ring.
        rx: u32,
    },
}

/// What a frontend has published about its rings, each value checked by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Grant of the TX ring.
    pub(crate) tx_ring: u32,
    /// Grant of the RX ring; another one.
    pub(crate) rx_ring: u32,
    /// Remote ports.
    pub(crate) channels: Channels,
    /// What it can take.
    pub(crate) takes: Takes,
}

/// Why a link could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkError {
    Map { ring: &'static str, gref: u32, status: GrantStatus },
    Ring { ring: &'static str, broken: RingBroken },
    Bind { port: u32, errno: Errno },
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map { ring, gref, status } => {
                write!(f, "{ring}-ring-ref {gref} cannot be mapped: grant status {}", status.0)
            }
            Self::Ring { ring, broken } => write!(f, "{ring} ring: {}", Fault::of(*broken)),
            Self::Bind { port, errno } => {
                write!(f, "event channel {port} cannot be bound: errno {}", errno.0)
            }
        }
    }
}

/// What a frontend did to its rings that ends the vif.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// More requests published than a ring holds, or fewer than before.
    Producer {
        /// The first request not yet read.
        from: u32,
        /// What is claimed to be published.
        claimed: u32,
    },
    /// A malformed TX frame.
    Frame(TxFault),
}

impl Fault {
    pub(crate) const fn of(broken: RingBroken) -> Self {
        Self::Producer { from: broken.from.0, claimed: broken.claimed.0 }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Producer { from, claimed } => {
                write!(f, "impossible request producer {claimed}, {from} is the next to be read")
            }
            Self::Frame(TxFault::CutShort) => {
                f.write_str("the published requests end inside a frame")
            }
            Self::Frame(TxFault::TooManySlots) => {
                f.write_str("a frame of more slots than Xen allows")
            }
            Self::Frame(TxFault::BadExtra(bad)) => write!(f, "a bad extra-info slot: {bad:?}"),
            Self::Frame(TxFault::CrossesPage { offset, size }) => {
                write!(f, "{size} bytes at offset {offset} cross the end of a page")
            }
        }
    }
}

/// Two mapped rings and their event channels.
pub(crate) struct Link<H: Hypervisor> {
    pub(crate) tx: TxPath<H::Mapped>,
    pub(crate) rx: RxPath<H::Mapped>,
    tx_port: EvtPort,
    /// Another one only with split event channels.
    rx_port: Option<EvtPort>,
    /// Since when there are answers about which the frontend may want a signal.
    unasked: Option<Instant>,
    /// Requests may be waiting: an event came, or the ring was not found empty since.
    pub(crate) awake: bool,
    /// Set once; nothing is read or written afterwards.
    pub(crate) fault: Option<Fault>,
}

impl<H: Hypervisor> Link<H> {
    /// Maps the rings of `dom` and binds its event channels.
    pub(crate) fn make(h: &mut H, dom: DomId, terms: &Terms) -> Result<Self, LinkError> {
        let tx = map::<H>(h, dom, "tx", terms.tx_ring)?;
        let tx = attach(h, "tx", tx)?;
        let rx = match map::<H>(h, dom, "rx", terms.rx_ring).and_then(|page| attach(h, "rx", page))
        {
            Ok(rx) => rx,
            Err(error) => {
                let _ = h.unmap(tx.into_page());
                return Err(error);
            }
        };
        match bind(h, dom, terms.channels) {
            Ok((tx_port, rx_port)) => Ok(Self {
                tx: TxPath::new(dom, tx),
                rx: RxPath::new(dom, rx, terms.takes),
                tx_port,
                rx_port,
                unasked: None,
                awake: true,
                fault: None,
            }),
            Err(error) => {
                let _ = h.unmap(tx.into_page());
                let _ = h.unmap(rx.into_page());
                Err(error)
            }
        }
    }

    /// Unmaps and closes everything. Responses that were not published are lost with the ring.
    pub(crate) fn cut(self, h: &mut H) {
        for port in core::iter::once(self.tx_port).chain(self.rx_port) {
            h.close(port);
        }
        for page in [self.tx.into_page(), self.rx.into_page()] {
            // A range that cannot be unmapped stays out of use: nothing else is left to do.
            let _ = h.unmap(page);
        }
    }

    /// The event channels, one or two.
    pub(crate) fn ports(&self) -> impl Iterator<Item = EvtPort> + use<H> {
        core::iter::once(self.tx_port).chain(self.rx_port)
    }

    /// Shows the frontend what was answered and signals it where it asked for that. A signal more is
    /// not harmless: Linux delays the event channels of peers that send spurious ones. That its
    /// acknowledgements are sent is told to a client with what it gets next, or after [`QUIET`].
    pub(crate) fn publish(&mut self, h: &mut H) {
        self.tx.show();
        let rx = self.rx.publish();
        let together = rx && self.rx_port.is_none();
        let tx = (together || self.tx.is_pressing()) && self.tx.wants_signal();
        // A failure means that the other end is closed; its state will say so.
        if tx || together {
            let _ = h.notify(self.tx_port);
        }
        if let Some(rx_port) = self.rx_port.filter(|_| rx) {
            let _ = h.notify(rx_port);
        }
        let first = self.unasked.take();
        self.unasked = self.tx.is_unasked().then(|| first.unwrap_or_else(|| h.now()));
    }

    /// Signals the frontend if it waits for that, and has waited for [`QUIET`].
    pub(crate) fn signal_late(&mut self, h: &mut H, now: Instant) {
        if self.quiet_until().is_some_and(|until| until <= now) {
            self.unasked = None;
            if self.tx.wants_signal() {
                let _ = h.notify(self.tx_port);
            }
        }
    }

    /// Until when a signal may be kept back, if one is.
    pub(crate) fn quiet_until(&self) -> Option<Instant> {
        self.unasked.map(|since| since + QUIET)
    }
}

fn map<H: Hypervisor>(
    h: &mut H,
    dom: DomId,
    ring: &'static str,
    gref: u32,
) -> Result<H::Mapped, LinkError> {
    h.map(dom, gref, Access::ReadWrite).map_err(|status| LinkError::Map { ring, gref, status })
}

fn attach<H: Hypervisor, L: xen::ring::Layout>(
    h: &mut H,
    ring: &'static str,
    page: H::Mapped,
) -> Result<Back<L, H::Mapped>, LinkError> {
    Back::attach(page).map_err(|(page, broken)| {
        let _ = h.unmap(page);
        LinkError::Ring { ring, broken }
    })
}

fn bind<H: Hypervisor>(
    h: &mut H,
    dom: DomId,
    channels: Channels,
) -> Result<(EvtPort, Option<EvtPort>), LinkError> {
    let mut one =
        |port| h.bind_interdomain(dom, port).map_err(|errno| LinkError::Bind { port, errno });
    match channels {
        Channels::One(port) => Ok((one(port)?, None)),
        Channels::Split { tx, rx } => {
            let tx = one(tx)?;
            match one(rx) {
                Ok(rx) => Ok((tx, Some(rx))),
                Err(error) => {
                    h.close(tx);
                    Err(error)
                }
            }
        }
    }
}
