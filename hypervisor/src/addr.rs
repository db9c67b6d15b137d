//! Addresses and names: one type per address space, so that spaces do not mix.
//!
//! [`Addr<S>`] is an address in the space `S`: physical ([`Pa`]), intermediate physical of a VM ([`Ipa`]), intermediate
//! physical of a guest's guest ([`Ipa2`]), or virtual ([`Va`]). Arithmetic is only `+ bytes`, [`Addr::align_down`] and
//! [`Addr::offset_in`]; [`Addr::bits`] is the one way out.

use core::fmt;
use core::marker::PhantomData;
use core::ops::Add;

/// An address space. Implemented by the empty types [`Pa`], [`Ipa`], [`Ipa2`] and [`Va`] alone.
pub trait Space: Copy + Ord + fmt::Debug + 'static {
    /// What the addresses of this space are called in messages.
    const NAME: &'static str;
}

macro_rules! spaces {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
        pub enum $name {}
        impl Space for $name {
            const NAME: &'static str = $text;
        }
    )*};
}

spaces! {
    /// Physical addresses: what the board's memory answers to.
    Pa = "PA";
    /// Intermediate physical addresses: what a VM takes for physical.
    Ipa = "IPA";
    /// Intermediate physical addresses of a guest's guest (L2).
    Ipa2 = "IPA2";
    /// Virtual addresses, of whoever is speaking.
    Va = "VA";
}

/// An address in the space `S`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr<S: Space> {
    bits: u64,
    space: PhantomData<S>,
}

impl<S: Space> Addr<S> {
    /// The address with these bits.
    pub const fn new(bits: u64) -> Self {
        Self { bits, space: PhantomData }
    }

    /// The bits: the one way out of the type.
    pub const fn bits(self) -> u64 {
        self.bits
    }

    /// The start of the `size` block that holds this address.
    pub const fn align_down(self, size: Size) -> Self {
        Self::new(self.bits & !(size.bytes() - 1))
    }

    /// How far this address lies inside its `size` block, in bytes.
    pub const fn offset_in(self, size: Size) -> u64 {
        self.bits & (size.bytes() - 1)
    }

    /// Whether this address starts a `size` block.
    pub const fn is_aligned(self, size: Size) -> bool {
        self.offset_in(size) == 0
    }

    /// This address plus `bytes`, or nothing where it would wrap.
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.bits.checked_add(bytes) {
            Some(bits) => Some(Self::new(bits)),
            None => None,
        }
    }

    /// The bytes from `start` up to this address, or nothing where `start` lies above it.
    pub const fn distance_from(self, start: Self) -> Option<u64> {
        self.bits.checked_sub(start.bits)
    }
}

impl<S: Space> Add<u64> for Addr<S> {
    type Output = Self;
    fn add(self, bytes: u64) -> Self {
        Self::new(self.bits + bytes)
    }
}

impl<S: Space> fmt::Debug for Addr<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:#x}", S::NAME, self.bits)
    }
}

impl<S: Space> fmt::Display for Addr<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.bits)
    }
}

/// The leaf sizes of the 4 KiB granule (Arm ARM D8.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Size {
    /// 4 KiB: a page, or a frame. Level 3.
    Page,
    /// 2 MiB: a block. Level 2.
    Block,
    /// 1 GiB. Level 1.
    Giant,
}

impl Size {
    /// All sizes, the largest first.
    pub const ALL: [Self; 3] = [Self::Giant, Self::Block, Self::Page];

    /// The bytes of one.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Page => 1 << 12,
            Self::Block => 1 << 21,
            Self::Giant => 1 << 30,
        }
    }

    /// How many 4 KiB frames one holds.
    pub const fn frames(self) -> u64 {
        self.bytes() >> 12
    }
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident($repr:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
        pub struct $name(pub $repr);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

names! {
    /// A VM: its place in the manifest, from 0.
    VmId(u16);
    /// A vCPU within its VM, from 0.
    VcpuId(u16);
    /// A physical CPU: its place in the board's device tree, from 0.
    CpuId(u16);
    /// The number under which the hardware keeps a stage-2 table's translations apart (Arm ARM D8.14).
    Vmid(u16);
    /// A GIC interrupt number: 0 to 15 SGI, 16 to 31 PPI, 32 and up SPI.
    IntId(u32);
}

impl IntId {
    /// Whether each vCPU has its own (SGIs and PPIs).
    pub const fn is_private(self) -> bool {
        self.0 < 32
    }
    /// Whether this is a software-generated interrupt.
    pub const fn is_sgi(self) -> bool {
        self.0 < 16
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Whether it is a group's: broadcast or multicast.
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl core::fmt::Display for Mac {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [first, rest @ ..] = self.0;
        write!(f, "{first:02x}")?;
        rest.iter().try_for_each(|byte| write!(f, ":{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Addr, Ipa, Size};

    #[test]
    fn rounding_goes_down_to_the_block() {
        let at = Addr::<Ipa>::new(0x4020_1234);
        assert_eq!(at.align_down(Size::Block), Addr::new(0x4020_0000));
        assert_eq!(at.offset_in(Size::Page), 0x234);
        assert!(!at.is_aligned(Size::Page));
        assert_eq!(at.distance_from(Addr::new(0x4000_0000)), Some(0x20_1234));
    }
}
