//! A virtual EL2 that runs at EL0: what its instructions do, and what comes of what it raises. The CPU fetches each, by the shadow of its
//! stage 1 under the VM's stage 2, and takes it to EL1's vectors as an EL0 without a right to it does (Arm ARM D1.3). Encodings, and where
//! registers are in the page, are the Arm ARM's (D24, D8.11.3).

use crate::exits::{here, model, ram, write};
use flatland::addr::VcpuId;
use flatland::arm::el1::El1;
use flatland::arm::esr::ec;
use flatland::arm::exception::psr;
use flatland::arm::gic::Version;
use flatland::arm::sysreg::Encoding;
use flatland::arm::vncr::{self, Write};
use flatland::exit;
use flatland::host::Here;
use flatland::hwstate;
use flatland::hwstate::nested::regime;
use flatland::machine::Machine;
use flatland::memory::el2_vectors::{register_vectors, registers, vectors};
use flatland::next::{Cause, Next};
use flatland::vcpu::Vcpu;
use flatland::vcpu::nested::{Own, page};
use flatland::vm::Gic;
use harness::cpu::{BoardPlan, Cpu, Op, Outcome, host_on, split};
use harness::model::Model;
use std::collections::BTreeMap;
use std::ops::DerefMut;

/// op0, op1, CRn, CRm, op2.
type Parts = [u32; 5];

const fn system([op0, op1, crn, crm, op2]: Parts, rt: u32, is_read: bool) -> u32 {
    0b11_0101_0100 << 22 | (is_read as u32) << 21 | op0 << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5 | rt
}

const fn mrs(rt: u32, register: Parts) -> u32 {
    system(register, rt, true)
}

const fn msr(register: Parts, rt: u32) -> u32 {
    system(register, rt, false)
}

const ERET: u32 = 0xd69f_03e0;
const NOP: u32 = 0xd503_201f;
const HVC_5: u32 = 0xd400_0002 | 5 << 5;
const HCR_EL2: Parts = [3, 4, 1, 1, 0];
const SCTLR_EL2: Parts = [3, 4, 1, 0, 0];
const TTBR0_EL2: Parts = [3, 4, 2, 0, 0];
const TCR_EL2: Parts = [3, 4, 2, 0, 2];
const ELR_EL2: Parts = [3, 4, 4, 0, 1];
const SPSR_EL2: Parts = [3, 4, 4, 0, 0];
const SP_EL0: Parts = [3, 0, 4, 1, 0];
const TPIDR_EL2: Parts = [3, 4, 13, 0, 2];
const PAR_EL1: Parts = [3, 0, 7, 4, 0];
const MIDR_EL1: Parts = [3, 0, 0, 0, 0];
const CURRENT_EL: Parts = [3, 0, 4, 2, 2];
const VBAR: u64 = 0x4020_0000;

/// Registers, and where they are in the page.
const IN_THE_PAGE: [(&str, Parts, u64); 34] = [
    ("VTTBR_EL2", [3, 4, 2, 1, 0], 0x020),
    ("VTCR_EL2", [3, 4, 2, 1, 2], 0x040),
    ("VMPIDR_EL2", [3, 4, 0, 0, 5], 0x050),
    ("CNTVOFF_EL2", [3, 4, 14, 0, 3], 0x060),
    ("VPIDR_EL2", [3, 4, 0, 0, 0], 0x088),
    ("CPACR_EL1", [3, 0, 1, 0, 2], 0x100),
    ("CONTEXTIDR_EL1", [3, 0, 13, 0, 1], 0x108),
    ("SCTLR_EL1", [3, 0, 1, 0, 0], 0x110),
    ("TCR_EL1", [3, 0, 2, 0, 2], 0x120),
    ("AFSR0_EL1", [3, 0, 5, 1, 0], 0x128),
    ("AFSR1_EL1", [3, 0, 5, 1, 1], 0x130),
    ("ESR_EL1", [3, 0, 5, 2, 0], 0x138),
    ("MAIR_EL1", [3, 0, 10, 2, 0], 0x140),
    ("AMAIR_EL1", [3, 0, 10, 3, 0], 0x148),
    ("SPSR_EL1", [3, 0, 4, 0, 0], 0x160),
    ("TTBR0_EL1", [3, 0, 2, 0, 0], 0x200),
    ("TTBR1_EL1", [3, 0, 2, 0, 1], 0x210),
    ("FAR_EL1", [3, 0, 6, 0, 0], 0x220),
    ("ELR_EL1", [3, 0, 4, 0, 1], 0x230),
    ("SP_EL1", [3, 4, 4, 1, 0], 0x240),
    ("VBAR_EL1", [3, 0, 12, 0, 0], 0x250),
    ("ICH_LR0_EL2", [3, 4, 12, 12, 0], 0x400),
    ("ICH_LR7_EL2", [3, 4, 12, 12, 7], 0x438),
    ("ICH_LR8_EL2", [3, 4, 12, 13, 0], 0x440),
    ("ICH_LR15_EL2", [3, 4, 12, 13, 7], 0x478),
    ("ICH_AP0R0_EL2", [3, 4, 12, 8, 0], 0x480),
    ("ICH_AP0R3_EL2", [3, 4, 12, 8, 3], 0x498),
    ("ICH_AP1R0_EL2", [3, 4, 12, 9, 0], 0x4a0),
    ("ICH_AP1R3_EL2", [3, 4, 12, 9, 3], 0x4b8),
    ("ICH_HCR_EL2", [3, 4, 12, 11, 0], 0x4c0),
    ("ICH_VMCR_EL2", [3, 4, 12, 11, 7], 0x4c8),
    // Of timers ISTATUS is left.
    ("CNTV_CVAL_EL0", [3, 3, 14, 3, 2], 0x168),
    ("CNTP_CVAL_EL0", [3, 3, 14, 2, 2], 0x178),
    ("HCR_EL2", HCR_EL2, 0x078),
];

/// Registers of its own.
const OWN: [(&str, Parts, Own); 18] = [
    ("SCTLR_EL2", SCTLR_EL2, Own::Sctlr),
    ("TCR_EL2", TCR_EL2, Own::Tcr),
    ("TTBR0_EL2", TTBR0_EL2, Own::Ttbr0),
    ("MAIR_EL2", [3, 4, 10, 2, 0], Own::Mair),
    ("AMAIR_EL2", [3, 4, 10, 3, 0], Own::Amair),
    ("VBAR_EL2", [3, 4, 12, 0, 0], Own::Vbar),
    ("CPTR_EL2", [3, 4, 1, 1, 2], Own::Cptr),
    ("CNTHCTL_EL2", [3, 4, 14, 1, 0], Own::Cnthctl),
    ("AFSR0_EL2", [3, 4, 5, 1, 0], Own::Afsr0),
    ("AFSR1_EL2", [3, 4, 5, 1, 1], Own::Afsr1),
    ("HPFAR_EL2", [3, 4, 6, 0, 4], Own::Hpfar),
    ("HSTR_EL2", [3, 4, 1, 1, 3], Own::Hstr),
    ("ELR_EL2", ELR_EL2, Own::Elr),
    ("SPSR_EL2", SPSR_EL2, Own::Spsr),
    ("ESR_EL2", [3, 4, 5, 2, 0], Own::Esr),
    ("FAR_EL2", [3, 4, 6, 0, 0], Own::Far),
    ("TPIDR_EL2", TPIDR_EL2, Own::Tpidr),
    ("ACTLR_EL2", [3, 4, 1, 0, 1], Own::Actlr),
];

/// Registers of its guest that with FEAT_NV2 are on the CPU, and where they are in the page.
const OF_GUEST: [(&str, Parts, El1, u64); 4] = [
    ("PAR_EL1", PAR_EL1, El1::Par, page::PAR),
    ("TPIDR_EL1", [3, 0, 13, 0, 4], El1::TpidrEl1, page::TPIDR_EL1),
    ("CNTKCTL_EL1", [3, 0, 14, 1, 0], El1::Cntkctl, page::CNTKCTL),
    ("CSSELR_EL1", [3, 2, 0, 0, 0], El1::Csselr, page::CSSELR),
];

/// A hypervisor at EL0, its MMU off.
struct Hypervisor<'m> {
    cpu: &'m Cpu<'m>,
    here: Here<'static>,
    vcpu: Box<dyn DerefMut<Target = Vcpu>>,
}

impl<'m> Hypervisor<'m> {
    fn new(model: &Model, cpu: &'m Cpu<'m>, gic: Gic) -> Self {
        let keys: [(&str, &[u8]); 1] = [("nested-backend", b"trap\0")];
        let plan = BoardPlan { nested: true, gic, keys: &keys, ..BoardPlan::new(1, &["one"]) };
        let here = here(host_on(model, &plan));
        let mut new = Self { cpu, here, vcpu: Box::new(here.slot.vcpu.lock()) };
        new.vcpu.reset(ram(4), 0);
        let mpidr = new.vcpu.mpidr;
        let (common, nested) = split(&mut new.vcpu);
        nested.reset_page(cpu, here.host.facts.midr, mpidr);
        regime::start(here, cpu, common, nested);
        nested.set_own(cpu, Own::Vbar, VBAR);
        cpu.load(here, &new.vcpu);
        assert_eq!(new.vcpu.registers.pstate, psr::DAIF | psr::EL0T);
        new
    }

    fn own(&self, own: Own) -> u64 {
        self.vcpu.nested().unwrap().own(self.cpu, own)
    }

    fn page(&self, offset: u64) -> u64 {
        self.vcpu.nested().unwrap().read(self.cpu, offset)
    }

    /// EL0 raises this at EL1.
    fn raise(&mut self, vector: u64, esr: u64, far: u64) -> Next {
        let registers = &mut self.vcpu.registers;
        self.cpu.set(El1::Elr, registers.pc);
        self.cpu.set(El1::Spsr, registers.pstate);
        self.cpu.set(El1::Esr, esr);
        self.cpu.set(El1::Far, far);
        registers.pc = self.cpu.get(El1::Vbar) + vector * 0x80;
        self.hvc(vector)
    }

    /// EL1 comes to the HVC with this number at its PC.
    fn hvc(&mut self, number: u64) -> Next {
        let registers = &mut self.vcpu.registers;
        registers.pc += 4;
        registers.pstate = psr::DAIF | psr::EL1H;
        registers.esr = ec::HVC64 << 26 | 1 << 25 | number;
        exit::handle(self.here, self.cpu, &mut self.vcpu)
    }

    /// An access of it, until it is done, or it gets to know.
    fn access(&mut self, op: Op, va: u64) -> bool {
        let at = self.vcpu.registers.pc;
        for _ in 0..16 {
            match self.cpu.access(&mut self.vcpu, op, va) {
                Outcome::Done(_) => return true,
                Outcome::Own => {
                    let class = if op == Op::Fetch { ec::IABT_LOWER } else { ec::DABT_LOWER };
                    let writes = u64::from(op == Op::Write) << 6;
                    // Whether it is a translation or a permission that it lacks is for who looks to find out.
                    assert_eq!(self.raise(8, class << 26 | 1 << 25 | writes | 0b00_0111, va), Next::Resume);
                }
                Outcome::Exit => assert_eq!(exit::handle(self.here, self.cpu, &mut self.vcpu), Next::Resume),
            }
            if self.vcpu.registers.pc != at {
                return false;
            }
        }
        panic!("it does not get on");
    }

    /// Comes to these instructions at its PC, of which EL0 may not have the first.
    fn run(&mut self, words: &[u32]) -> Next {
        let at = self.vcpu.registers.pc;
        let words = [words, &[NOP, NOP]].concat();
        for (n, pair) in (0..).zip(words.chunks(2)) {
            let second = pair.get(1).copied().unwrap_or(NOP);
            write(self.cpu, self.here, at + n * 8, u64::from(pair[0]) | u64::from(second) << 32);
        }
        assert!(self.access(Op::Fetch, at));
        self.raise(8, 1 << 25, 0x5555)
    }

    /// The same, by which it gets on.
    fn gets_on(&mut self, words: &[u32], what: &str) {
        let at = self.vcpu.registers.pc;
        // After a write to a timer others may be due.
        assert!(matches!(self.run(words), Next::Resume | Next::Reschedule), "{what}");
        for _ in 1..words.len() {
            assert_eq!(self.raise(8, 1 << 25, 0x5555), Next::Resume, "{what}");
        }
        let expected = (at + 4 * words.len() as u64, psr::EL0T);
        let registers = &mut self.vcpu.registers;
        assert_eq!((registers.pc, registers.pstate & psr::MODE), expected, "{what}");
        registers.pc = at;
    }

    /// The same, which is UNDEFINED at EL2, too.
    fn is_undefined(&mut self, word: u32, what: &str) {
        let at = self.vcpu.registers.pc;
        let pstate = self.vcpu.registers.pstate;
        assert_eq!(self.run(&[word]), Next::Resume, "{what}");
        // It may be said at once, or once more.
        if self.vcpu.registers.pc == at {
            assert_eq!(self.raise(8, 1 << 25, 0x5555), Next::Resume, "{what}");
        }
        assert_eq!(self.vcpu.registers.pc, VBAR + 0x200, "{what}");
        assert_eq!((self.own(Own::Esr), self.own(Own::Elr)), (1 << 25, at), "{what}");
        assert_eq!(self.own(Own::Spsr), pstate | psr::EL2H, "{what}");
        (self.vcpu.registers.pc, self.vcpu.registers.pstate) = (at, pstate);
    }
}

#[test]
fn registers_are_where_they_are_with_feat_nv2() {
    let model = model();
    let cpu = Cpu::new(&model);
    let mut hypervisor = Hypervisor::new(&model, &cpu, Gic::V3);
    for (n, (name, register, offset)) in (1..).zip(IN_THE_PAGE) {
        let value = 0x0101_0000_0000_0100 * n;
        // Without VHE and FEAT_NV.
        let kept = if register == HCR_EL2 { value & !(1 << 34 | 0b1111 << 42) } else { value };
        hypervisor.vcpu.registers.x[3] = value;
        hypervisor.gets_on(&[msr(register, 3)], name);
        assert_eq!(hypervisor.page(offset), kept, "{name}");
        hypervisor.gets_on(&[mrs(4, register)], name);
        assert_eq!(hypervisor.vcpu.registers.x[4], kept, "{name}");
        // XZR.
        hypervisor.gets_on(&[msr(register, 31)], name);
        assert_eq!(hypervisor.page(offset), 0, "{name}");
    }
    hypervisor.vcpu.registers.x[3] = u64::MAX;
    hypervisor.gets_on(&[msr(HCR_EL2, 3)], "HCR_EL2");
    assert_eq!(hypervisor.page(page::HCR), !(1 << 34 | 0b1111 << 42));
}

#[test]
fn registers_of_its_own_are_kept_apart() {
    let model = model();
    let cpu = Cpu::new(&model);
    let mut hypervisor = Hypervisor::new(&model, &cpu, Gic::V3);
    for (n, (name, register, own)) in (1..).zip(OWN) {
        // Not the MMU on, nor FP off.
        let value = 0x0100_0000_0000_8000 * n;
        hypervisor.vcpu.registers.x[3] = value;
        hypervisor.gets_on(&[msr(register, 3)], name);
        assert_eq!(hypervisor.own(own), value, "{name}");
        hypervisor.gets_on(&[mrs(4, register)], name);
        assert_eq!(hypervisor.vcpu.registers.x[4], value, "{name}");
    }
    hypervisor.vcpu.nested_mut().unwrap().set_own(&cpu, Own::Vbar, VBAR);
    // Of its guest, not the CPU's.
    for (name, register, el1, offset) in OF_GUEST {
        cpu.set(el1, 0x77);
        hypervisor.vcpu.registers.x[3] = 0x1234_5678;
        hypervisor.gets_on(&[msr(register, 3)], name);
        assert_eq!(hypervisor.page(offset), 0x1234_5678, "{name}");
        hypervisor.vcpu.nested().unwrap().write(&cpu, offset, 0x8765);
        hypervisor.gets_on(&[mrs(4, register)], name);
        assert_eq!(hypervisor.vcpu.registers.x[4], 0x8765, "{name}");
        if el1 != El1::Csselr {
            assert_eq!(cpu.get(el1), 0x77, "{name}");
        }
    }
    // EL0 reads TPIDRRO_EL0.
    hypervisor.gets_on(&[msr([3, 3, 13, 0, 3], 3)], "TPIDRRO_EL0");
    assert_eq!(cpu.get(El1::TpidrroEl0), 0x1234_5678);
    // Which read as something.
    let [midr, mpidr] = [hypervisor.here.host.facts.midr, hypervisor.vcpu.mpidr];
    for (name, register, value) in [
        ("MIDR_EL1", MIDR_EL1, midr),
        ("MPIDR_EL1", [3, 0, 0, 0, 5], mpidr),
        ("REVIDR_EL1", [3, 0, 0, 0, 6], 0),
        ("AIDR_EL1", [3, 1, 0, 0, 7], 0),
        ("CLIDR_EL1", [3, 1, 0, 0, 1], 0x0a20_0023),
        ("CCSIDR_EL1", [3, 1, 0, 0, 0], 0x1234_0000 | 0x8765),
        ("CurrentEL", CURRENT_EL, 8),
        ("ISR_EL1", [3, 0, 12, 1, 0], 0),
        ("ICC_SRE_EL2", [3, 4, 12, 9, 5], 0xf),
        ("ID_AA64PFR0_EL1", [3, 0, 0, 4, 0], hypervisor.here.host.facts.el0_ids.get(4, 0)),
    ] {
        hypervisor.vcpu.registers.x[4] = !0;
        hypervisor.gets_on(&[mrs(4, register)], name);
        assert_eq!(hypervisor.vcpu.registers.x[4], value, "{name}");
    }
    for (name, register) in [
        ("MIDR_EL1", MIDR_EL1),
        ("MPIDR_EL1", [3, 0, 0, 0, 5]),
        ("REVIDR_EL1", [3, 0, 0, 0, 6]),
        ("AIDR_EL1", [3, 1, 0, 0, 7]),
        ("CLIDR_EL1", [3, 1, 0, 0, 1]),
        ("CurrentEL", CURRENT_EL),
        ("ISR_EL1", [3, 0, 12, 1, 0]),
        ("MDRAR_EL1", [2, 0, 1, 0, 0]),
        ("MDCCSR_EL0", [2, 3, 0, 1, 0]),
    ] {
        hypervisor.is_undefined(msr(register, 4), name);
    }
    // What there is not: an EL2 with VHE, FEAT_NV2, and no instruction at all.
    for (name, word) in [
        ("SCTLR_EL12", mrs(4, [3, 5, 1, 0, 0])),
        ("VNCR_EL2", mrs(4, [3, 4, 2, 2, 0])),
        ("TTBR1_EL2", msr([3, 4, 2, 0, 1], 4)),
        ("CONTEXTIDR_EL2", mrs(4, [3, 4, 13, 0, 1])),
        ("CNTHV_CTL_EL2", mrs(4, [3, 4, 14, 3, 1])),
        ("beside MIDR_EL1", mrs(4, [3, 0, 0, 0, 1])),
        ("PAN", 0xd500_419f),
        ("AT S1E3R", system([1, 6, 7, 8, 0], 4, false)),
        ("AT S1E1RP", system([1, 0, 7, 9, 0], 4, false)),
        ("TLBI VAE2ISNXS", system([1, 4, 9, 3, 1], 4, false)),
        ("TLBI of nothing", system([1, 4, 8, 8, 1], 4, false)),
        ("UDF", 0),
    ] {
        hypervisor.is_undefined(word, name);
    }
}

/// EL1's registers follow from its own.
#[test]
fn the_cpu_follows_what_it_writes() {
    let model = model();
    let cpu = Cpu::new(&model);
    let mut hypervisor = Hypervisor::new(&model, &cpu, Gic::V3);
    // A block of 1 GiB: RAM, as memory of the second kind.
    write(&cpu, hypervisor.here, ram(16) + 8, 0x4000_0000 | 1 << 10 | 3 << 8 | 1 << 2 | 1);
    let before = [El1::Sctlr, El1::Tcr, El1::Mair, El1::Ttbr0].map(|register| cpu.get(register));
    let mut set = |register, value: u64| {
        hypervisor.vcpu.registers.x[3] = value;
        hypervisor.gets_on(&[msr(register, 3)], "a control register");
    };
    set([3, 4, 10, 2, 0], 0xff00);
    set(TTBR0_EL2, ram(16));
    set(TCR_EL2, 25 | 2 << 16 | 1 << 20);
    set([3, 4, 1, 1, 2], 0x33ff | 1 << 10);
    // TBI0; FP traps.
    assert_eq!((cpu.get(El1::Tcr) >> 37 & 1, cpu.get(El1::Cpacr)), (1, 0));
    set([3, 4, 1, 1, 2], 0x33ff);
    assert_eq!(cpu.get(El1::Cpacr), 3 << 20);
    // The MMU is off: all is one kind of memory, and the vectors are that.
    assert_eq!((cpu.get(El1::Mair), cpu.get(El1::Vbar)), (0x44, vectors(0)));
    set(SCTLR_EL2, 0x30c5_0835);
    assert_eq!((cpu.get(El1::Mair), cpu.get(El1::Vbar)), (0xff00, register_vectors(1)));
    assert_ne!(cpu.get(El1::Ttbr0), before[3], "another regime has another shadow");
    assert_eq!(cpu.get(El1::Sctlr), before[0], "EL1's MMU is on in any case");
    set(SCTLR_EL2, 0x30c5_0830);
    set(TCR_EL2, 0);
    assert_eq!([El1::Sctlr, El1::Tcr, El1::Mair, El1::Ttbr0].map(|register| cpu.get(register)), before);
}

/// Which stack pointer it uses is PSTATE.SP's to say, and what is on the CPU is what it uses.
#[test]
fn two_stack_pointers_are_one_on_the_cpu() {
    let model = model();
    let cpu = Cpu::new(&model);
    let mut hypervisor = Hypervisor::new(&model, &cpu, Gic::V3);
    const SP_SEL: Parts = [3, 0, 4, 2, 0];
    /// MSR SPSel, #imm.
    const fn select(imm: u32) -> u32 {
        0xd500_40bf | imm << 8
    }
    let x = |hypervisor: &Hypervisor<'_>, n: usize| hypervisor.vcpu.registers.x[n];
    cpu.set(El1::SpEl0, 0x2222);
    hypervisor.vcpu.registers.x[3] = 0x1111;
    hypervisor.gets_on(&[msr(SP_EL0, 3), mrs(4, SP_SEL)], "SP_EL0 beside SP_EL2");
    assert_eq!((cpu.get(El1::SpEl0), x(&hypervisor, 4)), (0x2222, 1));
    hypervisor.gets_on(&[select(0), mrs(4, SP_SEL), mrs(5, SP_EL0)], "SP_EL0 in use");
    assert_eq!((cpu.get(El1::SpEl0), x(&hypervisor, 4), x(&hypervisor, 5)), (0x1111, 0, 0x1111));
    // From there an exception comes by other vectors, and has SP_EL2 again.
    cpu.set(El1::SpEl0, 0x1110);
    let at = hypervisor.vcpu.registers.pc;
    assert_eq!(hypervisor.raise(8, 0x15 << 26 | 1 << 25 | 7, 0), Next::Resume);
    assert_eq!((hypervisor.vcpu.registers.pc, cpu.get(El1::SpEl0)), (VBAR, 0x2222));
    assert_eq!(hypervisor.own(Own::Spsr), psr::DAIF | psr::EL2T);
    // And goes back to it.
    hypervisor.vcpu.registers.pc = ram(6);
    assert_eq!(hypervisor.run(&[ERET]), Next::Resume);
    assert_eq!((hypervisor.vcpu.registers.pc, cpu.get(El1::SpEl0)), (at, 0x1110));
    hypervisor.vcpu.registers.x[3] = 1;
    hypervisor.gets_on(&[msr(SP_SEL, 3), mrs(5, SP_EL0)], "SPSel by a register");
    assert_eq!((cpu.get(El1::SpEl0), x(&hypervisor, 5)), (0x2222, 0x1110));
}

#[test]
fn what_it_raises_is_an_exception_from_el2() {
    let model = model();
    let cpu = Cpu::new(&model);
    let mut hypervisor = Hypervisor::new(&model, &cpu, Gic::V3);
    let at = hypervisor.vcpu.registers.pc;
    let is = |hypervisor: &Hypervisor<'_>, offset: u64, esr: Option<u64>, far: u64| {
        assert_eq!(hypervisor.vcpu.registers.pc, VBAR + offset);
        assert_eq!(hypervisor.vcpu.registers.pstate, psr::NZCV | psr::DAIF | psr::EL0T);
        assert_eq!((hypervisor.own(Own::Elr), hypervisor.own(Own::Spsr)), (at, psr::NZCV | psr::EL2H));
        if let Some(esr) = esr {
            assert_eq!((hypervisor.own(Own::Esr), hypervisor.own(Own::Far)), (esr, far));
        }
    };
    let begin = |hypervisor: &mut Hypervisor<'_>| {
        hypervisor.vcpu.registers.pc = at;
        hypervisor.vcpu.registers.pstate = psr::NZCV | psr::EL0T;
    };
    // Class as EL1 was told, and as it is told.
    for (class, own) in [
        (0x07, 0x07),
        (0x0e, 0x0e),
        (0x15, 0x15),
        (0x22, 0x22),
        (0x26, 0x26),
        (0x30, 0x31),
        (0x32, 0x33),
        (0x34, 0x35),
        (0x3c, 0x3c),
        // Alignment, which is no fault of tables.
        (0x24, 0x25),
        (0x20, 0x21),
    ] {
        begin(&mut hypervisor);
        assert_eq!(hypervisor.raise(8, class << 26 | 1 << 25 | 0x21, 0x1000), Next::Resume);
        is(&hypervisor, 0x200, Some(own << 26 | 1 << 25 | 0x21), 0x1000);
    }
    for (vector, offset) in [(9, 0x280), (10, 0x300)] {
        begin(&mut hypervisor);
        assert_eq!(hypervisor.raise(vector, 0, 0), Next::Resume);
        is(&hypervisor, offset, None, 0);
    }
    begin(&mut hypervisor);
    assert_eq!(hypervisor.raise(11, 0x2f << 26 | 1 << 25 | 3, 0), Next::Resume);
    is(&hypervisor, 0x380, Some(0x2f << 26 | 1 << 25 | 3), 0);
    // HVC: the exception is behind it.
    begin(&mut hypervisor);
    assert_eq!(hypervisor.run(&[HVC_5]), Next::Resume);
    assert_eq!((hypervisor.own(Own::Esr), hypervisor.own(Own::Elr)), (0x16 << 26 | 1 << 25 | 5, at + 4));
    // SVE, SME, which it is not shown, and nothing that there is.
    for class in [0x19, 0x1d, 0x3f] {
        begin(&mut hypervisor);
        assert_eq!(hypervisor.raise(8, class << 26 | 1 << 25, 0), Next::Resume);
        is(&hypervisor, 0x200, Some(1 << 25), hypervisor.own(Own::Far));
    }
    // There is no way from EL0 to the other vectors.
    for vector in [0, 5, 7, 12, 15] {
        begin(&mut hypervisor);
        let Next::Stop(Cause::Crash(why)) = hypervisor.raise(vector, 0, 0) else { panic!("vector {vector}") };
        assert!(why.contains("vector"), "{why}");
    }
}

/// EL1's vectors have the pages that say which registers are where, and which are those that they may write (`el0_vectors.S`): of all encodings
/// those that a write by EL2 keeps there as well.
#[test]
fn vectors_have_registers_where_el2_has_them() {
    let model = model();
    let cpu = Cpu::new(&model);
    let mut hypervisor = Hypervisor::new(&model, &cpu, Gic::V3);
    let own = OWN.map(|(_, register, own)| (register, own.offset()));
    let of_guest = OF_GUEST.map(|(_, register, _, offset)| (register, offset));
    let expected = IN_THE_PAGE.iter().map(|(_, register, offset)| (*register, *offset)).chain(own).chain(of_guest);
    let expected: BTreeMap<Parts, u64> = expected.filter(|(register, _)| matches!(register[1], 0 | 4)).collect();
    let mut found = 0;
    for bits in 0..=u16::MAX {
        let encoding = Encoding::new(bits >> 14, bits >> 11 & 7, bits >> 7 & 15, bits >> 3 & 15, bits & 7);
        let parts = encoding.parts().map(u32::from);
        let Some(slot) = vncr::slot(encoding, Version::V3) else {
            assert!(!expected.contains_key(&parts), "{encoding}");
            continue;
        };
        found += 1;
        let offset = u64::from(slot.offset);
        let is_ich = matches!(parts, [3, 4, 12, 8..=13, _]);
        assert_eq!(vncr::slot(encoding, Version::V2).is_some(), !is_ich, "{encoding}");
        assert!(expected.get(&parts).is_none_or(|expected| *expected == offset), "{encoding}");
        // SP_EL0 while it uses SP_EL2.
        assert_eq!(offset == page::OTHER_SP, parts == SP_EL0);
        let special = match parts {
            HCR_EL2 => Write::Hcr,
            [3, 4, 1, 1, 2] => Write::Cptr,
            [3, 4, 1, 1, 1] => Write::Mdcr,
            // EL1's registers follow, or its own interrupts.
            SCTLR_EL2 | TCR_EL2 | TTBR0_EL2 | [3, 4, 10, 2, 0] => Write::ByEl2,
            _ if is_ich => Write::ByEl2,
            MIDR_EL1 | CURRENT_EL | [3, 0, 0, 0, 5 | 6] => Write::ByEl2,
            _ => Write::Page,
        };
        assert_eq!(slot.write, special, "{encoding}");
        if special == Write::Page {
            let value = 0x0123_4567_89ab_cdef ^ u64::from(bits);
            hypervisor.vcpu.registers.x[3] = value;
            hypervisor.gets_on(&[msr(parts, 3)], "a register");
            assert_eq!(hypervisor.page(offset), value, "{encoding}");
        }
        hypervisor.gets_on(&[mrs(4, parts)], "a register");
        assert_eq!(hypervisor.vcpu.registers.x[4], hypervisor.page(offset), "{encoding}");
    }
    assert_eq!(found, 76);
}

/// The code has numbers of its own for some of them.
#[test]
fn vectors_know_the_numbers() {
    let code = include_str!("../../hypervisor/src/el2/el0_vectors.S");
    let number = |name: &str| {
        let line = code.lines().find_map(|line| line.trim().strip_prefix(&format!(".equ    {name}, ")));
        let text = line.unwrap_or_else(|| panic!("{name}"));
        text.strip_prefix("0x").map_or_else(|| text.parse(), |hex| u64::from_str_radix(hex, 16)).unwrap()
    };
    for (name, expected) in [
        ("ZERO", page::ZERO),
        ("CSSELR", page::CSSELR),
        ("MDSCR", page::MDSCR),
        ("IS_PENDING", page::IS_PENDING),
        ("WRITE_BY_EL2", Write::ByEl2 as u64),
        ("WRITE_HCR", Write::Hcr as u64),
        ("WRITE_CPTR", Write::Cptr as u64),
        ("WRITE_MDCR", Write::Mdcr as u64),
    ] {
        assert_eq!(number(name), expected, "{name}");
    }
}

/// Such vectors need memory as EL2 has it, in caches, and SP_EL2 in use.
#[test]
fn vectors_that_have_registers_come_and_go() {
    let model = model();
    let cpu = Cpu::new(&model);
    let mut hypervisor = Hypervisor::new(&model, &cpu, Gic::V3);
    const MAIR_EL2: Parts = [3, 4, 10, 2, 0];
    const SP_SEL: Parts = [3, 0, 4, 2, 0];
    const ON: u64 = 0x30c5_0835;
    // A block of 1 GiB, as memory of the first kind.
    write(&cpu, hypervisor.here, ram(16) + 8, 0x4000_0000 | 1 << 10 | 3 << 8 | 1);
    let is = || (cpu.get(El1::Vbar), cpu.get(El1::SpEl1));
    let mut set = |register: Parts, value: u64| {
        hypervisor.vcpu.registers.x[3] = value;
        hypervisor.gets_on(&[msr(register, 3)], "a register");
    };
    let plain = |kind| (vectors(kind), 0);
    let with_registers = |kind| (register_vectors(kind), registers(kind, VcpuId(0)).unwrap());
    set(TTBR0_EL2, ram(16));
    set(TCR_EL2, 25 | 2 << 16);
    set(MAIR_EL2, 0xff_44);
    assert_eq!(is(), plain(0), "its MMU is off");
    set(SCTLR_EL2, ON);
    assert_eq!(is(), with_registers(1));
    set(SCTLR_EL2, ON & !4);
    assert_eq!(is(), plain(0), "no caches");
    set(SCTLR_EL2, ON);
    set(MAIR_EL2, 0xbb_44);
    assert_eq!(is(), plain(0), "written through");
    set(MAIR_EL2, 0x77);
    assert_eq!(is(), with_registers(0));
    set(SP_SEL, 0);
    assert_eq!(is(), plain(0));
    set(SP_SEL, 1);
    assert_eq!(is(), with_registers(0));
}

/// An instruction that EL1's vectors could not read, by stage 1 or by stage 2, is fetched anew: nothing was done before that.
#[test]
fn what_the_vectors_could_not_read_is_begun_anew() {
    let model = model();
    let cpu = Cpu::new(&model);
    let mut hypervisor = Hypervisor::new(&model, &cpu, Gic::V3);
    let at = hypervisor.vcpu.registers.pc;
    let begin = |hypervisor: &mut Hypervisor<'_>| {
        (0..4).for_each(|n| hypervisor.vcpu.nested().unwrap().write(&cpu, n * 8, 0x100 + n));
        hypervisor.vcpu.registers.x[..4].copy_from_slice(&[at, 0x5555, psr::NZCV, 0x5555]);
    };
    // Stage 1: ELR_EL1 and SPSR_EL1 are of the read. The page is there by now, and has an instruction.
    write(&cpu, hypervisor.here, at, u64::from(mrs(5, CURRENT_EL)) | u64::from(NOP) << 32);
    assert!(hypervisor.access(Op::Fetch, at));
    begin(&mut hypervisor);
    cpu.set(El1::Elr, 0xffff_ffff_fe00_8420);
    cpu.set(El1::Spsr, psr::DAIF | psr::EL1H);
    cpu.set(El1::Esr, ec::DABT_SAME << 26 | 1 << 25 | 0b00_0111);
    assert_eq!(hypervisor.hvc(4), Next::Resume);
    let registers = &hypervisor.vcpu.registers;
    assert_eq!((registers.pc, registers.pstate, registers.x[5]), (at + 4, psr::NZCV | psr::EL0T, 8));
    assert_eq!(registers.x[..4], [0x100, 0x101, 0x102, 0x103]);
    // Stage 2: they are virtual EL2's.
    begin(&mut hypervisor);
    cpu.set(El1::Elr, at);
    cpu.set(El1::Spsr, psr::NZCV | psr::EL0T);
    let registers = &mut hypervisor.vcpu.registers;
    (registers.pc, registers.pstate) = (0xffff_ffff_fe00_8420, psr::DAIF | psr::EL1H);
    // It says that it is a load of 4 bytes to X1.
    (registers.esr, registers.far) = (ec::DABT_LOWER << 26 | 1 << 25 | 1 << 24 | 2 << 22 | 1 << 16 | 0b00_0111, at);
    registers.hpfar = at >> 12 << 4;
    assert_eq!(exit::handle(hypervisor.here, &cpu, &mut hypervisor.vcpu), Next::Resume);
    let registers = &hypervisor.vcpu.registers;
    assert_eq!((registers.pc, registers.pstate), (at, psr::NZCV | psr::EL0T));
    assert_eq!(registers.x[..4], [0x100, 0x101, 0x102, 0x103]);
    assert_eq!(registers.syndrome().ec(), ec::IABT_LOWER);
}

/// What was UNDEFINED may be another instruction when it is read: that is executed, and is UNDEFINED only if the CPU says so of it.
#[test]
fn an_instruction_that_was_changed_is_tried_again() {
    let model = model();
    let cpu = Cpu::new(&model);
    let mut hypervisor = Hypervisor::new(&model, &cpu, Gic::V3);
    let at = hypervisor.vcpu.registers.pc;
    let is_next = |hypervisor: &mut Hypervisor<'_>, word: u32, goes_on: bool| {
        write(&cpu, hypervisor.here, at, u64::from(word) | u64::from(NOP) << 32);
        assert!(hypervisor.access(Op::Fetch, at));
        assert_eq!(hypervisor.raise(8, 1 << 25, 0), Next::Resume);
        let pc = hypervisor.vcpu.registers.pc;
        (hypervisor.vcpu.registers.pc, hypervisor.vcpu.registers.pstate) = (at, psr::DAIF | psr::EL0T);
        assert_eq!(pc, if goes_on { at } else { VBAR + 0x200 }, "{word:#x}");
    };
    // Each is another.
    for word in [NOP, 0, NOP, 1] {
        is_next(&mut hypervisor, word, true);
    }
    is_next(&mut hypervisor, 1, false);
    // That was told; who comes there again is told again.
    is_next(&mut hypervisor, 1, true);
    is_next(&mut hypervisor, 1, false);
}

/// What EL1's vectors write and read besides: MDSCR_EL1, and whether an interrupt waits.
#[test]
fn vectors_and_el2_tell_each_other() {
    let model = model();
    let cpu = Cpu::new(&model);
    let mut hypervisor = Hypervisor::new(&model, &cpu, Gic::V3);
    hypervisor.vcpu.nested().unwrap().write(&cpu, page::MDSCR, 1 << 12 | 1 << 63);
    hypervisor.gets_on(&[mrs(4, [2, 0, 0, 2, 2])], "MDSCR_EL1");
    assert_eq!((hypervisor.vcpu.registers.x[4], cpu.get(El1::Mdscr)), (1 << 12, 1 << 12));
    hypervisor.vcpu.registers.x[3] = 1 << 13;
    hypervisor.gets_on(&[msr([2, 0, 0, 2, 2], 3)], "MDSCR_EL1");
    assert_eq!(hypervisor.page(page::MDSCR), 1 << 13);
    // An SGI: of group 1, enabled, pending.
    let _ = hypervisor.here.vm.vgic.lock().dist_write(VcpuId(0), 0, 4, 3);
    for waits in [false, true] {
        hwstate::refill(hypervisor.here, &cpu, &mut hypervisor.vcpu);
        assert_eq!(hypervisor.page(page::IS_PENDING) != 0, waits);
        let mut vgic = hypervisor.here.vm.vgic.lock();
        for (offset, value) in [(0x1_0080, 1), (0x1_0100, 1), (0x1_0200, 1)] {
            let _ = vgic.redist_write(VcpuId(0), offset, 4, value);
        }
    }
}

/// Its vectors raise the exception that goes to them.
#[test]
fn a_hypervisor_that_makes_no_progress_has_crashed() {
    let model = model();
    let cpu = Cpu::new(&model);
    let mut hypervisor = Hypervisor::new(&model, &cpu, Gic::V3);
    let crashed = (0..100).any(|_| matches!(hypervisor.raise(8, 0x15 << 26 | 1 << 25, 0), Next::Stop(_)));
    assert!(crashed);
}

/// Gives a hypervisor a stage 1 of its own, of 39 bits from level 1 on: RAM by pages.
fn turn_on_stage1(hypervisor: &mut Hypervisor<'_>) {
    let here = hypervisor.here;
    write(hypervisor.cpu, here, ram(16) + 8, ram(17) | 3);
    write(hypervisor.cpu, here, ram(17), ram(18) | 3);
    for n in 0..512 {
        let of = |n: u64| ram(n) | 1 << 10 | 3 << 8 | 3;
        let word = match n {
            // Read-only; never executed; no access flag; nothing.
            100 => of(n) | 1 << 7,
            101 => of(n) | 1 << 54,
            102 => of(n) & !(1 << 10),
            103 => 0,
            _ => of(n),
        };
        write(hypervisor.cpu, here, ram(18) + n * 8, word);
    }
    let mut set = |register, value: u64| {
        hypervisor.vcpu.registers.x[3] = value;
        hypervisor.gets_on(&[msr(register, 3)], "a control register");
    };
    set([3, 4, 10, 2, 0], 0xff);
    set(TCR_EL2, 25 | 2 << 16);
    set(TTBR0_EL2, ram(16));
    set(SCTLR_EL2, 0x30c5_0835);
    let at = hypervisor.vcpu.registers.pc;
    assert!(hypervisor.access(Op::Fetch, at));
}

/// Its own stage 1, by a shadow: what its tables allow is to be had, and of what they do not it gets to know, by its own level and kind.
#[test]
fn its_tables_say_what_it_may_reach() {
    let model = model();
    let cpu = Cpu::new(&model);
    let mut hypervisor = Hypervisor::new(&model, &cpu, Gic::V3);
    turn_on_stage1(&mut hypervisor);
    let at = hypervisor.vcpu.registers.pc;
    let (translation, flag, permission) = (0b00_0111, 0b00_1011, 0b00_1111);
    for (op, n, status) in [
        (Op::Read, 99, None),
        (Op::Write, 99, None),
        (Op::Fetch, 99, None),
        (Op::Read, 100, None),
        (Op::Write, 100, Some(permission)),
        (Op::Fetch, 100, None),
        (Op::Read, 101, None),
        (Op::Fetch, 101, Some(permission)),
        (Op::Read, 102, Some(flag)),
        (Op::Read, 103, Some(translation)),
        (Op::Clean, 103, Some(translation)),
        // Beyond what there are tables for, and beyond its addresses.
        (Op::Read, 0x8_0000, Some(0b00_0101)),
        (Op::Read, 1 << 36, Some(0b00_0100)),
        (Op::Read, 0xf_ffff_ffff_ffff, Some(0b00_0100)),
    ] {
        let va = if n < 512 { ram(n) } else { n << 12 };
        let is_done = hypervisor.access(op, va);
        assert_eq!(is_done, status.is_none(), "{op:?} of {va:#x}");
        let Some(status) = status else { continue };
        assert_eq!(hypervisor.vcpu.registers.pc, VBAR + 0x200, "{op:?} of {va:#x}");
        let class = if op == Op::Fetch { 0x21 } else { 0x25 };
        let esr = hypervisor.own(Own::Esr);
        assert_eq!((esr >> 26, esr & 0x3f, hypervisor.own(Own::Far)), (class, status, va), "{op:?} of {va:#x}");
        (hypervisor.vcpu.registers.pc, hypervisor.vcpu.registers.pstate) = (at, psr::EL0T);
    }
    // AT S1E2R, S1E2W.
    for (n, writes, par) in [
        (99, false, 0xff << 56 | 3 << 7 | 1 << 11 | ram(99)),
        (99, true, 0xff << 56 | 3 << 7 | 1 << 11 | ram(99)),
        (100, true, permission << 1 | 1 << 11 | 1),
        (103, false, translation << 1 | 1 << 11 | 1),
    ] {
        hypervisor.vcpu.registers.x[3] = ram(n) + 0x123;
        hypervisor.gets_on(&[system([1, 4, 7, 8, u32::from(writes)], 3, false)], "AT");
        assert_eq!(hypervisor.page(page::PAR), par, "page {n}, a write: {writes}");
    }
}

/// What changes is found once it was told by TLBI, of any kind: VAE2, VALE2IS, ALLE2, ALLE2IS; not before, nor by those of other regimes.
#[test]
fn its_tlbi_tells_what_changed() {
    let model = model();
    let cpu = Cpu::new(&model);
    let mut hypervisor = Hypervisor::new(&model, &cpu, Gic::V3);
    turn_on_stage1(&mut hypervisor);
    let (here, at) = (hypervisor.here, hypervisor.vcpu.registers.pc);
    for (crm, op2, tells) in [
        (7, 1, true),
        (3, 5, true),
        (7, 0, true),
        (3, 0, true),
        (7, 4, false),
        (7, 6, false),
        (0, 1, false),
        (4, 5, false),
    ] {
        write(&cpu, here, ram(18) + 99 * 8, ram(99) | 1 << 10 | 3 << 8 | 3);
        hypervisor.vcpu.registers.x[3] = ram(99) >> 12;
        hypervisor.gets_on(&[system([1, 4, 8, 7, 0], 31, false)], "TLBI ALLE2");
        assert!(hypervisor.access(Op::Read, ram(99)));
        write(&cpu, here, ram(18) + 99 * 8, 0);
        assert!(hypervisor.access(Op::Read, ram(99)), "it was not told");
        hypervisor.gets_on(&[system([1, 4, 8, crm, op2], 3, false)], "TLBI");
        assert_eq!(hypervisor.access(Op::Read, ram(99)), !tells, "TLBI CRm {crm}, op2 {op2}");
        (hypervisor.vcpu.registers.pc, hypervisor.vcpu.registers.pstate) = (at, psr::EL0T);
    }
}

/// A GICv3's CPU interface: EL1 accesses it for EL2, which gets on as if it had done so itself.
#[test]
fn its_interrupt_interface_is_accessed_by_el1() {
    let model = model();
    let cpu = Cpu::new(&model);
    let mut hypervisor = Hypervisor::new(&model, &cpu, Gic::V3);
    const IAR1: Parts = [3, 0, 12, 12, 0];
    const PMR: Parts = [3, 0, 4, 6, 0];
    let at = hypervisor.vcpu.registers.pc;
    for (word, rt, is_read) in [
        (mrs(7, IAR1), 7, true),
        (mrs(0, IAR1), 0, true),
        (mrs(31, IAR1), 31, true),
        (msr(PMR, 7), 7, false),
        (msr(PMR, 0), 0, false),
    ] {
        hypervisor.vcpu.registers.x[0] = 0x1234;
        hypervisor.vcpu.registers.x[7] = 0x77;
        assert_eq!(hypervisor.run(&[word]), Next::Resume);
        // EL1 is to do it, with interrupts masked.
        let registers = &mut hypervisor.vcpu.registers;
        assert_eq!(registers.pstate, psr::DAIF | psr::EL1H);
        assert!((vectors(0) + 0x800..vectors(1)).contains(&registers.pc), "{:#x}", registers.pc);
        if is_read {
            registers.x[0] = 27;
        } else {
            assert_eq!(registers.x[0], if rt == 7 { 0x77 } else { 0x1234 });
        }
        registers.pc += 4;
        assert_eq!(hypervisor.hvc(16), Next::Resume);
        let registers = &hypervisor.vcpu.registers;
        assert_eq!((registers.pc, registers.pstate & psr::MODE), (at + 4, psr::EL0T));
        let of = |n: u8, was: u64| if is_read && rt == n { 27 } else { was };
        assert_eq!((registers.x[0], registers.x[7]), (of(0, 0x1234), of(7, 0x77)));
        hypervisor.vcpu.registers.pc = at;
    }
    // One that EL1 has not, either.
    let pstate = hypervisor.vcpu.registers.pstate;
    hypervisor.vcpu.registers.x[0] = 0x1234;
    assert_eq!(hypervisor.run(&[msr(IAR1, 7)]), Next::Resume);
    hypervisor.vcpu.registers.pc = vectors(0) + 0x200;
    assert_eq!(hypervisor.hvc(4), Next::Resume);
    assert_eq!((hypervisor.vcpu.registers.pc, hypervisor.vcpu.registers.x[0]), (VBAR + 0x200, 0x1234));
    assert_eq!((hypervisor.own(Own::Elr), hypervisor.own(Own::Spsr)), (at, pstate | psr::EL2H));
    // With a GICv2 there is none.
    let two = Cpu::new(&model);
    let mut other = Hypervisor::new(&model, &two, Gic::V2);
    for (name, register) in [
        ("IAR1", IAR1),
        ("PMR", PMR),
        ("ICH_HCR_EL2", [3, 4, 12, 11, 0]),
        ("ICH_LR0_EL2", [3, 4, 12, 12, 0]),
        ("SRE", [3, 4, 12, 9, 5]),
    ] {
        other.is_undefined(mrs(7, register), name);
    }
}
