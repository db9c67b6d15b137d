//! The registers with a field per interrupt: the same in GICD (IHI 0048B 4.3, IHI 0069H 12.9) and in the second frame of
//! GICR (12.11), seen as 32-bit words.
//!
//! A narrower write comes as a word with a byte mask ([`Write`]): registers that keep a value change only there, and
//! zeroes mean nothing to those where ones set or clear.

use super::{SGIS, Vgic, bits};
use crate::arm::gic::{PRIORITY_BITS, Version, gicd};
use crate::next::Kicks;

/// A write to an aligned 32-bit word.
#[derive(Clone, Copy)]
pub(super) struct Write {
    /// The bits, zero outside the mask.
    pub(super) value: u32,
    /// The bits of the bytes written.
    pub(super) mask: u32,
}

impl Write {
    /// What a write of `size` bytes (1, 2 or 4, `offset` a multiple of it) does to its word.
    pub(super) const fn new(offset: u64, size: u8, value: u64) -> Self {
        // 0, 8, 16 or 24; the value is cut to the word.
        let shift = (offset & 3) as u32 * 8;
        let mask = narrow(size) << shift;
        Self { value: (value as u32) << shift & mask, mask }
    }

    /// `old` with the written bytes replaced.
    pub(super) const fn over(self, old: u32) -> u32 {
        old & !self.mask | self.value
    }
}

/// What a read of `size` bytes (1, 2 or 4) at `offset` sees of its word.
pub(super) const fn read(word: u32, offset: u64, size: u8) -> u64 {
    (word >> ((offset & 3) as u32 * 8) & narrow(size)) as u64
}

const fn narrow(size: u8) -> u32 {
    match size {
        1 => 0xff,
        2 => 0xffff,
        _ => u32::MAX,
    }
}

/// Whether an access has a size and alignment of 32-bit registers and their parts.
pub(super) const fn fits(offset: u64, size: u8) -> bool {
    matches!((size, offset & 3), (1, _) | (2, 0 | 2) | (4, 0))
}

/// The arrays with a bit per interrupt, in their order from [`gicd::IGROUPR`]; the upper half of the offset.
const GROUP: u64 = 1;
const SET_ENABLE: u64 = 2;
const CLEAR_ENABLE: u64 = 3;
const SET_PENDING: u64 = 4;
const CLEAR_PENDING: u64 = 5;
const SET_ACTIVE: u64 = 6;
const CLEAR_ACTIVE: u64 = 7;

/// The bank that a word at `offset` is about, 0 the private one. Meant for offsets within the arrays.
pub(super) const fn bank_of(offset: u64) -> usize {
    // At most 63.
    (match offset {
        gicd::IPRIORITYR..gicd::ICFGR => (offset & 0x3ff) / 32,
        gicd::ICFGR..gicd::ICFGR_END => (offset & 0xff) / 8,
        _ => (offset & 0x7f) / 4,
    }) as usize
}

impl Vgic {
    /// Reads a word of the arrays: groups to priorities, and configuration.
    pub(super) fn word(&self, cpu: usize, offset: u64) -> u32 {
        let Some(bank) = self.bank(cpu, bank_of(offset)) else { return 0 };
        match offset {
            gicd::IGROUPR..gicd::IPRIORITYR => match offset >> 7 {
                GROUP => bank.group,
                SET_ENABLE | CLEAR_ENABLE => bank.enabled,
                SET_PENDING | CLEAR_PENDING => bank.pending(),
                _ => bank.active,
            },
            gicd::IPRIORITYR..gicd::ITARGETSR => {
                // A multiple of 4 below 32.
                let at = (offset & 0x1c) as usize;
                bank.priority.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
            }
            gicd::ICFGR..gicd::ICFGR_END => spread(half(bank.edge, offset)) << 1,
            _ => 0,
        }
    }

    /// Writes a word of the arrays.
    pub(super) fn set_word(&mut self, cpu: usize, offset: u64, write: Write) -> Kicks {
        let n = bank_of(offset);
        match offset {
            gicd::IGROUPR..gicd::IPRIORITYR => self.set_bits(cpu, n, offset >> 7, write),
            gicd::IPRIORITYR..gicd::ITARGETSR => self.set_priorities(cpu, n, (offset & 0x1c) as usize, write),
            gicd::ICFGR..gicd::ICFGR_END => self.set_config(cpu, n, offset, write),
            _ => Kicks::NONE,
        }
    }

    fn set_bits(&mut self, cpu: usize, n: usize, array: u64, write: Write) -> Kicks {
        // GICv2's SGIs are always enabled, and pending only from somebody (CPENDSGIR, SPENDSGIR).
        let fixed = if n == 0 && self.version == Version::V2 { SGIS } else { 0 };
        let Some(bank) = self.bank_mut(cpu, n) else { return Kicks::NONE };
        let value = write.value;
        let changed = match array {
            GROUP => {
                let old = bank.group;
                bank.group = write.over(old);
                old ^ bank.group
            }
            SET_ENABLE => {
                let new = value & !bank.enabled;
                bank.enabled |= new;
                new
            }
            CLEAR_ENABLE => {
                let gone = value & bank.enabled & !fixed;
                bank.enabled &= !gone;
                gone
            }
            SET_PENDING => {
                let new = value & !fixed & !bank.latch;
                bank.latch |= new;
                new
            }
            CLEAR_PENDING => {
                let gone = value & !fixed & (bank.latch | bank.lent);
                bank.latch &= !gone;
                bank.lent &= !gone;
                gone
            }
            SET_ACTIVE => {
                let new = value & (!bank.active | bank.listed);
                self.activate(cpu, n, new);
                new
            }
            CLEAR_ACTIVE => return self.clear_active(cpu, n, value),
            _ => 0,
        };
        self.notify(cpu, n, changed)
    }

    /// Makes interrupts active by decree. Those in no list belong to where they are routed.
    fn activate(&mut self, cpu: usize, n: usize, mask: u32) {
        let Some(bank) = self.bank_mut(cpu, n) else { return };
        for at in bits(mask & !bank.active) {
            if let Some(running) = bank.running.get_mut(at) {
                *running = u8::MAX;
            }
        }
        bank.active |= mask;
        bank.written |= mask & bank.listed;
        let listed = bank.listed;
        let Some(k) = n.checked_sub(1) else { return };
        for at in bits(mask) {
            let Some(shared) = self.spis.get_mut(k) else { return };
            let (Some(holder), Some(target)) = (shared.holder.get_mut(at), shared.target.get(at)) else { return };
            if listed >> at & 1 == 0 {
                *holder = *target;
            }
            let holder = usize::from(*holder);
            if let Some(held) = self.locals.get_mut(holder).and_then(|local| local.held.get_mut(k)) {
                *held |= 1 << at;
            }
        }
    }

    /// Makes interrupts inactive by decree. Whoever took them keeps them in its lists until it is folded.
    fn clear_active(&mut self, cpu: usize, n: usize, value: u32) -> Kicks {
        let Some(bank) = self.bank_mut(cpu, n) else { return Kicks::NONE };
        let gone = value & (bank.active | bank.listed);
        bank.written |= gone & bank.listed;
        bank.active &= !gone;
        let listed = bank.listed;
        // The holders first: once the interrupts are neither active nor listed, nobody knows them any more.
        let mut kicks = Kicks::NONE;
        if let Some(k) = n.checked_sub(1) {
            for at in bits(gone) {
                let Some(holder) = self.spis.get_mut(k).and_then(|shared| shared.holder.get_mut(at)) else { break };
                let was = usize::from(*holder);
                if listed >> at & 1 == 0 {
                    *holder = super::NOBODY;
                }
                if let Some(held) = self.locals.get_mut(was).and_then(|local| local.held.get_mut(k)) {
                    *held &= !(1 << at);
                }
                kicks |= self.kick(was);
            }
        }
        kicks | self.notify(cpu, n, gone)
    }

    fn set_priorities(&mut self, cpu: usize, n: usize, at: usize, write: Write) -> Kicks {
        let Some(four) = self.bank_mut(cpu, n).and_then(|bank| bank.priority.get_mut(at..at + 4)) else {
            return Kicks::NONE;
        };
        let masks = write.mask.to_le_bytes();
        for ((priority, value), mask) in four.iter_mut().zip(write.value.to_le_bytes()).zip(masks) {
            if mask != 0 {
                *priority = value & PRIORITY_BITS;
            }
        }
        self.notify(cpu, n, 0xf << at)
    }

    /// SGIs are edge-triggered by nature; PPIs are fixed to level, as the timers that use them are.
    fn set_config(&mut self, cpu: usize, n: usize, offset: u64, write: Write) -> Kicks {
        if n == 0 {
            return Kicks::NONE;
        }
        let Some(bank) = self.bank_mut(cpu, n) else { return Kicks::NONE };
        let upper = if offset & 4 != 0 { 16 } else { 0 };
        let mask = gather(write.mask >> 1) << upper;
        let old = bank.edge;
        bank.edge = old & !mask | gather(write.value >> 1) << upper;
        let changed = old ^ bank.edge;
        self.notify(cpu, n, changed)
    }
}

/// The sixteen bits that a configuration word at `offset` is about.
const fn half(word: u32, offset: u64) -> u32 {
    if offset & 4 != 0 { word >> 16 } else { word & 0xffff }
}

/// Moves bit i to bit 2i, for i below 16.
const fn spread(word: u32) -> u32 {
    let mut w = word & 0xffff;
    w = (w | w << 8) & 0x00ff_00ff;
    w = (w | w << 4) & 0x0f0f_0f0f;
    w = (w | w << 2) & 0x3333_3333;
    (w | w << 1) & 0x5555_5555
}

/// Moves bit 2i to bit i: the inverse of [`spread`].
const fn gather(word: u32) -> u32 {
    let mut w = word & 0x5555_5555;
    w = (w | w >> 1) & 0x3333_3333;
    w = (w | w >> 2) & 0x0f0f_0f0f;
    w = (w | w >> 4) & 0x00ff_00ff;
    (w | w >> 8) & 0xffff
}
