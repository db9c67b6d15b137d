//! The record of one frame: 16 bytes, the whole of what is known about it, and about merging at large.
//!
//! ```text
//!  0       1       2      4        8        12       16
//! ┌───────┬───────┬──────┬────────┬────────┬────────┐
//! │ state │ owner │ tag  │ next   │ more   │ head   │
//! └───────┴───────┴──────┴────────┴────────┴────────┘
//! ```
//!
//! | state | owner | tag | next, more |
//! |---|---|---|---|
//! | free | | order of the run | links of its order's list |
//! | guest | a VM | of the contents' hash when last scanned, 0: never | link of the hash chain; page and calm |
//! | shared | a merge domain | of the contents' hash, 0: in no chain | link of the hash chain; how many leaves name it |
//! | store | | bit n: unit n is free | links of the list of store frames as full as this one |
//!
//! `head` has nothing to do with the frame itself: record n holds the first link of hash chain n, so that the hash table of
//! merging costs no memory of its own ([`super::hints`]). Zeroed memory is a valid array of records: frames that the pool
//! may not use, and empty chains. At 16 bytes for 4 KiB all of it takes 0.4 % of the RAM it describes.

use crate::addr::{Size, VmId};

/// The owner of what belongs to no VM.
pub const HYPERVISOR: VmId = VmId(u16::MAX);

/// What a frame is for.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FrameState {
    /// Not ours to give: firmware, our own image, the records.
    #[default]
    Reserved = 0,
    /// The first frame of a free run; `order` says how long it is.
    Free = 1,
    /// In a free run, but not its first.
    Inside = 2,
    /// A guest's RAM, or on its way there.
    Guest = 3,
    /// A translation table.
    Table = 4,
    /// For our own use.
    Hypervisor = 5,
    /// RAM that several leaves may name, none of which may write.
    Shared = 6,
    /// Cut into units that hold compressed pages.
    Store = 7,
}

impl FrameState {
    /// How many there are.
    pub const COUNT: usize = 8;

    /// Whether one owner holds the frame.
    pub const fn is_held(self) -> bool {
        matches!(self, Self::Guest | Self::Table | Self::Hypervisor)
    }
}

/// What a frame is taken for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// A guest's RAM.
    Guest,
    /// A translation table.
    Table,
    /// Anything of our own.
    Hypervisor,
}

impl Use {
    /// The state of a frame in such use.
    pub const fn state(self) -> FrameState {
        match self {
            Self::Guest => FrameState::Guest,
            Self::Table => FrameState::Table,
            Self::Hypervisor => FrameState::Hypervisor,
        }
    }
}

/// A power of two of frames: 4 KiB shifted left by this.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Order(u8);

impl Order {
    /// How many orders there are: 4 KiB to 1 GiB.
    pub const COUNT: usize = 19;
    /// One frame.
    pub const PAGE: Self = Self(0);
    /// The largest: 1 GiB.
    pub const MAX: Self = Self(18);

    /// The order whose number is `order`, if there is one.
    pub const fn new(order: u8) -> Option<Self> {
        if order <= Self::MAX.0 { Some(Self(order)) } else { None }
    }

    /// The least order that holds `frames` frames, if there is one.
    pub const fn holding(frames: u64) -> Option<Self> {
        if frames == 0 || frames > Self::MAX.frames() {
            return None;
        }
        // At most 18.
        Some(Self(frames.next_power_of_two().trailing_zeros() as u8))
    }

    /// Its number.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Its number, to index with.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// How many frames.
    pub const fn frames(self) -> u64 {
        1 << self.0
    }

    /// How many bytes.
    pub const fn bytes(self) -> u64 {
        self.frames() << 12
    }

    /// The next larger, if there is one.
    pub const fn up(self) -> Option<Self> {
        Self::new(self.0 + 1)
    }

    /// The next smaller, if there is one.
    pub const fn down(self) -> Option<Self> {
        match self.0 {
            0 => None,
            number => Some(Self(number - 1)),
        }
    }
}

impl From<Size> for Order {
    fn from(size: Size) -> Self {
        Self(match size {
            Size::Page => 0,
            Size::Block => 9,
            Size::Giant => 18,
        })
    }
}

/// No frame: the end of a list.
pub(super) const NONE: u32 = u32::MAX;

/// What is known of one frame. Aligned to be written by words.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Record {
    pub(super) state: FrameState,
    pub(super) owner: u8,
    pub(super) tag: u16,
    pub(super) next: u32,
    pub(super) more: u32,
    pub(super) head: u32,
}

const _: () = assert!(size_of::<Record>() == 16 && align_of::<Record>() <= 8);

impl Record {
    /// The record of a frame that is not ours to give: all bits zero.
    pub const RESERVED: Self = Self { state: FrameState::Reserved, owner: 0, tag: 0, next: 0, more: 0, head: 0 };

    /// What the frame is for.
    pub const fn state(&self) -> FrameState {
        self.state
    }

    /// Whose it is, if one owner holds it.
    pub const fn owner(&self) -> Option<VmId> {
        match (self.state.is_held(), self.owner) {
            (false, _) => None,
            (true, HYPERVISOR_BYTE) => Some(super::HYPERVISOR),
            (true, owner) => Some(VmId(owner as u16)),
        }
    }

    /// How many leaves name it.
    pub const fn refs(&self) -> u32 {
        match self.state {
            FrameState::Shared => self.more,
            state if state.is_held() => 1,
            _ => 0,
        }
    }

    /// The order of a free run.
    pub(super) const fn order(&self) -> u8 {
        // Orders are below 19.
        self.tag as u8
    }

    /// Makes it say something else of its frame; the chain that hangs on it stays.
    pub(super) const fn turn_into(&mut self, new: Self) {
        *self = Self { head: self.head, ..new };
    }

    pub(super) const fn free(order: Order, next: u32) -> Self {
        Self { state: FrameState::Free, tag: order.number() as u16, next, more: NONE, ..Self::RESERVED }
    }

    pub(super) const fn inside() -> Self {
        // In no list.
        Self { state: FrameState::Inside, next: NONE, more: NONE, ..Self::RESERVED }
    }

    pub(super) const fn held(state: FrameState, owner: u8) -> Self {
        Self { state, owner, ..Self::RESERVED }
    }
}

/// The hypervisor as an owner in a record.
pub(super) const HYPERVISOR_BYTE: u8 = u8::MAX;
