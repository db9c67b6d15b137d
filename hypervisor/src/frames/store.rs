//! The compressed store: frames cut into 16 units of 256 bytes, each compressed page in a run of them.
//!
//! A [`Place`] names a run: the frame's record and the first unit. Which units are free is in the record (`tag`). Store
//! frames are in 17 lists by how many of their units are free; a run is looked for in the fullest frames first, a few of
//! each list, before another frame is taken. A frame all of whose units are free goes back at once.

use super::HOUSE;
use super::pool::Pool;
use super::record::{NONE, Order, Record, State, Use};
use crate::addr::{Addr, Pa, Size};

/// The bytes of a unit.
pub const UNIT: usize = 256;
/// How many frames of a list are looked at for a run of units.
const LOOKS: usize = 4;

/// The lists of store frames, by how many units are free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bins([u32; 17]);

impl Default for Bins {
    fn default() -> Self {
        Self([NONE; 17])
    }
}

/// Where a compressed page lies: the number of its frame's record times 16, and its first unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place(pub u32);

/// The first of `units` free units that follow each other, if there are.
fn run(free: u16, units: u32) -> Option<u32> {
    let mask = (1_u32 << units) - 1;
    (0..=16 - units).find(|first| u32::from(free) >> first & mask == mask)
}

impl Pool<'_> {
    /// Finds room for `units` units, 1 to 16. Takes a frame if it must; nothing if there is none.
    pub fn stow(&mut self, units: u32) -> Option<Place> {
        let units = units.clamp(1, 16);
        for bin in units as usize..=16 {
            let mut at = self.store.0[bin];
            for _ in 0..LOOKS {
                let Some(record) = self.records.get(at as usize) else { break };
                if let Some(first) = run(record.tag, units) {
                    return Some(self.occupy(at, first, units));
                }
                at = record.next;
            }
        }
        let frame = self.take(Size::Page, HOUSE, Use::House)?;
        let (_, at) = self.locate(frame.start().bits() >> 12, Order::PAGE)?;
        // From here on the record is what knows of the frame.
        let _ = frame.release();
        self.records[at as usize].turn_into(Record { state: State::Store, tag: u16::MAX, ..Record::RESERVED });
        self.count(State::House, State::Store, HOUSE, 1);
        self.enlist(at);
        Some(self.occupy(at, 0, units))
    }

    /// Gives `units` units from `place` on back.
    pub fn unstow(&mut self, place: Place, units: u32) {
        let (at, first) = (place.0 >> 4, place.0 & 15);
        let mask = ((1_u32 << units.clamp(1, 16)) - 1) << first;
        let Some(record) = self.records.get(at as usize) else { return self.contradict() };
        // 16 units: what goes beyond contradicts.
        if record.state != State::Store || mask > 0xffff || u32::from(record.tag) & mask != 0 {
            return self.contradict();
        }
        self.delist(at);
        self.records[at as usize].tag |= mask as u16;
        if self.records[at as usize].tag == u16::MAX {
            let located = self.address(at).and_then(|at| self.locate(at.bits() >> 12, Order::PAGE).map(|l| (at, l.0)));
            if let Some((address, range)) = located {
                self.free_run(range, address.bits() >> 12, Order::PAGE, HOUSE);
            }
        } else {
            self.enlist(at);
        }
    }

    /// Where the units of `place` begin.
    pub fn place(&self, place: Place) -> Option<Addr<Pa>> {
        let record = self.records.get((place.0 >> 4) as usize)?;
        let start = self.address(place.0 >> 4).filter(|_| record.state == State::Store)?;
        Some(start + u64::from(place.0 & 15) * UNIT as u64)
    }

    fn occupy(&mut self, at: u32, first: u32, units: u32) -> Place {
        self.delist(at);
        // 16 bits of a run inside the frame.
        self.records[at as usize].tag &= !((((1_u32 << units) - 1) << first) as u16);
        self.enlist(at);
        Place(at << 4 | first)
    }

    fn enlist(&mut self, at: u32) {
        let bin = self.records[at as usize].tag.count_ones() as usize;
        let head = self.store.0[bin];
        self.records[at as usize].next = head;
        self.records[at as usize].more = NONE;
        if let Some(head) = self.records.get_mut(head as usize) {
            head.more = at;
        }
        self.store.0[bin] = at;
    }

    fn delist(&mut self, at: u32) {
        let Record { next, more: before, tag, .. } = self.records[at as usize];
        if let Some(next) = self.records.get_mut(next as usize) {
            next.more = before;
        }
        match self.records.get_mut(before as usize) {
            Some(before) => before.next = next,
            None => self.store.0[tag.count_ones() as usize] = next,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::run;

    #[test]
    fn a_run_of_units_is_the_first_that_fits() {
        assert_eq!(run(u16::MAX, 16), Some(0));
        assert_eq!(run(0b0110_0111, 3), Some(0));
        assert_eq!(run(0b0111_0110, 3), Some(4));
        assert_eq!(run(0x8000, 1), Some(15));
        assert_eq!(run(0x8000, 2), None);
        assert_eq!(run(0, 1), None);
    }
}
