//! A table with fixed places.
//!
//! In: values. Out: the place of each, which stays until it is removed. Never: more than it was
//! made for, an allocation after that, or a moved value.

use alloc::vec::Vec;

/// A value that knows how often its place was used before, so that the next one can tell.
pub(crate) trait Stamped {
    /// The generation it was inserted with.
    fn generation(&self) -> u16;
}

/// One place. `T` lends a niche for the tag, so this is no larger than `T`.
#[derive(Debug)]
pub(crate) enum Place<T> {
    Vacant { next: Option<core::num::NonZeroU32>, generation: u16 },
    Taken(T),
}

/// The table.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<Place<T>>,
    capacity: u32,
    /// The first of the vacant places that were in use before, plus one.
    vacant: Option<core::num::NonZeroU32>,
    len: u32,
}

impl<T: Stamped> Slab<T> {
    /// An empty table for `capacity` values.
    pub(crate) fn new(capacity: u32) -> Self {
        let places = Vec::with_capacity(usize::try_from(capacity).unwrap_or(usize::MAX));
        Self { places, capacity, vacant: None, len: 0 }
    }

    /// How many values there are.
    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    /// How many places were ever used: no value has an index that is not below.
    pub(crate) fn places(&self) -> u32 {
        u32::try_from(self.places.len()).unwrap_or(u32::MAX)
    }

    /// How many there can be.
    pub(crate) const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Puts a value, made for the generation of its place, somewhere; `None` if all are taken.
    pub(crate) fn insert(&mut self, make: impl FnOnce(u16) -> T) -> Option<u32> {
        if self.len >= self.capacity {
            return None;
        }
        let index = if let Some(after) = self.vacant {
            let index = after.get() - 1;
            let place = self.places.get_mut(usize::try_from(index).ok()?)?;
            let Place::Vacant { next, generation } = *place else { return None };
            self.vacant = next;
            *place = Place::Taken(make(generation));
            index
        } else {
            let index = u32::try_from(self.places.len()).ok()?;
            self.places.push(Place::Taken(make(0)));
            index
        };
        self.len += 1;
        Some(index)
    }

    /// Takes a value out; its place is vacant, one generation on.
    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let place = self.places.get_mut(usize::try_from(index).ok()?)?;
        let Place::Taken(value) = &*place else { return None };
        let generation = value.generation().wrapping_add(1);
        let vacant = Place::Vacant { next: self.vacant, generation };
        let Place::Taken(value) = core::mem::replace(place, vacant) else { return None };
        self.vacant = core::num::NonZeroU32::new(index + 1);
        self.len -= 1;
        Some(value)
    }

    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        match self.places.get(index as usize)? {
            Place::Taken(value) => Some(value),
            Place::Vacant { .. } => None,
        }
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        match self.places.get_mut(index as usize)? {
            Place::Taken(value) => Some(value),
            Place::Vacant { .. } => None,
        }
    }
}
