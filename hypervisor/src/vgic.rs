//! The virtual interrupt controller of one VM: GICv2 or GICv3, as pure state.
//!
//! [`Vgic`] holds every interrupt's state as bits, a word per bank of 32: banks of private interrupts per vCPU
//! (`Local`), banks of SPIs for all (`Shared`). What a guest writes to GICD and GICR changes the words ([`dist`],
//! [`redist`], `words`); [`Vgic::fill`] makes list registers of them and [`Vgic::fold`] takes those back ([`cpu`]).
//! The CPU interface itself is hardware: ICV_* registers, or the GICV page.
//!
//! # Who must do what
//!
//! - The [`Lists`] of a vCPU stay in hardware as long as nothing changes. [`Vgic::needs_fill`] says that something did:
//!   copy them (and the EOIcount of ICH_HCR_EL2) back, [`Vgic::refill`] with the [`Mask`](crate::arm::gic::Mask) that
//!   VMCR says now, write lists and HCR again. The same after a maintenance interrupt, and a fold whenever the vCPU is
//!   unloaded or waits.
//! - Before an access for which [`Vgic::touches_state`] holds: fold the vCPU that makes it.
//! - [`Kicks`] name the vCPUs whose lists are out of date, the accessing one perhaps among them.
//! - For interrupts mapped to physical ones ([`Vgic::map_hw`]): after a fold, and before the next fill, tell the level
//!   with [`Vgic::set_line`] if it fell, and make the physical interrupt's active state what [`Vgic::hw_active`] says.
//! - Writes of DIR (ICC_DIR_EL1 traps by TDIR; GICC_DIR lies in a page of its own, to be left unmapped): fold, then
//!   [`Vgic::deactivate`]. The hardware cannot find an interrupt that had no room in the lists.
//!
//! # Invariants
//!
//! - `listed` is set exactly for the entries of some vCPU's lists; an interrupt is in one list at most.
//! - What a list carries is taken out of `latch` (or `line`, if mapped) and remembered in `lent` (`lent_line`): whatever
//!   comes on top while the list is in hardware is kept apart, and folding merges. Nothing is lost or taken twice.
//! - An SPI that is active or listed has a `holder`, the vCPU it must come back to, whatever its target is now.
//!
//! # Known limits
//!
//! - Reads of ISPENDR and ISACTIVER do not stop other vCPUs: what their lists say of an SPI is seen after their next fold.
//! - Ends of interrupts that had no room are matched by the priority they were taken at. A guest that makes one inactive
//!   by ICACTIVER and ends it nevertheless, while more are active than there are list registers, ends another.
//!
//! Follows IHI 0048B (GICv2) and IHI 0069H (GICv3), with one security state, no LPIs and no 1-of-N routing.

pub mod cpu;
pub mod dist;
pub mod redist;
mod show;
mod v2;
mod v3;
mod words;

pub use cpu::Lists;
pub use show::View;

use crate::addr::{IntId, VcpuId};
use crate::arm::gic::{Version, gicr};
use crate::next::Kicks;
use alloc::vec;
use alloc::vec::Vec;

/// Most SPIs there can be.
const SPIS_MAX: u32 = 256;
/// Most banks of SPIs.
const SPI_BANKS: usize = 8;
/// In the place of a vCPU: none.
const NOBODY: u8 = 0xff;
/// The SGIs within a private bank.
const SGIS: u32 = 0xffff;

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
struct Bank {
    /// Made pending by an edge, an SGI or a write of ISPENDR; until taken.
    latch: u32,
    /// The wire is high.
    line: u32,
    enabled: u32,
    active: u32,
    /// Group 1.
    group: u32,
    /// Edge-triggered.
    edge: u32,
    /// In a list.
    listed: u32,
    /// In a list that carries what was in `latch`.
    lent: u32,
    /// In a list that carries what was in `line` (mapped interrupts).
    lent_line: u32,
    /// The guest wrote the active state while listed: that counts, not the list's.
    written: u32,
    /// Mapped to the physical interrupt in `physical`.
    mapped: u32,
    priority: [u8; 32],
    /// The priority at which an active one was taken, which orders the ends; above all there are, if it never was.
    running: [u8; 32],
    /// Those active that were in Group 1 when they were taken.
    running1: u32,
    physical: [u16; 32],
}

impl Bank {
    const fn new(enabled: u32, edge: u32) -> Self {
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
    const fn pending(&self) -> u32 {
        self.latch | self.lent | self.lent_line | self.line & !self.edge
    }

    /// With which priority and in which group an active interrupt has to be in a list: those it was taken with, whatever
    /// the guest has written since, as the CPU interface ends what has the priority and group that it drops
    /// (ICV_EOIR1_EL1). One that was never taken has what was written last.
    fn as_taken(&self, at: usize) -> (u8, bool) {
        match self.running.get(at) {
            Some(priority) if *priority != u8::MAX => (*priority, self.running1 >> (at & 31) & 1 != 0),
            _ => self.as_written(at),
        }
    }

    /// With which priority and in which group an interrupt is pending.
    fn as_written(&self, at: usize) -> (u8, bool) {
        (self.priority.get(at).copied().unwrap_or(u8::MAX), self.group >> (at & 31) & 1 != 0)
    }

    /// As new, but for the mapping.
    fn reset(&mut self, enabled: u32, edge: u32) {
        *self = Self { mapped: self.mapped, physical: self.physical, ..Self::new(enabled, edge) };
    }
}

/// What each vCPU has for itself.
#[derive(Clone, Debug)]
struct Local {
    bank: Bank,
    /// GICv2: from whom each SGI is pending, a bit per vCPU.
    sources: [u8; 16],
    /// GICv2: from whom came the SGI that is active.
    active_source: [u8; 16],
    /// SPIs that target this vCPU.
    mine: [u32; SPI_BANKS],
    /// SPIs that are active after this vCPU took them.
    held: [u32; SPI_BANKS],
    /// GICR_WAKER.ProcessorSleep.
    asleep: bool,
}

impl Local {
    const fn new(version: Version) -> Self {
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
const fn private_enabled(version: Version) -> u32 {
    match version {
        Version::V2 => SGIS,
        Version::V3 => 0,
    }
}

/// Thirty-two SPIs.
#[derive(Clone, Debug)]
struct Shared {
    bank: Bank,
    /// Which vCPU's list has it, or which one took it and has not deactivated it.
    holder: [u8; 32],
    /// Where it goes.
    target: [u8; 32],
    /// As the guest wrote it: ITARGETSR's byte, or IROUTER's affinity.
    route: [u32; 32],
}

impl Shared {
    const fn new() -> Self {
        Self { bank: Bank::new(0, 0), holder: [NOBODY; 32], target: [NOBODY; 32], route: [0; 32] }
    }
}

/// The interrupt controller of one VM. Callers hold its lock.
#[derive(Clone, Debug)]
pub struct Vgic {
    version: Version,
    /// List registers per CPU, 1 to 16.
    room: usize,
    /// The groups that GICD_CTLR forwards: bit 0 Group 0, bit 1 Group 1.
    groups: u32,
    /// vCPUs whose lists are out of date.
    stale: u64,
    locals: Vec<Local>,
    spis: Vec<Shared>,
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
    fn bank(&self, cpu: usize, n: usize) -> Option<&Bank> {
        match n.checked_sub(1) {
            None => self.locals.get(cpu).map(|local| &local.bank),
            Some(n) => self.spis.get(n).map(|shared| &shared.bank),
        }
    }

    #[inline]
    fn bank_mut(&mut self, cpu: usize, n: usize) -> Option<&mut Bank> {
        match n.checked_sub(1) {
            None => self.locals.get_mut(cpu).map(|local| &mut local.bank),
            Some(n) => self.spis.get_mut(n).map(|shared| &mut shared.bank),
        }
    }

    /// The interrupts of a bank whose group is forwarded.
    fn forwarded(&self, bank: &Bank) -> u32 {
        (if self.groups & 1 != 0 { !bank.group } else { 0 }) | (if self.groups & 2 != 0 { bank.group } else { 0 })
    }

    /// The interrupts of a bank that could be taken if a list had them.
    fn ready(&self, bank: &Bank) -> u32 {
        bank.pending() & bank.enabled & !bank.active & self.forwarded(bank)
    }

    /// Finds whose lists a change of these interrupts has made wrong.
    fn notify(&mut self, cpu: usize, n: usize, mask: u32) -> Kicks {
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
    fn kick(&mut self, cpu: usize) -> Kicks {
        match u16::try_from(cpu) {
            Ok(id) if cpu < self.locals.len() => {
                self.stale |= 1 << (id & 63);
                Kicks::one(VcpuId(id))
            }
            _ => Kicks::NONE,
        }
    }

    fn kick_all(&mut self) -> Kicks {
        (0..self.locals.len()).fold(Kicks::NONE, |kicks, cpu| kicks | self.kick(cpu))
    }
}

/// Where an interrupt is: its bank, its place in it, its bit.
const fn place(intid: IntId) -> (usize, usize, u32) {
    // A bank beyond those there are is found missing by whoever looks for it.
    ((intid.0 / 32) as usize, (intid.0 % 32) as usize, 1 << (intid.0 % 32))
}

/// The places of the bits that are set.
fn bits(mut word: u32) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        if word == 0 {
            return None;
        }
        let at = word.trailing_zeros() as usize;
        word &= word - 1;
        Some(at)
    })
}
