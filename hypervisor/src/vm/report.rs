//! What is told of a VM that crashed.

use super::Vm;
use crate::arm::el1::El1;
use crate::arm::esr;
use crate::host::Host;
use crate::machine::Machine;
use crate::vcpu::Vcpu;
use alloc::string::ToString;

/// Reports the crash of `vm`, whose loaded `vcpu` came to it.
pub fn crash<M: Machine>(host: &Host, m: &M, vm: &Vm, vcpu: &Vcpu, why: &str) {
    let name = &vm.name;
    host.say(format_args!("{name}: CRASH of vCPU {}: {why}", vcpu.id));
    for line in vcpu.registers.to_string().lines() {
        host.say(format_args!("{name}: {line}"));
    }
    for registers in El1::ALL.chunks(3) {
        let mut line = alloc::string::String::new();
        for register in registers {
            let _ = core::fmt::Write::write_fmt(
                &mut line,
                format_args!("{:<15} {:#018x}  ", register.name(), m.get(*register)),
            );
        }
        host.say(format_args!("{name}: {line}"));
    }
    for n in 0..crate::vcpu::state::PAST {
        let at = (vcpu.past_at + n) % crate::vcpu::state::PAST;
        if let Some(past) = vcpu.past.get(at) {
            let class = esr::class_name(past.esr >> 26 & 0x3f);
            host.say(format_args!("{name}: exit at {:#x}: {class}, esr {:#x}, far {:#x}", past.pc, past.esr, past.far));
        }
    }
}
