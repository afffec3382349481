//! What the firewall asks of Xen: one method for each thing the hypervisor does, no policy.
//!
//! Implemented by `raw` with hypercalls and by `sim` in memory; the conformance table holds both to
//! the same statuses and effects.

pub use crate::copy::{CopyEnd, CopyOp};
use arrayvec::ArrayVec;
use core::fmt;
use wire::Instant;

/// Bytes in a page.
pub const PAGE_SIZE: usize = 4096;

/// A domain's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct DomId(pub u16);

impl DomId {
    /// The first number that no domain can have (DOMID_FIRST_RESERVED, xen.h).
    pub const FIRST_RESERVED: u16 = 0x7ff0;
    /// The caller itself (DOMID_SELF, xen.h).
    pub const SELF: Self = Self(0x7ff0);
}

impl fmt::Display for DomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "domain {}", self.0)
    }
}

/// A local event channel port (evtchn_port_t).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct EvtPort(pub u32);

/// A grant in force: whoever holds it has lent a page. Not `Copy`: it ends exactly once, by
/// [`Hypervisor::end`]. What the peer is told is [`GrantRef::number`].
#[derive(Debug, PartialEq, Eq)]
pub struct GrantRef(u32);

impl GrantRef {
    /// For implementations of [`Hypervisor`] only: the grant with this table index is now in force.
    #[must_use]
    pub const fn in_force(number: u32) -> Self {
        Self(number)
    }

    /// The index into the grant table, as told to the peer.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.0
    }
}

/// The number by which Xen knows a page of ours: MFN in a PV guest, GFN in a PVH guest. It comes from
/// [`Page::frame`] alone: who could make one up could have Xen copy into any page of this domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameNo(pub(crate) u64);

/// What the peer may do with a granted or mapped page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    ReadOnly,
    /// Read and write.
    ReadWrite,
}

/// A negative return of a hypercall, as a positive errno (errno.h of Xen's public headers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub u32);

/// Status of one grant operation, 0 is okay (GNTST_*, grant_table.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct GrantStatus(pub i16);

impl GrantStatus {
    /// GNTST_okay.
    pub const OKAY: Self = Self(0);
    /// GNTST_general_error.
    pub const GENERAL_ERROR: Self = Self(-1);
    /// GNTST_bad_domain.
    pub const BAD_DOMAIN: Self = Self(-2);
    /// GNTST_bad_gntref.
    pub const BAD_GNTREF: Self = Self(-3);
    /// GNTST_permission_denied.
    pub const PERMISSION_DENIED: Self = Self(-8);
    /// GNTST_bad_page.
    pub const BAD_PAGE: Self = Self(-9);
    /// GNTST_bad_copy_arg: it would cross a page.
    pub const BAD_COPY_ARG: Self = Self(-10);
    /// GNTST_eagain: the page is not there now.
    pub const EAGAIN: Self = Self(-12);

    /// Whether the operation took effect.
    #[must_use]
    pub const fn is_okay(self) -> bool {
        self.0 == 0
    }
}

/// One page that other domains may read or write at any moment.
///
/// Every byte is read or written exactly once per call, and nothing is assumed to stay. Offsets are
/// bytes; parts beyond the page are ignored (and a bug: debug builds stop).
pub trait Memory {
    /// A 32-bit word at a multiple of four, before whatever is read after it (acquire).
    fn load(&self, offset: usize) -> u32;
    /// A 32-bit word at a multiple of four, after whatever was written before it (release).
    fn store(&self, offset: usize, value: u32);
    /// Keeps only the bits of `mask` in a 32-bit word at a multiple of four, in one step that no peer
    /// comes in between; gives the word as it was. Ordered as by [`barrier`](Self::barrier).
    fn fetch_and(&self, offset: usize, mask: u32) -> u32;
    /// Sets `bits` in the same way.
    fn fetch_or(&self, offset: usize, bits: u32) -> u32;
    /// Copies out.
    fn read(&self, offset: usize, into: &mut [u8]);
    /// Copies in.
    fn write(&self, offset: usize, from: &[u8]);
    /// Fills with zeros.
    fn zero(&self) {
        self.write(0, &[0; PAGE_SIZE]);
    }
    /// Everything written before is seen by the peer before anything read after (a full barrier,
    /// as the notification rule of ring.h needs between publishing and reading the event index).
    fn barrier(&self);
}

/// A page of ours, which may be lent to other domains.
pub trait Page: Memory {
    /// How Xen calls it.
    fn frame(&self) -> FrameNo;
}

/// No grant reference is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRef;

/// No page is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

/// The peer has the page mapped or in use: the grant goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StillMapped;

/// Event channels a 2-level table has (NR_EVENT_CHANNELS on x86-64).
pub const PORTS_MAX: usize = 4096;

/// 64 event channels each.
const WORDS: usize = PORTS_MAX / 64;

/// Event channels that were pending.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PortSet {
    /// Words with a bit set and where they stand, in that order: mostly one or none does.
    words: ArrayVec<(u16, u64), WORDS>,
}

impl fmt::Debug for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl PortSet {
    /// Adds all ports of word `word` (64 ports a word) whose bit is set. Beyond the table: nothing.
    pub fn add_word(&mut self, word: usize, bits: u64) {
        let Some(word) = u16::try_from(word).ok().filter(|word| usize::from(*word) < WORDS) else {
            return;
        };
        let at = self.words.partition_point(|(before, _)| *before < word);
        match self.words.get_mut(at) {
            Some((same, known)) if *same == word => *known |= bits,
            _ if bits != 0 => {
                // There is a place for each word.
                let _ = self.words.try_insert(at, (word, bits));
            }
            _ => {}
        }
    }

    /// Adds one port. Beyond the table: nothing.
    pub fn add(&mut self, port: EvtPort) {
        self.add_word(port.0 as usize / 64, 1 << (port.0 % 64));
    }

    /// Whether `port` was pending.
    #[must_use]
    pub fn contains(&self, port: EvtPort) -> bool {
        let word = |(at, _): &&(u16, u64)| u32::from(*at) == port.0 / 64;
        self.words.iter().find(word).is_some_and(|(_, bits)| bits >> (port.0 % 64) & 1 == 1)
    }

    /// Whether none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The ports in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = EvtPort> {
        self.words.iter().flat_map(|(at, word)| {
            let first = u32::from(*at) * 64;
            bits(*word).map(move |bit| EvtPort(first + bit))
        })
    }
}

/// The numbers of the bits set in `word`, lowest first.
fn bits(mut word: u64) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        let bit = (word != 0).then(|| word.trailing_zeros())?;
        word &= word - 1;
        Some(bit)
    })
}

/// Why a domain ends (SHUTDOWN_*, sched.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// SHUTDOWN_poweroff.
    Poweroff,
    /// SHUTDOWN_reboot.
    Reboot,
    /// SHUTDOWN_crash.
    Crash,
}

/// Xen, as one guest with one vCPU sees it.
pub trait Hypervisor {
    /// A page of ours that may be lent.
    type Page: Page;
    /// A page another domain lent us, mapped here.
    type Mapped: Memory;
    /// Contiguous memory, a whole number of pages, that is never lent. As only [`Hypervisor::copy`]
    /// lets Xen write to it, and that takes it by `&mut`, plain slices of it are sound.
    type Private: AsRef<[u8]> + AsMut<[u8]>;

    /// Monotonic time since boot. Time in which the domain was paused is included.
    fn now(&self) -> Instant;

    /// Time since 1970 as Xen tells it, if it does.
    fn wall_clock(&self) -> Option<core::time::Duration>;

    /// A zeroed page.
    ///
    /// # Errors
    /// [`NoMemory`] if none is free.
    fn page(&mut self) -> Result<Self::Page, NoMemory>;

    /// Gives a page back. It must not be lent: pages that may still be mapped by a peer go to a
    /// quarantine instead.
    fn free(&mut self, page: Self::Page);

    /// `pages` contiguous zeroed pages of private memory.
    ///
    /// # Errors
    /// [`NoMemory`] if there is not so much.
    fn private(&mut self, pages: u16) -> Result<Self::Private, NoMemory>;

    /// Lends `page` to `to`. No hypercall.
    ///
    /// # Errors
    /// [`NoRef`] if the grant table is full.
    fn grant(&mut self, to: DomId, page: &Self::Page, access: Access) -> Result<GrantRef, NoRef>;

    /// Ends a grant. No hypercall.
    ///
    /// # Errors
    /// [`StillMapped`], with the grant still in force, if the peer uses the page just now.
    fn end(&mut self, gref: GrantRef) -> Result<(), (GrantRef, StillMapped)>;

    /// Maps a page that `of` has granted to us.
    ///
    /// # Errors
    /// The status Xen gives (GNTTABOP_map_grant_ref).
    fn map(&mut self, of: DomId, gref: u32, access: Access) -> Result<Self::Mapped, GrantStatus>;

    /// Unmaps it.
    ///
    /// # Errors
    /// The status Xen gives (GNTTABOP_unmap_grant_ref); the address range is then not used again.
    fn unmap(&mut self, page: Self::Mapped) -> Result<(), GrantStatus>;

    /// Does all `ops` in one hypercall; each has its own status afterwards.
    ///
    /// # Errors
    /// The errno of the hypercall itself; then no status is to be trusted.
    fn copy(&mut self, private: &mut Self::Private, ops: &mut [CopyOp]) -> Result<(), Errno>;

    /// A new port that `remote` may bind to (EVTCHNOP_alloc_unbound).
    ///
    /// # Errors
    /// The errno of the hypercall.
    fn alloc_unbound(&mut self, remote: DomId) -> Result<EvtPort, Errno>;

    /// A new port bound to `port` of `remote` (EVTCHNOP_bind_interdomain).
    ///
    /// # Errors
    /// The errno of the hypercall: `remote` never offered that port to us.
    fn bind_interdomain(&mut self, remote: DomId, port: u32) -> Result<EvtPort, Errno>;

    /// Closes a port and clears what was pending on it.
    fn close(&mut self, port: EvtPort);

    /// Signals the other end. Lost without an error if there is none.
    ///
    /// # Errors
    /// The errno of the hypercall.
    fn notify(&mut self, port: EvtPort) -> Result<(), Errno>;

    /// Takes the ports that are pending and clears them: look at the rings after this.
    fn take_pending(&mut self) -> PortSet;

    /// Sleeps until a port is pending or `until` has come. Ports in `hot` (at most 128) are looked at
    /// once more before sleeping; other ports wake as well, if `hot` has not exactly one.
    ///
    /// # Errors
    /// The errno of the hypercall (SCHEDOP_poll).
    fn poll(&mut self, hot: &[EvtPort], until: Option<Instant>) -> Result<(), Errno>;

    /// Ends this domain. The kernel does not come back from it; a simulation does.
    fn shutdown(&mut self, why: Shutdown);
}

/// What the toolstack gave every guest at its start.
#[derive(Debug)]
pub struct Start<M> {
    /// The command line.
    pub cmdline: alloc::string::String,
    /// XenStore's ring page and its event channel.
    pub store: (M, EvtPort),
    /// The PV console's ring page and its event channel.
    pub console: (M, EvtPort),
}
