//! What a guest does, by dice; and what it must find whenever it is entered.

use super::{ACTIVE, Board, ENABLE, Guest, HW, PENDING, Racer, SPI};
use flatland::addr::{IntId, VcpuId};
use flatland::arm::el1::El1;
use flatland::arm::esr::ec;
use flatland::arm::gic::{gicd, gicr, hcr};
use flatland::devices::{GICD, HYP_TIMER_INTID, PHYSICAL_TIMER_INTID, UART, VIRTUAL_TIMER_INTID};
use flatland::memory::RAM_BASE;
use flatland::run::Exit;
use flatland::vcpu::Registers;
use flatland::vm::{Power, State, Vm};
use std::sync::atomic::Ordering::SeqCst;

impl Board {
    /// The interrupt of the timer that guests find emulated.
    const fn physical_timer(&self) -> IntId {
        if self.nested { HYP_TIMER_INTID } else { PHYSICAL_TIMER_INTID }
    }
}

impl Racer<'_> {
    /// What has to hold when a guest is entered.
    pub(super) fn check_entry(&self, registers: &mut Registers) {
        let (vm, slot, n) = self.board.on(self.n);
        let name = format!("vCPU {n} of {} on CPU {}", vm.name, self.n);
        assert_eq!(slot.running.load(SeqCst), self.n as u32, "{name} runs elsewhere");
        assert!(slot.vcpu.try_lock().is_none(), "{name} is not locked");
        assert!(self.board.is_free(), "{name} is entered with a lock held");
        let state = vm.life.state();
        assert!(
            matches!(state, State::Running | State::Paused | State::Stopping(_)),
            "{name} is entered while its VM is {state:?}"
        );
        let who = 1 << 40 | u64::from(vm.life.starts()) << 16 | u64::from(vm.id.0) << 8 | n as u64;
        if registers.x[19] == 0 {
            let life = vm.life.starts();
            let told = self.guest(vm, n, |guest| guest.start).filter(|(in_life, ..)| *in_life == life);
            let start = told.map_or((vm.plan.entry.bits(), vm.plan.dtb.bits()), |(_, pc, x0)| (pc, x0));
            assert_eq!((registers.pc, registers.x[0]), start, "{name} starts");
            let cpu = self.guest(vm, n, |guest| guest.cpu);
            let spins = self.board.one_in(8);
            self.guest(vm, n, |guest| *guest = Guest { cpu, spins, ..Guest::default() });
            registers.x[19] = who;
            self.own(|own| own.el1.set(El1::TpidrEl1, who));
            self.prepare_gic(vm, n);
        }
        assert_eq!(registers.x[19], who, "{name} has another's registers");
        self.own(|own| assert_eq!(own.el1.get(El1::TpidrEl1), who, "{name} has another's EL1 registers"));
        let before = self.own(|own| own.tlb[usize::from(vm.id.0)].replace(n as u16));
        assert!(before.is_none_or(|before| before == n as u16), "{name} finds what vCPU {before:?} left in the TLB");
        if self.guest(vm, n, |guest| guest.cpu.replace(self.n)).is_some_and(|cpu| cpu != self.n) {
            self.board.count(|counts| counts.migrations += 1);
        }
    }

    /// A timer that has fired is in a list register, unless those are full: the virtual one from when its physical interrupt is
    /// active, the emulated one soon after it was due.
    pub(super) fn check_timers(&self) {
        let (vm, _, n) = self.board.on(self.n);
        let late = self.board.time.get().saturating_sub(10_000 * self.board.slow);
        let (taken, timer, physical) = self.guest(vm, n, |guest| (guest.taken, guest.timer, guest.physical));
        self.own(|own| {
            let used = own.lr.iter().filter(|lr| **lr & (PENDING | ACTIVE) != 0);
            let hides = |intid: IntId| {
                let intid = u64::from(intid.0);
                taken != Some(intid)
                    && used.clone().all(|lr| *lr & 0xffff_ffff != intid)
                    && used.clone().count() < self.board.lists
            };
            let unseen = own.timer_active && timer.is_some() && hides(VIRTUAL_TIMER_INTID)
                || physical.is_some_and(|at| at < late) && hides(self.board.physical_timer());
            assert!(!unseen, "a timer of vCPU {n} of {} on CPU {} has fired, and it does not see it", vm.name, self.n);
        });
    }

    /// As a guest's first instructions do, at once: the distributor on, all its own enabled, and the SPI.
    fn prepare_gic(&self, vm: &Vm, n: usize) {
        let mut vgic = vm.vgic.lock();
        let me = VcpuId(n as u16);
        let kicks = vgic.dist_write(me, gicd::CTLR, 4, 3)
            | vgic.dist_write(me, 0x104, 4, 1 << (SPI - 32))
            | vgic.dist_write(me, gicd::ICFGR + 8, 4, 2 << 16)
            | vgic.redist_write(me, gicr::SGI_FRAME + 0x100, 4, 0xffff_ffff);
        drop(vgic);
        self.board.host.queue.kick(self, vm, kicks);
    }

    /// Takes the most urgent virtual interrupt, or ends the one that was taken.
    fn take_or_end(&self, vm: &Vm, n: usize) {
        let Some(intid) = self.guest(vm, n, |guest| guest.taken.take()) else {
            let taken = self.own(|own| {
                let lr = own.lr.iter_mut().filter(|lr| **lr & (PENDING | ACTIVE) == PENDING);
                lr.min_by_key(|lr| **lr >> 48 & 0xff).map(|lr| {
                    *lr ^= PENDING | ACTIVE;
                    *lr & 0xffff_ffff
                })
            });
            let Some(intid) = taken else { return };
            self.board.count(|counts| counts.taken += 1);
            if intid == u64::from(VIRTUAL_TIMER_INTID.0) {
                self.board.count(|counts| counts.timers += 1);
                let now = self.board.time.get();
                let due = self.guest(vm, n, |guest| guest.timer.take());
                assert!(due.is_none_or(|due| due <= now), "a timer fires at {now} and not at {due:?}");
                self.own(|own| own.el1.set(El1::CntvCtl, 0));
            }
            self.guest(vm, n, |guest| {
                guest.taken = Some(intid);
                guest.silence |= intid == u64::from(self.board.physical_timer().0);
            });
            return;
        };
        self.own(|own| match own.lr.iter_mut().find(|lr| **lr & ACTIVE != 0 && **lr & 0xffff_ffff == intid) {
            Some(lr) => {
                *lr &= !ACTIVE;
                if *lr & HW != 0 {
                    own.timer_active = false;
                }
            }
            // No list register has it: that is counted.
            None => own.hcr += 1 << hcr::EOI_COUNT_SHIFT,
        });
    }

    /// Sets the virtual timer, if it is not.
    fn arm(&self, vm: &Vm, n: usize) {
        // The CPU's virtual timer is not that of an EL2 without VHE.
        if self.board.nested || self.guest(vm, n, |guest| guest.timer.is_some()) {
            return;
        }
        let at = self.board.time.get() + self.board.below(400_000);
        self.guest(vm, n, |guest| guest.timer = Some(at));
        self.own(|own| {
            own.el1.set(El1::CntvCval, at.wrapping_sub(own.el2.map_or(0, |el2| el2.cntvoff)));
            own.el1.set(El1::CntvCtl, ENABLE);
        });
    }

    /// Leaves with this syndrome.
    fn leave(registers: &mut Registers, class: u64, iss: u64) -> Option<Exit> {
        registers.esr = class << 26 | 1 << 25 | iss;
        Some(Exit::Synchronous)
    }

    fn write_register(registers: &mut Registers, [op1, crn, crm, op2]: [u64; 4], value: u64) -> Option<Exit> {
        registers.x[1] = value;
        Self::leave(registers, ec::SYSREG, 3 << 20 | op2 << 17 | op1 << 14 | crn << 10 | 1 << 5 | crm << 1)
    }

    fn store(registers: &mut Registers, ipa: u64, log_bytes: u64, value: u64) -> Option<Exit> {
        registers.x[1] = value;
        (registers.far, registers.hpfar) = (ipa, ipa >> 12 << 4);
        // ISV, SAS, SRT, SF, WnR, a translation fault at level 3.
        Self::leave(registers, ec::DABT_LOWER, 1 << 24 | log_bytes << 22 | 1 << 16 | 1 << 15 | 1 << 6 | 0b111)
    }

    fn call(registers: &mut Registers, function: u64, arguments: [u64; 3]) -> Option<Exit> {
        registers.x[0] = function;
        registers.x[1..4].copy_from_slice(&arguments);
        Self::leave(registers, ec::HVC64, 0)
    }

    /// What the guest does next; nothing where it does not leave for it.
    pub(super) fn step(&self, registers: &mut Registers) -> Option<Exit> {
        let board = &*self.board;
        let (vm, _, n) = board.on(self.n);
        let now = board.time.get();
        // CNTP, or CNTHP at an EL2.
        let op1 = if board.nested { 4 } else { 3 };
        if self.guest(vm, n, |guest| std::mem::take(&mut guest.silence)) {
            self.guest(vm, n, |guest| guest.physical = None);
            return Self::write_register(registers, [op1, 14, 2, 1], 0);
        }
        let other = board.below(vm.slots.len() as u64);
        let spins = self.guest(vm, n, |guest| guest.spins);
        match board.below(40) {
            10..=18 if spins => {}
            0..=9 => self.take_or_end(vm, n),
            10..=17 => {
                while self.guest(vm, n, |guest| guest.taken.is_some()) {
                    self.take_or_end(vm, n);
                }
                // Most set an alarm first.
                if !board.one_in(6) {
                    self.arm(vm, n);
                }
                if self.own(|own| own.lr.iter().all(|lr| lr & PENDING == 0)) {
                    board.count(|counts| counts.sleeps += 1);
                    return Self::leave(registers, ec::WFX, 0);
                }
            }
            18 => return Self::leave(registers, ec::WFX, 1),
            19..=22 => {
                board.count(|counts| counts.sgis += 1);
                return Self::write_register(registers, [0, 12, 11, 5], board.below(4) << 24 | 1 << other);
            }
            23..=25 if self.guest(vm, n, |guest| guest.taken != Some(27)) => self.arm(vm, n),
            26 if self.guest(vm, n, |guest| guest.physical.is_none() && guest.taken.is_none()) => {
                registers.x[20] = now + board.below(400_000);
                return Self::write_register(registers, [op1, 14, 2, 2], registers.x[20]);
            }
            27 if registers.x[20] != 0 => {
                let at = std::mem::take(&mut registers.x[20]);
                self.guest(vm, n, |guest| guest.physical = Some(at));
                return Self::write_register(registers, [op1, 14, 2, 1], ENABLE);
            }
            28 | 29 => {
                let target = &vm.slots[other as usize];
                if target.power() == Power::Off {
                    board.count(|counts| counts.starts += 1);
                    let (pc, x0) = (RAM_BASE.bits() + (board.below(1000) << 2), board.below(1 << 40));
                    self.guest(vm, other as usize, |guest| guest.start = Some((vm.life.starts(), pc, x0)));
                    return Self::call(registers, 0xc400_0003, [target.mpidr, pc, x0]);
                }
            }
            30 if board.one_in(3) && self.guest(vm, n, |guest| guest.taken.is_none()) => {
                return Self::call(registers, 0x8400_0002, [0; 3]);
            }
            31 if board.one_in(2) => {
                let off = board.one_in(4);
                return Self::call(registers, if off { 0x8400_0008 } else { 0x8400_0009 }, [0; 3]);
            }
            32 | 33 => {
                let page = board.below(vm.memory.lock().layout().bytes >> 12);
                return Self::store(registers, RAM_BASE.bits() + (page << 12), 3, now);
            }
            34 if !board.nested => {
                let v0 = self.guest(vm, n, |guest| guest.v0);
                if self.own(|own| own.fp_traps) {
                    return Self::leave(registers, ec::FP, 0);
                }
                self.own(|own| assert_eq!(own.fp.v[0], v0, "vCPU {n} of {} has another's V0", vm.name));
                self.guest(vm, n, |guest| guest.v0 = u128::from(now));
                self.own(|own| own.fp.v[0] = u128::from(now));
            }
            35 => return Self::store(registers, GICD + gicd::IROUTER + 8 * SPI, 3, other),
            36 | 37 => return Self::store(registers, GICD + gicd::ISPENDR + 4, 2, 1 << (SPI - 32)),
            38 => return Self::store(registers, UART, 2, u64::from(b'x')),
            _ => {}
        }
        None
    }
}
