//! The guest's virtual interrupts by list registers, maintenance, HCR_EL2.VI, VF and VSE; physical ones end its run.
//!
//! Follows IHI 0069H chapter 6 (virtual interrupts), 12.4 (ICH registers).

use crate::l2::{CODE, DATA, HVC, MORE, PROGRAM, Vm, own_hcr};
use crate::lists::{self, ACTIVE, EN, EOI, GROUP1, HW, LISTS, OPEN, PENDING, pending};
use crate::ops::{DSB, ISB, NOP, SPIN, Sys, UNMASK, UNMASK_ALL, WFI, hvc};
use rt::el2::{self, EL1H, El1, Exit, Register, guest};
use rt::gic::{self, To};
use rt::{args, board, check, check_eq, println};

/// EL1 with interrupts open.
pub(crate) const UNMASKED: u64 = EL1H & !(1 << 7);
/// The maintenance interrupt: PPI 9.
const MAINTENANCE: u32 = 25;

const PMR: Sys = Sys(3, 0, 4, 6, 0);
const IAR0: Sys = Sys(3, 0, 12, 8, 0);
const IAR1: Sys = Sys(3, 0, 12, 12, 0);
const EOIR1: Sys = Sys(3, 0, 12, 12, 1);
const HPPIR1: Sys = Sys(3, 0, 12, 12, 2);
const CTLR: Sys = Sys(3, 0, 12, 12, 4);
const IGRPEN1: Sys = Sys(3, 0, 12, 12, 7);
const DIR: Sys = Sys(3, 0, 12, 11, 1);
const RPR: Sys = Sys(3, 0, 12, 11, 3);
const ISR: Sys = Sys(3, 0, 12, 1, 0);

/// ICH_MISR_EL2 and ICH_HCR_EL2 bits.
const MISR_EOI: u64 = 1;
const UNDERFLOW: u64 = 2;
const LRENP: u64 = 4;
const NONE_PENDING: u64 = 8;

/// Runs the group.
pub(crate) fn run() {
    if args::gic_version() != 3 {
        println!("nest: interrupts skipped: no GICv3, so no list registers in system registers");
        return;
    }
    gic::init();
    lists::begin();
    let mut vm = Vm::plain(1);
    delivery(&mut vm);
    by_hand(&mut vm);
    split_end(&mut vm);
    masks(&mut vm);
    groups(&mut vm);
    underflow(&mut vm);
    ends(&mut vm);
    hardware(&mut vm);
    forced(&mut vm);
    serror(&mut vm);
    physical(&mut vm);
    waiting(&mut vm);
    lists::end();
}

/// Runs the guest's WAIT until it has logged `n`.
fn wait_for(vm: &mut Vm, n: u64) -> Exit {
    vm.cpu.x[0] = DATA;
    vm.cpu.x[1] = n;
    vm.cpu.pc = CODE + guest::WAIT;
    vm.cpu.pstate = UNMASKED;
    vm.run()
}

fn ends_well(exit: Exit) -> bool {
    exit.class() == HVC && exit.iss() == 1
}

/// Through each list register, and several kinds of number.
fn delivery(vm: &mut Vm) {
    vm.write(DATA, 0);
    let mut n = 0;
    for (index, list) in lists::lists().enumerate() {
        for intid in [0u32, 15, 16, 27, 31, 32, 100, 1019, 8192] {
            n += 1;
            check_eq!(list.read() >> 62, 0, "list register {index} is free");
            list.write(pending(intid));
            let exit = wait_for(vm, n);
            check!(ends_well(exit), "interrupt {intid} through list register {index} is taken", "{exit:x?}");
            check_eq!(lists::last(vm), u64::from(intid), "it is {intid}");
            check_eq!(list.read() >> 62, 0, "after its end, {intid} is inactive");
            check_eq!(Register::IchElrsr.read() >> index & 1, 1, "and list register {index} free");
        }
    }
    check_eq!(lists::logged(vm), n, "each interrupt is taken once");
    check_eq!(Register::IchAp1r0.read(), 0, "no priority is left active");
    // Two together, both taken.
    LISTS[0].write(pending(40));
    LISTS[1].write(pending(41));
    let exit = wait_for(vm, n + 2);
    check!(ends_well(exit), "two interrupts are taken", "{exit:x?}");
}

/// Acknowledge, running priority, end: step by step, with interrupts masked.
fn by_hand(vm: &mut Vm) {
    lists::clear();
    LISTS[0].write(pending(40));
    LISTS[1].write(PENDING | GROUP1 | 0x80 << 48 | 41);
    let program = [
        HPPIR1.mrs(0),
        IAR1.mrs(1),
        RPR.mrs(2),
        IAR1.mrs(3),
        DSB,
        hvc(1),
        EOIR1.msr(1),
        ISB,
        IAR1.mrs(3),
        EOIR1.msr(3),
        IAR1.mrs(4),
        RPR.mrs(5),
        hvc(2),
    ];
    let exit = vm.exec(&program);
    check_eq!(exit.iss(), 1, "acknowledged by hand");
    check_eq!(vm.cpu.x[0], 41, "ICC_HPPIR1_EL1 is the more urgent of two");
    check_eq!(vm.cpu.x[1], 41, "ICC_IAR1_EL1 is the more urgent of two");
    check_eq!(vm.cpu.x[2], 0x80, "ICC_RPR_EL1 is its priority");
    check_eq!(vm.cpu.x[3], 1023, "the less urgent one does not preempt it");
    check_eq!(LISTS[1].read() & (ACTIVE | PENDING), ACTIVE, "its list register is active");
    check_eq!(LISTS[0].read() & (ACTIVE | PENDING), PENDING, "that of the other is pending");
    check_eq!(Register::IchAp1r0.read(), 1 << (0x80 >> 3), "ICH_AP1R0_EL2 has its priority");
    check_eq!(Register::IchElrsr.read() & 3, 0, "both list registers are in use");
    let exit = vm.run();
    check_eq!(exit.iss(), 2, "ended by hand");
    check_eq!(vm.cpu.x[3], 40, "after the end comes the less urgent one");
    check_eq!(vm.cpu.x[4], 1023, "and then nothing");
    check_eq!(vm.cpu.x[5], 0xff, "and nothing is running");
    check_eq!(LISTS[0].read() >> 62 | LISTS[1].read() >> 62, 0, "both are inactive");
    check_eq!(Register::IchAp1r0.read(), 0, "ICH_AP1R0_EL2 is empty again");
    // Pending while active: it comes again.
    LISTS[0].write(pending(40));
    vm.exec(&[IAR1.mrs(1), DSB, hvc(0)]);
    LISTS[0].write(LISTS[0].read() | PENDING);
    vm.exec(&[IAR1.mrs(2), EOIR1.msr(1), ISB, IAR1.mrs(3), EOIR1.msr(3), ISB, hvc(0)]);
    check!(vm.cpu.x[2] == 1023 && vm.cpu.x[3] == 40, "pending and active: it comes again", "{:x?}", &vm.cpu.x[..4]);
    check_eq!(LISTS[0].read() >> 62, 0, "pending and active: and ends");
}

/// VEOIM: the end drops the priority, ICC_DIR_EL1 deactivates.
fn split_end(vm: &mut Vm) {
    lists::clear();
    LISTS[0].write(pending(40));
    vm.cpu.x[6] = 2;
    vm.exec(&[CTLR.msr(6), ISB, IAR1.mrs(1), EOIR1.msr(1), ISB, hvc(0)]);
    check_eq!(Register::IchVmcr.read() & 1 << 9, 1 << 9, "ICC_CTLR_EL1.EOImode is ICH_VMCR_EL2.VEOIM");
    check_eq!(LISTS[0].read() & (ACTIVE | PENDING), ACTIVE, "split: the end leaves it active");
    check_eq!(Register::IchAp1r0.read(), 0, "split: the end drops the priority");
    vm.exec(&[DIR.msr(1), ISB, hvc(0)]);
    check_eq!(LISTS[0].read() & (ACTIVE | PENDING), 0, "split: ICC_DIR_EL1 deactivates it");
    lists::clear();
    // An end without a list register is counted.
    vm.exec(&[CTLR.msr(31), ISB, hvc(0)]);
}

fn masks(vm: &mut Vm) {
    lists::clear();
    LISTS[0].write(pending(40));
    // Masked in PSTATE: seen in ISR_EL1, taken when it opens.
    vm.write(DATA, 0);
    vm.exec(&[ISR.mrs(0), hvc(0)]);
    check_eq!(vm.cpu.x[0], 1 << 7, "ISR_EL1 shows a virtual interrupt that is masked");
    check_eq!(lists::logged(vm), 0, "which is not taken");
    vm.exec(&[UNMASK, ISB, NOP, hvc(0)]);
    check_eq!(lists::logged(vm), 1, "and is when the mask opens");
    // By priority.
    LISTS[0].write(pending(40));
    vm.cpu.x[6] = 0xa0;
    vm.cpu.x[7] = 0xa8;
    vm.exec(&[PMR.msr(6), ISB, IAR1.mrs(1), ISR.mrs(2), PMR.mrs(3), hvc(0)]);
    check_eq!(vm.cpu.x[1], 1023, "ICC_PMR_EL1 lets through only what is more urgent");
    check_eq!(vm.cpu.x[2], 0, "and ISR_EL1 shows nothing");
    check_eq!(vm.cpu.x[3], 0xa0, "ICC_PMR_EL1 reads as written");
    check_eq!(Register::IchVmcr.read() >> 24, 0xa0, "ICC_PMR_EL1 is ICH_VMCR_EL2.VPMR");
    vm.exec(&[PMR.msr(7), ISB, IAR1.mrs(1), EOIR1.msr(1), hvc(0)]);
    check_eq!(vm.cpu.x[1], 40, "a lower mask lets it through");
    // By group.
    lists::clear();
    LISTS[0].write(pending(40));
    vm.exec(&[IGRPEN1.msr(31), ISB, ISR.mrs(2), hvc(0)]);
    check_eq!(vm.cpu.x[2], 0, "ICC_IGRPEN1_EL1 holds its group back");
    check_eq!(Register::IchVmcr.read() & 2, 0, "ICC_IGRPEN1_EL1 is ICH_VMCR_EL2.VENG1");
    Register::IchVmcr.write(OPEN);
    // The whole interface.
    Register::IchHcr.write(0);
    vm.exec(&[ISR.mrs(2), hvc(0)]);
    check_eq!(vm.cpu.x[2], 0, "ICH_HCR_EL2.En holds everything back");
    lists::clear();
}

/// Vectors that say which they are, at [`MORE`].
fn telling_vectors(vm: &mut Vm) {
    for vector in 0..16 {
        vm.program_at(MORE + vector * 0x80, &[hvc(guest::VECTOR as u32 + vector as u32), SPIN]);
    }
    El1::Vbar.write(MORE);
}

/// Group 0 is FIQ.
fn groups(vm: &mut Vm) {
    lists::clear();
    telling_vectors(vm);
    Register::IchVmcr.write(OPEN | 1);
    LISTS[0].write(PENDING | 0x90 << 48 | 50);
    let exit = vm.exec(&[ISR.mrs(0), UNMASK_ALL, ISB, hvc(0)]);
    check_eq!(vm.cpu.x[0], 1 << 6, "ISR_EL1 shows group 0 as FIQ");
    check_eq!(exit.iss(), guest::VECTOR + 6, "group 0 is taken as FIQ");
    vm.exec(&[IAR0.mrs(0), Sys(3, 0, 12, 8, 1).msr(0), hvc(0)]);
    check_eq!(vm.cpu.x[0], 50, "ICC_IAR0_EL1 has it");
    check_eq!(LISTS[0].read() >> 62, 0, "ICC_EOIR0_EL1 ends it");
    LISTS[0].write(pending(40));
    let exit = vm.exec(&[UNMASK_ALL, ISB, hvc(0)]);
    check_eq!(exit.iss(), guest::VECTOR + 5, "group 1 is taken as interrupt");
    lists::clear();
    El1::Vbar.write(CODE);
}

/// Runs the guest on [`SPIN`] until a physical interrupt comes; returns which.
fn spin(vm: &mut Vm) -> (Exit, u32) {
    let exit = vm.exec(&[SPIN]);
    (exit, if exit.vector == 9 { lists::finish() } else { u32::MAX })
}

/// Maintenance: too few, none.
fn underflow(vm: &mut Vm) {
    gic::enable(MAINTENANCE);
    lists::clear();
    check_eq!(Register::IchMisr.read(), 0, "ICH_MISR_EL2 is empty");
    Register::IchHcr.write(EN | NONE_PENDING);
    check_eq!(Register::IchMisr.read(), NONE_PENDING, "ICH_MISR_EL2: none is pending");
    let (exit, intid) = spin(vm);
    check_eq!(intid, MAINTENANCE, "NPIE: the maintenance interrupt ends a run");
    check_eq!(exit.vector, 9, "as an interrupt");
    LISTS[0].write(pending(40));
    check_eq!(Register::IchMisr.read(), 0, "ICH_MISR_EL2: one is pending");
    Register::IchHcr.write(EN | UNDERFLOW);
    check_eq!(Register::IchMisr.read(), UNDERFLOW, "ICH_MISR_EL2: one is left of two");
    LISTS[1].write(pending(41));
    check_eq!(Register::IchMisr.read(), 0, "ICH_MISR_EL2: two are left");
    // The guest takes them: the maintenance interrupt comes by itself.
    vm.write(DATA, 0);
    let mut came = 0;
    let mut exit = wait_for(vm, 2);
    while exit.vector == 9 && came < 8 {
        came += u64::from(lists::finish() == MAINTENANCE);
        Register::IchHcr.write(EN);
        exit = vm.run();
    }
    check!(ends_well(exit) && came == 1, "UIE: the maintenance interrupt comes when one is left", "{came} {exit:x?}");
    // An end of what is in no list register.
    lists::clear();
    Register::IchHcr.write(EN | LRENP);
    Register::IchAp1r0.write(1 << (0xa0 >> 3));
    vm.cpu.x[1] = 77;
    vm.exec(&[EOIR1.msr(1), ISB, hvc(0)]);
    check_eq!(Register::IchHcr.read() >> 27, 1, "ICH_HCR_EL2.EOIcount counts an end without a list register");
    check_eq!(Register::IchMisr.read(), LRENP, "ICH_MISR_EL2: an end without a list register");
    lists::clear();
    check_eq!(Register::IchMisr.read(), 0, "ICH_MISR_EL2 is empty again");
}

/// Maintenance: the end of an interrupt that asked for it.
fn ends(vm: &mut Vm) {
    lists::clear();
    vm.write(DATA, 0);
    for round in 1..=8 {
        LISTS[0].write(pending(60) | EOI);
        check_eq!(Register::IchEisr.read(), 0, "EOI: nothing has ended, round {round}");
        let exit = wait_for(vm, round);
        check_eq!(exit.vector, 9, "EOI: the end of an interrupt ends a run, round {round}");
        check_eq!(Register::IchMisr.read(), MISR_EOI, "EOI: ICH_MISR_EL2 says so, round {round}");
        check_eq!(Register::IchEisr.read(), 1, "EOI: ICH_EISR_EL2 says which, round {round}");
        check_eq!(lists::finish(), MAINTENANCE, "EOI: by the maintenance interrupt, round {round}");
        LISTS[0].write(0);
        check_eq!(Register::IchMisr.read(), 0, "EOI: it is answered, round {round}");
        // The log is written behind the end.
        let exit = vm.run();
        check!(ends_well(exit), "EOI: the guest goes on, round {round}", "{exit:x?}");
        check_eq!(lists::logged(vm), round, "EOI: the interrupt was taken, round {round}");
    }
    gic::disable(MAINTENANCE);
}

/// HW: the guest's end deactivates the physical interrupt.
fn hardware(vm: &mut Vm) {
    const SPI: u32 = 48;
    lists::clear();
    gic::set_trigger(SPI, gic::Trigger::Edge);
    gic::set_target(SPI, 0);
    gic::enable(SPI);
    vm.write(DATA, 0);
    for round in 1..=8 {
        gic::set_pending(SPI);
        let exit = wait_for(vm, round);
        let taken = lists::take();
        check!(exit.vector == 9 && taken.intid == SPI, "HW: an SPI ends a run, round {round}", "{exit:x?}");
        check!(gic::is_active(SPI), "HW: it is active, round {round}");
        // By another number, for the two are not the same thing.
        LISTS[1].write(pending(SPI + 100) | HW | u64::from(SPI) << 32);
        let exit = vm.run();
        check!(ends_well(exit), "HW: the guest takes it, round {round}", "{exit:x?}");
        check_eq!(lists::last(vm), u64::from(SPI) + 100, "HW: by its own number, round {round}");
        check!(!gic::is_active(SPI), "HW: the guest's end deactivates it, round {round}");
        check_eq!(LISTS[1].read() >> 62, 0, "HW: and frees the list register, round {round}");
    }
    gic::disable(SPI);
}

/// HCR_EL2.VI and VF.
fn forced(vm: &mut Vm) {
    lists::clear();
    telling_vectors(vm);
    let plain = vm.hcr;
    for (bit, shown, vector, name) in [(1 << 7, 1 << 7, 5, "VI"), (1 << 6, 1 << 6, 6, "VF")] {
        vm.hcr = plain | bit;
        let exit = vm.exec(&[ISR.mrs(0), hvc(0x77)]);
        check_eq!(exit.iss(), 0x77, "HCR_EL2.{name}: masked, it is not taken");
        check_eq!(vm.cpu.x[0], shown, "HCR_EL2.{name}: masked, ISR_EL1 shows it");
        let exit = vm.exec(&[UNMASK_ALL, ISB, hvc(0x77)]);
        check_eq!(exit.iss(), guest::VECTOR + vector, "HCR_EL2.{name}: it is taken");
        check_eq!(exit.class(), HVC, "HCR_EL2.{name}: by EL1");
        // At EL0 as well.
        vm.program(&[SPIN]);
        vm.cpu.pc = PROGRAM;
        vm.cpu.pstate = 0;
        let exit = vm.run();
        check_eq!(exit.iss(), guest::VECTOR + vector + 4, "HCR_EL2.{name}: it is taken from EL0");
        vm.hcr = plain;
        let exit = vm.exec(&[ISR.mrs(0), UNMASK_ALL, ISB, hvc(0x77)]);
        check!(exit.iss() == 0x77 && vm.cpu.x[0] == 0, "HCR_EL2.{name}: taken back, it is gone", "{exit:x?}");
    }
    El1::Vbar.write(CODE);
}

/// HCR_EL2.VSE: once, and with VSESR_EL2's syndrome where there is RAS.
fn serror(vm: &mut Vm) {
    telling_vectors(vm);
    let plain = vm.hcr;
    vm.hcr = plain | 1 << 8;
    let exit = vm.exec(&[ISR.mrs(0), hvc(0x77)]);
    check!(exit.iss() == 0x77 && vm.cpu.x[0] == 1 << 8, "HCR_EL2.VSE: masked, ISR_EL1 shows it", "{:x?}", vm.cpu.x[0]);
    vm.program(&[UNMASK_ALL, ISB, NOP, hvc(0x77)]);
    vm.cpu.pc = PROGRAM;
    vm.cpu.pstate = EL1H;
    Register::Hcr.write(vm.hcr);
    let vector = vm.cpu.enter();
    let hcr = Register::Hcr.read();
    Register::Hcr.write(own_hcr());
    let exit = vm.cpu.exit(vector);
    check_eq!(exit.iss(), guest::VECTOR + 7, "HCR_EL2.VSE: it is taken");
    check_eq!(El1::Esr.read() >> 26, 0x2f, "HCR_EL2.VSE: as an SError");
    check_eq!(hcr >> 8 & 1, 0, "HCR_EL2.VSE: and cleared by that");
    vm.hcr = plain;
    El1::Vbar.write(CODE);
}

/// A physical interrupt ends the run, whatever the guest masks.
fn physical(vm: &mut Vm) {
    lists::clear();
    gic::enable(3);
    for (pstate, name) in [(EL1H, "EL1, masked"), (UNMASKED, "EL1, open"), (el2::EL0, "EL0, masked"), (0, "EL0, open")]
    {
        gic::send(3, To::Me);
        let exit = vm.exec_in(pstate, &[SPIN]);
        check!(exit.vector == 9 && exit.pc == PROGRAM, "an SGI ends a run at {name}", "{exit:x?}");
        check_eq!(exit.pstate & 0x3df, pstate & 0x3df, "an SGI leaves the state of {name}");
        check_eq!(lists::finish(), 3, "it is that SGI, at {name}");
    }
    gic::disable(3);
}

/// WFI in a guest that nothing traps: it wakes for what is pending, and a physical interrupt ends the run.
fn waiting(vm: &mut Vm) {
    lists::clear();
    LISTS[0].write(pending(40));
    let exit = vm.exec(&[WFI, hvc(0x78)]);
    check_eq!(exit.iss(), 0x78, "WFI goes on with a virtual interrupt, though it is masked");
    lists::clear();
    vm.hcr |= 1 << 7;
    let exit = vm.exec(&[WFI, hvc(0x78)]);
    check_eq!(exit.iss(), 0x78, "WFI goes on with HCR_EL2.VI");
    vm.hcr &= !(1 << 7);
    let irq = board::PHYSICAL_TIMER_IRQ;
    gic::enable(irq);
    El1::CntpCval.write(Register::Cntpct.read() + rt::timer::micros(2000));
    El1::CntpCtl.write(1);
    let exit = vm.exec(&[WFI, SPIN]);
    check_eq!(exit.vector, 9, "a physical interrupt ends a run that waits");
    check!(exit.pc == PROGRAM || exit.pc == PROGRAM + 4, "a run that waits ends at or behind WFI", "{exit:x?}");
    check_eq!(lists::finish(), irq, "it is the timer");
    El1::CntpCtl.write(0);
    gic::disable(irq);
}
