//! A job being done.
//!
//! In: a job, time, room in the ring. Out: frames, and in the end the counts. Never: waits.

#![forbid(unsafe_code)]

use crate::connect::Connector;
use crate::frames::{FRAME_MAX, SEGMENT, Segment};
use crate::job::{Job, Kind};
use crate::net::Net;
use alloc::format;
use alloc::string::String;
use arrayvec::ArrayVec;
use core::time::Duration;
use wire::{Frame, Instant, Offload, Parsed, Port, Transport, parse};
use xen::hypervisor::Hypervisor;
use xen::raw::Xen;

/// Frames put into the ring before the backend is told.
const BATCH: u32 = 64;
/// When to look again if the ring is full or nothing came back.
const SOON: Duration = Duration::from_millis(2);
/// How long answers may still come after the last frame.
const TAIL: Duration = Duration::from_millis(200);
const FIRST_PORT: u16 = 20000;

/// A job, and how far it is.
pub(crate) struct Run {
    job: Job,
    started: Instant,
    sent: u64,
    /// Frames received before it began.
    received: Option<(u64, u64)>,
    connector: Connector,
    done: bool,
    /// Received since it began.
    got: (u64, u64),
}

impl Run {
    pub(crate) fn new(job: Job, now: Instant) -> Self {
        let at_once = match job.kind {
            Kind::Connect { at_once } => at_once,
            Kind::Udp { .. } => 1,
        };
        let connector = Connector::new(at_once);
        Self { job, started: now, sent: 0, received: None, connector, done: false, got: (0, 0) }
    }

    /// Does as much as the ring takes now; returns when to be called again, if not at once.
    pub(crate) fn turn(&mut self, h: &mut Xen, net: &mut Net) -> Option<Instant> {
        let before = *self.received.get_or_insert((net.received, net.received_bytes));
        let now = h.now();
        let age = now.since(self.started);
        let sending = age < self.job.time;
        let again = match self.job.kind {
            Kind::Udp { frame, rate } if sending => self.flood(h, net, now, frame, rate),
            Kind::Connect { .. } => self.connect(h, net, now, sending),
            Kind::Udp { .. } => {
                net.receive(h, |_, _| {});
                now + SOON
            }
        };
        net.publish(h);
        self.got = (net.received - before.0, net.received_bytes - before.1);
        self.done = age >= self.job.time + TAIL;
        Some(again)
    }

    /// The counts, when all is done.
    pub(crate) fn report(&self, h: &Xen) -> Option<String> {
        let Self { job, sent, connector: c, got, .. } = self;
        let micros = h.now().since(self.started).min(job.time).as_micros();
        self.done.then(|| {
            format!(
                "{{\"id\":{},\"micros\":{micros},\"sent\":{sent},\"received\":{},\
                 \"received_bytes\":{},\"opened\":{},\"closed\":{},\"lost\":{}}}",
                job.id, got.0, got.1, c.opened, c.closed, c.lost
            )
        })
    }

    fn flood(
        &mut self,
        h: &mut Xen,
        net: &mut Net,
        now: Instant,
        frame: u16,
        rate: u32,
    ) -> Instant {
        let mut bytes = [0; FRAME_MAX];
        let age = now.since(self.started).as_micros() as u64;
        let allowed = match rate {
            0 => u64::MAX,
            rate => age * u64::from(rate) / 1_000_000 + 1,
        };
        for _ in 0..BATCH {
            if self.sent >= allowed {
                break;
            }
            let port = FIRST_PORT + (self.sent % u64::from(self.job.ports)) as u16;
            net.ends.udp(&mut bytes, port, self.job.to, frame);
            if !net.send(h, bytes.get(..usize::from(frame)).unwrap_or_default()) {
                net.receive(h, |_, _| {});
                // The backend's event wakes us before, if it comes.
                return now + SOON;
            }
            self.sent += 1;
        }
        net.receive(h, |_, _| {});
        if self.sent >= allowed {
            let next = self.sent * 1_000_000 / u64::from(rate.max(1));
            return self.started + Duration::from_micros(next);
        }
        Instant::ZERO
    }

    fn connect(&mut self, h: &mut Xen, net: &mut Net, now: Instant, sending: bool) -> Instant {
        let mut answers = ArrayVec::<Segment, 64>::new();
        let connector = &mut self.connector;
        let more = net.receive(h, |head, len| {
            let from = Port::new(0, 0);
            let frame = Frame { from, head, len, offload: Offload::NONE };
            let Ok(Parsed::Ip(packet)) = parse(&frame) else { return };
            if let Transport::Tcp(tcp) = packet.transport
                && let Some(answer) = connector.hear(now, &tcp)
            {
                let _one_for_each_frame = answers.try_push(answer);
            }
        });
        let mut bytes = [0; FRAME_MAX];
        let mut send = |segment| {
            net.ends.tcp(&mut bytes, segment, self.job.to);
            net.send(h, bytes.get(..SEGMENT).unwrap_or_default())
        };
        self.sent += answers.into_iter().map(|segment| u64::from(send(segment))).sum::<u64>();
        for _ in 0..BATCH {
            let Some(segment) = sending.then(|| self.connector.open(now)).flatten() else { break };
            self.sent += u64::from(send(segment));
        }
        if more { Instant::ZERO } else { now + SOON }
    }
}
