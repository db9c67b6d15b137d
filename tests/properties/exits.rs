//! Exits on a CPU that reports what the architecture says: whatever a guest does, it gets on or gets to know, and wherever
//! it goes on is a state that EL2 may return to.

use flatland::addr::{Addr, Ipa, VcpuId};
use flatland::arm::desc::Hole;
use flatland::arm::el1::El1;
use flatland::arm::esr::{Access, ec};
use flatland::arm::exception::psr;
use flatland::exit;
use flatland::host::Here;
use flatland::host::Host;
use flatland::machine::Machine;
use flatland::memory::RAM_BASE;
use flatland::next::{Cause, Next};
use flatland::vcpu::Vcpu;
use flatland::vcpu::nested::{hcr, page};
use harness::cpu::{BOARD, BOARD_BYTES, Cpu, Op, Outcome, host};
use harness::model::{Flaw, Model};

/// TCR_EL1: 39 bits below, 4 KiB, nothing above.
const TCR: u64 = 25 | 1 << 23 | 16 << 16 | 0b10 << 30 | 2 << 32;
/// Of a leaf of stage 1: Normal, inner shareable, accessed, a page.
pub(crate) const LEAF: u64 = 1 << 10 | 3 << 8 | 3;
const UXN: u64 = 1 << 54;
const PXN: u64 = 1 << 53;

pub(crate) fn model() -> Model {
    Model::new(Addr::new(BOARD), BOARD_BYTES, 5, Flaw::None)
}

pub(crate) fn here(host: &'static Host) -> Here<'static> {
    let vm = &host.fleet.vms[0];
    Here { host, vm, slot: vm.slot(VcpuId(0)).unwrap() }
}

pub(crate) fn write(m: &Cpu<'_>, here: Here<'_>, at: u64, word: u64) {
    here.vm.memory.lock().write(m, &here.host.pool, Addr::new(at), &word.to_le_bytes()).unwrap();
}

/// A page of a guest's RAM, by its number.
pub(crate) fn ram(n: u64) -> u64 {
    RAM_BASE.bits() + (n << 12)
}

/// What a page is before it is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Before {
    Absent,
    Touched,
    Shared,
    /// Shared once, and copied since: nobody has seen to it that it can be run.
    Copied,
}

fn prepare(m: &Cpu<'_>, here: Here<'_>, n: u64, before: Before) {
    let mut memory = here.vm.memory.lock();
    let pool = &here.host.pool;
    let at: Addr<Ipa> = Addr::new(ram(n));
    memory.give_up(m, pool, at, 1, Hole::Absent, &mut || false);
    if before == Before::Absent {
        return;
    }
    memory.write(m, pool, at, &n.to_le_bytes()).unwrap();
    if before == Before::Touched {
        return;
    }
    let frame = m.model.access(flatland::addr::CpuId(0), at);
    let frame = match frame {
        Some(frame) => frame,
        None => harness::touch::resolve(&mut memory, m, pool, at, flatland::memory::Access::Read)
            .unwrap()
            .output_of(at)
            .unwrap(),
    };
    let hash = pool.hash().of(m.frame(Addr::new(frame.bits() & !0xfff)));
    let number = at.distance_from(RAM_BASE).unwrap() >> 12;
    assert!(memory.freeze(m, pool, number as u32, hash).is_some(), "page {n} is not frozen");
    if before == Before::Copied {
        memory.write(m, pool, at, &1_u64.to_le_bytes()).unwrap();
    }
}

const ALL_BEFORE: [Before; 4] = [Before::Absent, Before::Touched, Before::Shared, Before::Copied];

/// Tables of stage 1 at pages 0 to 2 after `base`: VA 0 on is translated by the third. Turned on.
pub(crate) fn turn_on(m: &Cpu<'_>, base: u64) {
    m.set(El1::Ttbr0, base);
    m.set(El1::Tcr, TCR);
    m.set(El1::Sctlr, 0x30d0_0801);
}

#[test]
fn every_access_to_ram_gets_on_or_is_the_guests_own_fault() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, false, true));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    write(&cpu, here, ram(0), ram(1) | 3);
    write(&cpu, here, ram(1), ram(2) | 3);
    turn_on(&cpu, ram(0));
    let (mut accesses, mut done, mut exits) = (0, 0, 0);
    let states = [psr::EL0T, psr::EL1H, psr::EL1H | psr::PAN, psr::AARCH32];
    for bits in 0..16 {
        let word = LEAF | (bits & 3) << 6 | if bits & 4 != 0 { UXN } else { 0 } | if bits & 8 != 0 { PXN } else { 0 };
        for (op, before, state, stale) in Op::ALL.into_iter().flat_map(|op| {
            ALL_BEFORE.into_iter().flat_map(move |before| {
                states.into_iter().flat_map(move |state| [false, true].map(move |stale| (op, before, state, stale)))
            })
        }) {
            if op == Op::Invalidate && state != psr::EL1H {
                continue;
            }
            let n = 8 + accesses % 500;
            prepare(&cpu, here, n, before);
            // What is in the TLB allows it; the table does not, or not any more.
            write(&cpu, here, ram(2) + 8 * 5, if stale { 0 } else { ram(n) | word });
            if stale {
                cpu.keep_stale(5 << 12, ram(n) | word);
            }
            vcpu.registers.pc = ram(4);
            vcpu.registers.pstate = state;
            let what = format!("{op:?} at {state:#x} by {word:#x} of a page {before:?}, stale {stale}");
            let (took, end) = cpu.insist(here, &mut vcpu, op, 5 << 12);
            match end {
                Some((Outcome::Done(_), _)) => done += 1,
                Some((Outcome::Own, _)) => {}
                _ => panic!("{what}: {end:?} after {took} exits"),
            }
            cpu.forget_stage1();
            accesses += 1;
            exits += took;
        }
    }
    println!("exits: {accesses} accesses, {done} done, {exits} exits");
    assert!(done > 500 && exits > 500);
}

/// A hypervisor's HCR_EL2 for a guest with a stage 2.
pub(crate) const VIRTUAL: u64 = hcr::VM | hcr::RW;

/// Starts the vCPU at its EL2 again, with HCR_EL2 as given.
pub(crate) fn begin(m: &Cpu<'_>, here: Here<'_>, vcpu: &mut Vcpu, value: u64) {
    vcpu.reset(ram(4), 0);
    let (midr, mpidr) = (here.host.facts.midr, vcpu.mpidr);
    let nested = vcpu.nested_mut().unwrap();
    nested.reset_page(m, midr, mpidr);
    nested.write(m, page::HCR, value);
    // 32 bits of IPA from level 1 on, 40 of output.
    nested.write(m, page::VTCR, 32 | 1 << 6 | 2 << 16);
    nested.write(m, page::VTTBR, 1 << 48 | ram(16));
    nested.write(m, page::VNCR, ram(30));
    m.load(here, vcpu);
    m.set(El1::Vbar, 0x4020_0000);
    vcpu.nested_mut().unwrap().set_own(m, flatland::vcpu::nested::Own::Vbar, 0x4020_0000);
}

/// Whether its hypervisor's guest runs.
pub(crate) fn runs_guest(vcpu: &Vcpu) -> bool {
    vcpu.nested().unwrap().guest().is_some()
}

/// An exit of this class.
pub(crate) fn leave(m: &Cpu<'_>, here: Here<'_>, vcpu: &mut Vcpu, class: u64, iss: u64) -> Next {
    vcpu.registers.esr = class << 26 | 1 << 25 | iss;
    exit::handle(here, m, vcpu)
}

/// ERET of the hypervisor to this state.
pub(crate) fn eret(m: &Cpu<'_>, here: Here<'_>, vcpu: &mut Vcpu, pc: u64, spsr: u64) {
    let at = vcpu.registers.pc;
    m.set(El1::Spsr, spsr);
    m.set(El1::Elr, pc);
    let _ = leave(m, here, vcpu, ec::ERET, 0);
    if vcpu.registers.pc == at {
        // It was seen to have changed HCR_EL2.E2H first.
        m.set(El1::Spsr, spsr);
        m.set(El1::Elr, pc);
        let _ = leave(m, here, vcpu, ec::ERET, 0);
    }
}

/// Maps a page of a guest's guest to one of the guest's by the third of three tables from page 16 on.
pub(crate) fn map_outer(m: &Cpu<'_>, here: Here<'_>, at: u64, to: u64, rights: u64) {
    // S2AP read and write, XN, as `rights` has R, W and X.
    let bits = (rights & 3) << 6 | if rights & 4 != 0 { 0 } else { 1 << 54 };
    write(m, here, ram(18) + 8 * at, to | LEAF | 0b1111 << 2 | bits);
}

pub(crate) fn outer_tables(m: &Cpu<'_>, here: Here<'_>) {
    write(m, here, ram(16), ram(17) | 3);
    write(m, here, ram(17), ram(18) | 3);
}

#[test]
fn every_access_of_a_guests_guest_gets_on_or_somebody_gets_to_know() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, true, true));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    outer_tables(&cpu, here);
    // Its tables are its pages 0 to 2, which are the guest's 20 to 22. They are for reading, which is all that walks do.
    for n in 0..3 {
        map_outer(&cpu, here, n, ram(20 + n), 1);
    }
    write(&cpu, here, ram(20), 1 << 12 | 3);
    write(&cpu, here, ram(21), 2 << 12 | 3);
    let (mut accesses, mut done, mut told) = (0, 0, 0);
    for rights in 0..8 {
        for bits in 0..8 {
            let word = 5 << 12 | LEAF | (bits & 3) << 6 | if bits & 4 != 0 { UXN } else { 0 };
            write(&cpu, here, ram(22) + 8 * 5, word);
            for (op, before, state, first) in Op::ALL.into_iter().flat_map(|op| {
                ALL_BEFORE.into_iter().flat_map(move |before| {
                    let states = [psr::EL0T, psr::EL1H];
                    states.into_iter().flat_map(move |state| {
                        [None, Some(Op::Read), Some(Op::Write)].map(move |first| (op, before, state, first))
                    })
                })
            }) {
                if op == Op::Invalidate && state != psr::EL1H {
                    continue;
                }
                let n = 40 + accesses % 200;
                prepare(&cpu, here, n, before);
                map_outer(&cpu, here, 5, ram(n), rights);
                begin(&cpu, here, &mut vcpu, VIRTUAL);
                // TLBI ALLE1 of the hypervisor's.
                let _ = leave(&cpu, here, &mut vcpu, ec::SYSREG, 1 << 20 | 4 << 17 | 4 << 14 | 8 << 10 | 7 << 1);
                eret(&cpu, here, &mut vcpu, 0x1000, state);
                assert!(runs_guest(&vcpu));
                turn_on(&cpu, 0);
                if let Some(first) = first
                    && !matches!(
                        cpu.insist(here, &mut vcpu, first, 5 << 12),
                        (_, Some((Outcome::Done(_) | Outcome::Own, _)))
                    )
                {
                    continue;
                }
                let (took, end) = cpu.insist(here, &mut vcpu, op, 5 << 12);
                let in_guest = runs_guest(&vcpu);
                match end {
                    Some((Outcome::Done(_), _)) => done += 1,
                    Some((Outcome::Own, _)) => {}
                    Some((Outcome::Exit, Next::Resume)) if !in_guest => {
                        assert!(cpu.get(El1::Esr) >> 7 & 1 == 0, "{op:?} is told of a walk that was allowed");
                        told += 1;
                    }
                    _ => panic!(
                        "{op:?} at {state:#x} by {word:#x}, {rights} of a page {before:?}, after {first:?}: {end:?} after {took}"
                    ),
                }
                accesses += 1;
            }
        }
    }
    println!("exits: {accesses} accesses of a guest's guest, {done} done, {told} told");
    assert!(done > 500 && told > 500);
}

/// Status of an alignment fault.
const ALIGNMENT: u64 = 0b10_0001;

/// What a guest may do that is answered by an exception: class and syndrome.
const CAUSES: [(u64, u64); 13] = [
    (0x3f, 0),
    (ec::HVC64, 0),
    (ec::HVC64, 5),
    (ec::SMC64, 5),
    (ec::SVE, 0),
    // MSR of a register that nobody has; of a timer's that is not there; MRS of ID_AA64PFR0_EL1.
    (ec::SYSREG, 3 << 20 | 9 << 10 | 12 << 1),
    (ec::SYSREG, 3 << 20 | 7 << 17 | 3 << 14 | 14 << 10),
    (ec::SYSREG, 3 << 20 | 4 << 1 | 1),
    // Nothing is there: a load with a syndrome, without, a store, a fetch.
    (ec::DABT_LOWER, 1 << 24 | 3 << 22 | 0b0111),
    (ec::DABT_LOWER, 1 << 6 | 0b0111),
    (ec::IABT_LOWER, 0b0111),
    // Alignment, and the bus.
    (ec::DABT_LOWER, ALIGNMENT),
    (ec::DABT_LOWER, 0b01_0000),
];

#[test]
fn wherever_a_guest_goes_on_is_where_el2_may_return_to() {
    const BITS: [u64; 7] = [hcr::TGE, hcr::E2H, hcr::NV, hcr::NV1, hcr::NV2, hcr::VM, hcr::IMO];
    /// An address where no VM has anything.
    const NOTHING: u64 = 0x0c00_0000;
    let (mut entered, mut returns, mut reported) = (0, 0, 0);
    for aarch32 in [false, true] {
        let model = model();
        let cpu = Cpu::new(&model);
        let here = here(host(&model, true, aarch32));
        let mut vcpu = here.slot.vcpu.lock();
        cpu.load(here, &vcpu);
        outer_tables(&cpu, here);
        map_outer(&cpu, here, 5, NOTHING, 7);
        for set in 0..1 << BITS.len() {
            let value =
                BITS.iter().enumerate().filter(|(n, _)| set >> n & 1 != 0).fold(hcr::RW, |all, (_, bit)| all | bit);
            for mode in 0..32 {
                for (class, iss) in CAUSES {
                    begin(&cpu, here, &mut vcpu, value);
                    eret(&cpu, here, &mut vcpu, 0x1000, mode);
                    let what = format!("HCR_EL2 {value:#x}, M {mode:#x}");
                    let pstate = vcpu.registers.pstate;
                    assert!(cpu.may_enter(pstate, aarch32), "{what}: an ERET leads to {pstate:#x}");
                    let was_in_guest = runs_guest(&vcpu);
                    let at = if value & hcr::VM != 0 && was_in_guest { 5 << 12 } else { NOTHING };
                    vcpu.registers.far = at;
                    vcpu.registers.hpfar = at >> 12 << 4;
                    let next = leave(&cpu, here, &mut vcpu, class, iss);
                    let pstate = vcpu.registers.pstate;
                    let what = format!("{what}, class {class:#x}, ISS {iss:#x}");
                    assert!(cpu.may_enter(pstate, aarch32), "{what}: goes on in {pstate:#x}, {next:?}");
                    let in_guest = runs_guest(&vcpu);
                    if value & hcr::TGE != 0 && was_in_guest && vcpu.registers.pc & !0x7ff == 0x4020_0000 {
                        assert!(!in_guest, "{what}: there is no EL1 to take it");
                    }
                    if value & hcr::TGE != 0 && was_in_guest && (class, iss) == (ec::DABT_LOWER, ALIGNMENT) {
                        assert_eq!(cpu.get(El1::Esr), vcpu.registers.esr, "{what}: the syndrome is as it came");
                    }
                    if was_in_guest && in_guest && mode & !1 == psr::EL1T && vcpu.registers.pc & !0x7ff == 0 {
                        // NV without NV1, or all three (J1.1 AArch64.TakeException).
                        let nv = [hcr::NV, hcr::NV1, hcr::NV2].map(|bit| value & bit != 0);
                        let want =
                            if matches!(nv, [true, false, _] | [true, true, true]) { mode ^ 0b1100 } else { mode };
                        assert_eq!(cpu.get(El1::Spsr) & psr::MODE, want, "{what}: SPSR_EL1.M");
                        reported += u32::from(want != mode);
                    }
                    entered += u32::from(was_in_guest);
                    returns += 1;
                }
            }
        }
    }
    println!("exits: {returns} returns, {entered} of them to a guest's guest");
    assert!(entered > 1000 && reported > 100);
}

#[test]
fn a_guest_that_faults_for_ever_where_nothing_is_wrong_is_stopped() {
    const PERMISSION: u64 = 0b00_1111;
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, false, true));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    vcpu.registers.far = ram(8);
    let fault = |vcpu: &mut Vcpu| leave(&cpu, here, vcpu, ec::DABT_LOWER, 1 << 6 | PERMISSION);
    // Each time there was something to do: the page had become one that others have, too.
    for _ in 0..6_000 {
        prepare(&cpu, here, 8, Before::Shared);
        assert_eq!(fault(&mut vcpu), Next::Resume);
    }
    let exits = (0..6_000).find(|_| fault(&mut vcpu) != Next::Resume);
    assert!(exits.is_some_and(|exits| exits > 1000), "{exits:?}");
    assert!(matches!(fault(&mut vcpu), Next::Resume | Next::Stop(Cause::Crash(_))));
}

#[test]
fn a_guest_whose_vectors_lie_where_nothing_is_is_stopped() {
    for nested in [false, true] {
        let model = model();
        let cpu = Cpu::new(&model);
        let here = here(host(&model, nested, true));
        let mut vcpu = here.slot.vcpu.lock();
        cpu.load(here, &vcpu);
        cpu.set(El1::Vbar, 0x0b00_0000);
        (vcpu.registers.pc, vcpu.registers.pstate) = (0x0b00_0200, psr::EL1H);
        let exits = (0..1000).find(|_| {
            (vcpu.registers.far, vcpu.registers.hpfar) = (vcpu.registers.pc, vcpu.registers.pc >> 8);
            leave(&cpu, here, &mut vcpu, ec::IABT_LOWER, 0b0111)
                == Next::Stop(Cause::Crash("its exception vector raises exceptions"))
        });
        assert_eq!(exits, Some(64));
        // What it takes, it takes at its own level.
        assert_eq!(cpu.get(El1::Esr), ec::IABT_SAME << 26 | 1 << 25 | 0b01_0000);
        assert_eq!((cpu.get(El1::Far), cpu.get(El1::Elr)), (0x0b00_0200, 0x0b00_0200));
        let level = if nested { psr::EL2H } else { psr::EL1H };
        assert_eq!(cpu.get(El1::Spsr) & psr::MODE, level, "with an EL2: {nested}");
    }
}

#[test]
fn cache_maintenance_of_nothing_does_nothing_and_a_walk_to_it_fails() {
    const CM: u64 = 1 << 8 | 1 << 6;
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, false, true));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    cpu.set(El1::Vbar, 0x4020_0000);
    for (iss, pc) in [(CM | 0b0111, ram(4) + 4), (CM | 1 << 7 | 0b0111, 0x4020_0200), (1 << 6 | 0b0111, 0x4020_0200)] {
        (vcpu.registers.pc, vcpu.registers.pstate) = (ram(4), psr::EL1H);
        (vcpu.registers.far, vcpu.registers.hpfar) = (0x0c00_0000, 0x0c00_0000 >> 8);
        assert_eq!(leave(&cpu, here, &mut vcpu, ec::DABT_LOWER, iss), Next::Resume);
        assert_eq!(vcpu.registers.pc, pc, "ISS {iss:#x}");
    }
}

#[test]
fn an_address_translated_for_a_hypervisor_is_as_its_pan_says() {
    const VHE: u64 = hcr::E2H | hcr::TGE | hcr::RW;
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, true, true));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    write(&cpu, here, ram(0), ram(1) | 3);
    write(&cpu, here, ram(1), ram(2) | 3);
    // AT S1E1R, S1E1W, S1E0R, S1E0W; S1E1RP, S1E1WP.
    for (crm, op2) in [(8, 0), (8, 1), (8, 2), (8, 3), (9, 0), (9, 1)] {
        for (ap, pan) in (0..4).flat_map(|ap| [(ap, false), (ap, true)]) {
            write(&cpu, here, ram(2) + 8 * 5, ram(8) | LEAF | ap << 6);
            begin(&cpu, here, &mut vcpu, VHE);
            // The first exit sees HCR_EL2.E2H.
            let _ = leave(&cpu, here, &mut vcpu, ec::SYSREG, 1 << 20 | 7 << 10 | crm << 1);
            turn_on(&cpu, ram(0));
            vcpu.registers.pstate |= if pan { psr::PAN } else { 0 };
            vcpu.registers.x[0] = 5 << 12;
            assert_eq!(
                leave(&cpu, here, &mut vcpu, ec::SYSREG, 1 << 20 | op2 << 17 | 7 << 10 | crm << 1),
                Next::Resume
            );
            let (user, read_only, writes) = (ap & 1 != 0, ap & 2 != 0, op2 & 1 != 0);
            let denied = match (crm, op2 & 2 != 0) {
                (8, true) => !user || writes && read_only,
                (9, _) => user && pan || writes && read_only,
                _ => writes && read_only,
            };
            let par = cpu.get(El1::Par);
            assert_eq!(par & 1 != 0, denied, "AT with CRm {crm}, op2 {op2}, AP {ap}, PAN {pan}: {par:#x}");
        }
    }
}

#[test]
fn a_virtual_el2_has_what_its_encodings_say() {
    /// EL2's registers that are read alone: op2, CRn, CRm of RVBAR_EL2, ICH_VTR_EL2, ICH_MISR_EL2, ICH_EISR_EL2, ICH_ELRSR_EL2.
    const READ_ONLY: [(u64, u64, u64); 5] = [(1, 12, 0), (1, 12, 11), (2, 12, 11), (3, 12, 11), (5, 12, 11)];
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, true, true));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    // Whether an instruction was done, rather than UNDEFINED.
    let mut does = |value: u64, iss: u64| {
        begin(&cpu, here, &mut vcpu, value);
        // The first exit sees HCR_EL2.E2H.
        let _ = leave(&cpu, here, &mut vcpu, ec::SYSREG, 3 << 20 | 1);
        vcpu.registers.pc = ram(4);
        assert_eq!(leave(&cpu, here, &mut vcpu, ec::SYSREG, iss), Next::Resume);
        vcpu.registers.pc == ram(4) + 4
    };
    for value in [hcr::RW, hcr::RW | hcr::E2H | hcr::TGE] {
        for (op2, crn, crm) in READ_ONLY {
            let iss = 3 << 20 | op2 << 17 | 4 << 14 | crn << 10 | crm << 1;
            assert!(does(value, iss | 1), "MRS of S3_4_C{crn}_C{crm}_{op2}");
            assert!(!does(value, iss), "MSR of S3_4_C{crn}_C{crm}_{op2}");
        }
        // TLBI ALLE2 and AT S1E2R, and what would be SYSL of them.
        for (op2, crn, crm) in [(0, 8, 7), (0, 7, 8)] {
            let iss = 1 << 20 | op2 << 17 | 4 << 14 | crn << 10 | crm << 1;
            assert!(does(value, iss), "SYS S1_4_C{crn}_C{crm}_{op2}");
            assert!(!does(value, iss | 1), "SYSL S1_4_C{crn}_C{crm}_{op2}");
        }
    }
}

#[test]
fn what_is_hidden_traps_to_us_from_a_virtual_el2_whatever_it_sets() {
    /// CPACR_EL1: ZEN and SMEN, with which SVE and SME do not trap to EL1; FPEN.
    const SVE_SME: u64 = 3 << 16 | 3 << 24;
    const FPEN: u64 = 3 << 20;
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, true, true));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    begin(&cpu, here, &mut vcpu, hcr::RW);
    assert_eq!(cpu.get(El1::Cpacr), SVE_SME | FPEN, "CPTR_EL2 after a reset");
    // TCPAC, TTA, TSM, TFP, TZ.
    for value in [0, !0, 1 << 31, 1 << 20, 1 << 12, 1 << 10, 1 << 8] {
        vcpu.registers.x[0] = value;
        let _ = leave(&cpu, here, &mut vcpu, ec::SYSREG, 3 << 20 | 2 << 17 | 4 << 14 | 1 << 10 | 1 << 1);
        let fp = if value >> 10 & 1 != 0 { 0 } else { FPEN };
        assert_eq!(cpu.get(El1::Cpacr), SVE_SME | fp, "CPTR_EL2 {value:#x}");
    }
}

#[test]
fn an_address_of_a_guest_is_translated_by_both_stages() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, true, true));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    // AT S12E1R, S12E1W, S12E0R, S12E0W, by page tables with and without these rights; the guest's own stage 1 is off.
    for (rights, op2) in (0..8).flat_map(|rights| (4..8).map(move |op2| (rights, op2))) {
        begin(&cpu, here, &mut vcpu, VIRTUAL);
        outer_tables(&cpu, here);
        map_outer(&cpu, here, 5, ram(9), rights);
        vcpu.registers.x[0] = 5 << 12 | 0x123;
        let iss = 1 << 20 | op2 << 17 | 4 << 14 | 7 << 10 | 8 << 1;
        assert_eq!(leave(&cpu, here, &mut vcpu, ec::SYSREG, iss), Next::Resume);
        assert!(!runs_guest(&vcpu) && vcpu.registers.pc == ram(4) + 4);
        let (par, needs) = (cpu.get(El1::Par), if op2 & 1 != 0 { 2 } else { 1 });
        assert_eq!(par & 1 == 0, rights & needs != 0, "AT with op2 {op2}, rights {rights:#b}: {par:#x}");
        if par & 1 == 0 {
            assert_eq!(par & 0xffff_ffff_f000, ram(9), "where both stages lead");
        } else {
            // S, and a permission fault at level 3.
            assert_eq!((par >> 9 & 1, par >> 1 & 0x3f), (1, 0b00_1111));
        }
    }
    // By its own stage 1 alone.
    vcpu.registers.x[0] = 5 << 12;
    let _ = leave(&cpu, here, &mut vcpu, ec::SYSREG, 1 << 20 | 7 << 10 | 8 << 1);
    assert_eq!(cpu.get(El1::Par) & 0xffff_ffff_f000, 5 << 12, "AT S1E1R");
}

#[test]
fn timers_of_a_virtual_el2_and_of_its_guest_are_four() {
    const VHE: u64 = hcr::E2H | hcr::TGE | hcr::RW;
    // op1 and CRm of EL2's physical timer, of its virtual one, of EL1's physical and of its virtual one.
    let without: &[(u64, u64)] = &[(4, 2), (3, 2), (3, 3)];
    let with: &[(u64, u64)] = &[(4, 2), (4, 3), (5, 2), (5, 3)];
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, true, true));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    cpu.pace.set(1000);
    assert_eq!(cpu.now(), 1000);
    cpu.pace.set(0);
    for (value, timers) in [(hcr::RW, without), (VHE, with)] {
        begin(&cpu, here, &mut vcpu, value);
        // The first exit sees HCR_EL2.E2H.
        let _ = leave(&cpu, here, &mut vcpu, ec::SYSREG, 3 << 20 | 1);
        vcpu.nested().unwrap().write(&cpu, page::CNTVOFF, 300);
        let iss = |(op1, crm): (u64, u64), op2: u64| 3 << 20 | op2 << 17 | op1 << 14 | 14 << 10 | crm << 1;
        let mut set = |timer, op2, value: u64| {
            vcpu.registers.x[0] = value;
            assert_eq!(leave(&cpu, here, &mut vcpu, ec::SYSREG, iss(timer, op2)), Next::Reschedule);
        };
        // CVAL, each its own, and CTL.
        for (n, timer) in timers.iter().enumerate() {
            set(*timer, 2, 5000 + n as u64);
            set(*timer, 1, 1);
        }
        // TVAL of the last.
        set(*timers.last().unwrap(), 0, 70);
        let mut get = |timer, op2| {
            assert_eq!(leave(&cpu, here, &mut vcpu, ec::SYSREG, iss(timer, op2) | 1), Next::Resume);
            vcpu.registers.x[0]
        };
        for (n, timer) in timers.iter().enumerate() {
            // The counter of EL1's virtual timer, the last, lags behind.
            let is_last = n + 1 == timers.len();
            let (cval, tval) = if is_last { (700 + 70, 70) } else { (5000 + n as u64, 4000 + n as u64) };
            assert_eq!((get(*timer, 2), get(*timer, 0), get(*timer, 1)), (cval, tval, 1), "{timer:?} of {value:#x}");
        }
        // What is met says so.
        for timer in timers {
            vcpu.registers.x[0] = 600;
            let _ = leave(&cpu, here, &mut vcpu, ec::SYSREG, iss(*timer, 2));
            let _ = leave(&cpu, here, &mut vcpu, ec::SYSREG, iss(*timer, 1) | 1);
            assert_eq!(vcpu.registers.x[0], 5, "{timer:?} of {value:#x}");
        }
    }
}

#[test]
fn an_access_to_nothing_is_told_once_for_each_place_and_ends_as_on_a_bus() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, false, true));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    // From EL0, EL0 of AArch32 and EL1: a load, a store and a fetch at places of their own, where nothing is.
    let states = [(psr::EL0T, false), (psr::AARCH32, false), (psr::EL1H, true), (psr::EL1T, true)];
    let mut place = 0x0c00_0000;
    for (state, is_same) in states {
        for (class, iss, bytes) in [
            (ec::DABT_LOWER, 0b111, 4),
            (ec::DABT_LOWER, 1 << 6 | 0b111, 4),
            (ec::IABT_LOWER, 0b111, 4),
            (ec::IABT_LOWER, 0b111, 2),
        ] {
            place += 0x1000;
            cpu.set(El1::Vbar, 0x8000);
            (vcpu.registers.pc, vcpu.registers.pstate) = (0x1000, state);
            (vcpu.registers.far, vcpu.registers.hpfar) = (place, place >> 12 << 4);
            vcpu.registers.esr = class << 26 | if bytes == 4 { 1 << 25 } else { 0 } | iss;
            assert_eq!(exit::handle(here, &cpu, &mut vcpu), Next::Resume);
            let what = format!("class {class:#x}, ISS {iss:#x} at {state:#x}");
            let esr = cpu.get(El1::Esr);
            // The class says where it came from; IL as it was; a synchronous external abort.
            assert_eq!(esr >> 26, class + u64::from(is_same), "{what}");
            assert_eq!(
                (esr >> 25 & 1, esr & 0x3f, esr >> 6 & 1),
                (u64::from(bytes == 4), 0b01_0000, iss >> 6 & 1),
                "{what}"
            );
            assert_eq!((cpu.get(El1::Far), cpu.get(El1::Elr), cpu.get(El1::Spsr)), (place, 0x1000, state), "{what}");
            let access = if class == ec::IABT_LOWER {
                Access::Execute
            } else if iss >> 6 & 1 != 0 {
                Access::Write
            } else {
                Access::Read
            };
            assert!(!here.vm.logged.lock().is_new(place | access as u64), "{what} was told");
        }
    }
    assert!(here.vm.logged.lock().is_new(0x0bff_f000 | Access::Read as u64), "nobody was there");
}

/// What leaves the guest is counted by what it is; a timer's tick that comes without is no exit, an interrupt no sign of life.
#[test]
fn exits_and_signs_of_life_are_sums() {
    use flatland::vcpu::Counter;
    let model = model();
    let here = here(host(&model, false, false));
    let slot = here.slot;
    let names = ["hvc", "sysreg", "mmio", "memory", "irq", "timer", "wfx", "nested", "fp", "other"];
    assert_eq!(Counter::ALL.map(Counter::name), names);
    for (n, counter) in Counter::ALL.into_iter().enumerate() {
        let (exits, life) = (slot.exits(), slot.life());
        (0..=n).for_each(|_| slot.count(counter));
        let of = |is_it: bool| if is_it { 1 + n as u64 } else { 0 };
        assert_eq!(slot.counted(counter), of(true));
        assert_eq!(slot.exits() - exits, of(counter != Counter::Timer), "{counter:?}");
        assert_eq!(slot.life() - life, of(counter != Counter::Interrupt), "{counter:?}");
    }
}

/// A guest's MDSCR_EL1 is in force at once, as far as its OS lock lets it, and breakpoints with it.
#[test]
fn debug_is_in_force_when_it_is_written() {
    const KDE: u64 = 1 << 13;
    const MDE: u64 = 1 << 15;
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, false, false));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    // MDSCR_EL1 (2, 0, 0, 2, 2), OSLAR_EL1 (2, 0, 1, 0, 4), of X3.
    let mdscr = 2 << 20 | 2 << 17 | 2 << 1;
    let oslar = 2 << 20 | 4 << 17 | 1 << 10;
    for (register, value, in_force, armed) in [
        (oslar, 0, 0, None),
        (mdscr, KDE, KDE, None),
        (mdscr, KDE | MDE, KDE | MDE, Some(false)),
        (oslar, 1, 0, None),
        (mdscr, MDE, 0, None),
        (oslar, 0, MDE, Some(false)),
    ] {
        cpu.armed.set(None);
        vcpu.registers.x[3] = value;
        assert_eq!(leave(&cpu, here, &mut vcpu, ec::SYSREG, register | 3 << 5), Next::Resume);
        assert_eq!((cpu.get(El1::Mdscr), cpu.armed.get()), (in_force, armed), "{value:#x} to {register:#x}");
    }
}
