//! The frame pool: one buddy allocator over all RAM, whose only memory is the records.
//!
//! [`Pool::new`] gets the board's RAM ranges and a slice of records to match, everything reserved; [`Pool::donate`] hands
//! over what is free to use, at boot and whenever more becomes so (the bundle after loading). After that nothing is
//! allocated. Free runs are powers of two of frames, aligned to their size in physical addresses, in doubly linked lists by
//! order; a bit mask says which lists are not empty, so that taking costs no search.
//!
//! A frame that is held has a record of its own, as if it had been taken alone: a 2 MiB block may come back page by page.
//! Free frames meet their buddies at once.
//!
//! Invariants, checked by [`Pool::check`]: each record is in exactly one state; runs in the lists are `Free` with their
//! order and the rest of them `Inside`; no two free buddies; the counts by state and by owner are those of the records. A
//! request that contradicts a record is refused and counted ([`Counts::contradictions`]): a frame lost beats one given twice.

use super::frame::{Dirty, Frame};
use super::record::{FrameState, HYPERVISOR, HYPERVISOR_BYTE, NONE, Order, Record, Use};
use crate::addr::{Addr, Pa, Size, VmId};
use arrayvec::ArrayVec;

/// The most separate ranges of RAM.
pub const MAX_RANGES: usize = 32;

/// The most VMs that can own frames; the hypervisor is one owner more.
pub const MAX_OWNERS: usize = 64;

/// A stretch of RAM: where it starts and its bytes.
pub type Stretch = (Addr<Pa>, u64);

/// A stretch of whole frames, and where its records start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    first: u64,
    frames: u64,
    base: u32,
}

/// How many frames are in which state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// All of them.
    pub total: u64,
    /// Not ours to give.
    pub reserved: u64,
    /// Free.
    pub free: u64,
    /// Guests' RAM.
    pub guest: u64,
    /// Translation tables.
    pub table: u64,
    /// Our own.
    pub hypervisor: u64,
    /// Shared by several leaves, or ready to be.
    pub shared: u64,
    /// Full of compressed pages, or partly so.
    pub store: u64,
    /// Requests that contradicted a record: bugs of ours.
    pub contradictions: u64,
}

/// Why there is no pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unusable {
    /// More than [`MAX_RANGES`] ranges of RAM, or more frames than 32 bits count. The board's description is to blame.
    TooMuch,
    /// Two ranges share frames, or one wraps. The board's description is to blame.
    Overlap,
    /// The records do not suffice: [`Pool::records_for`] was not asked.
    Records,
}

/// All frames.
#[derive(Debug)]
pub struct Pool<'a> {
    pub(super) records: &'a mut [Record],
    ranges: ArrayVec<Range, MAX_RANGES>,
    /// The first run of each order.
    heads: [u32; Order::COUNT],
    /// How many runs of each order.
    runs: [u32; Order::COUNT],
    /// Bit k: there are runs of order k.
    nonempty: u32,
    counts: [u64; FrameState::COUNT],
    /// Frames held by each owner; the last is the hypervisor.
    owned: [u64; MAX_OWNERS + 1],
    contradictions: u64,
    /// Frames that are not given to guests.
    reserve: u64,
    /// A block is only taken for a guest where as many frames stay free.
    tight: u64,
    pub(super) merging: Merging,
    pub(super) store: Bins,
    /// The swap area.
    pub swap: super::swap::Swap,
}

/// What merging counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Merging {
    pub(super) domains: [u8; MAX_OWNERS],
    /// How many leaves name shared frames, the bundle's own claim to its images included.
    pub(super) refs: u64,
    /// How many shared frames are the bundle's.
    pub(super) adopted: u64,
}

impl Default for Merging {
    /// Each VM in a domain of its own.
    fn default() -> Self {
        // Below 64, so they fit.
        Self { domains: core::array::from_fn(|n| n as u8), refs: 0, adopted: 0 }
    }
}

/// The lists of store frames, by how many units are free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bins(pub(super) [u32; 17]);

impl Default for Bins {
    fn default() -> Self {
        Self([NONE; 17])
    }
}

/// Whole frames inside a stretch: the first frame's number and how many.
fn whole((start, bytes): Stretch) -> Option<(u64, u64)> {
    let end = start.checked_add(bytes)?.bits() >> 12;
    let first = start.checked_add(Size::Page.bytes() - 1)?.bits() >> 12;
    Some((first, end.saturating_sub(first)))
}

impl<'a> Pool<'a> {
    /// How many records the pool needs for these ranges of RAM.
    pub fn records_for(ram: &[Stretch]) -> Result<usize, Unusable> {
        let mut total = 0_u64;
        for &stretch in ram {
            let (_, frames) = whole(stretch).ok_or(Unusable::Overlap)?;
            total = total.checked_add(frames).ok_or(Unusable::TooMuch)?;
        }
        // NONE is no frame's number.
        if total >= u64::from(NONE) {
            Err(Unusable::TooMuch)
        } else {
            usize::try_from(total).map_err(|_| Unusable::TooMuch)
        }
    }

    /// A pool over `ram` with nothing to give yet. `records` are overwritten; what they held is of no interest.
    pub fn new(records: &'a mut [Record], ram: &[Stretch]) -> Result<Self, Unusable> {
        let total = Self::records_for(ram)?;
        let records = records.get_mut(..total).ok_or(Unusable::Records)?;
        records.fill(Record::RESERVED);
        let mut ranges: ArrayVec<Range, MAX_RANGES> = ArrayVec::new();
        let mut base = 0_u32;
        for &stretch in ram {
            let (first, frames) = whole(stretch).ok_or(Unusable::Overlap)?;
            if ranges.iter().any(|other| first < other.first + other.frames && other.first < first + frames) {
                return Err(Unusable::Overlap);
            }
            if frames > 0 {
                ranges.try_push(Range { first, frames, base }).map_err(|_| Unusable::TooMuch)?;
            }
            // The sum is below NONE.
            base += frames as u32;
        }
        let mut counts = [0; FrameState::COUNT];
        counts[FrameState::Reserved as usize] = u64::from(base);
        Ok(Self {
            records,
            ranges,
            heads: [NONE; Order::COUNT],
            runs: [0; Order::COUNT],
            nonempty: 0,
            counts,
            owned: [0; MAX_OWNERS + 1],
            contradictions: 0,
            reserve: 0,
            tight: 0,
            merging: Merging::default(),
            store: Bins::default(),
            swap: super::swap::Swap::default(),
        })
    }

    /// Hands the whole frames of a stretch over to the pool, and returns how many it took. Frames that are not RAM or not
    /// reserved stay as they are.
    pub fn donate(&mut self, stretch: Stretch) -> u64 {
        let Some((first, frames)) = whole(stretch) else { return 0 };
        let mut taken = 0;
        for index in 0..self.ranges.len() {
            let range = self.ranges[index];
            let from = first.max(range.first);
            let to = (first + frames).min(range.first + range.frames);
            let mut number = from;
            while number < to {
                let order = longest(number, to - number);
                taken += self.donate_run(range, number, order);
                number += order.frames();
            }
        }
        taken
    }

    fn donate_run(&mut self, range: Range, number: u64, order: Order) -> u64 {
        let Some(at) = range.record(number) else { return 0 };
        let run = at as usize..at as usize + (1 << order.number());
        if self.records[run.clone()].iter().all(|record| record.state == FrameState::Reserved) {
            self.records[run].iter_mut().for_each(|record| record.turn_into(Record::inside()));
            self.count(FrameState::Reserved, FrameState::Free, HYPERVISOR, order.frames());
            self.push_merged(range, number, order);
            return order.frames();
        }
        // Part of it is ours already: by halves, down to single frames.
        let Some(half) = order.down() else { return 0 };
        self.donate_run(range, number, half) + self.donate_run(range, number + half.frames(), half)
    }

    /// Keeps the last `frames` free frames from guests' RAM: tables and the compressed store, which make room, need some
    /// when there is none.
    ///
    /// Guests get blocks only as long as `tight` frames stay free besides: a touch of one page should not take 512 where
    /// memory is short.
    pub fn set_reserve(&mut self, frames: u64, tight: u64) {
        self.reserve = frames;
        self.tight = tight;
    }

    /// Keeps a run for good.
    pub fn withhold(&mut self, frame: Frame<Dirty>) {
        let _ = frame.release();
    }

    /// Takes a run of frames for `owner`, aligned to its size, or nothing where there is none so long (nobody's fault), or
    /// `owner` is beyond [`MAX_OWNERS`].
    #[inline(always)]
    pub fn take(&mut self, order: impl Into<Order>, owner: VmId, purpose: Use) -> Option<Frame<Dirty>> {
        self.take_run(order.into(), owner, purpose)
    }

    fn take_run(&mut self, order: Order, owner: VmId, purpose: Use) -> Option<Frame<Dirty>> {
        owner_index(owner)?;
        let kept = if order == Order::PAGE { self.reserve } else { self.tight.max(self.reserve) };
        if purpose == Use::Guest && self.counts[FrameState::Free as usize] < kept + order.frames() {
            return None;
        }
        let found = (self.nonempty >> order.number()).trailing_zeros() + u32::from(order.number());
        // 32 and more where there is none.
        let mut have = Order::new(u8::try_from(found).ok()?)?;
        let at = self.heads[have.index()];
        self.unlink(at, have);
        while have > order {
            // Gives the upper half back; the lower half's address stays.
            have = have.down()?;
            self.link(at + (1 << have.number()), have);
        }
        let state = purpose.state();
        let run = at as usize..at as usize + (1 << order.number());
        let held = Record::held(state, owner_byte(owner));
        self.records[run].iter_mut().for_each(|record| record.turn_into(held));
        self.count(FrameState::Free, state, owner, order.frames());
        Some(Frame::new(self.address(at)?, order))
    }

    /// Gives a run back. Its contents do not matter; no table names it any more and no TLB remembers it.
    pub fn give_back(&mut self, frame: Frame<Dirty>) {
        let (start, order) = frame.release();
        let number = start.bits() >> 12;
        let Some((range, at)) = self.locate(number, order) else { return self.contradict() };
        match self.holder(at, order) {
            Some(owner) => self.free_run(range, number, order, owner),
            None => self.contradict(),
        }
    }

    /// Gives back a run that a table named and names no more, if the records agree that `owner` holds all of it alone. False, and
    /// nothing is done, if they do not.
    #[inline(always)]
    pub fn free_held(&mut self, start: Addr<Pa>, order: impl Into<Order>, owner: VmId) -> bool {
        self.free_held_run(start, order.into(), owner)
    }

    fn free_held_run(&mut self, start: Addr<Pa>, order: Order, owner: VmId) -> bool {
        let number = start.bits() >> 12;
        let located = self.locate(number, order).filter(|_| start.is_aligned(Size::Page));
        match located.filter(|(_, at)| self.holder(*at, order) == Some(owner)) {
            Some((range, _)) => {
                self.free_run(range, number, order, owner);
                true
            }
            None => {
                self.contradict();
                false
            }
        }
    }

    /// Who holds the run at record `at`, if all of it is alike.
    fn holder(&self, at: u32, order: Order) -> Option<VmId> {
        let run = self.records.get(at as usize..at as usize + (1 << order.number()))?;
        let first = run.first()?;
        first.owner().filter(|_| run.iter().all(|record| record.state == first.state && record.owner == first.owner))
    }

    /// Makes a run free whose records say that it is not, and are alike.
    pub(super) fn free_run(&mut self, range: Range, number: u64, order: Order, owner: VmId) {
        let Some(at) = range.record(number) else { return };
        let state = self.records[at as usize].state;
        let end = at + (1 << order.number());
        self.unchain_all(at, end);
        self.records[at as usize..end as usize].iter_mut().for_each(|record| record.turn_into(Record::inside()));
        self.count(state, FrameState::Free, owner, order.frames());
        self.push_merged(range, number, order);
    }

    /// Takes `count` frames from `at` on out of the chains by which equal contents are found: less to do when they come free. True if
    /// one was in a chain.
    pub fn forget_contents(&mut self, at: Addr<Pa>, count: u32) -> bool {
        self.locate(at.bits() >> 12, Order::PAGE)
            .is_some_and(|(_, first)| self.unchain_all(first, first.saturating_add(count)))
    }

    #[inline(never)]
    fn unchain_all(&mut self, first: u32, end: u32) -> bool {
        let mut any = false;
        for frame in first..end {
            // As few are of a run that is long.
            if self.records.get(frame as usize).is_some_and(|record| record.tag != 0) {
                self.unchain(frame);
                any = true;
            }
        }
        any
    }

    /// The record of the frame at `at`, if that is RAM.
    pub fn record(&self, at: Addr<Pa>) -> Option<&Record> {
        let (_, index) = self.locate(at.bits() >> 12, Order::PAGE)?;
        self.records.get(index as usize)
    }

    /// How many frames are in which state. Costs nothing.
    pub fn counts(&self) -> Counts {
        let of = |state: FrameState| self.counts[state as usize];
        Counts {
            total: self.records.len() as u64,
            reserved: of(FrameState::Reserved),
            free: of(FrameState::Free),
            guest: of(FrameState::Guest),
            table: of(FrameState::Table),
            hypervisor: of(FrameState::Hypervisor),
            shared: of(FrameState::Shared),
            store: of(FrameState::Store),
            contradictions: self.contradictions,
        }
    }

    /// How many frames `owner` holds. Costs nothing.
    pub fn owned_by(&self, owner: VmId) -> u64 {
        owner_index(owner).map_or(0, |index| self.owned[index])
    }

    /// How many free runs of each order there are. Costs nothing.
    pub const fn free_runs(&self) -> &[u32; Order::COUNT] {
        &self.runs
    }

    /// Compares everything with everything: all records, lists and counts. Costs a look at each record. The error names
    /// the invariant that does not hold.
    pub fn check(&self) -> Result<Counts, &'static str> {
        let mut states = [0; FrameState::COUNT];
        let mut owned = [0; MAX_OWNERS + 1];
        let mut runs = [0; Order::COUNT];
        for range in &self.ranges {
            let mut inside = 0;
            for number in range.first..range.first + range.frames {
                let at = range.record(number).ok_or("a range has a record for each frame")?;
                let record = self.records[at as usize];
                if (record.state == FrameState::Inside) != (inside > 0) {
                    return Err("a free run's first frame is followed by the rest of it");
                }
                inside = u64::saturating_sub(inside, 1);
                match record.state {
                    FrameState::Free => {
                        let order = Order::new(record.order()).ok_or("a free run has an order")?;
                        inside = order.frames() - 1;
                        runs[order.index()] += 1;
                        states[FrameState::Free as usize] += order.frames();
                        self.check_run(range, number, at, order)?;
                    }
                    FrameState::Inside => {}
                    held => states[held as usize] += 1,
                }
                if let Some(owner) = record.owner() {
                    owned[owner_index(owner).ok_or("an owner is known")?] += 1;
                }
            }
            if inside > 0 {
                return Err("a free run lies in one range");
            }
        }
        let masks = (0..Order::COUNT).all(|order| (self.runs[order] > 0) == (self.nonempty >> order & 1 != 0));
        match (states == self.counts, owned == self.owned, runs == self.runs && masks) {
            (true, true, true) => self.check_chains().map(|()| self.counts()),
            (false, _, _) => Err("the counts by state are those of the records"),
            (_, false, _) => Err("the counts by owner are those of the records"),
            (_, _, false) => Err("the counts of free runs are those of the records"),
        }
    }

    fn check_run(&self, range: &Range, number: u64, at: u32, order: Order) -> Result<(), &'static str> {
        if number & (order.frames() - 1) != 0 {
            return Err("a free run is aligned to its size");
        }
        if self.buddy(*range, number, order).is_some() {
            return Err("two free buddies are one run");
        }
        let record = self.records[at as usize];
        let before = if record.more == NONE {
            self.heads[order.index()]
        } else {
            self.records.get(record.more as usize).map_or(NONE, |r| r.next)
        };
        if before == at { Ok(()) } else { Err("a free run is in the list of its order") }
    }

    /// Makes a free run of frames that are `Inside` nothing, merged with its buddies.
    fn push_merged(&mut self, range: Range, mut number: u64, mut order: Order) {
        // At most 18 times: the order rises.
        while let (Some(buddy), Some(up)) = (self.buddy(range, number, order), order.up()) {
            self.unlink(buddy, order);
            number &= !(up.frames() - 1);
            order = up;
        }
        if let Some(at) = range.record(number) {
            self.link(at, order);
        }
    }

    /// The record of the buddy of a run, if that is a free run of the same order, and both in one make a larger order.
    fn buddy(&self, range: Range, number: u64, order: Order) -> Option<u32> {
        order.up()?;
        let at = range.record(number ^ order.frames())?;
        let record = self.records.get(at as usize)?;
        (record.state == FrameState::Free && record.order() == order.number()).then_some(at)
    }

    fn link(&mut self, at: u32, order: Order) {
        let head = self.heads[order.index()];
        self.records[at as usize].turn_into(Record::free(order, head));
        if head != NONE {
            self.records[head as usize].more = at;
        }
        self.heads[order.index()] = at;
        self.runs[order.index()] += 1;
        self.nonempty |= 1 << order.number();
    }

    fn unlink(&mut self, at: u32, order: Order) {
        let Record { next, more: prev, .. } = self.records[at as usize];
        if next != NONE {
            self.records[next as usize].more = prev;
        }
        if prev == NONE {
            self.heads[order.index()] = next;
        } else {
            self.records[prev as usize].next = next;
        }
        self.records[at as usize].turn_into(Record::inside());
        self.runs[order.index()] -= 1;
        if self.runs[order.index()] == 0 {
            self.nonempty &= !(1 << order.number());
        }
    }

    pub(super) fn count(&mut self, from: FrameState, to: FrameState, owner: VmId, frames: u64) {
        self.counts[from as usize] -= frames;
        self.counts[to as usize] += frames;
        if let Some(index) = owner_index(owner) {
            let owned = &mut self.owned[index];
            match (from.is_held(), to.is_held()) {
                (false, true) => *owned += frames,
                (true, false) => *owned -= frames,
                _ => {}
            }
        }
    }

    /// The range and record of an aligned run that lies in one range.
    pub(super) fn locate(&self, number: u64, order: Order) -> Option<(Range, u32)> {
        let range = *self.ranges.iter().find(|range| range.holds(number))?;
        let last = number.checked_add(order.frames() - 1)?;
        let aligned = number & (order.frames() - 1) == 0;
        (aligned && range.holds(last)).then_some((range, range.record(number)?))
    }

    pub(super) fn address(&self, at: u32) -> Option<Addr<Pa>> {
        let inside = |r: &&Range| at >= r.base && u64::from(at - r.base) < r.frames;
        let range = self.ranges.iter().find(inside)?;
        Some(Addr::new((range.first + u64::from(at - range.base)) << 12))
    }

    pub(super) fn contradict(&mut self) {
        self.contradictions += 1;
    }
}

impl Range {
    const fn holds(&self, number: u64) -> bool {
        number >= self.first && number - self.first < self.frames
    }

    /// The record of a frame, if the range has it.
    const fn record(&self, number: u64) -> Option<u32> {
        // Smaller than the number of records, which 32 bits count.
        if self.holds(number) { Some(self.base + (number - self.first) as u32) } else { None }
    }
}

/// The largest order that `number` is aligned to and `frames`, at least one, hold.
fn longest(number: u64, frames: u64) -> Order {
    let aligned = number.trailing_zeros();
    // Both at most 63; an order above the largest is the largest.
    Order::new(aligned.min(frames.ilog2()) as u8).unwrap_or(Order::MAX)
}

fn owner_index(owner: VmId) -> Option<usize> {
    match usize::from(owner.0) {
        _ if owner == HYPERVISOR => Some(MAX_OWNERS),
        index if index < MAX_OWNERS => Some(index),
        _ => None,
    }
}

/// An owner as a record has it; the pool has checked that it is one.
pub(super) fn owner_byte(owner: VmId) -> u8 {
    u8::try_from(owner.0).unwrap_or(HYPERVISOR_BYTE)
}
