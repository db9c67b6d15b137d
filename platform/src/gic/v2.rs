//! GICv2, seen from non-secure EL2: distributor, CPU interface and virtual interface control.
//!
//! Key types: [`Distributor`] (GICD, one per board), [`CpuInterface`] (GICC) and [`VirtualInterface`] (GICH), the latter two
//! banked: every CPU sees its own at the same address. The bases come from the device tree, in the order GICD, GICC, GICH,
//! GICV: 0xff84_1000, 0xff84_2000, 0xff84_4000, 0xff84_6000 on a BCM2711 (GIC-400); 0x0800_0000, 0x0801_0000, 0x0803_0000,
//! 0x0804_0000 on QEMU's `virt`.
//!
//! Security. With the security extensions (a BCM2711 under its firmware) we see the non-secure views: GICD_IGROUPR is not
//! ours, bit 0 of GICD_CTLR and GICC_CTLR enables group 1, bit 9 of GICC_CTLR is EOImodeNS. Without them (QEMU) all
//! interrupts are put into group 0, where bit 0 enables group 0, bit 9 is that group's EOImode and FIQEn = 0 makes it an
//! IRQ. So the same writes do for both: IGROUPR = 0, bit 0, bit 9 (IHI 0048B.b, 4.3.1, 4.3.4 and 4.4.1).
//!
//! Follows the GIC Architecture Specification v2 (IHI 0048B.b): 4.3 (GICD), 4.4 (GICC), 5.3 (GICH).

use super::{Ack, FIRST_SPI, PRIORITY, PRIORITY_MASK, SPECIAL, Trigger, apart, bit, config_bit};
use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::registers::{ReadOnly, ReadWrite, WriteOnly};
use tock_registers::{register_bitfields, register_structs};

mod virt;

pub use virt::VirtualInterface;

register_bitfields! {u32,
    /// GICD_CTLR, 4.3.1.
    GICD_CTLR [ENABLE OFFSET(0) NUMBITS(1) []],
    /// GICD_TYPER, 4.3.2.
    TYPER [IT_LINES OFFSET(0) NUMBITS(5) [], CPUS OFFSET(5) NUMBITS(3) []],
    /// GICD_SGIR, 4.3.15.
    SGIR [INTID OFFSET(0) NUMBITS(4) [], TARGETS OFFSET(16) NUMBITS(8) [], FILTER OFFSET(24) NUMBITS(2) [List = 0]],
    /// GICC_CTLR, 4.4.1.
    GICC_CTLR [
        ENABLE OFFSET(0) NUMBITS(1) [],
        /// Whether interrupts bypass a disabled interface: the firmware's choice.
        BYPASS OFFSET(5) NUMBITS(4) [],
        EOIMODE OFFSET(9) NUMBITS(1) []
    ]
}

register_structs! {
    /// The distributor, at GICD's base.
    pub Distributor {
        (0x000 => ctlr: ReadWrite<u32, GICD_CTLR::Register>),
        (0x004 => typer: ReadOnly<u32, TYPER::Register>),
        (0x008 => _iidr),
        (0x080 => igroupr: [ReadWrite<u32>; 32]),
        (0x100 => isenabler: [ReadWrite<u32>; 32]),
        (0x180 => icenabler: [ReadWrite<u32>; 32]),
        (0x200 => ispendr: [ReadWrite<u32>; 32]),
        (0x280 => icpendr: [ReadWrite<u32>; 32]),
        (0x300 => isactiver: [ReadWrite<u32>; 32]),
        (0x380 => icactiver: [ReadWrite<u32>; 32]),
        (0x400 => ipriorityr: [ReadWrite<u8>; 1024]),
        (0x800 => itargetsr: [ReadWrite<u8>; 1024]),
        (0xc00 => icfgr: [ReadWrite<u32>; 64]),
        (0xd00 => _nsacr),
        (0xf00 => sgir: WriteOnly<u32, SGIR::Register>),
        (0xf04 => _reserved),
        (0xf10 => cpendsgir: [ReadWrite<u32>; 4]),
        (0xf20 => spendsgir: [ReadWrite<u32>; 4]),
        (0xf30 => _identification),
        (0x1000 => @END),
    }
}

register_structs! {
    /// This CPU's interface, at GICC's base.
    pub CpuInterface {
        (0x000 => ctlr: ReadWrite<u32, GICC_CTLR::Register>),
        (0x004 => pmr: ReadWrite<u32>),
        (0x008 => bpr: ReadWrite<u32>),
        (0x00c => iar: ReadOnly<u32>),
        (0x010 => eoir: WriteOnly<u32>),
        (0x014 => rpr: ReadOnly<u32>),
        (0x018 => hppir: ReadOnly<u32>),
        (0x01c => _aliased),
        (0x0d0 => apr: [ReadWrite<u32>; 4]),
        (0x0e0 => _nsapr),
        (0x1000 => dir: WriteOnly<u32>),
        (0x1004 => @END),
    }
}

impl Distributor {
    /// Sets the distributor up, once per board, before any CPU's [`init_cpu`](Self::init_cpu): all SPIs disabled, not
    /// pending, not active, level-sensitive, of priority [`PRIORITY`], aimed at the calling CPU; then forwarding is on.
    pub fn init(&self) {
        self.ctlr.write(GICD_CTLR::ENABLE::CLEAR);
        let own = self.own_mask();
        // u32 fits usize on every target.
        let lines = self.lines() as usize;
        let words = 1..lines.div_ceil(32);
        for word in words.map(apart) {
            for ones in [&self.icenabler, &self.icpendr, &self.icactiver] {
                set(ones.get(word), u32::MAX);
            }
            set(self.igroupr.get(word), 0);
        }
        for intid in (FIRST_SPI as usize..lines).map(apart) {
            set(self.ipriorityr.get(intid), PRIORITY);
            set(self.itargetsr.get(intid), own);
        }
        for word in (2..lines.div_ceil(16)).map(apart) {
            set(self.icfgr.get(word), 0);
        }
        self.ctlr.write(GICD_CTLR::ENABLE::SET);
    }

    /// Sets up what the distributor keeps for the calling CPU: its PPIs disabled, its SGIs enabled, none pending or active,
    /// all of priority [`PRIORITY`]. Comes before that CPU's [`CpuInterface::init`].
    pub fn init_cpu(&self) {
        set(self.icenabler.first(), 0xffff_0000);
        set(self.icpendr.first(), 0xffff_0000);
        set(self.icactiver.first(), u32::MAX);
        set(self.igroupr.first(), 0);
        for clear in self.cpendsgir.iter().map(apart) {
            clear.set(u32::MAX);
        }
        for priority in self.ipriorityr.iter().take(FIRST_SPI as usize).map(apart) {
            priority.set(PRIORITY);
        }
        set(self.isenabler.first(), 0x0000_ffff);
    }

    /// Tells how many INTIDs there are (at most 1020); all of them are below this.
    pub fn lines(&self) -> u32 {
        super::lines(self.typer.read(TYPER::IT_LINES))
    }

    /// Tells which CPU interface the calling CPU has, as a mask of one bit: what [`set_target`](Self::set_target) and
    /// [`send_sgi`](Self::send_sgi) take. Numbers of CPU interfaces need not follow affinities.
    pub fn own_mask(&self) -> u8 {
        // All the private interrupts' targets read as the reader's own; a GIC for one CPU has no targets and reads zero
        // (4.3.12).
        let own = self.itargetsr.iter().take(FIRST_SPI as usize).map(Readable::get).find(|&mask| mask != 0);
        own.unwrap_or(1)
    }

    /// Lets an interrupt through; a private one for the calling CPU.
    pub fn enable(&self, intid: u32) {
        self.mark(&self.isenabler, intid);
    }

    /// Holds an interrupt back; a private one for the calling CPU. One that is pending at a CPU already may still come.
    pub fn disable(&self, intid: u32) {
        self.mark(&self.icenabler, intid);
    }

    /// Sets how urgent an interrupt is; lower is more. Hardware may ignore the lower bits.
    pub fn set_priority(&self, intid: u32, priority: u8) {
        if intid < SPECIAL {
            set(self.ipriorityr.get(intid as usize), priority);
        }
    }

    /// Aims an SPI at the CPU interfaces in `mask`. Private interrupts are left as they are.
    pub fn set_target(&self, intid: u32, mask: u8) {
        if (FIRST_SPI..SPECIAL).contains(&intid) {
            set(self.itargetsr.get(intid as usize), mask);
        }
    }

    /// Sets what starts an interrupt. It must be disabled; SGIs are left as they are.
    pub fn set_trigger(&self, intid: u32, trigger: Trigger) {
        let (word, mask) = config_bit(intid);
        let Some(register) = self.icfgr.get(word).filter(|_| (16..SPECIAL).contains(&intid)) else { return };
        let others = register.get() & !mask;
        register.set(if trigger == Trigger::Edge { others | mask } else { others });
    }

    /// Makes an interrupt active, as if it had been acknowledged; a private one for the calling CPU.
    pub fn set_active(&self, intid: u32) {
        self.mark(&self.isactiver, intid);
    }

    /// Makes an interrupt inactive; a private one for the calling CPU.
    pub fn clear_active(&self, intid: u32) {
        self.mark(&self.icactiver, intid);
    }

    /// Tells whether an interrupt is active; a private one for the calling CPU.
    pub fn is_active(&self, intid: u32) -> bool {
        self.marked(&self.isactiver, intid)
    }

    /// Makes a PPI or an SPI pending. SGIs are sent by [`send_sgi`](Self::send_sgi).
    pub fn set_pending(&self, intid: u32) {
        self.mark(&self.ispendr, intid);
    }

    /// Takes back that an interrupt is pending; a level-sensitive one stays so as long as its device asks.
    pub fn clear_pending(&self, intid: u32) {
        self.mark(&self.icpendr, intid);
    }

    /// Tells whether an interrupt is pending; a private one for the calling CPU.
    pub fn is_pending(&self, intid: u32) -> bool {
        self.marked(&self.ispendr, intid)
    }

    /// Sends SGI `intid` (0 to 15) to the CPU interfaces in `mask`. The caller owes a DSB ISHST before, for what the
    /// receiver is to see.
    pub fn send_sgi(&self, mask: u8, intid: u32) {
        if intid < 16 {
            self.sgir.write(SGIR::FILTER::List + SGIR::TARGETS.val(u32::from(mask)) + SGIR::INTID.val(intid));
        }
    }

    fn mark(&self, registers: &[ReadWrite<u32>; 32], intid: u32) {
        let (word, mask) = bit(intid);
        if intid < SPECIAL {
            set(registers.get(word), mask);
        }
    }

    fn marked(&self, registers: &[ReadWrite<u32>; 32], intid: u32) -> bool {
        let (word, mask) = bit(intid);
        intid < SPECIAL && registers.get(word).is_some_and(|register| register.get() & mask != 0)
    }
}

/// Writes a register of an array, if the array has it.
fn set<R: Writeable>(register: Option<&R>, value: R::T) {
    if let Some(register) = register {
        register.set(value);
    }
}

impl CpuInterface {
    /// Sets the calling CPU's interface up: all priorities pass, none counts as running, end of interrupt drops the
    /// priority only. Comes after [`Distributor::init_cpu`].
    pub fn init(&self) {
        let kept = GICC_CTLR::BYPASS.val(self.ctlr.read(GICC_CTLR::BYPASS));
        self.ctlr.write(GICC_CTLR::ENABLE::CLEAR + kept);
        for active in self.apr.iter().map(apart) {
            active.set(0);
        }
        self.pmr.set(PRIORITY_MASK);
        self.bpr.set(0);
        self.ctlr.write(GICC_CTLR::ENABLE::SET + GICC_CTLR::EOIMODE::SET + kept);
    }

    /// Acknowledges the most urgent interrupt, which is active then, or nothing where none is pending.
    pub fn ack(&self) -> Option<Ack> {
        Ack::new(self.iar.get())
    }

    /// Drops the running priority to what it was before this interrupt, which stays active.
    pub fn eoi(&self, ack: Ack) {
        self.eoir.set(ack.raw());
    }

    /// Deactivates an interrupt after [`eoi`](Self::eoi), so that it can come again.
    pub fn deactivate(&self, ack: Ack) {
        self.dir.set(ack.raw());
    }

    /// Tells the priority that is running: 0xff (or the lowest there is) when idle.
    pub fn running_priority(&self) -> u32 {
        self.rpr.get()
    }

    /// Tells the INTID of the most urgent pending interrupt without acknowledging it.
    pub fn highest_pending(&self) -> Option<u32> {
        Ack::new(self.hppir.get()).map(Ack::intid)
    }
}
