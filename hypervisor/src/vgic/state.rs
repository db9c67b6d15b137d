//! The state itself, and what changes it from outside of the guest: wires, reset, mappings.

use crate::addr::{IntId, VcpuId};
use crate::arm::gic::{Version, gicr};
use crate::next::Kicks;
use alloc::vec;
use alloc::vec::Vec;

/// Most SPIs there can be.
pub(super) const SPIS_MAX: u32 = 256;
/// Most banks of SPIs.
pub(super) const SPI_BANKS: usize = 8;
/// In the place of a vCPU: none.
pub(super) const NOBODY: u8 = 0xff;
/// The SGIs within a private bank.
pub(super) const SGIS: u32 = 0xffff;

/// The state of an interrupt's input wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line {
    /// Asserted by nobody.
    Low,
    /// Asserted.
    High,
}

impl From<bool> for Line {
    fn from(asserted: bool) -> Self {
        if asserted { Self::High } else { Self::Low }
    }
}

/// Thirty-two interrupts, a bit each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bank {
    /// Made pending by an edge, an SGI or a write of ISPENDR; until taken.
    pub(super) latch: u32,
    /// The wire is high.
    pub(super) line: u32,
    pub(super) enabled: u32,
    pub(super) active: u32,
    /// Group 1.
    pub(super) group: u32,
    /// Edge-triggered.
    pub(super) edge: u32,
    /// In a list.
    pub(super) listed: u32,
    /// In a list that carries what was in `latch`.
    pub(super) lent: u32,
    /// In a list that carries what was in `line` (mapped interrupts).
    pub(super) lent_line: u32,
    /// The guest wrote the active state while listed: that counts, not the list's.
    pub(super) written: u32,
    /// Mapped to the physical interrupt in `physical`.
    pub(super) mapped: u32,
    pub(super) priority: [u8; 32],
    /// The priority at which an active one was taken, which orders the ends; above all there are, if it never was.
    pub(super) running: [u8; 32],
    /// Those active that were in Group 1 when they were taken.
    pub(super) running1: u32,
    pub(super) physical: [u16; 32],
}

impl Bank {
    pub(super) const fn new(enabled: u32, edge: u32) -> Self {
        Self {
            latch: 0,
            line: 0,
            enabled,
            active: 0,
            group: 0,
            edge,
            listed: 0,
            lent: 0,
            lent_line: 0,
            written: 0,
            mapped: 0,
            priority: [0; 32],
            running: [u8::MAX; 32],
            running1: 0,
            physical: [0; 32],
        }
    }

    /// Pending as the guest sees it.
    pub(super) const fn pending(&self) -> u32 {
        self.latch | self.lent | self.lent_line | self.line & !self.edge
    }

    /// With which priority and in which group an active interrupt has to be in a list: those it was taken with, whatever
    /// the guest has written since, as the CPU interface ends what has the priority and group that it drops
    /// (ICV_EOIR1_EL1). One that was never taken has what was written last.
    pub(super) fn as_taken(&self, at: usize) -> (u8, bool) {
        match self.running.get(at) {
            Some(priority) if *priority != u8::MAX => (*priority, self.running1 >> (at & 31) & 1 != 0),
            _ => self.as_written(at),
        }
    }

    /// With which priority and in which group an interrupt is pending.
    pub(super) fn as_written(&self, at: usize) -> (u8, bool) {
        (self.priority.get(at).copied().unwrap_or(u8::MAX), self.group >> (at & 31) & 1 != 0)
    }

    /// As new, but for the mapping.
    pub(super) fn reset(&mut self, enabled: u32, edge: u32) {
        *self = Self { mapped: self.mapped, physical: self.physical, ..Self::new(enabled, edge) };
    }
}

/// What each vCPU has for itself.
#[derive(Clone, Debug)]
pub(super) struct Local {
    pub(super) bank: Bank,
    /// GICv2: from whom each SGI is pending, a bit per vCPU.
    pub(super) sources: [u8; 16],
    /// GICv2: from whom came the SGI that is active.
    pub(super) active_source: [u8; 16],
    /// SPIs that target this vCPU.
    pub(super) mine: [u32; SPI_BANKS],
    /// SPIs that are active after this vCPU took them.
    pub(super) held: [u32; SPI_BANKS],
    /// GICR_WAKER.ProcessorSleep.
    pub(super) asleep: bool,
}

impl Local {
    pub(super) const fn new(version: Version) -> Self {
        Self {
            bank: Bank::new(private_enabled(version), SGIS),
            sources: [0; 16],
            active_source: [0; 16],
            mine: [0; SPI_BANKS],
            held: [0; SPI_BANKS],
            asleep: true,
        }
    }
}

/// GICv2's SGIs cannot be disabled, as on a GIC-400.
pub(super) const fn private_enabled(version: Version) -> u32 {
    match version {
        Version::V2 => SGIS,
        Version::V3 => 0,
    }
}

/// Thirty-two SPIs.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) bank: Bank,
    /// Which vCPU's list has it, or which one took it and has not deactivated it.
    pub(super) holder: [u8; 32],
    /// Where it goes.
    pub(super) target: [u8; 32],
    /// As the guest wrote it: ITARGETSR's byte, or IROUTER's affinity.
    pub(super) route: [u32; 32],
}

impl Shared {
    pub(super) const fn new() -> Self {
        Self { bank: Bank::new(0, 0), holder: [NOBODY; 32], target: [NOBODY; 32], route: [0; 32] }
    }
}

/// The interrupt controller of one VM. Callers hold its lock.
#[derive(Clone, Debug)]
pub struct Vgic {
    pub(super) version: Version,
    /// List registers per CPU, 1 to 16.
    pub(super) room: usize,
    /// The groups that GICD_CTLR forwards: bit 0 Group 0, bit 1 Group 1.
    pub(super) groups: u32,
    /// vCPUs whose lists are out of date.
    pub(super) stale: u64,
    pub(super) locals: Vec<Local>,
    pub(super) spis: Vec<Shared>,
}

impl Vgic {
    /// Makes the controller in its reset state: `vcpus` is 1 to 8 (GICv2) or 1 to 64, `spis` a multiple of 32 up to 256,
    /// `lists` the list registers of the board's CPUs, 1 to 16. Values outside are taken to the nearest that fits.
    pub fn new(version: Version, vcpus: u16, spis: u32, lists: u8) -> Self {
        let most = match version {
            Version::V2 => 8,
            Version::V3 => 64,
        };
        let banks = spis.min(SPIS_MAX).div_ceil(32);
        let mut new = Self {
            version,
            room: usize::from(lists.clamp(1, 16)),
            groups: 0,
            stale: 0,
            locals: vec![Local::new(version); usize::from(vcpus.clamp(1, most))],
            // At most 8.
            spis: vec![Shared::new(); banks as usize],
        };
        new.reset();
        new
    }

    /// Resets everything but the mappings to physical interrupts. Lists in hardware are void afterwards: drop them, do
    /// not fold them. Devices whose lines are high must say so again.
    pub fn reset(&mut self) {
        let enabled = private_enabled(self.version);
        self.groups = 0;
        self.stale = u64::MAX;
        for local in &mut self.locals {
            let mut bank = local.bank;
            bank.reset(enabled, SGIS);
            *local = Local { bank, ..Local::new(self.version) };
        }
        for shared in &mut self.spis {
            let mut bank = shared.bank;
            bank.reset(0, 0);
            *shared = Shared { bank, ..Shared::new() };
        }
        // IROUTER's 0 names the first vCPU, and one vCPU alone needs no ITARGETSR.
        if self.version == Version::V3 || self.locals.len() == 1 {
            for (n, shared) in self.spis.iter_mut().enumerate() {
                shared.target = [0; 32];
                if let Some(mine) = self.locals.first_mut().and_then(|local| local.mine.get_mut(n)) {
                    *mine = u32::MAX;
                }
            }
        }
    }

    /// Which architecture the guest sees.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The size of all redistributors in a row, in bytes (GICv3).
    pub fn redist_size(&self) -> u64 {
        // At most 64 vCPUs.
        gicr::SIZE * self.locals.len() as u64
    }

    /// Takes a vCPU's list entries for `intid` (a PPI of `vcpu`, or an SPI) to be backed by the physical interrupt
    /// `physical`: when the guest deactivates one, so does the hardware the other.
    pub fn map_hw(&mut self, vcpu: VcpuId, intid: IntId, physical: IntId) {
        let (n, at, bit) = place(intid);
        if intid.is_sgi() {
            return;
        }
        if let (Some(bank), Ok(physical)) = (self.bank_mut(usize::from(vcpu.0), n), u16::try_from(physical.0))
            && let Some(place) = bank.physical.get_mut(at)
        {
            *place = physical;
            bank.mapped |= bit;
        }
    }

    /// Whether the physical interrupt behind a mapped one has to be active, so that it does not come again before the
    /// guest is done with it. Exact after a fold.
    pub fn hw_active(&self, vcpu: VcpuId, intid: IntId) -> bool {
        let (n, _, bit) = place(intid);
        self.bank(usize::from(vcpu.0), n)
            .is_some_and(|b| (b.active | b.line | b.lent_line | b.latch & b.edge) & bit != 0)
    }

    /// Sets the wire of a PPI of `vcpu`, or of an SPI. For a mapped one, [`Line::High`] says that the physical interrupt
    /// was taken. Unknown interrupts and SGIs have no wire.
    pub fn set_line(&mut self, vcpu: VcpuId, intid: IntId, level: Line) -> Kicks {
        let (n, _, bit) = place(intid);
        let cpu = usize::from(vcpu.0);
        let Some(bank) = self.bank_mut(cpu, n) else { return Kicks::NONE };
        if intid.is_sgi() {
            return Kicks::NONE;
        }
        let was = bank.line & bit != 0;
        let edge = bank.edge & bit != 0;
        let listed = (bank.listed | bank.active) & bit != 0;
        match level {
            Line::High => {
                bank.line |= bit;
                if edge && !was {
                    bank.latch |= bit;
                    return self.notify(cpu, n, bit);
                }
                // One in a list is looked at again at its end, by the maintenance bit; a mapped one was just ended.
                if edge || was || listed && bank.mapped & bit == 0 {
                    return Kicks::NONE;
                }
                self.notify(cpu, n, bit)
            }
            Line::Low => {
                let was = was || bank.lent_line & bit != 0;
                bank.line &= !bit;
                bank.lent_line &= !bit;
                // A list may still show it as pending.
                if edge || !was || !listed { Kicks::NONE } else { self.notify(cpu, n, bit) }
            }
        }
    }

    /// `vcpu` is reset, and with it the timers and the virtual interface that drive its PPIs: their wires are low. What is latched
    /// stays pending, as the interrupt controller is not reset. The kicks would be for this vCPU, which looks before it runs.
    pub fn lower_ppis(&mut self, vcpu: VcpuId) {
        for intid in 16..32 {
            let _ = self.set_line(vcpu, IntId(intid), Line::Low);
        }
    }

    /// Pulses the wire of an interrupt: makes it pending if it is edge-triggered, and is not noticed otherwise.
    pub fn pend(&mut self, vcpu: VcpuId, intid: IntId) -> Kicks {
        let (n, _, bit) = place(intid);
        let cpu = usize::from(vcpu.0);
        match self.bank_mut(cpu, n) {
            Some(bank) if bank.edge & bit != 0 && !intid.is_sgi() => {
                bank.latch |= bit;
                self.notify(cpu, n, bit)
            }
            _ => Kicks::NONE,
        }
    }

    /// Bank `n` as `cpu` sees it: 0 is its private one, 1 and up those of the SPIs.
    #[inline]
    pub(super) fn bank(&self, cpu: usize, n: usize) -> Option<&Bank> {
        match n.checked_sub(1) {
            None => self.locals.get(cpu).map(|local| &local.bank),
            Some(n) => self.spis.get(n).map(|shared| &shared.bank),
        }
    }

    #[inline]
    pub(super) fn bank_mut(&mut self, cpu: usize, n: usize) -> Option<&mut Bank> {
        match n.checked_sub(1) {
            None => self.locals.get_mut(cpu).map(|local| &mut local.bank),
            Some(n) => self.spis.get_mut(n).map(|shared| &mut shared.bank),
        }
    }

    /// The interrupts of a bank whose group is forwarded.
    pub(super) fn forwarded(&self, bank: &Bank) -> u32 {
        (if self.groups & 1 != 0 { !bank.group } else { 0 }) | (if self.groups & 2 != 0 { bank.group } else { 0 })
    }

    /// The interrupts of a bank that could be taken if a list had them.
    pub(super) fn ready(&self, bank: &Bank) -> u32 {
        bank.pending() & bank.enabled & !bank.active & self.forwarded(bank)
    }

    /// Finds whose lists a change of these interrupts has made wrong.
    pub(super) fn notify(&mut self, cpu: usize, n: usize, mask: u32) -> Kicks {
        let Some(bank) = self.bank(cpu, n) else { return Kicks::NONE };
        let held = (bank.listed | bank.active) & mask;
        let ready = self.ready(bank) & mask;
        if held | ready == 0 {
            return Kicks::NONE;
        }
        let Some(n) = n.checked_sub(1) else { return self.kick(cpu) };
        let mut kicks = Kicks::NONE;
        for at in bits(held | ready) {
            let Some(shared) = self.spis.get(n) else { break };
            let holder = shared.holder.get(at).copied().filter(|_| held >> at & 1 != 0);
            let target = shared.target.get(at).copied().filter(|_| ready >> at & 1 != 0);
            for cpu in [holder, target].into_iter().flatten().filter(|cpu| *cpu != NOBODY) {
                kicks |= self.kick(usize::from(cpu));
            }
        }
        kicks
    }

    /// Notes that a vCPU's lists are out of date.
    pub(super) fn kick(&mut self, cpu: usize) -> Kicks {
        match u16::try_from(cpu) {
            Ok(id) if cpu < self.locals.len() => {
                self.stale |= 1 << (id & 63);
                Kicks::one(VcpuId(id))
            }
            _ => Kicks::NONE,
        }
    }

    pub(super) fn kick_all(&mut self) -> Kicks {
        (0..self.locals.len()).fold(Kicks::NONE, |kicks, cpu| kicks | self.kick(cpu))
    }
}

/// Where an interrupt is: its bank, its place in it, its bit.
pub(super) const fn place(intid: IntId) -> (usize, usize, u32) {
    // A bank beyond those there are is found missing by whoever looks for it.
    ((intid.0 / 32) as usize, (intid.0 % 32) as usize, 1 << (intid.0 % 32))
}

/// The places of the bits that are set.
pub(super) fn bits(mut word: u32) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        if word == 0 {
            return None;
        }
        let at = word.trailing_zeros() as usize;
        word &= word - 1;
        Some(at)
    })
}
