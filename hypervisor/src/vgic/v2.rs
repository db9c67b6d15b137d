//! What only GICv2 has: targets by CPU mask, SGIs with sources, its identity (IHI 0048B 4.3.12, 4.3.15 to 4.3.18).

use super::words::Write;
use super::{NOBODY, Vgic};
use crate::addr::VcpuId;
use crate::arm::gic::gicd;
use crate::next::Kicks;

/// ID registers: an Arm GIC of architecture 2 with the component classes of the book.
pub(super) const fn identity(offset: u64) -> u32 {
    match offset {
        0xfd0 => 0x04,
        0xfe0 => 0x90,
        0xfe4 => 0xb4,
        0xfe8 => 0x2b,
        0xff0 => 0x0d,
        0xff4 => 0xf0,
        0xff8 => 0x05,
        0xffc => 0xb1,
        _ => 0,
    }
}

impl Vgic {
    pub(super) fn typer_v2(&self) -> u32 {
        // At most 8 banks and 8 vCPUs.
        self.spis.len() as u32 | (self.locals.len() as u32).saturating_sub(1) << 5
    }

    /// The vCPUs there are, a bit each.
    fn everybody(&self) -> u8 {
        // At most 8 in this version, so at most 0xff.
        ((1_u32 << self.locals.len().min(8)) - 1) as u8
    }

    /// ITARGETSR: private interrupts name the reader; with one vCPU there is nothing to choose.
    pub(super) fn targets(&self, cpu: usize, offset: u64) -> u32 {
        let (n, at) = byte_place(offset);
        match (self.locals.len(), n.checked_sub(1)) {
            (1, _) => 0,
            // Below 8 in this version.
            (_, None) => 0x0101_0101_u32.wrapping_shl(cpu as u32 & 7),
            (_, Some(n)) => {
                let four = self.spis.get(n).and_then(|shared| shared.route.get(at..at + 4)).unwrap_or(&[]);
                four.iter().rev().fold(0, |word, mask| word << 8 | mask)
            }
        }
    }

    pub(super) fn set_targets(&mut self, offset: u64, write: Write) -> Kicks {
        let (n, at) = byte_place(offset);
        let mut kicks = Kicks::NONE;
        let Some(n) = n.checked_sub(1).filter(|_| self.locals.len() > 1) else { return kicks };
        let bytes = write.value.to_le_bytes().into_iter().zip(write.mask.to_le_bytes());
        for (i, (value, _)) in bytes.enumerate().filter(|(_, (_, mask))| *mask != 0) {
            let mask = value & self.everybody();
            // Several targets mean any one of them: always the first, so that an order among interrupts is kept.
            let to = if mask == 0 { NOBODY } else { mask.trailing_zeros() as u8 };
            kicks |= self.retarget(n, at + i, u32::from(mask), to);
        }
        kicks
    }

    /// GICD_SGIR: sends an SGI.
    pub(super) fn sgir(&mut self, from: usize, value: u32) -> Kicks {
        // A vCPU that does not exist sends nothing; the others are below 8.
        let Some(me) = u32::try_from(from).ok().and_then(|from| 1_u8.checked_shl(from)) else { return Kicks::NONE };
        let to = match value >> 24 & 3 {
            // The field's 8 bits.
            0 => (value >> 16) as u8,
            1 => !me,
            2 => me,
            _ => 0,
        } & self.everybody();
        let sgi = (value & 15) as usize;
        let mut kicks = Kicks::NONE;
        for target in super::bits(u32::from(to)) {
            kicks |= self.send_from(target, sgi, me);
        }
        kicks
    }

    /// Makes an SGI pending at `target` from a set of sources.
    fn send_from(&mut self, target: usize, sgi: usize, sources: u8) -> Kicks {
        let Some(local) = self.locals.get_mut(target) else { return Kicks::NONE };
        let Some(pending) = local.sources.get_mut(sgi) else { return Kicks::NONE };
        if sources & !*pending == 0 {
            return Kicks::NONE;
        }
        *pending |= sources;
        local.bank.latch |= 1 << sgi;
        self.notify(target, 0, 1 << sgi)
    }

    /// CPENDSGIR and SPENDSGIR read alike.
    pub(super) fn sgi_sources(&self, cpu: usize, offset: u64) -> u32 {
        let at = (offset & 0xc) as usize;
        let four = self.locals.get(cpu).and_then(|local| local.sources.get(at..at + 4));
        four.and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
    }

    pub(super) fn set_sgi_sources(&mut self, cpu: usize, offset: u64, write: Write) -> Kicks {
        let at = (offset & 0xc) as usize;
        let everybody = self.everybody();
        let mut kicks = Kicks::NONE;
        for (sgi, value) in (at..at + 4).zip(write.value.to_le_bytes()) {
            if offset >= gicd::SPENDSGIR {
                kicks |= self.send_from(cpu, sgi, value & everybody);
            } else if value != 0 {
                kicks |= self.unsend(cpu, sgi, value);
            }
        }
        kicks
    }

    fn unsend(&mut self, cpu: usize, sgi: usize, sources: u8) -> Kicks {
        let Some(local) = self.locals.get_mut(cpu) else { return Kicks::NONE };
        let Some(pending) = local.sources.get_mut(sgi) else { return Kicks::NONE };
        *pending &= !sources;
        if *pending == 0 {
            local.bank.latch &= !(1 << sgi);
        }
        self.notify(cpu, 0, 1 << sgi)
    }

    /// Takes the next source of a pending SGI: the lowest.
    pub(super) fn take_source(&mut self, cpu: usize, sgi: usize) -> u8 {
        let Some(local) = self.locals.get_mut(cpu) else { return 0 };
        let Some(pending) = local.sources.get_mut(sgi) else { return 0 };
        // Below 8, or 8 where there is none.
        let source = pending.trailing_zeros() as u8 & 7;
        *pending &= pending.wrapping_sub(1);
        if *pending == 0 {
            local.bank.latch &= !(1 << sgi);
        }
        source
    }

    /// Gives back a source that was not taken by the guest.
    pub(super) fn return_source(&mut self, cpu: VcpuId, sgi: usize, source: u8) {
        let Some(local) = self.locals.get_mut(usize::from(cpu.0)) else { return };
        if let Some(pending) = local.sources.get_mut(sgi) {
            *pending |= 1 << (source & 7);
            local.bank.latch |= 1 << sgi;
        }
    }
}

/// The bank (0: private) and the place in it of the four interrupts of a word of ITARGETSR.
const fn byte_place(offset: u64) -> (usize, usize) {
    (((offset & 0x3ff) / 32) as usize, (offset & 0x1c) as usize)
}
