//! Where in a VM's RAM the initial RAM disk and the device tree go, as QEMU's `virt` board does it.
//!
//! ```text
//! base            base + min(128M, half)                                      end
//!  │ kernel ... │        │ initrd │ modules ... │  ... 2M │ device tree │        │
//! ```
//!
//! The initrd lies on the page after the kernel, but not below the smaller of 128 MiB and half of the RAM, and each module on the page
//! after what is before it. The device
//! tree lies on the 2 MiB boundary after it; under an ELF file that leaves the start of RAM free it lies there. Unlike
//! QEMU, which gives up, a small VM may have it on the page after the initrd, or below the kernel.
//!
//! Key types: [`Ram`], [`Stretch`]. All arithmetic saturates or is checked: sizes and addresses come from images.

use super::{Amount, Limits};
use crate::addr::{Addr, Ipa, Size};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// What is kept free for the device tree, in bytes. Trees of [`crate::vm`] never need more.
pub const DTB_ROOM: u64 = 64 << 10;
/// Above this offset, QEMU puts an initrd no matter how much RAM there is.
const INITRD_OFFSET: u64 = 128 << 20;

/// A VM's RAM. Its end is an address, that is, it does not wrap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ram {
    /// Where it begins: at a 2 MiB boundary.
    pub base: Addr<Ipa>,
    /// How long it is, in bytes.
    pub bytes: u64,
}

impl Ram {
    /// The first address behind it.
    pub fn end(&self) -> u64 {
        self.base.bits().saturating_add(self.bytes)
    }
}

/// Some bytes of a VM's RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stretch {
    /// The first of them.
    pub start: Addr<Ipa>,
    /// How many they are.
    pub bytes: u64,
}

impl Stretch {
    /// The first address behind them.
    pub fn end(&self) -> u64 {
        self.start.bits().saturating_add(self.bytes)
    }
}

/// Where initrd, modules and device tree go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Places {
    /// Of the initrd and the modules, as they were given.
    pub(super) images: Vec<Stretch>,
    pub(super) dtb: Addr<Ipa>,
}

/// Where a device tree is tried first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dtb {
    /// Behind kernel and initrd.
    Behind,
    /// At the start of RAM, if the kernel leaves it free.
    AtBase,
}

/// What does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LoadedPart {
    Kernel,
    /// The initrd or a module, as they were given.
    Image(usize),
    DeviceTree,
}

/// What does not fit, and by how many bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Misfit {
    pub(super) part: LoadedPart,
    pub(super) over: u64,
}

/// Finds the places in `ram` beside a kernel that lies within `kernel`, for images of so many bytes each.
pub(super) fn find(ram: Ram, kernel: Stretch, images: &[u64], first: Dtb) -> Result<Places, Misfit> {
    let misfit = |part, end: u64| Misfit { part, over: end.saturating_sub(ram.end()) };
    if kernel.end() > ram.end() {
        return Err(misfit(LoadedPart::Kernel, kernel.end()));
    }
    let earliest = ram.base.bits().saturating_add(INITRD_OFFSET.min(ram.bytes / 2));
    let mut after = align_up(earliest.max(kernel.end()), Size::Page.bytes());
    let mut places = Vec::new();
    for (n, &bytes) in images.iter().enumerate() {
        let image = Stretch { start: Addr::new(align_up(after, Size::Page.bytes())), bytes };
        after = image.end();
        if after > ram.end() {
            return Err(misfit(LoadedPart::Image(n), after));
        }
        places.push(image);
    }
    let behind = |alignment| {
        let at = align_up(after, alignment);
        (at.saturating_add(DTB_ROOM) <= ram.end()).then_some(at)
    };
    let room_below = kernel.start.bits().saturating_sub(ram.base.bits());
    let at_base = || (room_below >= DTB_ROOM).then_some(ram.base.bits());
    let usual = || behind(Size::Block.bytes()).or_else(|| behind(Size::Page.bytes()));
    let dtb = match first {
        Dtb::Behind => usual().or_else(at_base),
        Dtb::AtBase => at_base().or_else(usual),
    };
    match dtb {
        Some(dtb) => Ok(Places { images: places, dtb: Addr::new(dtb) }),
        None => Err(misfit(LoadedPart::DeviceTree, align_up(after, Size::Page.bytes()).saturating_add(DTB_ROOM))),
    }
}

/// Says how much memory would be enough: for a kernel that ends `kernel_end` bytes above the base of RAM, and the
/// images.
pub(super) fn remedy(kernel_end: u64, images: &[u64]) -> String {
    let block = Size::Block.bytes();
    let pages = |sum: u64, bytes: &u64| sum.saturating_add(align_up(*bytes, Size::Page.bytes()));
    let behind = images.iter().fold(0, pages).saturating_add(DTB_ROOM);
    // With little RAM the initrd starts at the half of it, with much at 128 MiB; and never below the kernel's end.
    let little = behind.saturating_mul(2).max(align_up(kernel_end, Size::Page.bytes()).saturating_add(behind));
    let much =
        INITRD_OFFSET.max(align_up(kernel_end, Size::Page.bytes())).saturating_add(behind).max(2 * INITRD_OFFSET);
    let enough = align_up(if little < 2 * INITRD_OFFSET { little } else { much }, block);
    if enough > Limits::ANY_BOARD.memory {
        return "no VM can have that much: use another image".into();
    }
    format!("give the VM memory = \"{}\" or more, or smaller images", Amount(enough))
}

/// The first multiple of `alignment`, a power of two, that is not below `value`; where there is none, the last one
/// there is, which no RAM reaches.
fn align_up(value: u64, alignment: u64) -> u64 {
    value.checked_next_multiple_of(alignment).unwrap_or(!(alignment - 1))
}

#[cfg(test)]
mod tests {
    use super::{DTB_ROOM, Dtb, LoadedPart, Misfit, Places, Ram, Stretch, find, remedy};
    use crate::addr::Addr;
    use alloc::string::ToString;
    use alloc::vec::Vec;

    const BASE: u64 = 0x4000_0000;
    const M: u64 = 1 << 20;

    fn ram(bytes: u64) -> Ram {
        Ram { base: Addr::new(BASE), bytes }
    }

    fn kernel(offset: u64, bytes: u64) -> Stretch {
        Stretch { start: Addr::new(BASE + offset), bytes }
    }

    fn places(ram_bytes: u64, kernel: Stretch, initrd: Option<u64>, first: Dtb) -> (Option<u64>, u64) {
        let Places { images, dtb } = find(ram(ram_bytes), kernel, initrd.as_slice(), first).unwrap();
        (images.first().map(|initrd| initrd.start.bits() - BASE), dtb.bits() - BASE)
    }

    #[test]
    fn places_are_those_of_qemu() {
        assert_eq!(places(512 * M, kernel(0, 30 * M), Some(5 * M + 1), Dtb::Behind), (Some(128 * M), 134 * M));
        assert_eq!(places(128 * M, kernel(0, 30 * M), Some(4 * M), Dtb::Behind), (Some(64 * M), 68 * M));
        assert_eq!(places(128 * M, kernel(0, 30 * M), None, Dtb::Behind), (None, 64 * M));
        assert_eq!(places(512 * M, kernel(0, 200 * M + 1), Some(1), Dtb::Behind), (Some(200 * M + 4096), 202 * M));
        assert_eq!(places(512 * M, kernel(2 * M, M), Some(1), Dtb::AtBase), (Some(128 * M), 0));
        assert_eq!(places(512 * M, kernel(0, M), None, Dtb::AtBase), (None, 128 * M));
    }

    #[test]
    fn a_small_vm_finds_room_too() {
        assert_eq!(places(2 * M, kernel(M / 2, 4096), None, Dtb::Behind), (None, M));
        assert_eq!(places(2 * M, kernel(M / 2, M + M / 2), None, Dtb::Behind), (None, 0));
        // Half of what the tree needs is not enough.
        assert_eq!(places(2 * M, kernel(M / 2, M + M / 2 - DTB_ROOM / 2), None, Dtb::Behind), (None, 0));
        let full = find(ram(2 * M), kernel(0, 2 * M), &[], Dtb::Behind);
        assert_eq!(full, Err(Misfit { part: LoadedPart::DeviceTree, over: DTB_ROOM }));
    }

    #[test]
    fn modules_are_on_the_pages_behind_the_initrd() {
        let Places { images, dtb } = find(ram(512 * M), kernel(0, M), &[5 * M + 1, 1, 4096], Dtb::Behind).unwrap();
        let at: Vec<_> = images.iter().map(|image| (image.start.bits() - BASE, image.bytes)).collect();
        assert_eq!(at, [(128 * M, 5 * M + 1), (133 * M + 4096, 1), (133 * M + 8192, 4096)]);
        assert_eq!(dtb.bits() - BASE, 134 * M);
    }

    #[test]
    fn misfits_say_by_how_much() {
        let over = |kernel, images: &[u64]| find(ram(64 * M), kernel, images, Dtb::Behind).unwrap_err();
        assert_eq!(over(kernel(0, 65 * M), &[]), Misfit { part: LoadedPart::Kernel, over: M });
        assert_eq!(over(kernel(0, M), &[33 * M]), Misfit { part: LoadedPart::Image(0), over: M });
        assert_eq!(over(kernel(0, M), &[u64::MAX]).part, LoadedPart::Image(0));
        assert_eq!(over(kernel(0, M), &[1, 32 * M]), Misfit { part: LoadedPart::Image(1), over: 4096 });
        assert_eq!(over(Stretch { start: Addr::new(u64::MAX), bytes: u64::MAX }, &[]).part, LoadedPart::Kernel);
    }

    #[test]
    fn the_remedy_is_enough_and_less_is_not() {
        for (kernel_bytes, initrd) in [
            (M, &[][..]),
            (30 * M, &[40 * M]),
            (200 * M, &[1]),
            (M, &[127 * M]),
            (M, &[130 * M]),
            (3 * M, &[2 * M]),
            (3 * M, &[2 * M, 1, 1, 30 * M]),
        ] {
            let text = remedy(kernel_bytes, initrd);
            let number = text.split('"').nth(1).unwrap();
            let unit = if number.ends_with('G') { 1024 * M } else { M };
            let enough = number[..number.len() - 1].parse::<u64>().unwrap() * unit;
            assert!(find(ram(enough), kernel(0, kernel_bytes), initrd, Dtb::Behind).is_ok(), "{text}");
            assert!(find(ram(enough - 2 * M), kernel(0, kernel_bytes), initrd, Dtb::Behind).is_err(), "{text}");
        }
        assert!(remedy(u64::MAX, &[u64::MAX, u64::MAX]).to_string().contains("no VM"));
        // The most that a VM can have is enough where it is.
        let most = crate::bundle::Limits::ANY_BOARD.memory;
        assert!(remedy(most - DTB_ROOM, &[]).contains("\"255G\""));
        assert!(remedy(most - DTB_ROOM + 1, &[]).contains("no VM"));
    }
}
