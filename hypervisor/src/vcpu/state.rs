//! What a vCPU is made of, as data.

use super::nested::Nested;
use super::timer::Timer;
use crate::addr::VcpuId;
use crate::arm::debug::Debug;
use crate::arm::el1::Context;
use crate::arm::esr::{self, Syndrome};
use crate::arm::exception::psr;
use crate::arm::gic::Interface;
use crate::vgic::Lists;
use alloc::boxed::Box;
use core::fmt;
use core::ops::{Deref, DerefMut};

/// The registers that move at every exit; vectors.S knows this layout.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Registers {
    /// X0 to X30.
    pub x: [u64; 31],
    /// Where the guest goes on.
    pub pc: u64,
    /// PSTATE, in the format of SPSR_EL2.
    pub pstate: u64,
    /// ESR_EL2 of the last exit.
    pub esr: u64,
    /// FAR_EL2 of the last exit.
    pub far: u64,
    /// HPFAR_EL2 of the last exit.
    pub hpfar: u64,
}

impl Registers {
    /// The syndrome of the last exit.
    #[inline(always)]
    pub const fn syndrome(&self) -> Syndrome {
        Syndrome { esr: self.esr, far: self.far, hpfar: self.hpfar }
    }

    /// The value of register `n`; 31 is XZR.
    #[inline(always)]
    pub fn read(&self, n: u8) -> u64 {
        self.x.get(usize::from(n)).copied().unwrap_or(0)
    }

    /// Sets register `n`; 31 is XZR and swallows it.
    #[inline(always)]
    pub fn write(&mut self, n: u8, value: u64) {
        if let Some(x) = self.x.get_mut(usize::from(n)) {
            *x = value;
        }
    }

    /// Goes on behind the current instruction of `bytes` bytes. If it was being single-stepped, that step is done (PSTATE.SS,
    /// Arm ARM D2.11).
    #[inline(always)]
    pub fn step(&mut self, bytes: u64) {
        self.pc = self.pc.wrapping_add(bytes);
        self.pstate &= !psr::SS;
    }
}

/// The FP and SIMD registers.
#[derive(Clone, Debug)]
#[repr(C, align(16))]
pub struct Fp {
    /// V0 to V31.
    pub v: [u128; 32],
    /// FPCR.
    pub fpcr: u64,
    /// FPSR.
    pub fpsr: u64,
}

/// What exits are counted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Counter {
    Hypercall,
    SystemRegister,
    Mmio,
    Memory,
    Interrupt,
    Timer,
    Wait,
    /// What is its hypervisor's: exceptions forwarded, and its returns.
    Nested,
    Fp,
    Other,
}

impl Counter {
    /// All, in order.
    pub const ALL: [Self; 10] = [
        Self::Hypercall,
        Self::SystemRegister,
        Self::Mmio,
        Self::Memory,
        Self::Interrupt,
        Self::Timer,
        Self::Wait,
        Self::Nested,
        Self::Fp,
        Self::Other,
    ];

    /// The column's title.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hypercall => "hvc",
            Self::SystemRegister => "sysreg",
            Self::Mmio => "mmio",
            Self::Memory => "memory",
            Self::Interrupt => "irq",
            Self::Timer => "timer",
            Self::Wait => "wfx",
            Self::Nested => "nested",
            Self::Fp => "fp",
            Self::Other => "other",
        }
    }
}

/// One exit, as remembered for a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Past {
    /// ESR_EL2.
    pub esr: u64,
    /// Where.
    pub pc: u64,
    /// FAR_EL2.
    pub far: u64,
}

/// How many exits a report shows: a power of two.
pub const PAST: usize = 8;

const _: () = assert!(PAST.is_power_of_two());

/// A vCPU: what each has, and by its kind what it has besides.
///
/// Whoever handles an exit or loads it asks once of which kind it is. Behind that, who is handed a [`Nested`] knows that there is an EL2.
#[derive(Debug)]
pub struct Vcpu {
    /// What each has: fields of it are the vCPU's.
    pub common: Common,
    /// Whether it has an EL2 of its own.
    pub kind: VcpuKind,
}

/// Whether a vCPU has an EL2 of its own (KVM: `vcpu_has_nv`).
#[derive(Debug)]
pub enum VcpuKind {
    /// It has not.
    Plain,
    /// It has, and this besides.
    Nested(Box<Nested>),
}

impl Deref for Vcpu {
    type Target = Common;

    #[inline(always)]
    fn deref(&self) -> &Common {
        &self.common
    }
}

impl DerefMut for Vcpu {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Common {
        &mut self.common
    }
}

/// What every vCPU has.
#[derive(Debug)]
pub struct Common {
    /// What moves at every exit.
    pub registers: Registers,
    /// EL1's registers, valid while the vCPU is not loaded.
    pub saved: Context,
    /// FP and SIMD registers, valid while they are not on a CPU.
    pub fp: Fp,
    /// Its number in the VM.
    pub id: VcpuId,
    /// VMPIDR_EL2: who it takes itself for.
    pub mpidr: u64,
    /// Whether the CPUs have PSTATE.PAN.
    pub has_pan: bool,
    /// Whether the CPUs have PSTATE.SSBS.
    pub has_ssbs: bool,
    /// EL1's physical timer, which is emulated.
    pub cntp: Timer,
    /// The level of its line.
    pub cntp_line: bool,
    /// Its debug registers. MDSCR_EL1 as the CPU has it is among EL1's.
    pub debug: Debug,
    /// Whether the physical interrupt of its virtual timer is active on its behalf.
    pub timer_active: bool,
    /// Its list registers, as they were last filled.
    pub lists: Lists,
    /// How many list registers of the CPU hold something, if it is loaded.
    pub in_hardware: usize,
    /// The CPU interface's own state while the vCPU is not loaded.
    pub interface: Interface,
    /// The last exits, a ring.
    pub past: [Past; PAST],
    /// How many there were: the next goes to this place in it, by its lowest bits.
    pub past_at: usize,
    /// Its exception vectors raise exceptions themselves.
    pub vector_loop: Streak,
    /// It has the same fault again and again, and there is nothing to do about it.
    pub fault_loop: Streak,
    /// How far cleaning all of the VM's memory has come, and for the instruction at which address: see `exit::cache`.
    pub cleaning: (u64, u64),
}

impl Common {
    /// After a warm reset.
    fn new(id: VcpuId, mpidr: u64, has_pan: bool, has_ssbs: bool) -> Self {
        Self {
            registers: Registers { x: [0; 31], pc: 0, pstate: psr::DAIF | psr::EL1H, esr: 0, far: 0, hpfar: 0 },
            saved: Context::reset(),
            fp: Fp { v: [0; 32], fpcr: 0, fpsr: 0 },
            id,
            mpidr,
            has_pan,
            has_ssbs,
            cntp: Timer::default(),
            cntp_line: false,
            debug: Debug::new(),
            timer_active: false,
            lists: Lists::new(),
            in_hardware: 0,
            interface: Interface::default(),
            past: [Past::default(); PAST],
            past_at: 0,
            vector_loop: Streak::default(),
            fault_loop: Streak::default(),
            cleaning: (0, 0),
        }
    }

    /// Remembers the last exit for a report.
    #[inline(always)]
    pub fn remember(&mut self) {
        self.past[self.past_at & (PAST - 1)] =
            Past { esr: self.registers.esr, pc: self.registers.pc, far: self.registers.far };
        self.past_at = self.past_at.wrapping_add(1);
    }
}

impl Vcpu {
    /// A vCPU after a warm reset, without an EL2.
    pub fn new(id: VcpuId, mpidr: u64, has_pan: bool, has_ssbs: bool) -> Self {
        Self { common: Common::new(id, mpidr, has_pan, has_ssbs), kind: VcpuKind::Plain }
    }

    /// What it has besides if it has an EL2 of its own.
    pub fn nested(&self) -> Option<&Nested> {
        match &self.kind {
            VcpuKind::Plain => None,
            VcpuKind::Nested(nested) => Some(nested),
        }
    }

    /// The same, to be changed.
    pub fn nested_mut(&mut self) -> Option<&mut Nested> {
        match &mut self.kind {
            VcpuKind::Plain => None,
            VcpuKind::Nested(nested) => Some(nested),
        }
    }

    /// Resets it to start at `pc` with `x0`.
    pub fn reset(&mut self, pc: u64, x0: u64) {
        self.common = Common::new(self.id, self.mpidr, self.has_pan, self.has_ssbs);
        if let VcpuKind::Nested(nested) = &mut self.kind {
            nested.reset();
            nested.reset_el1(&mut self.common.saved);
        }
        self.registers.pc = pc;
        self.registers.x[0] = x0;
    }
}

/// How often in a row a vCPU made no progress, by one measure.
#[derive(Clone, Copy, Default, Debug)]
pub struct Streak(u32);

impl Streak {
    /// Counts one more time, or begins again. True when it has been too often.
    pub const fn goes_on(&mut self, stuck: bool) -> bool {
        /// How often is too often.
        const STUCK: u32 = 64;
        self.0 = if stuck { self.0 + 1 } else { 0 };
        self.0 > STUCK
    }
}

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "pc  {:#018x}  pstate {:#010x}", self.pc, self.pstate)?;
        for (row, values) in self.x.chunks(4).enumerate() {
            for (column, value) in values.iter().enumerate() {
                write!(f, "x{:<2} {value:#018x}  ", row * 4 + column)?;
            }
            writeln!(f)?;
        }
        let class = self.syndrome().ec();
        writeln!(f, "esr {:#010x}: {}, iss {:#x}", self.esr, esr::class_name(class), self.syndrome().iss())?;
        write!(f, "far {:#018x}  hpfar {:#x}", self.far, self.hpfar)
    }
}
