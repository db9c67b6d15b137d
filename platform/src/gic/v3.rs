//! GICv3, seen from non-secure EL2: distributor and redistributors. The CPU interface is system registers, which are not
//! this crate's business.
//!
//! Key types: [`Distributor`] (GICD, one per board, 0x0800_0000 on QEMU's `virt`) and [`Redistributor`] (GICR, one per CPU,
//! from 0x080a_0000 on QEMU's `virt`; [`find`] picks the right one by affinity). The bases come from the device tree.
//!
//! Affinity routing is on (ARE_NS), so SPIs are aimed by GICD_IROUTER, and SGIs and PPIs belong to the redistributor. With
//! two security states we see the non-secure view; with one (GICD_CTLR.DS = 1, QEMU) every interrupt is put into group 1
//! by GICD_IGROUPR, which the other case ignores. The bits of GICD_CTLR that we set mean the right thing in both (12.9).
//!
//! Follows the GIC Architecture Specification v3 and v4 (IHI 0069H): 12.9 (GICD), 12.11 (GICR), 11.1 (waking up), 12.2.

use super::{FIRST_SPI, PRIORITY, SPECIAL, Stuck, Trigger, apart, bit, config_bit};
use crate::Range;
use tock_registers::interfaces::{ReadWriteable, Readable, Writeable};
use tock_registers::registers::{ReadOnly, ReadWrite};
use tock_registers::{register_bitfields, register_structs};

/// How often a register is looked at before its owner counts as stuck.
const POLLS: u32 = 1_000_000;
/// One redistributor without virtual LPIs: the frames RD_base and SGI_base, 64 KiB each.
const REDISTRIBUTOR: u64 = 0x2_0000;

register_bitfields! {u32,
    /// GICD_CTLR, 12.9, as the non-secure side sees it; with one security state bits 0 and 1 enable groups 0 and 1.
    GICD_CTLR [
        GRP1 OFFSET(0) NUMBITS(1) [],
        GRP1A OFFSET(1) NUMBITS(1) [],
        ARE_NS OFFSET(4) NUMBITS(1) [],
        RWP OFFSET(31) NUMBITS(1) []
    ],
    /// GICD_TYPER, 12.9.
    GICD_TYPER [IT_LINES OFFSET(0) NUMBITS(5) []],
    /// GICR_CTLR, 12.11.
    GICR_CTLR [RWP OFFSET(3) NUMBITS(1) []],
    /// GICR_WAKER, 12.11.
    WAKER [PROCESSOR_SLEEP OFFSET(1) NUMBITS(1) [], CHILDREN_ASLEEP OFFSET(2) NUMBITS(1) []]
}

register_bitfields! {u64,
    /// GICR_TYPER, 12.11.
    GICR_TYPER [VLPIS OFFSET(1) NUMBITS(1) [], LAST OFFSET(4) NUMBITS(1) [], AFFINITY OFFSET(32) NUMBITS(32) []]
}

register_structs! {
    /// The distributor, at GICD's base.
    pub Distributor {
        (0x0000 => ctlr: ReadWrite<u32, GICD_CTLR::Register>),
        (0x0004 => typer: ReadOnly<u32, GICD_TYPER::Register>),
        (0x0008 => _iidr),
        (0x0080 => igroupr: [ReadWrite<u32>; 32]),
        (0x0100 => isenabler: [ReadWrite<u32>; 32]),
        (0x0180 => icenabler: [ReadWrite<u32>; 32]),
        (0x0200 => ispendr: [ReadWrite<u32>; 32]),
        (0x0280 => icpendr: [ReadWrite<u32>; 32]),
        (0x0300 => isactiver: [ReadWrite<u32>; 32]),
        (0x0380 => icactiver: [ReadWrite<u32>; 32]),
        (0x0400 => ipriorityr: [ReadWrite<u8>; 1024]),
        (0x0800 => _itargetsr),
        (0x0c00 => icfgr: [ReadWrite<u32>; 64]),
        (0x0d00 => _unused),
        (0x6000 => irouter: [ReadWrite<u64>; 1020]),
        (0x7fe0 => _identification),
        (0x1_0000 => @END),
    }
}

register_structs! {
    /// One CPU's redistributor, at its RD_base; the SGI_base frame is the second 64 KiB.
    pub Redistributor {
        (0x0_0000 => ctlr: ReadWrite<u32, GICR_CTLR::Register>),
        (0x0_0004 => _iidr),
        (0x0_0008 => typer: ReadOnly<u64, GICR_TYPER::Register>),
        (0x0_0010 => _statusr),
        (0x0_0014 => waker: ReadWrite<u32, WAKER::Register>),
        (0x0_0018 => _lpis),
        (0x1_0080 => igroupr0: ReadWrite<u32>),
        (0x1_0084 => _reserved0),
        (0x1_0100 => isenabler0: ReadWrite<u32>),
        (0x1_0104 => _reserved1),
        (0x1_0180 => icenabler0: ReadWrite<u32>),
        (0x1_0184 => _reserved2),
        (0x1_0200 => ispendr0: ReadWrite<u32>),
        (0x1_0204 => _reserved3),
        (0x1_0280 => icpendr0: ReadWrite<u32>),
        (0x1_0284 => _reserved4),
        (0x1_0300 => isactiver0: ReadWrite<u32>),
        (0x1_0304 => _reserved5),
        (0x1_0380 => icactiver0: ReadWrite<u32>),
        (0x1_0384 => _reserved6),
        (0x1_0400 => ipriorityr: [ReadWrite<u8>; 32]),
        (0x1_0420 => _reserved7),
        (0x1_0c00 => icfgr: [ReadWrite<u32>; 2]),
        (0x1_0c08 => _reserved8),
        (0x2_0000 => @END),
    }
}

/// Finds the redistributor of the CPU `mpidr` (only affinity fields count), and its base. `at` makes a reference to the
/// redistributor at an address, which always lies in one of the regions with all its registers.
///
/// `stride` is what the device tree says, if it does. Nothing where no region has this CPU: the device tree's fault.
pub fn find<'r>(
    regions: &[Range],
    stride: Option<u64>,
    mpidr: u64,
    at: impl Fn(u64) -> &'r Redistributor,
) -> Option<(u64, &'r Redistributor)> {
    let affinity = affinity(mpidr);
    for region in regions {
        let mut base = region.start;
        while base.checked_add(REDISTRIBUTOR).is_some_and(|end| end <= region.end) {
            let redistributor = at(base);
            let typer = redistributor.typer.extract();
            if typer.read(GICR_TYPER::AFFINITY) == affinity {
                return Some((base, redistributor));
            }
            if typer.is_set(GICR_TYPER::LAST) {
                break;
            }
            // GICv4 has two more frames for virtual LPIs (12.10).
            let own = if typer.is_set(GICR_TYPER::VLPIS) { 2 * REDISTRIBUTOR } else { REDISTRIBUTOR };
            base = base.checked_add(stride.unwrap_or(own).max(REDISTRIBUTOR))?;
        }
    }
    None
}

/// The affinity fields of an MPIDR_EL1, packed as GICR_TYPER has them.
const fn affinity(mpidr: u64) -> u64 {
    (mpidr >> 32 & 0xff) << 24 | mpidr & 0xff_ffff
}

/// Tells what to write into ICC_SGI1R_EL1 to send SGI `intid` (0 to 15) to the CPU `mpidr` (12.2).
///
/// Aff0 above 15 needs range selectors, which the CPU interface must support.
pub const fn sgi1r(mpidr: u64, intid: u32) -> u64 {
    let aff0 = mpidr & 0xff;
    let (aff1, aff2, aff3) = (mpidr >> 8 & 0xff, mpidr >> 16 & 0xff, mpidr >> 32 & 0xff);
    // The INTID has four bits in the register.
    let intid = (intid & 0xf) as u64;
    aff3 << 48 | (aff0 >> 4) << 44 | aff2 << 32 | intid << 24 | aff1 << 16 | 1 << (aff0 & 0xf)
}

/// Writes a register of an array, if the array has it.
fn set<R: Writeable>(register: Option<&R>, value: R::T) {
    if let Some(register) = register {
        register.set(value);
    }
}

impl Distributor {
    /// Sets the distributor up, once per board: affinity routing on; all SPIs in group 1, disabled, not pending, not active,
    /// level-sensitive, of priority [`PRIORITY`], aimed at the CPU `mpidr`; then forwarding is on.
    ///
    /// Fails where the distributor does not take a write up: the hardware's fault.
    pub fn init(&self, mpidr: u64) -> Result<(), Stuck> {
        self.ctlr.set(0);
        self.settle()?;
        // GICD_IROUTER is there only with affinity routing on, and that may change only while all groups are off (12.9).
        self.ctlr.write(GICD_CTLR::ARE_NS::SET);
        self.settle()?;
        // u32 fits usize on every target.
        let lines = self.lines() as usize;
        for word in (1..lines.div_ceil(32)).map(apart) {
            for ones in [&self.icenabler, &self.icpendr, &self.icactiver, &self.igroupr] {
                set(ones.get(word), u32::MAX);
            }
        }
        self.settle()?;
        for intid in (FIRST_SPI as usize..lines).map(apart) {
            set(self.ipriorityr.get(intid), PRIORITY);
        }
        for word in (2..lines.div_ceil(16)).map(apart) {
            set(self.icfgr.get(word), 0);
        }
        for intid in (FIRST_SPI..self.lines()).map(apart) {
            self.set_route(intid, mpidr);
        }
        self.ctlr.write(GICD_CTLR::ARE_NS::SET + GICD_CTLR::GRP1A::SET + GICD_CTLR::GRP1::SET);
        self.settle()
    }

    /// Tells how many INTIDs there are below the special ones (at most 1020).
    pub fn lines(&self) -> u32 {
        super::lines(self.typer.read(GICD_TYPER::IT_LINES))
    }

    /// Lets an SPI through.
    pub fn enable(&self, intid: u32) {
        self.mark(&self.isenabler, intid);
    }

    /// Holds an SPI back, and waits until no CPU can get it any more.
    pub fn disable(&self, intid: u32) -> Result<(), Stuck> {
        self.mark(&self.icenabler, intid);
        self.settle()
    }

    /// Sets how urgent an SPI is; lower is more. Hardware may ignore the lower bits.
    pub fn set_priority(&self, intid: u32, priority: u8) {
        if is_spi(intid) {
            set(self.ipriorityr.get(intid as usize), priority);
        }
    }

    /// Aims an SPI at the CPU `mpidr` (only affinity fields count).
    pub fn set_route(&self, intid: u32, mpidr: u64) {
        if is_spi(intid) {
            set(self.irouter.get(intid as usize), mpidr & 0xff_00ff_ffff);
        }
    }

    /// Sets what starts an SPI. It must be disabled.
    pub fn set_trigger(&self, intid: u32, trigger: Trigger) {
        let (word, mask) = config_bit(intid);
        let Some(register) = self.icfgr.get(word).filter(|_| is_spi(intid)) else { return };
        let others = register.get() & !mask;
        register.set(if trigger == Trigger::Edge { others | mask } else { others });
    }

    /// Makes an SPI active, as if it had been acknowledged.
    pub fn set_active(&self, intid: u32) {
        self.mark(&self.isactiver, intid);
    }

    /// Makes an SPI inactive.
    pub fn clear_active(&self, intid: u32) {
        self.mark(&self.icactiver, intid);
    }

    /// Tells whether an SPI is active.
    pub fn is_active(&self, intid: u32) -> bool {
        self.marked(&self.isactiver, intid)
    }

    /// Makes an SPI pending.
    pub fn set_pending(&self, intid: u32) {
        self.mark(&self.ispendr, intid);
    }

    /// Takes back that an SPI is pending; a level-sensitive one stays so as long as its device asks.
    pub fn clear_pending(&self, intid: u32) {
        self.mark(&self.icpendr, intid);
    }

    /// Tells whether an SPI is pending.
    pub fn is_pending(&self, intid: u32) -> bool {
        self.marked(&self.ispendr, intid)
    }

    fn mark(&self, registers: &[ReadWrite<u32>; 32], intid: u32) {
        let (word, mask) = bit(intid);
        if is_spi(intid) {
            set(registers.get(word), mask);
        }
    }

    fn marked(&self, registers: &[ReadWrite<u32>; 32], intid: u32) -> bool {
        let (word, mask) = bit(intid);
        is_spi(intid) && registers.get(word).is_some_and(|register| register.get() & mask != 0)
    }

    /// Waits until earlier writes to GICD_CTLR and GICD_ICENABLER have taken effect.
    fn settle(&self) -> Result<(), Stuck> {
        let done = (0..POLLS).any(|_| !self.ctlr.is_set(GICD_CTLR::RWP));
        if done { Ok(()) } else { Err(Stuck) }
    }
}

/// Whether an INTID is the distributor's: private ones are the redistributor's when affinity routing is on.
fn is_spi(intid: u32) -> bool {
    (FIRST_SPI..SPECIAL).contains(&intid)
}

mod redist;
