//! Stage-2 tables over one table, any input and output space.
//!
//! [`Leaf<In, Out>`] is a translation, [`Table<In, Out>`] a tree of them. The spaces are parameters, so that a VM's own
//! table (`<Ipa, Pa>`), a guest hypervisor's (`<Ipa2, Ipa>`) and a shadow (`<Ipa2, Pa>`) cannot be taken for one
//! another; [`Leaf::then`] composes two of them and compiles in one order only:
//!
//! ```
//! use flatland::{addr::{Addr, Ipa, Ipa2, Pa, Size}, arm::desc::Attr, stage2::Leaf};
//! let l1: Leaf<Ipa2, Ipa> = Leaf::new(Addr::new(0x1000), Addr::new(0x4000_1000), Size::Page, Attr::RAM);
//! let own: Leaf<Ipa, Pa> = Leaf::new(Addr::new(0x4000_0000), Addr::new(0x8020_0000), Size::Block, Attr::RAM);
//! let shadow: Leaf<Ipa2, Pa> = l1.then(&own).unwrap();
//! assert_eq!((shadow.output, shadow.size), (Addr::new(0x8020_1000), Size::Page));
//! ```
//!
//! ```compile_fail,E0308
//! use flatland::{addr::{Addr, Ipa, Ipa2, Pa, Size}, arm::desc::Attr, stage2::Leaf};
//! let l1: Leaf<Ipa2, Ipa> = Leaf::new(Addr::new(0x1000), Addr::new(0x4000_1000), Size::Page, Attr::RAM);
//! let own: Leaf<Ipa, Pa> = Leaf::new(Addr::new(0x4000_0000), Addr::new(0x8020_0000), Size::Block, Attr::RAM);
//! let wrong = own.then(&l1);
//! ```
//!
//! [`walk`] reads, [`map`] writes (break-before-make is there and nowhere else), [`join`] makes tables of blocks and blocks
//! of tables, [`vmid`] hands out the numbers under which the hardware caches translations. A table is changed by one caller
//! at a time: whoever owns it holds its lock; the hardware walks it at any moment.
//!
//! Table frames come from the caller ([`Supply`]), who must hand in zeroed ones. A change is prepared, which may fail for
//! want of frames, and then committed, which cannot.
//!
//! Follows Arm ARM D8.2 (walks), D8.16 (break-before-make), D8.14 (VMIDs).

pub mod join;
pub mod map;
pub mod unlinked;
pub mod vmid;
pub mod walk;

use crate::addr::{Addr, Pa, Size, Space};
use crate::arm::desc::Attr;
use crate::arm::vmsa::{ENTRIES, Geometry, Level};
use core::marker::PhantomData;

/// One translation: `size` bytes from `input` are those from `output`. Both are aligned to `size`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf<In: Space, Out: Space> {
    /// Where it starts for whoever uses it.
    pub input: Addr<In>,
    /// Where that is.
    pub output: Addr<Out>,
    /// How much.
    pub size: Size,
    /// What it may be used for.
    pub attr: Attr,
}

impl<In: Space, Out: Space> Leaf<In, Out> {
    /// The translation of the `size` block around `input` to the one around `output`.
    pub const fn new(input: Addr<In>, output: Addr<Out>, size: Size, attr: Attr) -> Self {
        Self { input: input.align_down(size), output: output.align_down(size), size, attr }
    }

    /// Where `at` is, if this leaf translates it.
    pub const fn output_of(&self, at: Addr<In>) -> Option<Addr<Out>> {
        if at.align_down(self.size).bits() == self.input.bits() {
            self.output.checked_add(at.offset_in(self.size))
        } else {
            None
        }
    }

    /// Follows this translation by `next`: the part of it that `next` translates on, with the smaller of the sizes and the
    /// common of the rights. Nothing where the output of this is not the input of that.
    pub fn then<Next: Space>(&self, next: &Leaf<Out, Next>) -> Option<Leaf<In, Next>> {
        let attr = self.attr.common(next.attr);
        if self.size <= next.size {
            let output = next.output_of(self.output)?;
            Some(Leaf { input: self.input, output, size: self.size, attr })
        } else {
            let part = next.input.distance_from(self.output).filter(|&part| part < self.size.bytes())?;
            Some(Leaf { input: self.input.checked_add(part)?, output: next.output, size: next.size, attr })
        }
    }
}

/// A tree of descriptors: where its root is and what shape it has. The descriptors are in the machine's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Table<In: Space, Out: Space> {
    root: Addr<Pa>,
    geometry: Geometry,
    spaces: PhantomData<(In, Out)>,
}

impl<In: Space, Out: Space> Table<In, Out> {
    /// The tree whose root lies at `root`: [`Geometry::root_tables`] zeroed frames, aligned to their size.
    pub const fn new(root: Addr<Pa>, geometry: Geometry) -> Self {
        Self { root, geometry, spaces: PhantomData }
    }

    /// Where the root is.
    pub const fn root(&self) -> Addr<Pa> {
        self.root
    }

    /// The shape.
    pub const fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// How many descriptors the root has.
    pub const fn root_entries(&self) -> u64 {
        self.geometry.root_tables() * ENTRIES
    }

    /// The root's descriptor for `at`, or nothing where `at` has too many bits.
    fn root_entry(&self, at: Addr<In>) -> Option<Entry<In>> {
        let level = self.geometry.start();
        let index = self.geometry.root_index(at.bits())?;
        Some(Entry { at: descriptor_at(self.root, index), input: start_of(at, level), level })
    }
}

/// One descriptor in its tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<In: Space> {
    /// Where the descriptor is.
    pub at: Addr<Pa>,
    /// The first input address it speaks for.
    pub input: Addr<In>,
    /// Its level.
    pub level: Level,
}

impl<In: Space> Entry<In> {
    /// The descriptor for `at` in the table at `table`, of level `level`.
    fn new(table: Addr<Pa>, at: Addr<In>, level: Level) -> Self {
        Self { at: descriptor_at(table, level.index(at.bits())), input: start_of(at, level), level }
    }
}

/// Where the table's descriptor number `index` is. Tables are RAM below 2^48 and `index` is below 16 times 512, so that
/// nothing can wrap.
fn descriptor_at(table: Addr<Pa>, index: u64) -> Addr<Pa> {
    Addr::new(table.bits() | index << 3)
}

/// The first input address of the descriptor that speaks for `at` at `level`.
const fn start_of<In: Space>(at: Addr<In>, level: Level) -> Addr<In> {
    Addr::new(at.bits() & !(level.span() - 1))
}

/// Where frames for tables come from and go to.
pub trait Supply {
    /// A frame full of zeroes that every CPU sees as such, or nothing.
    fn take(&mut self) -> Option<Addr<Pa>>;
    /// Takes back a frame that no table names and no CPU has in a TLB. Its contents are stale descriptors.
    fn give(&mut self, table: Addr<Pa>);
}

/// Why a table was left as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The address has more bits than the table translates, or none of its levels has such leaves.
    Outside,
    /// Input or output is not aligned to the size.
    Unaligned,
    /// Something is mapped there already, or there is a table where a leaf was to go.
    Occupied,
    /// Nothing, or nothing of that size, is mapped there.
    Missing,
    /// The parts do not make up one leaf or one hole.
    Uneven,
    /// No frame for a table. Nobody's fault: find some and try again.
    Short,
}

#[cfg(test)]
mod tests {
    use super::Leaf;
    use crate::addr::{Addr, Ipa, Ipa2, Pa, Size};
    use crate::arm::desc::Attr;

    #[test]
    fn a_block_then_a_page_is_that_page_of_the_block() {
        let block: Leaf<Ipa2, Ipa> = Leaf::new(Addr::new(0x20_0000), Addr::new(0x4000_0000), Size::Block, Attr::RAM);
        let page: Leaf<Ipa, Pa> = Leaf::new(Addr::new(0x4000_5000), Addr::new(0x9000), Size::Page, Attr::DEVICE);
        let folded = block.then(&page).unwrap();
        assert_eq!(folded, Leaf::new(Addr::new(0x20_5000), Addr::new(0x9000), Size::Page, Attr::DEVICE));
    }

    #[test]
    fn leaves_that_do_not_meet_make_none() {
        let first: Leaf<Ipa2, Ipa> = Leaf::new(Addr::new(0), Addr::new(0x4000_0000), Size::Block, Attr::RAM);
        for (at, size) in [(0x4020_0000, Size::Page), (0x3fff_f000, Size::Page), (0x8000_0000, Size::Giant)] {
            let second: Leaf<Ipa, Pa> = Leaf::new(Addr::new(at), Addr::new(0), size, Attr::RAM);
            assert_eq!(first.then(&second), None);
        }
    }
}
