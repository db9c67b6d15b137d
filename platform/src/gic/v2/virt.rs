//! GICH: what the hypervisor writes so that the guest sees interrupts in its GICV.
//!
//! Key type: [`VirtualInterface`], banked per CPU, at the third window of the GIC's device tree node. Formats of list
//! registers are not this crate's business: they are words here.
//!
//! Follows the GIC Architecture Specification v2 (IHI 0048B.b), 5.3; registers are named as there.

use core::hint::black_box;
use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::register_structs;
use tock_registers::registers::{ReadOnly, ReadWrite};

register_structs! {
    /// This CPU's virtual interface control registers, at GICH's base.
    pub VirtualInterface {
        (0x000 => hcr: ReadWrite<u32>),
        (0x004 => vtr: ReadOnly<u32>),
        (0x008 => vmcr: ReadWrite<u32>),
        (0x00c => _reserved0),
        (0x010 => misr: ReadOnly<u32>),
        (0x014 => _reserved1),
        (0x020 => eisr: [ReadOnly<u32>; 2]),
        (0x028 => _reserved2),
        (0x030 => elrsr: [ReadOnly<u32>; 2]),
        (0x038 => _reserved3),
        (0x0f0 => apr: ReadWrite<u32>),
        (0x0f4 => _reserved4),
        (0x100 => lr: [ReadWrite<u32>; 64]),
        (0x200 => @END),
    }
}

/// The two halves of a mask of list registers.
fn joined(halves: &[ReadOnly<u32>; 2]) -> u64 {
    let [low, high] = halves;
    u64::from(low.get()) | u64::from(high.get()) << 32
}

impl VirtualInterface {
    /// Reads GICH_HCR, the control register (5.3.1).
    pub fn hcr(&self) -> u32 {
        self.hcr.get()
    }

    /// Writes GICH_HCR; bit 0 switches the virtual interface on.
    pub fn set_hcr(&self, value: u32) {
        self.hcr.set(value);
    }

    /// Tells how many list registers there are (GICH_VTR, 5.3.2): 1 to 64, 4 on a GIC-400.
    pub fn list_registers(&self) -> usize {
        // Six bits fit.
        (self.vtr.get() & 0x3f) as usize + 1
    }

    /// Reads GICH_VTR.
    pub fn vtr(&self) -> u32 {
        self.vtr.get()
    }

    /// Reads GICH_VMCR, the guest's view of its control registers (5.3.3).
    pub fn vmcr(&self) -> u32 {
        self.vmcr.get()
    }

    /// Writes GICH_VMCR.
    pub fn set_vmcr(&self, value: u32) {
        self.vmcr.set(value);
    }

    /// Reads GICH_MISR: why the maintenance interrupt is raised (5.3.4).
    pub fn misr(&self) -> u32 {
        self.misr.get()
    }

    /// Reads GICH_EISR0 and 1: the list registers whose interrupt has ended and asked for maintenance (5.3.5).
    pub fn eisr(&self) -> u64 {
        joined(&self.eisr)
    }

    /// Reads GICH_ELRSR0 and 1: the list registers that hold no valid interrupt (5.3.6).
    pub fn elrsr(&self) -> u64 {
        joined(&self.elrsr)
    }

    /// Reads GICH_APR, the active priorities (5.3.7).
    pub fn apr(&self) -> u32 {
        self.apr.get()
    }

    /// Writes GICH_APR.
    pub fn set_apr(&self, value: u32) {
        self.apr.set(value);
    }

    // List registers are accessed one after the other, and a compiler would have the instructions count their addresses up. Such an
    // access has no syndrome (Arm ARM D24.2.40, ISV), without which a hypervisor below cannot emulate it.

    /// Reads a list register (5.3.8); one that is not there reads as zero.
    pub fn lr(&self, index: usize) -> u32 {
        self.lr.get(index).map_or(0, |register| black_box(register).get())
    }

    /// Writes a list register; one that is not there is ignored.
    pub fn set_lr(&self, index: usize, value: u32) {
        if let Some(register) = self.lr.get(index) {
            black_box(register).set(value);
        }
    }
}
