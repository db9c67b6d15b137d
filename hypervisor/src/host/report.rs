//! What is told of a VM that crashed: registers, the last exits, how the address it failed on translates at both stages,
//! and, with `on-crash = "dump"`, the memory around its PC and its stack.
//!
//! Everything is read from the loaded vCPU and from memory that is there; nothing is allocated for the guest.

use super::Host;
use crate::addr::{Addr, Ipa};
use crate::arm::el1::El1;
use crate::arm::esr;
use crate::bundle::OnCrash;
use crate::machine::Machine;
use crate::memory::stage1::{self, Regime};
use crate::vcpu::{Vcpu, state};
use crate::vm::Vm;
use alloc::string::{String, ToString};
use core::fmt::Write;

/// How many 64-bit words of its stack are dumped.
const STACK: u64 = 32;
/// How many words around its PC.
const CODE: u64 = 8;

/// Reports the crash of `vm`, whose loaded `vcpu` came to it.
pub(super) fn crash<M: Machine>(host: &Host, m: &M, vm: &Vm, vcpu: &Vcpu, why: &str) {
    let name = &vm.name;
    let say = |text: &str| text.lines().for_each(|line| host.console.say(format_args!("{name}: {line}")));
    host.console.say(format_args!("{name}: CRASH of vCPU {}: {why}", vcpu.id));
    say(&vcpu.registers.to_string());
    for registers in El1::ALL.chunks(3) {
        let mut line = String::new();
        for register in registers {
            // Writing to a string does not fail.
            let _ = write!(line, "{:<15} {:#018x}  ", register.name(), m.get(*register));
        }
        say(&line);
    }
    let syndrome = vcpu.registers.syndrome();
    let class = syndrome.ec();
    if class == esr::ec::IABT_LOWER || class == esr::ec::DABT_LOWER {
        let ipa = esr::Abort::decode(syndrome).ipa;
        walks(host, m, vm, syndrome.far, ipa);
    }
    for n in 0..state::PAST {
        if let Some(past) = vcpu.past.get((vcpu.past_at + n) & (state::PAST - 1)) {
            let class = esr::class_name(esr::class(past.esr));
            host.console
                .say(format_args!("{name}: exit at {:#x}: {class}, esr {:#x}, far {:#x}", past.pc, past.esr, past.far));
        }
    }
    if vm.on_crash() == OnCrash::Dump {
        let pc = vcpu.registers.pc;
        dump(host, m, vm, "code", (pc & !7).wrapping_sub(CODE * 4), CODE);
        dump(host, m, vm, "stack", m.get(El1::SpEl1) & !7, STACK);
    }
}

/// How `va` translates at stage 1, and `ipa`, or what stage 1 makes of `va`, at stage 2.
fn walks<M: Machine>(host: &Host, m: &M, vm: &Vm, va: u64, ipa: Option<Addr<Ipa>>) {
    let name = &vm.name;
    let regime =
        Regime { ttbr0: m.get(El1::Ttbr0), ttbr1: m.get(El1::Ttbr1), tcr: m.get(El1::Tcr), sctlr: m.get(El1::Sctlr) };
    let memory = vm.memory.lock();
    let walk = stage1::walk(&regime, Addr::new(va), |at| memory.peek(m, at));
    let text = walk.to_string();
    let steps = ipa.map(|ipa| (ipa, memory.table().steps(m, ipa)));
    drop(memory);
    for line in text.lines() {
        host.console.say(format_args!("{name}: stage 1 of {va:#x}: {line}"));
    }
    if let Some((ipa, steps)) = steps {
        for step in steps {
            host.console.say(format_args!(
                "{name}: stage 2 of {ipa}: level {}, descriptor at {} is {:#018x}",
                step.level.number(),
                step.at,
                step.word
            ));
        }
    }
}

/// `n` words from the virtual address `from`, as the crashed vCPU sees them.
fn dump<M: Machine>(host: &Host, m: &M, vm: &Vm, what: &str, from: u64, n: u64) {
    let mut line = String::new();
    for word in 0..n {
        let va = from.wrapping_add(word * 8);
        if word % 4 == 0 {
            let _ = write!(line, "{what} {va:#018x}:");
        }
        let value = m.translate(va).and_then(|ipa| vm.memory.lock().peek(m, ipa));
        let _ = match value {
            Some(value) => write!(line, " {value:016x}"),
            None => write!(line, " ----------------"),
        };
        if word % 4 == 3 {
            host.console.say(format_args!("{}: {line}", vm.name));
            line.clear();
        }
    }
}
