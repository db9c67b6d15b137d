//! What a CPU does with its own redistributor: waking it up, and its SGIs and PPIs.
//!
//! Follows the GIC Architecture Specification v3 and v4 (IHI 0069H): 11.1 (power management), 12.11 (GICR registers).

use super::{
    GICR_CTLR, POLLS, PRIORITY, ReadWrite, ReadWriteable, Readable, Redistributor, Stuck, Trigger, WAKER, Writeable,
};
use crate::gic::{FIRST_SPI, apart, config_bit};

impl Redistributor {
    /// Wakes the redistributor up and sets up its CPU's private interrupts: all in group 1, PPIs disabled, SGIs enabled, none
    /// pending or active, of priority [`PRIORITY`]. Comes before the CPU's system registers are touched.
    ///
    /// Fails where the redistributor does not wake up: the hardware's fault, or that of a firmware that keeps it asleep.
    pub fn init(&self) -> Result<(), Stuck> {
        self.waker.modify(WAKER::PROCESSOR_SLEEP::CLEAR);
        if !(0..POLLS).any(|_| !self.waker.is_set(WAKER::CHILDREN_ASLEEP)) {
            return Err(Stuck);
        }
        self.icenabler0.set(0xffff_0000);
        self.settle()?;
        self.igroupr0.set(u32::MAX);
        self.icpendr0.set(u32::MAX);
        self.icactiver0.set(u32::MAX);
        for priority in self.ipriorityr.iter().map(apart) {
            priority.set(PRIORITY);
        }
        self.isenabler0.set(0x0000_ffff);
        Ok(())
    }

    /// Lets an SGI or a PPI through.
    pub fn enable(&self, intid: u32) {
        mark(&self.isenabler0, intid);
    }

    /// Holds an SGI or a PPI back, and waits until the CPU cannot get it any more.
    pub fn disable(&self, intid: u32) -> Result<(), Stuck> {
        mark(&self.icenabler0, intid);
        self.settle()
    }

    /// Sets how urgent an SGI or a PPI is; lower is more. Hardware may ignore the lower bits.
    pub fn set_priority(&self, intid: u32, priority: u8) {
        // u32 fits usize on every target.
        if let Some(register) = self.ipriorityr.get(intid as usize) {
            register.set(priority);
        }
    }

    /// Sets what starts a PPI, where the hardware leaves that open. It must be disabled.
    pub fn set_trigger(&self, intid: u32, trigger: Trigger) {
        let (word, mask) = config_bit(intid);
        let Some(register) = self.icfgr.get(word).filter(|_| intid >= 16) else { return };
        let others = register.get() & !mask;
        register.set(if trigger == Trigger::Edge { others | mask } else { others });
    }

    /// Makes an SGI or a PPI active, as if it had been acknowledged.
    pub fn set_active(&self, intid: u32) {
        mark(&self.isactiver0, intid);
    }

    /// Makes an SGI or a PPI inactive.
    pub fn clear_active(&self, intid: u32) {
        mark(&self.icactiver0, intid);
    }

    /// Tells whether an SGI or a PPI is active.
    pub fn is_active(&self, intid: u32) -> bool {
        marked(&self.isactiver0, intid)
    }

    /// Makes an SGI or a PPI pending.
    pub fn set_pending(&self, intid: u32) {
        mark(&self.ispendr0, intid);
    }

    /// Takes back that an SGI or a PPI is pending; a level-sensitive one stays so as long as its device asks.
    pub fn clear_pending(&self, intid: u32) {
        mark(&self.icpendr0, intid);
    }

    /// Tells whether an SGI or a PPI is pending.
    pub fn is_pending(&self, intid: u32) -> bool {
        marked(&self.ispendr0, intid)
    }

    /// Waits until earlier writes to GICR_ICENABLER0 have taken effect.
    fn settle(&self) -> Result<(), Stuck> {
        let done = (0..POLLS).any(|_| !self.ctlr.is_set(GICR_CTLR::RWP));
        if done { Ok(()) } else { Err(Stuck) }
    }
}

fn mark(register: &ReadWrite<u32>, intid: u32) {
    if intid < FIRST_SPI {
        register.set(1 << intid);
    }
}

fn marked(register: &ReadWrite<u32>, intid: u32) -> bool {
    intid < FIRST_SPI && register.get() & 1 << intid != 0
}
