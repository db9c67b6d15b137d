//! A vCPU: its registers, where they live, and what it has been doing.
//!
//! [`Vcpu`] is owned by whoever holds its lock: the CPU it is loaded on, for as long as it is loaded. Its EL1 registers
//! ([`Common::saved`]) are then on that CPU and reached through [`Machine::get`].

pub mod backend;
pub mod el0;
pub mod el0_state;
pub mod nested;
pub mod nv2;
pub mod state;
pub mod timer;

use crate::arm::el1::El1;
pub use crate::arm::el2::{El2Registers, Traps};
use crate::arm::esr::{self, Access, From};
use crate::arm::exception::{self, Kind, psr};
pub use crate::arm::gic::Interface;
use crate::machine::Machine;
pub use nested::Nested;
pub use state::{Common, Counter, Fp, Past, Registers, Streak, Vcpu, VcpuKind};
pub use timer::Timer;

/// Makes the loaded `vcpu` take a synchronous exception at its EL1, with this syndrome and, where given, fault address. If
/// its hypervisor runs, EL1 is what that has for its EL2: it is told that it comes from there where it `reports_el2`.
pub fn enter_el1<M: Machine>(vcpu: &mut Common, m: &M, reports_el2: bool, syndrome: u64, far: Option<u64>) {
    let registers = &mut vcpu.registers;
    let entry =
        exception::take(Kind::Sync, registers.pstate, m.get(El1::Vbar), m.get(El1::Sctlr), vcpu.has_pan, vcpu.has_ssbs);
    m.set(El1::Elr, registers.pc);
    m.set(El1::Spsr, if reports_el2 { as_el2(registers.pstate) } else { registers.pstate });
    m.set(El1::Esr, syndrome);
    if let Some(far) = far {
        m.set(El1::Far, far);
    }
    registers.pc = entry.pc;
    registers.pstate = entry.pstate;
}

/// PSTATE of a hypervisor that runs at EL1, as it is to see it: at EL2.
pub const fn as_el2(pstate: u64) -> u64 {
    match pstate & psr::MODE {
        psr::EL1H | psr::EL1T => pstate & !0b1100 | 0b1000,
        _ => pstate,
    }
}

/// The syndrome of `vcpu`'s current access if it ends in a synchronous external abort.
pub fn external_abort(vcpu: &Vcpu, access: Access) -> u64 {
    let pstate = vcpu.registers.pstate;
    let pstate = vcpu.nested().map_or(pstate, |nested| nested.at_el1(pstate));
    let from = if pstate & psr::MODE == psr::EL0T || pstate & psr::AARCH32 != 0 { From::Lower } else { From::Same };
    esr::external_abort(access, from, vcpu.registers.syndrome().instruction_bytes())
}
