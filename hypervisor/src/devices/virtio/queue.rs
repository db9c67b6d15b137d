//! A split virtqueue, from the device's side.
//!
//! The driver puts chains of descriptors into the available ring; the device takes them one descriptor at a time
//! ([`Queue::current`], [`Queue::advance`]), so that it can stop in the middle of a buffer and go on there later, and puts
//! them into the used ring ([`Queue::finish`], [`Queue::settle`]).
//!
//! Follows virtio 1.2, 2.7. Without VIRTIO_F_INDIRECT_DESC and VIRTIO_F_EVENT_IDX.

use super::{Ram, Stop};
use crate::addr::{Addr, Ipa};

/// The most descriptors of a queue.
pub const MOST: u16 = 256;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const NO_INTERRUPT: u16 = 1;

/// A descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptor {
    /// Where the buffer is.
    pub at: Addr<Ipa>,
    /// Its bytes.
    pub bytes: u32,
    /// Whether the device may write it, and not read it.
    pub is_writable: bool,
    next: Option<u16>,
}

/// The chain the device is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    head: u16,
    index: u16,
    /// How many descriptors it has come by, this one included.
    steps: u16,
    /// How many bytes of this one are done.
    done: u32,
}

/// A queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Queue {
    /// How many descriptors it has, as the driver set it.
    pub size: u16,
    /// Whether the driver is done with setting it up.
    pub ready: bool,
    /// Where the descriptors are.
    pub descriptors: u64,
    /// Where the available ring is.
    pub available: u64,
    /// Where the used ring is.
    pub used: u64,
    /// How many chains were taken, modulo 2^16.
    taken: u16,
    /// How many were given back.
    given: u16,
    place: Option<Place>,
    /// The chain that is done and not given back yet: there was no memory for the used ring.
    owed: Option<u16>,
}

fn at(base: u64, offset: u64) -> Result<Addr<Ipa>, Stop> {
    Addr::new(base).checked_add(offset).ok_or(Stop::Broken("a queue ends behind the last address"))
}

fn read<const N: usize>(ram: &mut impl Ram, base: u64, offset: u64) -> Result<[u8; N], Stop> {
    let mut bytes = [0; N];
    ram.read(at(base, offset)?, &mut bytes)?;
    Ok(bytes)
}

impl Queue {
    /// Whether what the driver has set makes a queue (virtio 1.2, 2.7: sizes and alignments).
    pub fn is_sound(&self) -> bool {
        let sized = self.size.is_power_of_two() && self.size <= MOST;
        let aligned = [(self.descriptors, 16), (self.available, 2), (self.used, 4)];
        sized && aligned.iter().all(|(at, to)| at.is_multiple_of(*to))
    }

    /// The driver is done with setting it up: it begins with nothing taken.
    pub fn start(&mut self) {
        *self = Self { ready: true, taken: 0, given: 0, place: None, owed: None, ..*self };
    }

    /// The descriptor that is next, and how many of its bytes are done. Nothing if the driver has left none.
    pub fn current(&mut self, ram: &mut impl Ram) -> Result<Option<(Descriptor, u32)>, Stop> {
        if !self.ready {
            return Ok(None);
        }
        let place = match self.place {
            Some(place) => place,
            None => match self.take(ram)? {
                Some(head) => Place { head, index: head, steps: 1, done: 0 },
                None => return Ok(None),
            },
        };
        self.place = Some(place);
        let bytes: [u8; 16] = read(ram, self.descriptors, u64::from(place.index) * 16)?;
        let ([at, rest], []) = bytes.as_chunks::<8>() else { return Ok(None) };
        let (at, rest) = (u64::from_le_bytes(*at), u64::from_le_bytes(*rest));
        // The fields of `rest`: 32 bits of length, 16 of flags, 16 of next; the casts cut them out.
        let (bytes, flags, next) = (rest as u32, (rest >> 32) as u16, (rest >> 48) as u16);
        if flags & INDIRECT != 0 {
            return Err(Stop::Broken("an indirect descriptor, which was not agreed on"));
        }
        let next = (flags & NEXT != 0).then_some(next);
        Ok(Some((Descriptor { at: Addr::new(at), bytes, is_writable: flags & WRITE != 0, next }, place.done)))
    }

    /// So many bytes more of the current descriptor are done.
    pub fn progress(&mut self, bytes: u32) {
        if let Some(place) = &mut self.place {
            place.done = place.done.saturating_add(bytes);
        }
    }

    /// Goes on to the descriptor behind `this`, the current one. Returns the chain's head if it was the last.
    pub fn advance(&mut self, this: &Descriptor) -> Result<Option<u16>, Stop> {
        let Some(place) = &mut self.place else { return Ok(None) };
        match this.next {
            None => {
                let head = place.head;
                self.place = None;
                Ok(Some(head))
            }
            Some(next) if next >= self.size => Err(Stop::Broken("a descriptor's next is none")),
            Some(_) if place.steps >= self.size => Err(Stop::Broken("a chain of descriptors without an end")),
            Some(next) => {
                *place = Place { index: next, steps: place.steps + 1, done: 0, ..*place };
                Ok(None)
            }
        }
    }

    /// The chain of `head` is done: [`Queue::settle`] gives it back. What was owed before has to be settled.
    pub const fn finish(&mut self, head: u16) {
        self.owed = Some(head);
    }

    /// Gives the chain back that is done, if one is, and says whether the driver wants to be interrupted for it. Where
    /// there is no memory for that it is still owed.
    pub fn settle(&mut self, ram: &mut impl Ram) -> Result<bool, Stop> {
        let Some(head) = self.owed else { return Ok(false) };
        let slot = u64::from(self.given & (self.size - 1));
        let mut element = [0; 8];
        if let Some(id) = element.first_chunk_mut::<4>() {
            *id = u32::from(head).to_le_bytes();
        }
        ram.write(at(self.used, 4 + slot * 8)?, &element)?;
        // The element before the index that tells of it: `Ram` keeps the order, and the interrupt comes after both.
        let given = self.given.wrapping_add(1);
        ram.write(at(self.used, 2)?, &given.to_le_bytes())?;
        self.given = given;
        self.owed = None;
        match read(ram, self.available, 0) {
            Ok(flags) => Ok(u16::from_le_bytes(flags) & NO_INTERRUPT == 0),
            // One too many does no harm.
            Err(Stop::Short) => Ok(true),
            Err(why) => Err(why),
        }
    }

    /// Takes the next chain's head out of the available ring.
    fn take(&mut self, ram: &mut impl Ram) -> Result<Option<u16>, Stop> {
        let index: [u8; 2] = read(ram, self.available, 2)?;
        let waiting = u16::from_le_bytes(index).wrapping_sub(self.taken);
        if waiting == 0 {
            return Ok(None);
        }
        if waiting > self.size {
            return Err(Stop::Broken("more is available than the queue holds"));
        }
        let slot = u64::from(self.taken & (self.size - 1));
        let head = u16::from_le_bytes(read(ram, self.available, 4 + slot * 2)?);
        if head >= self.size {
            return Err(Stop::Broken("a chain begins at no descriptor"));
        }
        self.taken = self.taken.wrapping_add(1);
        Ok(Some(head))
    }
}
