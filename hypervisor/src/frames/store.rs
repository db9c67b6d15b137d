//! The compressed store: frames cut into 16 units of 256 bytes, each compressed page in a chain of them.
//!
//! A [`UnitId`] names a unit: the frame's record and which of its units. Which units are free is in the record (`tag`). Store
//! frames are in 17 lists by how many of their units are free. A page takes its units from the fullest frames first, as
//! many from each as there are, before another frame is taken: so every free unit is of use, whatever the sizes of pages
//! are, and half-empty frames fill up or run empty. A frame all of whose units are free goes back at once.

use super::HYPERVISOR;
use super::pool::Pool;
use super::record::{FrameState, NONE, Order, Record, Use};
use crate::addr::{Addr, Pa, Size};
use arrayvec::ArrayVec;

/// The bytes of a unit.
pub const UNIT: usize = 256;
/// The most units of a page: a quarter of the frame is saved at least.
pub const MOST_UNITS: usize = 12;

/// The units of a page, in order.
pub type Chain = ArrayVec<UnitId, MOST_UNITS>;

/// Where a unit lies: the number of its frame's record times 16, and which of the frame's it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnitId(pub u32);

impl Pool<'_> {
    /// Finds `units` units, 1 to [`MOST_UNITS`]. Takes a frame if it must; nothing if there is none.
    pub fn stow(&mut self, units: u32) -> Option<Chain> {
        let mut chain = Chain::new();
        let wanted = (units as usize).clamp(1, MOST_UNITS);
        while chain.len() < wanted {
            let fullest = self.store.0.iter().skip(1).copied().find(|at| *at != NONE);
            let Some(at) = fullest.or_else(|| self.new_frame()) else {
                chain.into_iter().for_each(|place| self.unstow(place));
                return None;
            };
            self.delist(at);
            let free = &mut self.records[at as usize].tag;
            while *free != 0 && chain.len() < wanted {
                chain.push(UnitId(at << 4 | free.trailing_zeros()));
                *free &= *free - 1;
            }
            self.enlist(at);
        }
        Some(chain)
    }

    /// Takes a frame for the store, all of whose units are free.
    fn new_frame(&mut self) -> Option<u32> {
        let frame = self.take(Size::Page, HYPERVISOR, Use::Hypervisor)?;
        let (_, at) = self.locate(frame.start().bits() >> 12, Order::PAGE)?;
        // From here on the record is what knows of the frame.
        let _ = frame.release();
        self.records[at as usize].turn_into(Record { state: FrameState::Store, tag: u16::MAX, ..Record::RESERVED });
        self.count(FrameState::Hypervisor, FrameState::Store, HYPERVISOR, 1);
        self.enlist(at);
        Some(at)
    }

    /// Gives a unit back.
    pub fn unstow(&mut self, place: UnitId) {
        let (at, unit) = (place.0 >> 4, 1_u16 << (place.0 & 15));
        let Some(record) = self.records.get(at as usize) else { return self.contradict() };
        if record.state != FrameState::Store || record.tag & unit != 0 {
            return self.contradict();
        }
        self.delist(at);
        self.records[at as usize].tag |= unit;
        if self.records[at as usize].tag == u16::MAX {
            let located = self.address(at).and_then(|at| self.locate(at.bits() >> 12, Order::PAGE).map(|l| (at, l.0)));
            if let Some((address, range)) = located {
                self.free_run(range, address.bits() >> 12, Order::PAGE, HYPERVISOR);
            }
        } else {
            self.enlist(at);
        }
    }

    /// Where the unit of `place` begins, if it is one of the store's.
    pub fn place(&self, place: UnitId) -> Option<Addr<Pa>> {
        let record = self.records.get((place.0 >> 4) as usize)?;
        let start = self.address(place.0 >> 4).filter(|_| record.state == FrameState::Store)?;
        Some(start + u64::from(place.0 & 15) * UNIT as u64)
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
    use super::{MOST_UNITS, UnitId};
    use crate::addr::Addr;
    use crate::frames::{Pool, Record};
    use alloc::collections::BTreeSet;
    use alloc::vec;

    #[test]
    fn units_of_the_fullest_frames_go_first_and_empty_frames_go_back() {
        let ram = [(Addr::new(0), 4 << 12)];
        let mut records = vec![Record::RESERVED; 4];
        let mut pool = Pool::new(&mut records, &ram).unwrap();
        pool.donate(ram[0]);
        let chains: [_; 5] = core::array::from_fn(|_| pool.stow(12).unwrap());
        assert_eq!((pool.counts().store, pool.counts().free), (4, 0), "60 units in 4 frames of 16");
        assert_eq!(pool.stow(5), None, "four units are left");
        let all: BTreeSet<u32> = chains.iter().flatten().map(|place| place.0).collect();
        assert_eq!((all.len(), pool.stow(4).map(|chain| chain.len())), (5 * MOST_UNITS, Some(4)));
        chains[1].iter().for_each(|place| pool.unstow(*place));
        pool.unstow(chains[1][0]);
        pool.unstow(UnitId(u32::MAX));
        assert_eq!(pool.counts().contradictions, 2);
        chains.iter().enumerate().filter(|(n, _)| *n != 1).flat_map(|(_, chain)| chain).for_each(|p| pool.unstow(*p));
        assert_eq!((pool.counts().store, pool.check().unwrap().free), (1, 3), "the four are in one frame");
    }
}
