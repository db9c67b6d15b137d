//! A split virtqueue, from the device's side.
//!
//! The driver puts chains of descriptors into the available ring. A device takes them one descriptor at a time
//! ([`Queue::current`], [`Queue::advance`]), so that it can stop in the middle of a buffer and go on there later, or a whole
//! [`Chain`] at once ([`Queue::gather`]); and puts them into the used ring ([`Queue::finish`], [`Queue::settle`]).
//!
//! Follows virtio 1.2, 2.7, with VIRTIO_F_INDIRECT_DESC (2.7.5.3) and VIRTIO_F_EVENT_IDX (2.7.7, 2.7.10).

use super::{Ram, Stop};
use crate::addr::{Addr, Ipa};
use alloc::vec::Vec;
use core::sync::atomic::{Ordering, fence};

/// VIRTIO_F_INDIRECT_DESC: a descriptor may name a table of others.
pub const INDIRECT_DESC: u64 = 1 << 28;
/// VIRTIO_F_EVENT_IDX: each side says at which index of the other's it wants to be told.
pub const EVENT_IDX: u64 = 1 << 29;

/// The most descriptors of a queue, and of a table of indirect ones.
pub const MOST: u16 = 256;
/// How many descriptors of a chain are read at once.
const WINDOW: usize = 8;

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

/// A table of descriptors: the queue's own, or one that an indirect descriptor names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Table {
    at: u64,
    /// How many it has: at least one, at most [`MOST`].
    count: u16,
    is_indirect: bool,
}

/// The chain the device is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    head: u16,
    table: Table,
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
    /// The chain that is done and not given back yet, and how many bytes of it were written.
    owed: Option<(u16, u32)>,
    /// Whether VIRTIO_F_INDIRECT_DESC and VIRTIO_F_EVENT_IDX were agreed on.
    has_tables: bool,
    has_events: bool,
    /// The index at which the driver was asked to notify next.
    asked: u16,
    /// How often it was set up: what is under way in another life of it is not to be given back.
    life: u32,
}

/// Descriptors that were read together.
#[derive(Clone, Debug, Default)]
struct Window {
    /// Where the first lies.
    at: u64,
    /// How many there are.
    count: usize,
    bytes: [[u8; 16]; WINDOW],
}

/// A piece of memory that a chain names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Where it is.
    pub at: Addr<Ipa>,
    /// Its bytes.
    pub bytes: u32,
}

/// A whole chain: what the device may read of it, and behind that what it may write (2.7.4.2: in this order).
#[derive(Clone, Debug)]
pub struct Chain {
    segments: Vec<Segment>,
    /// How many of these are for the device to read.
    n_readable: usize,
    /// Whether some of it was gathered and the rest was not.
    is_open: bool,
    /// What was read of its table.
    window: Window,
}

impl Default for Chain {
    fn default() -> Self {
        // Room for all there can be, so that nothing is allocated while a guest waits.
        Self {
            segments: Vec::with_capacity(usize::from(MOST)),
            n_readable: 0,
            is_open: false,
            window: Window::default(),
        }
    }
}

impl Chain {
    /// What the device may read.
    pub fn readable(&self) -> &[Segment] {
        self.segments.get(..self.n_readable).unwrap_or_default()
    }

    /// What it may write.
    pub fn writable(&self) -> &[Segment] {
        self.segments.get(self.n_readable..).unwrap_or_default()
    }

    /// Begins a new one.
    fn open(&mut self) {
        self.segments.clear();
        self.n_readable = 0;
        self.is_open = true;
    }

    fn add(&mut self, descriptor: &Descriptor) -> Result<(), Stop> {
        if self.segments.len() >= usize::from(MOST) {
            return Err(Stop::Broken("a chain of too many descriptors"));
        }
        if descriptor.at.checked_add(descriptor.bytes.into()).is_none() {
            return Err(Stop::Broken("a buffer ends behind the last address"));
        }
        if !descriptor.is_writable && self.n_readable < self.segments.len() {
            return Err(Stop::Broken("a buffer to read behind one to write"));
        }
        self.segments.push(Segment { at: descriptor.at, bytes: descriptor.bytes });
        self.n_readable += usize::from(!descriptor.is_writable);
        Ok(())
    }
}

/// The bytes of all of `segments`: at most 256 times 2^32.
pub fn bytes_of(segments: &[Segment]) -> u64 {
    segments.iter().map(|segment| u64::from(segment.bytes)).sum()
}

/// A place in the bytes of a chain's segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cursor {
    segment: usize,
    offset: u32,
}

impl Cursor {
    /// The bytes here that lie together, at most `most`; nothing at the end.
    pub fn piece(&mut self, segments: &[Segment], most: u32) -> Option<Segment> {
        loop {
            let segment = segments.get(self.segment)?;
            let rest = segment.bytes.saturating_sub(self.offset);
            if rest > 0 {
                return Some(Segment { at: segment.at.checked_add(self.offset.into())?, bytes: rest.min(most) });
            }
            *self = Self { segment: self.segment + 1, offset: 0 };
        }
    }

    /// Goes on by `bytes`, which [`Cursor::piece`] has shown to lie together.
    pub const fn advance(&mut self, bytes: u32) {
        self.offset = self.offset.saturating_add(bytes);
    }

    /// Copies what is here of `segments` into `into`, all of it; false if there is less.
    pub fn read(&mut self, segments: &[Segment], ram: &mut impl Ram, into: &mut [u8]) -> Result<bool, Stop> {
        let mut rest = into;
        while !rest.is_empty() {
            // A length of what is asked for: less than 2^32.
            let Some(piece) = self.piece(segments, rest.len() as u32) else { return Ok(false) };
            let (now, later) = core::mem::take(&mut rest).split_at_mut(piece.bytes as usize);
            ram.read(piece.at, now)?;
            self.advance(piece.bytes);
            rest = later;
        }
        Ok(true)
    }

    /// Copies `bytes` to what is here of `segments`, all of it; false if there is less room.
    pub fn write(&mut self, segments: &[Segment], ram: &mut impl Ram, bytes: &[u8]) -> Result<bool, Stop> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some(piece) = self.piece(segments, rest.len() as u32) else { return Ok(false) };
            let (now, later) = rest.split_at(piece.bytes as usize);
            ram.write(piece.at, now)?;
            self.advance(piece.bytes);
            rest = later;
        }
        Ok(true)
    }
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

    /// The driver is done with setting it up, and has agreed to `features`: it begins with nothing taken.
    pub fn start(&mut self, features: u64) {
        let Self { size, descriptors, available, used, .. } = *self;
        *self = Self {
            size,
            ready: true,
            descriptors,
            available,
            used,
            has_tables: features & INDIRECT_DESC != 0,
            has_events: features & EVENT_IDX != 0,
            life: self.life.wrapping_add(1),
            // No index that it begins with, so that it is said once in any case.
            asked: u16::MAX,
            ..Self::default()
        };
    }

    /// As it was before it was set up; what it was used for until now is of another life.
    pub fn reset(&mut self) {
        *self = Self { life: self.life, ..Self::default() };
    }

    /// Which life of the queue this is: another each time that it is set up.
    pub const fn life(&self) -> u32 {
        self.life
    }

    /// The descriptor that is next, and how many of its bytes are done. Nothing if the driver has left none.
    pub fn current(&mut self, ram: &mut impl Ram) -> Result<Option<(Descriptor, u32)>, Stop> {
        if !self.ready {
            return Ok(None);
        }
        self.next_descriptor(ram, None)
    }

    /// The same; `window` is what was read by the last call, if that was for this chain, and takes more than one where it is read.
    fn next_descriptor(
        &mut self,
        ram: &mut impl Ram,
        mut window: Option<&mut Window>,
    ) -> Result<Option<(Descriptor, u32)>, Stop> {
        if self.place.is_none() {
            let Some(head) = self.take(ram)? else { return Ok(None) };
            let table = Table { at: self.descriptors, count: self.size, is_indirect: false };
            self.place = Some(Place { head, table, index: head, steps: 1, done: 0 });
        }
        let Some(mut place) = self.place else { return Ok(None) };
        // Twice at most: an indirect table has no indirect descriptors.
        loop {
            let (buffer, bytes, flags, next) = read_descriptor(ram, &place, window.as_deref_mut())?;
            if flags & INDIRECT == 0 {
                let next = (flags & NEXT != 0).then_some(next);
                let at = Addr::new(buffer);
                return Ok(Some((Descriptor { at, bytes, is_writable: flags & WRITE != 0, next }, place.done)));
            }
            if !self.has_tables {
                return Err(Stop::Broken("an indirect descriptor, which was not agreed on"));
            }
            if place.table.is_indirect || flags & NEXT != 0 {
                return Err(Stop::Broken("an indirect descriptor in a table of such, or before others"));
            }
            let count = bytes / 16;
            if count == 0 || !bytes.is_multiple_of(16) || count > MOST.into() {
                return Err(Stop::Broken("a table of indirect descriptors of a length that cannot be"));
            }
            // At most MOST, so it fits.
            let table = Table { at: buffer, count: count as u16, is_indirect: true };
            place = Place { table, index: 0, ..place };
            self.place = Some(place);
        }
    }

    /// Takes the next chain as a whole into `chain`, and returns its head; nothing if the driver has left none. Where there is
    /// no memory, it goes on with the next call.
    pub fn gather(&mut self, ram: &mut impl Ram, chain: &mut Chain) -> Result<Option<u16>, Stop> {
        if !self.ready {
            return Ok(None);
        }
        if self.place.is_none() {
            chain.is_open = false;
        }
        chain.window.count = 0;
        loop {
            let Some((this, _)) = self.next_descriptor(ram, Some(&mut chain.window))? else { return Ok(None) };
            if !chain.is_open {
                chain.open();
            }
            chain.add(&this)?;
            if let Some(head) = self.advance(&this)? {
                chain.is_open = false;
                return Ok(Some(head));
            }
        }
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
            Some(next) if next >= place.table.count => Err(Stop::Broken("a descriptor's next is none")),
            Some(_) if place.steps >= place.table.count => Err(Stop::Broken("a chain of descriptors without an end")),
            Some(next) => {
                *place = Place { index: next, steps: place.steps + 1, done: 0, ..*place };
                Ok(None)
            }
        }
    }

    /// The chain of `head` is done, `written` bytes of it were written: [`Queue::settle`] gives it back. What was owed before
    /// has to be settled.
    pub const fn finish(&mut self, head: u16, written: u32) {
        self.owed = Some((head, written));
    }

    /// Gives the chain back that is done, if one is, and says whether the driver wants to be interrupted for it. Where
    /// there is no memory for that it is still owed.
    pub fn settle(&mut self, ram: &mut impl Ram) -> Result<bool, Stop> {
        let Some((head, written)) = self.owed else { return Ok(false) };
        let slot = u64::from(self.given & (self.size - 1));
        // Of 32 bits each: the chain's head, and how much was written.
        let element = u64::from(head) | u64::from(written) << 32;
        ram.write(at(self.used, 4 + slot * 8)?, &element.to_le_bytes())?;
        // The element before the index that tells of it: `Ram` keeps the order, and the interrupt comes after both.
        let given = self.given.wrapping_add(1);
        ram.write(at(self.used, 2)?, &given.to_le_bytes())?;
        self.given = given;
        self.owed = None;
        // The driver writes what it wants and looks at the index once more: what is read here is later than the index, or it
        // would wait for an interrupt that nobody raises (2.7.7.1).
        fence(Ordering::SeqCst);
        let wish = if self.has_events { 4 + u64::from(self.size) * 2 } else { 0 };
        match read(ram, self.available, wish).map(u16::from_le_bytes) {
            Ok(event) if self.has_events => Ok(event == given.wrapping_sub(1)),
            Ok(flags) => Ok(flags & NO_INTERRUPT == 0),
            // One too many does no harm.
            Err(Stop::Short) => Ok(true),
            Err(why) => Err(why),
        }
    }

    /// Takes the next chain's head out of the available ring.
    fn take(&mut self, ram: &mut impl Ram) -> Result<Option<u16>, Stop> {
        let mut waiting = self.waiting(ram)?;
        if waiting == 0 && self.has_events && self.asked != self.taken {
            // The driver is to notify when it makes the next available; what it made meanwhile is seen here (2.7.10.1).
            ram.write(at(self.used, 4 + u64::from(self.size) * 8)?, &self.taken.to_le_bytes())?;
            self.asked = self.taken;
            fence(Ordering::SeqCst);
            waiting = self.waiting(ram)?;
        }
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

    /// How many chains the driver has made available that were not taken.
    fn waiting(&self, ram: &mut impl Ram) -> Result<u16, Stop> {
        let index: [u8; 2] = read(ram, self.available, 2)?;
        Ok(u16::from_le_bytes(index).wrapping_sub(self.taken))
    }
}

/// The descriptor at `place`: its buffer, bytes, flags, and next. It is read once.
fn read_descriptor(
    ram: &mut impl Ram,
    place: &Place,
    window: Option<&mut Window>,
) -> Result<(u64, u32, u16, u16), Stop> {
    let here = place.table.at.checked_add(u64::from(place.index) * 16);
    let here = here.ok_or(Stop::Broken("a table of descriptors ends behind the last address"))?;
    let Some(window) = window else {
        let mut bytes = [0; 16];
        ram.read(Addr::new(here), &mut bytes)?;
        return Ok(fields(bytes));
    };
    let is_read = here.checked_sub(window.at).is_some_and(|offset| offset < window.count as u64 * 16);
    if !is_read || !(here - window.at).is_multiple_of(16) {
        let count = usize::from(place.table.count.saturating_sub(place.index)).min(WINDOW);
        let Some(part) = window.bytes.get_mut(..count) else { return Err(Stop::Broken("no descriptor")) };
        window.count = 0;
        ram.read(Addr::new(here), part.as_flattened_mut())?;
        (window.at, window.count) = (here, count);
    }
    // Within the window.
    let nth = ((here - window.at) / 16) as usize;
    Ok(fields(window.bytes.get(nth).copied().unwrap_or_default()))
}

/// The fields of a descriptor: its buffer, bytes, flags, and next.
fn fields(bytes: [u8; 16]) -> (u64, u32, u16, u16) {
    let word = u128::from_le_bytes(bytes);
    // 64, 32, 16 and 16 bits; the casts cut them out.
    (word as u64, (word >> 64) as u32, (word >> 96) as u16, (word >> 112) as u16)
}
