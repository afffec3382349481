//! The uplink: its devices under `device/vif`, of which the lowest that works carries the traffic.
//!
//! In: XenStore's events, event channels, time. Out: steps of the life table carried out, notices.
//! Never: touches a ring while a frame is on its way: it is called between turns.

use crate::bucket::Bucket;
use crate::life::{self, Step};
use crate::link::Link;
use crate::list::{List, Listed, ROOT};
use crate::pool::Pool;
use crate::seen::{Backend, Problem};
use crate::stall::{Seen, Stall};
use crate::vif::{self, Heard, REFUSED, Vif, Wrote};
use crate::{Config, Notice, Slots};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use wire::{Instant, Mac, Port, Takes};
use xen::hypervisor::{EvtPort, Hypervisor, Memory, PortSet};
use xen::io::room_for_a_frame;
use xen::store::{Client, Event, Outcome, Reply, RequestId, StoreError};
use xen::xenbus::XenbusState;

/// Messages not yet taken from which on no more are kept.
const PROBLEMS_MAX: usize = 32;
/// Least and most time between two tries to get pages out of quarantine.
const RETRY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(5));

/// A time that does not come.
const NEVER: Instant = Instant::from_nanos(u64::MAX);

/// Longest packet on a link without scatter-gather, in bytes: its frame is one slot (ETH_DATA_LEN, as
/// xennet_change_mtu of Linux has it).
const ONE_SLOT_MTU: u16 = 1500;

/// The uplink.
pub struct Netfront<H: Hypervisor> {
    config: Config,
    list: List,
    /// By index, ascending.
    vifs: Vec<Vif>,
    active: Option<Active<H>>,
    /// When the devices are to be seen to next, if XenStore says nothing before.
    due: Instant,
    pool: Pool<H>,
    /// When to try the quarantine again, and after which pause.
    retry: Option<(Instant, Duration)>,
    /// Pages that backends still had at the last try, and whether that was told.
    held: usize,
    told_held: bool,
    notices: VecDeque<Notice>,
    complaints: Bucket,
    /// What was told of the list.
    odd_list: Option<Problem>,
    ups: u16,
    links: u16,
}

/// The device whose rings are on offer or connected.
struct Active<H: Hypervisor> {
    index: u32,
    backend: Backend,
    mac: Mac,
    mtu: u16,
    link: Link<H>,
    /// Its name, once connected.
    up: Option<Port>,
    stall: Stall,
}

impl<H: Hypervisor> Netfront<H> {
    /// An uplink that is down. Numbers of `config` out of their range are taken for the nearest in it.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let tx_pages = config.tx_pages.clamp(32, 256);
        let rx_pages = config.rx_pages.clamp(64, 256);
        Self {
            config: Config { tx_pages, rx_pages, ..config },
            list: List::default(),
            vifs: Vec::new(),
            active: None,
            due: Instant::ZERO,
            pool: Pool::new(pages(tx_pages, rx_pages)),
            retry: None,
            held: 0,
            told_held: false,
            notices: VecDeque::new(),
            complaints: Bucket::new(8, Duration::from_secs(2)),
            odd_list: None,
            ups: 0,
            links: 0,
        }
    }

    /// Takes an event of XenStore's client; those of others have no effect. `store` is to be pumped
    /// afterwards. All frames must have been given back before.
    pub fn on_store<M: Memory>(&mut self, h: &mut H, store: &mut Client<M>, event: &Event) {
        match event {
            Event::Watch { tag, .. } if *tag == self.config.tag => {
                self.list.touch();
                self.vifs.iter_mut().for_each(Vif::touch);
            }
            Event::Reply { tag, id, result } if *tag == self.config.tag => {
                self.hear(h, store, *id, result);
            }
            Event::Watch { .. } | Event::Reply { .. } | Event::Broken(_) => return,
        }
        self.work(h, store, h.now());
    }

    /// Takes the ports that were pending: if ours is among them, there may be frames to pull, and
    /// there may be room again.
    pub fn on_event(&mut self, h: &mut H, pending: &PortSet) {
        if let Some(active) = &mut self.active
            && pending.contains(active.link.event())
        {
            active.link.harvest(h);
        }
    }

    /// Does what is due, the first time included. Returns when to be called again at the latest.
    /// All frames must have been given back before.
    pub fn tick<M: Memory>(
        &mut self,
        h: &mut H,
        store: &mut Client<M>,
        now: Instant,
    ) -> Option<Instant> {
        let fault =
            self.active.as_ref().and_then(|active| Some((active.index, active.link.fault()?)));
        if let Some((index, fault)) = fault {
            self.complain(
                format!("{ROOT}/{index}: broken backend: {fault}; connecting again"),
                now,
            );
            self.take_down(h);
        }
        self.quarantine(h, now);
        if self.due <= now {
            self.work(h, store, now);
        }
        let stall = self.watch_room(now);
        [Some(self.due), self.retry.map(|(at, _)| at), stall].into_iter().flatten().min()
    }

    /// The next notice.
    pub fn next_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// What the uplink is called, while it is up.
    #[must_use]
    pub fn port(&self) -> Option<Port> {
        self.active.as_ref()?.up
    }

    /// The event channel of the backend, while there is one.
    #[must_use]
    pub fn event(&self) -> Option<EvtPort> {
        Some(self.active.as_ref()?.link.event())
    }

    /// Slots that can be staged now; a GSO frame takes one more than its data.
    #[must_use]
    pub fn room(&self) -> Slots {
        self.connected().map_or(Slots(0), Link::room)
    }

    /// Whether the backend has left frames unanswered for so long that it is no use to wait for room.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.active.as_ref().is_some_and(|active| active.stall.is_stalled())
    }

    /// What the backend can take; while there is none, nothing is left to do for it.
    #[must_use]
    pub fn takes(&self) -> Takes {
        self.connected().map_or(Takes::ALL, Link::takes)
    }

    /// RX buffers the backend has. netback needs 18 for one large frame: whoever keeps frames of the
    /// uplink leaves it at least twice that.
    #[must_use]
    pub fn posted(&self) -> Slots {
        self.connected().map_or(Slots(0), Link::posted)
    }

    /// Pages that are not ours to use, as a backend has them mapped without need.
    #[must_use]
    pub fn quarantined(&self) -> usize {
        self.pool.held()
    }

    fn connected(&self) -> Option<&Link<H>> {
        self.active.as_ref().filter(|active| active.up.is_some()).map(|active| &active.link)
    }

    pub(crate) fn link(&mut self) -> Option<&mut Link<H>> {
        self.active.as_mut().filter(|active| active.up.is_some()).map(|active| &mut active.link)
    }

    fn hear<M: Memory>(
        &mut self,
        h: &mut H,
        store: &mut Client<M>,
        id: RequestId,
        result: &Result<Reply, StoreError>,
    ) {
        let now = h.now();
        match self.list.hear(id, result, now) {
            Listed::NotMine => {}
            Listed::Pending => return,
            Listed::Refused(error) => {
                return self.complain(format!("{ROOT} cannot be watched or read: {error}"), now);
            }
            Listed::Devices(devices, problem) => {
                let problem = problem.filter(|_| self.config.devices.tell_of_list());
                if let Some(problem) = &problem
                    && self.odd_list != Some(problem.clone())
                {
                    self.complain(problem.0.clone(), now);
                }
                self.odd_list = problem;
                return self.listed(&devices);
            }
        }
        for n in 0..self.vifs.len() {
            let Some(vif) = self.vifs.get_mut(n) else { return };
            match vif.hear(store, self.config.tag, id, result) {
                Heard::NotMine => continue,
                Heard::Pending => {}
                Heard::Looked => self.looked(h, store, n, now),
                Heard::Wrote(wrote, outcome) => self.wrote(h, n, wrote, outcome, now),
                Heard::Refused(what, error) => {
                    vif.again_at(now + REFUSED);
                    let problem = Problem(format!("{} cannot {what}: {error}", vif.dir));
                    self.report(n, &problem, now);
                }
            }
            return;
        }
    }

    fn listed(&mut self, devices: &[u32]) {
        for vif in &mut self.vifs {
            vif.listed = devices.contains(&vif.index);
        }
        for index in devices.iter().filter(|index| self.config.devices.has(**index)) {
            if let Err(at) = self.vifs.binary_search_by_key(index, |vif| vif.index) {
                self.vifs.insert(at, Vif::new(*index));
            }
        }
    }

    fn work<M: Memory>(&mut self, h: &mut H, store: &mut Client<M>, now: Instant) {
        self.list.work(store, self.config.tag, now);
        self.forget(h, store);
        self.elect(h, store, now);
        for vif in &mut self.vifs {
            vif.work(store, self.config.tag, now);
        }
        let again = self.vifs.iter().filter_map(|vif| vif.again).chain(self.list.again).min();
        self.due = again.unwrap_or(NEVER);
    }

    /// Lets go of devices that are not there any more.
    fn forget<M: Memory>(&mut self, h: &mut H, store: &mut Client<M>) {
        let gone = |vif: &Vif| !vif.listed;
        let active = self.active.as_ref().map(|active| active.index);
        if self.vifs.iter().any(|vif| gone(vif) && Some(vif.index) == active && !vif.is_writing()) {
            self.take_down(h);
        }
        let tag = self.config.tag;
        self.vifs.retain_mut(|vif| !gone(vif) || vif.is_writing() || !vif.unwatch(store, tag));
    }

    /// Does what the life table says of device `n`, which has just been looked at.
    fn looked<M: Memory>(&mut self, h: &mut H, store: &mut Client<M>, n: usize, now: Instant) {
        let Some(vif) = self.vifs.get(n) else { return };
        let Some(look) = &vif.look else { return };
        let problem = look.problem().cloned();
        let step = self.step(vif);
        if let Some(problem) = problem {
            self.report(n, &problem, now);
        }
        match step {
            // Offers are made by `elect`, when all devices are known.
            Some(Step::Wait | Step::Offer) | None => {}
            Some(Step::Connect) => self.connect(n),
            Some(Step::Init) => self.write(h, store, n, Wrote::Init, now),
            Some(Step::Close) => {
                self.take_down_if(h, n);
                self.write(h, store, n, Wrote::Close, now);
            }
            Some(Step::Drop) => self.take_down_if(h, n),
            // Seen by the list only.
            Some(Step::Forget) => {}
        }
    }

    fn step(&self, vif: &Vif) -> Option<Step> {
        let active = self.active.as_ref().filter(|active| active.index == vif.index);
        let ours = match active {
            None => life::Link::Idle,
            Some(Active { up: None, .. }) => life::Link::Offered,
            Some(Active { up: Some(_), .. }) => life::Link::Up,
        };
        let look = vif.look.as_ref()?;
        Some(life::next(ours, look.seen(active.map(|active| &active.backend))))
    }

    /// Offers rings to the lowest device whose backend waits for them, if none has any. Until those
    /// before it have been looked at it waits, so that not chance decides.
    fn elect<M: Memory>(&mut self, h: &mut H, store: &mut Client<M>, now: Instant) {
        let known = self.vifs.iter().take_while(|vif| vif.look.is_some()).count();
        for n in 0..known {
            let Some(vif) = self.vifs.get(n) else { return };
            if !vif.listed || self.step(vif) != Some(Step::Offer) {
                continue;
            }
            if !vif.is_settled() {
                return;
            }
            match &self.active {
                None => self.offer(h, store, n, now),
                Some(active) if active.up.is_some() => {
                    let (this, used) = (&vif.dir, active.index);
                    let text = format!("{this} is not used: the uplink is {ROOT}/{used}");
                    self.report(n, &Problem(text), now);
                }
                Some(_) => {}
            }
        }
    }

    fn offer<M: Memory>(&mut self, h: &mut H, store: &mut Client<M>, n: usize, now: Instant) {
        let Some(vif) = self.vifs.get_mut(n) else { return };
        if vif.again.is_some_and(|at| now < at) {
            return;
        }
        let Some(look) = &vif.look else { return };
        let (Some(device), Some(back)) = (look.device().cloned(), &look.back) else { return };
        let takes = back.takes;
        if let Err(later) = vif.links.take(now) {
            vif.again_at(later);
            return;
        }
        self.pool.retry(h);
        let (held, most) = (self.pool.held(), pages(self.config.tx_pages, self.config.rx_pages));
        let opened = if held > most {
            Err(format!("{held} pages are still mapped by former backends"))
        } else {
            let (pool, config, dom) = (&mut self.pool, &self.config, device.backend.dom);
            Link::open(h, pool, config, dom, takes, self.links).map_err(|e| format!("{e}"))
        };
        match opened {
            Ok(link) => {
                self.links = self.links.wrapping_add(1);
                let (index, mac) = (vif.index, device.mac);
                let mtu = if takes.sg { device.mtu } else { device.mtu.min(ONE_SLOT_MTU) };
                self.active = Some(Active {
                    index,
                    backend: device.backend,
                    mac,
                    mtu,
                    link,
                    up: None,
                    stall: Stall::default(),
                });
                self.write(h, store, n, Wrote::Offer, now);
            }
            Err(why) => {
                vif.again_at(now + REFUSED);
                let problem = Problem(format!("{} cannot be connected: {why}", vif.dir));
                self.report(n, &problem, now);
            }
        }
    }

    fn write<M: Memory>(
        &mut self,
        h: &mut H,
        store: &mut Client<M>,
        n: usize,
        wrote: Wrote,
        now: Instant,
    ) {
        let refs = self.active.as_ref().map(|active| active.link.refs());
        let Some(vif) = self.vifs.get_mut(n) else { return };
        let (nodes, state) = match (wrote, refs) {
            (Wrote::Init, _) => (Vec::new(), XenbusState::Initialising),
            (Wrote::Offer, Some(refs)) => (vif::offer(refs), XenbusState::Connected),
            (Wrote::Close | Wrote::Offer, _) => (Vec::new(), XenbusState::Closed),
        };
        match vif.write(store, self.config.tag, wrote, &nodes, state) {
            Outcome::Done => {}
            refused => self.wrote(h, n, wrote, refused, now),
        }
    }

    /// A change of ours ended. The device is looked at again: at once, or later if it was refused.
    fn wrote(&mut self, h: &mut H, n: usize, wrote: Wrote, outcome: Outcome, now: Instant) {
        if outcome == Outcome::Done {
            self.vifs.get_mut(n).into_iter().for_each(Vif::touch);
            return;
        }
        if wrote == Wrote::Offer {
            self.take_down_if(h, n);
        }
        let Some(vif) = self.vifs.get_mut(n) else { return };
        vif.again_at(now + REFUSED);
        let why = match outcome {
            // Removed meanwhile: the list will tell.
            Outcome::Done | Outcome::Gone => return,
            Outcome::NoSpace(error) => format!("XenStore's quota is used up ({error})"),
            Outcome::Contended => "others change the same nodes all the time".into(),
            Outcome::Failed(error) => format!("{error}"),
            Outcome::NotSubmitted(_) => "XenStore does not keep up".into(),
        };
        let problem = Problem(format!("{} cannot be written to: {why}", vif.dir));
        self.report(n, &problem, now);
    }

    fn connect(&mut self, n: usize) {
        self.vifs.get_mut(n).into_iter().for_each(Vif::all_well);
        let Some(active) = &mut self.active else { return };
        let port = Port::new(self.config.slot.0, self.ups);
        self.ups = self.ups.wrapping_add(1);
        active.up = Some(port);
        let (mac, mtu, backend) = (active.mac, active.mtu, active.backend.dom);
        self.notices.push_back(Notice::Up { port, mac, mtu, backend });
    }

    fn take_down_if(&mut self, h: &mut H, n: usize) {
        let index = self.vifs.get(n).map(|vif| vif.index);
        if self.active.as_ref().map(|active| active.index) == index {
            self.take_down(h);
        }
    }

    /// Ends the link there is; its device is looked at again.
    fn take_down(&mut self, h: &mut H) {
        let Some(active) = self.active.take() else { return };
        active.link.close(h, &mut self.pool);
        if let Some(port) = active.up {
            self.notices.push_back(Notice::Down { port });
        }
        self.vifs.iter_mut().filter(|vif| vif.index == active.index).for_each(Vif::touch);
        self.due = Instant::ZERO;
        self.retry = Some((h.now() + RETRY.0, RETRY.0));
    }

    /// Tries to get pages back that backends had mapped, and to lend those that are to be lent. As long
    /// as some come back there are soon more.
    fn quarantine(&mut self, h: &mut H, now: Instant) {
        let pause = match self.retry {
            Some((at, _)) if now < at => return,
            Some((_, pause)) => (pause * 2).min(RETRY.1),
            None if self.pool.held() + self.active.as_ref().map_or(0, |a| a.link.lacks()) == 0 => {
                return;
            }
            None => RETRY.0,
        };
        self.pool.retry(h);
        let held = self.pool.held() + self.active.as_mut().map_or(0, |active| active.link.retry(h));
        let pause = if held < self.held { RETRY.0 } else { pause };
        self.held = held;
        self.retry = (held != 0).then(|| (now + pause, pause));
        let kept = self.pool.held();
        if kept != 0 && pause == RETRY.1 && !self.told_held {
            self.push(format!(
                "{kept} pages are set aside: a former backend still has them mapped"
            ));
        }
        self.told_held = kept != 0 && (self.told_held || pause == RETRY.1);
    }

    /// Sees whether the backend takes frames at all; returns when to look again if it does not.
    fn watch_room(&mut self, now: Instant) -> Option<Instant> {
        let active = self.active.as_mut().filter(|active| active.up.is_some())?;
        let dom = active.backend.dom;
        let least = room_for_a_frame(active.link.takes());
        match active.stall.look(active.link.room().0, least, now) {
            Seen::Room | Seen::StillStalled => None,
            Seen::Waiting(until) => Some(until),
            Seen::Stalled => {
                self.complain(format!("{dom} takes no frames: they are lost until it does"), now);
                // What has been waiting is to be seen to now.
                Some(now)
            }
            Seen::Over => {
                self.complain(format!("{dom} takes frames again"), now);
                None
            }
        }
    }

    fn report(&mut self, n: usize, problem: &Problem, now: Instant) {
        if self.vifs.get_mut(n).is_some_and(|vif| vif.is_news(problem, now)) {
            self.push(problem.0.clone());
        }
    }

    fn complain(&mut self, text: String, now: Instant) {
        if self.complaints.take(now).is_ok() {
            self.push(text);
        }
    }

    fn push(&mut self, text: String) {
        if self.notices.len() < PROBLEMS_MAX {
            self.notices.push_back(Notice::Problem { text });
        }
    }
}

/// Pages of one link.
const fn pages(tx: u16, rx: u16) -> usize {
    tx as usize + rx as usize + 2
}
