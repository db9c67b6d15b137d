//! From state to list registers and back: [`Vgic::fill`], [`Vgic::fold`], and what wakes a vCPU.
//!
//! IHI 0069H 4.9 and 12.4, IHI 0048B 5.2 and 5.3. What has no room: of the pending, the least urgent, which come when no
//! list register is pending any more (NPIE); of the active, those of the lowest priority as long as something pending
//! needs a place, whose end the hardware counts (EOIcount, LRENPIE). As ends come in the order of priorities, the count
//! tells which ones they were; only DIR names any, and is trapped for that.

use super::{Bank, NOBODY, Vgic, bits, place};
use crate::addr::{IntId, VcpuId};
use crate::arm::gic::{ListRegister, Mask, Version, hcr};
use crate::next::Kicks;

/// The list registers of one vCPU, as its version's hardware has them: `ICH_LR<n>_EL2`, or `GICH_LR<n>` in the lower half.
///
/// After the vCPU ran, `lr[..used]` and `hcr` are to be read back before [`Vgic::fold`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lists {
    /// The registers; those from `used` on are 0.
    pub lr: [u64; 16],
    /// How many are in use.
    pub used: u8,
    /// What ICH_HCR_EL2 or GICH_HCR has to be, and read back: EOIcount, in [`hcr`]'s bits.
    pub hcr: u32,
}

impl Lists {
    /// No list in use; the interface on.
    pub const fn new() -> Self {
        Self { lr: [0; 16], used: 0, hcr: hcr::EN }
    }
}

/// The most urgent of the interrupts offered, in order: rank, priority and INTID as one key.
struct Best {
    keys: [u32; 16],
    room: usize,
    len: usize,
    /// How many were offered.
    seen: usize,
}

impl Best {
    const fn new(room: usize) -> Self {
        Self { keys: [u32::MAX; 16], room, len: 0, seen: 0 }
    }

    /// Offers those of bank `n` that are in `mask`; whatever their priority, they come after those of a smaller `rank`.
    fn offer(&mut self, rank: u32, priorities: &[u8; 32], n: usize, mask: u32) {
        for at in bits(mask) {
            let priority = priorities.get(at).copied().unwrap_or(u8::MAX);
            // INTIDs are below 288.
            self.insert(rank << 24 | u32::from(priority) << 16 | (n * 32 + at) as u32);
        }
    }

    fn insert(&mut self, key: u32) {
        self.seen += 1;
        let at = self.keys.iter().take(self.len).position(|old| key < *old).unwrap_or(self.len);
        if at >= self.room {
            return;
        }
        self.len = (self.len + 1).min(self.room);
        if let Some(rest) = self.keys.get_mut(at..self.len) {
            rest.rotate_right(1);
            if let Some(first) = rest.first_mut() {
                *first = key;
            }
        }
    }

    fn get(&self, at: usize) -> Option<u32> {
        self.keys.get(at).copied().filter(|_| at < self.len)
    }
}

impl Vgic {
    /// Whether the vCPU's lists are out of date: they have to be folded, if in hardware, and filled.
    pub const fn needs_fill(&self, vcpu: VcpuId) -> bool {
        self.stale >> (vcpu.0 & 63) & 1 != 0
    }

    /// Folds and fills: for a vCPU that goes on running. The kicks are for others.
    pub fn refill(&mut self, vcpu: VcpuId, lists: &mut Lists, mask: Mask) -> Kicks {
        let kicks = self.fold(vcpu, lists);
        self.fill(vcpu, lists, mask);
        kicks.without(vcpu)
    }

    /// Takes what the lists say back into the state and empties them. The kicks are for vCPUs to which an SPI went while
    /// this one had it, and for this one.
    pub fn fold(&mut self, vcpu: VcpuId, lists: &mut Lists) -> Kicks {
        let mut kicks = self.kick(usize::from(vcpu.0));
        for _ in 0..lists.hcr >> hcr::EOI_COUNT_SHIFT {
            kicks |= self.end_unlisted(vcpu);
        }
        for lr in lists.lr.iter_mut().take(usize::from(lists.used)) {
            let entry = match self.version {
                // A GICH_LR has 32 bits.
                Version::V2 => ListRegister::from_v2(*lr as u32),
                Version::V3 => ListRegister::from_v3(*lr),
            };
            kicks |= self.fold_entry(vcpu, entry);
            *lr = 0;
        }
        lists.used = 0;
        lists.hcr = hcr::EN;
        kicks
    }

    fn fold_entry(&mut self, vcpu: VcpuId, entry: ListRegister) -> Kicks {
        let (n, at, bit) = place(IntId(entry.intid));
        let cpu = usize::from(vcpu.0);
        let sourced = self.version == Version::V2 && entry.intid < 16;
        let Some(bank) = self.bank_mut(cpu, n) else { return Kicks::NONE };
        if bank.listed & bit == 0 {
            return Kicks::NONE;
        }
        if entry.pending {
            bank.latch |= bank.lent & bit;
            bank.line |= bank.lent_line & bit;
        }
        if entry.active
            && bank.active & bit == 0
            && let Some(running) = bank.running.get_mut(at)
        {
            *running = entry.priority;
            bank.running1 = if entry.group1 { bank.running1 | bit } else { bank.running1 & !bit };
        }
        if bank.written & bit == 0 {
            bank.active = if entry.active { bank.active | bit } else { bank.active & !bit };
        }
        let active = bank.active & bit;
        for word in [&mut bank.listed, &mut bank.lent, &mut bank.lent_line, &mut bank.written] {
            *word &= !bit;
        }
        if sourced && entry.pending {
            self.return_source(vcpu, at, entry.source);
        }
        match n.checked_sub(1) {
            None => Kicks::NONE,
            Some(k) => self.let_go(cpu, k, at, active != 0),
        }
    }

    /// Settles whose an SPI is after it left the list of `cpu`.
    fn let_go(&mut self, cpu: usize, k: usize, at: usize, active: bool) -> Kicks {
        let bit = 1 << (at & 31);
        if let Some(held) = self.locals.get_mut(cpu).and_then(|local| local.held.get_mut(k)) {
            *held = if active { *held | bit } else { *held & !bit };
        }
        if active {
            return Kicks::NONE;
        }
        if let Some(holder) = self.spis.get_mut(k).and_then(|shared| shared.holder.get_mut(at)) {
            *holder = NOBODY;
        }
        self.notify(cpu, k + 1, bit)
    }

    /// The hardware saw the end of an interrupt that is in no list: the most urgent of those active.
    fn end_unlisted(&mut self, vcpu: VcpuId) -> Kicks {
        let cpu = usize::from(vcpu.0);
        let mut best = Best::new(1);
        for n in 0..=self.spis.len() {
            if let Some(bank) = self.bank(cpu, n) {
                best.offer(0, &bank.running, n, self.held(cpu, n) & bank.active & !bank.listed);
            }
        }
        match best.get(0) {
            // The INTID is in the lower half.
            Some(key) => self.end(cpu, IntId(key & 0xffff)),
            None => Kicks::NONE,
        }
    }

    /// A write of DIR by `vcpu` (INTID in bits 23:0; for GICv2, a source in 12:10 that need not be told here): ends what
    /// is active. Fold first. If the interrupt is mapped, the physical one is the caller's to deactivate.
    pub fn deactivate(&mut self, vcpu: VcpuId, value: u64) -> Kicks {
        let mask = match self.version {
            Version::V2 => 0x3ff,
            Version::V3 => 0xff_ffff,
        };
        // At most 24 bits. INTIDs 1020 to 1023 and unknown ones have no bank.
        self.end(usize::from(vcpu.0), IntId((value & mask) as u32))
    }

    fn end(&mut self, cpu: usize, intid: IntId) -> Kicks {
        let (n, at, bit) = place(intid);
        let Some(bank) = self.bank_mut(cpu, n) else { return Kicks::NONE };
        // In the list of another vCPU it may be active without our knowing.
        if (bank.active | bank.listed) & bit == 0 {
            return Kicks::NONE;
        }
        bank.active &= !bit;
        bank.written |= bank.listed & bit;
        let listed = bank.listed & bit != 0;
        match n.checked_sub(1) {
            None => self.notify(cpu, n, bit),
            Some(k) => {
                let holder = self.spis.get(k).and_then(|shared| shared.holder.get(at)).copied().unwrap_or(NOBODY);
                let kicks = self.kick(usize::from(holder));
                // While another's list has it, that list keeps it; it is told to look.
                kicks | if listed { Kicks::NONE } else { self.let_go(usize::from(holder), k, at, false) }
            }
        }
    }

    /// The active interrupts of a bank that are this vCPU's to end.
    fn held(&self, cpu: usize, n: usize) -> u32 {
        match n.checked_sub(1) {
            None => u32::MAX,
            Some(k) => self.locals.get(cpu).and_then(|local| local.held.get(k)).copied().unwrap_or(0),
        }
    }

    /// The interrupts of a bank that go to this vCPU.
    fn mine(&self, cpu: usize, n: usize) -> u32 {
        match n.checked_sub(1) {
            None => u32::MAX,
            Some(k) => self.locals.get(cpu).and_then(|local| local.mine.get(k)).copied().unwrap_or(0),
        }
    }

    /// Fills the vCPU's lists, which must have been folded. `mask` is what its CPU interface lets through now.
    pub fn fill(&mut self, vcpu: VcpuId, lists: &mut Lists, mask: Mask) {
        let cpu = usize::from(vcpu.0);
        // Folded lists are empty.
        (lists.used, lists.hcr) = (0, hcr::EN);
        if self.version == Version::V3 {
            lists.hcr |= hcr::TDIR;
        }
        self.stale &= !(1 << (vcpu.0 & 63));
        let Some(local) = self.locals.get(cpu) else { return };
        if self.is_quiet(cpu) {
            return;
        }
        // A group that is off in the CPU interface must not take the place of one that is on.
        let [rank0, rank1] = [0, 1].map(|group| u32::from(mask.groups >> group & 1 == 0));
        let mut active = Best::new(self.room);
        let mut pending = Best::new(self.room);
        let private = core::iter::once((&local.bank, (&u32::MAX, &u32::MAX)));
        let shared = self.spis.iter().map(|shared| &shared.bank).zip(local.mine.iter().zip(&local.held));
        for (n, (bank, (mine, held))) in private.chain(shared).enumerate() {
            let going = bank.active & held & !bank.listed;
            if going != 0 {
                active.offer(0, &bank.running, n, going);
            }
            let ready = bank.pending() & mine;
            // Most banks are quiet.
            if ready != 0 {
                let ready = ready & self.ready(bank) & !bank.listed;
                pending.offer(rank0, &bank.priority, n, ready & !bank.group);
                pending.offer(rank1, &bank.priority, n, ready & bank.group);
            }
        }
        if active.seen | pending.seen == 0 {
            return;
        }
        let kept = active.seen.min(self.room - usize::from(pending.seen != 0));
        let places = pending.seen.min(self.room - kept);
        if kept < active.seen {
            lists.hcr |= hcr::LRENPIE;
        }
        let mut room = Room::Enough;
        if places < pending.seen {
            room = Room::Short;
            lists.hcr |= hcr::NPIE;
            // As soon as a group is switched, others may have to have the places.
            lists.hcr |= if rank0 == 0 { hcr::VGRP0DIE } else { hcr::VGRP0EIE };
            lists.hcr |= if rank1 == 0 { hcr::VGRP0DIE << 2 } else { hcr::VGRP0EIE << 2 };
        }
        for key in active.keys.iter().take(kept).chain(pending.keys.iter().take(places)) {
            self.enlist(cpu, IntId(key & 0xffff), lists, room);
        }
    }

    /// Whether there is nothing to put into the lists of a vCPU, as most of the time.
    fn is_quiet(&self, cpu: usize) -> bool {
        let Some(local) = self.locals.get(cpu) else { return true };
        let shared = self.spis.iter().map(|shared| &shared.bank).zip(local.mine.iter().zip(&local.held));
        (local.bank.active | local.bank.pending()) == 0
            && shared.into_iter().all(|(bank, (mine, held))| bank.active & held | bank.pending() & mine == 0)
    }

    /// Puts one interrupt into the lists, and what it carries out of the state.
    fn enlist(&mut self, cpu: usize, intid: IntId, lists: &mut Lists, room: Room) {
        let (n, at, bit) = place(intid);
        let version = self.version;
        let sourced = version == Version::V2 && intid.is_sgi();
        let Some(bank) = self.bank(cpu, n) else { return };
        let targeted = self.mine(cpu, n) & bit != 0;
        let deliverable = bank.pending() & bank.enabled & self.forwarded(bank) & bit != 0 && targeted;
        let active = bank.active & bit != 0;
        let edge = bank.edge & bit != 0;
        let hw = bank.mapped & bit != 0 && (active || edge || bank.line & bit != 0);
        // Active and pending together only where the pending state stays when the active one goes: not with a level,
        // which may have fallen by then, not with HW, and not with another SGI source. And not in the place of others,
        // that are perhaps more urgent, nor at another priority or in another group than the active one's: its end has to be seen.
        let is_taken_alike = bank.as_taken(at) == bank.as_written(at);
        let both = room == Room::Enough && edge && !hw && !sourced && is_taken_alike;
        let pending = deliverable && (!active || both);
        let source = match (sourced, active) {
            (false, _) => 0,
            (true, true) => self.locals.get(cpu).and_then(|l| l.active_source.get(at)).copied().unwrap_or(0),
            (true, false) => self.take_source(cpu, at),
        };
        let Some(bank) = self.bank_mut(cpu, n) else { return };
        bank.listed |= bit;
        if pending && sourced {
            bank.lent |= bit;
        } else if pending {
            bank.lent |= bank.latch & bit;
            bank.latch &= !bit;
            if hw && !edge {
                bank.lent_line |= bank.line & bit;
                bank.line &= !bit;
            }
        }
        let more = bank.latch & bit != 0;
        let (priority, group1) = if active { bank.as_taken(at) } else { bank.as_written(at) };
        let entry = ListRegister {
            intid: intid.0,
            priority,
            group1,
            pending,
            active,
            physical: bank.physical.get(at).copied().filter(|_| hw),
            eoi: !hw && (!edge || more),
            source,
        };
        if sourced && let Some(kept) = self.locals.get_mut(cpu).and_then(|local| local.active_source.get_mut(at)) {
            *kept = source;
        }
        if let Some(holder) = n.checked_sub(1).and_then(|k| self.spis.get_mut(k)?.holder.get_mut(at)) {
            // At most 64 vCPUs.
            *holder = cpu as u8;
        }
        if let Some(lr) = lists.lr.get_mut(usize::from(lists.used)) {
            *lr = match version {
                Version::V2 => u64::from(entry.v2()),
                Version::V3 => entry.v3(),
            };
            lists.used += 1;
        }
    }

    /// Whether there is an interrupt that would wake the vCPU from WFI, given what its CPU interface lets through. Fold
    /// first; what is still in its lists counts as pending.
    pub fn deliverable(&self, vcpu: VcpuId, mask: Mask) -> bool {
        let Some(local) = self.locals.get(usize::from(vcpu.0)) else { return false };
        let is_due = |bank: &Bank, mine: u32| {
            // Most banks are quiet.
            if bank.pending() & mine == 0 {
                return false;
            }
            let group0 = if mask.groups & 1 != 0 { !bank.group } else { 0 };
            let group1 = if mask.groups & 2 != 0 { bank.group } else { 0 };
            let ready = self.ready(bank) & mine & (group0 | group1);
            bits(ready).any(|at| bank.priority.get(at).is_some_and(|priority| *priority < mask.priority))
        };
        is_due(&local.bank, u32::MAX) || self.spis.iter().zip(&local.mine).any(|(spi, mine)| is_due(&spi.bank, *mine))
    }
}

/// Whether all that is pending has a place in the lists.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    Enough,
    Short,
}
