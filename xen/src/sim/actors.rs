//! Who runs when: domains take turns, and time jumps to the next deadline when nobody has work.
//!
//! A domain under test either is an actor itself, driven by [`Sim::run_until`], or is the code of the
//! test, whose `poll` lets the actors run while it sleeps.

use super::{Bracket, Sim};
use crate::hypervisor::DomId;
use std::boxed::Box;
use std::rc::Rc;
use wire::Instant;

/// Something that runs in a domain.
pub trait Actor {
    /// Does what there is to do and returns when it wants to run again even if nobody signals it.
    /// Called when a port of its domain is pending: it must take the pending ports.
    fn turn(&mut self) -> Option<Instant>;

    /// Whether there is something to do that no event channel tells.
    fn is_ready(&self) -> bool {
        false
    }
}

impl<F: FnMut() -> Option<Instant>> Actor for F {
    fn turn(&mut self) -> Option<Instant> {
        self()
    }
}

/// An actor of a [`Sim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActorId(usize);

pub(super) struct Slot {
    dom: DomId,
    /// Taken out while it runs.
    actor: Option<Box<dyn Actor>>,
    stopped: bool,
    paused: bool,
    deadline: Option<Instant>,
}

impl Slot {
    const fn runs(&self) -> bool {
        !self.stopped && !self.paused
    }
}

/// Turns without any time passing, from which on the machine is taken to run in circles.
const TURNS_MAX: u32 = 1_000_000;

impl Sim {
    /// Lets `actor` run in `dom`; it gets its first turn soon. One actor for each domain, as taking
    /// the pending ports takes those of the whole domain.
    pub fn add_actor(&self, dom: DomId, actor: impl Actor + 'static) -> ActorId {
        let _ = self.domain(dom);
        let mut actors = self.world.actors.borrow_mut();
        let actor: Option<Box<dyn Actor>> = Some(Box::new(actor));
        actors.push(Slot {
            dom,
            actor,
            stopped: false,
            paused: false,
            deadline: Some(Instant::ZERO),
        });
        ActorId(actors.len() - 1)
    }

    /// Takes an actor off the machine; its domain stays.
    pub fn stop_actor(&self, id: ActorId) {
        if let Some(slot) = self.world.actors.borrow_mut().get_mut(id.0) {
            slot.stopped = true;
        }
    }

    /// Takes all actors off the machine and frees them. They hold handles to it and to each other, which
    /// would keep it for ever: to be called by whoever made it, when it is of no more use.
    pub fn scrap(&self) {
        let actors =
            self.world.actors.try_borrow_mut().map(|mut actors| core::mem::take(&mut *actors));
        // Freed when nothing is borrowed any more: what they hold gives itself back.
        drop(actors);
    }

    /// `xl pause` and `xl unpause`: the domain takes no turns, and all else is as if it did.
    pub fn pause(&self, dom: DomId, paused: bool) {
        for slot in self.world.actors.borrow_mut().iter_mut().filter(|s| s.dom == dom) {
            slot.paused = paused;
        }
    }

    pub(super) fn stop_actors(&self, dom: DomId) {
        for slot in self.world.actors.borrow_mut().iter_mut().filter(|s| s.dom == dom) {
            slot.stopped = true;
        }
    }

    /// Lets everybody run until nobody has anything to do at this instant.
    pub fn settle(&self) {
        self.settle_unless(&mut || false);
    }

    /// Runs the machine until the virtual time is `until`.
    pub fn run_until(&self, until: Instant) {
        self.run_until_or(until, || false);
    }

    /// Runs the machine until `done` or the virtual time is `until`; returns whether it is done.
    #[must_use]
    pub fn run_until_done(&self, until: Instant, done: impl FnMut() -> bool) -> bool {
        self.run_until_or(until, done)
    }

    fn run_until_or(&self, until: Instant, mut done: impl FnMut() -> bool) -> bool {
        loop {
            if self.settle_unless(&mut done) {
                return true;
            }
            if self.now() >= until {
                return false;
            }
            let next = self.next_deadline().map_or(until, |d| d.min(until));
            self.advance_to(next);
        }
    }

    /// Lets the actors run on behalf of a domain that sleeps until it is woken or `until`. Returns
    /// `false` if that would be for ever.
    pub(super) fn sleep(&self, until: Option<Instant>, woken: impl Fn() -> bool) -> bool {
        let mut woken = woken;
        loop {
            if self.settle_unless(&mut woken) || until.is_some_and(|u| self.now() >= u) {
                return true;
            }
            let next = match (self.next_deadline(), until) {
                (Some(a), Some(b)) => a.min(b),
                (Some(a), None) | (None, Some(a)) => a,
                (None, None) => return false,
            };
            self.advance_to(next);
        }
    }

    /// Whether this is called from within an actor's turn.
    pub(super) fn is_running(&self) -> bool {
        self.world.running.get()
    }

    fn advance_to(&self, at: Instant) {
        let mut state = self.world.state.borrow_mut();
        state.now = state.now.max(at);
    }

    fn next_deadline(&self) -> Option<Instant> {
        let actors = self.world.actors.borrow();
        actors.iter().filter(|s| s.runs()).filter_map(|s| s.deadline).min()
    }

    /// Returns whether it stopped because of `done`.
    fn settle_unless(&self, done: &mut impl FnMut() -> bool) -> bool {
        for _ in 0..TURNS_MAX {
            if done() {
                return true;
            }
            let Some(index) = self.next_actor() else { return false };
            self.turn(index);
        }
        panic!("the machine runs in circles at {:?}", self.now());
    }

    /// One of those that have something to do, by the seed.
    fn next_actor(&self) -> Option<usize> {
        let mut state = self.world.state.borrow_mut();
        let state = &mut *state;
        let actors = self.world.actors.borrow();
        let ready = |slot: &Slot| {
            let Some(actor) = &slot.actor else { return false };
            slot.runs()
                && (slot.deadline.is_some_and(|d| d <= state.now)
                    || state.domains.get(&slot.dom).is_some_and(|d| d.events.any_pending())
                    || actor.is_ready())
        };
        let ready: std::vec::Vec<usize> =
            actors.iter().enumerate().filter(|(_, s)| ready(s)).map(|(i, _)| i).collect();
        let pick = state.random().checked_rem(ready.len() as u64)?;
        ready.get(usize::try_from(pick).ok()?).copied()
    }

    fn turn(&self, index: usize) {
        let world = Rc::clone(&self.world);
        let Some(mut actor) = world.actors.borrow_mut()[index].actor.take() else { return };
        let was = world.running.replace(true);
        let dom = world.actors.borrow()[index].dom;
        self.bracket(dom, Bracket::Turn);
        let deadline = actor.turn();
        self.bracket(dom, Bracket::EndOfTurn);
        world.running.set(was);
        let slot = &mut world.actors.borrow_mut()[index];
        slot.actor = Some(actor);
        slot.deadline = deadline;
    }
}
