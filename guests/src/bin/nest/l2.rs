//! A guest: its memory, its tables, the registers it starts with, and ways to run a few instructions in it.
//!
//! Its RAM is one piece of 64 KiB at [`BASE`], so that tables of any granule can map it: the page of code that rt brings, a
//! page for a program of a test's, data, stack and room for tables of its own. Everything else a test maps by itself.

use crate::memory;
use crate::tables::{Geometry, PLAIN, Stage2};
use core::sync::atomic::{AtomicU64, Ordering};
use rt::el2::tlb::{self, Forget};
use rt::el2::{self, Context, El1, Exit, Register, guest};

/// The IPA of its RAM.
pub(crate) const BASE: u64 = 0x8000_0000;
/// How much of it there is.
pub(crate) const SIZE: u64 = 0x1_0000;
/// Exception vectors and what else rt brings.
pub(crate) const CODE: u64 = BASE;
/// A test's program.
pub(crate) const PROGRAM: u64 = BASE + 0x1000;
/// Data: the log of interrupts, then what a test likes.
pub(crate) const DATA: u64 = BASE + 0x2000;
/// More data.
pub(crate) const MORE: u64 = BASE + 0x3000;
/// Where the stack begins, downwards.
pub(crate) const STACK: u64 = BASE + 0x5000;
/// Room for tables.
pub(crate) const TABLES: u64 = BASE + 0x8000;

/// SCTLR_EL1: RES1, and the MMU off.
pub(crate) const SCTLR: u64 = 0x30d0_0800;

/// Exception class: SVC.
pub(crate) const SVC: u64 = 0x15;
/// Exception class: HVC.
pub(crate) const HVC: u64 = 0x16;
/// Exception class: a system register or instruction.
pub(crate) const SYSTEM: u64 = 0x18;
/// Exception class: an instruction abort from below.
pub(crate) const FETCH: u64 = 0x20;
/// Exception class: a data abort from below.
pub(crate) const DATA_ABORT: u64 = 0x24;

/// A guest.
pub(crate) struct Vm {
    /// Its general registers.
    pub(crate) cpu: Context,
    /// HCR_EL2 while it runs.
    pub(crate) hcr: u64,
    /// Its stage 2.
    pub(crate) map: Stage2,
    /// Its VMID.
    pub(crate) vmid: u64,
    /// Its RAM.
    pub(crate) ram: &'static [AtomicU64],
    el1: [u64; El1::ALL.len()],
    sp: [u64; 2],
}

/// HCR_EL2 of a guest, without anything that traps.
pub(crate) fn plain_hcr() -> u64 {
    let e2h = if el2::is_vhe() { el2::E2H } else { 0 };
    el2::VM | el2::RW | el2::AMO | el2::IMO | el2::FMO | e2h
}

/// HCR_EL2 of the program itself.
pub(crate) fn own_hcr() -> u64 {
    let vhe = if el2::is_vhe() { el2::E2H | el2::TGE } else { 0 };
    el2::RW | el2::AMO | el2::IMO | el2::FMO | vhe
}

impl Vm {
    /// Makes a guest with the usual tables.
    pub(crate) fn plain(vmid: u64) -> Self {
        Self::new(PLAIN, vmid)
    }

    /// Makes a guest whose RAM is mapped, and loads it; nothing is known of its VMID afterwards.
    pub(crate) fn new(shape: Geometry, vmid: u64) -> Self {
        let ram = memory::take(SIZE, SIZE);
        let map = Stage2::new(shape);
        map.map_pages(BASE, memory::address(ram), SIZE);
        let mut vm = Self {
            cpu: Context::new(),
            hcr: plain_hcr(),
            map,
            vmid,
            ram,
            el1: [0; El1::ALL.len()],
            sp: [STACK - 0x800, STACK],
        };
        for (slot, word) in ram.iter().zip(guest::code()) {
            slot.store(*word, Ordering::Relaxed);
        }
        el2::publish(&ram[..0x1000 / 8]);
        vm.begin();
        vm.load();
        tlb::forget(Forget::Vm);
        vm
    }

    /// Makes another vCPU of a guest that is there, whose tables and RAM lie at these addresses.
    pub(crate) fn other(shape: Geometry, vmid: u64, root: u64, ram: u64) -> Self {
        let mut vm = Self {
            cpu: Context::new(),
            hcr: plain_hcr(),
            map: Stage2::at(shape, root),
            vmid,
            ram: memory::at(ram, SIZE),
            el1: [0; El1::ALL.len()],
            sp: [STACK + 0x800, STACK + 0x1000],
        };
        vm.begin();
        vm
    }

    /// The registers it starts with.
    fn begin(&mut self) {
        self.cpu.tpidr_el1 = DATA;
        self.set(El1::Sctlr, SCTLR);
        self.set(El1::Cpacr, 3 << 20);
        self.set(El1::Vbar, CODE);
    }

    /// What was saved of a register.
    pub(crate) fn saved(&self, register: El1) -> Option<u64> {
        let at = El1::ALL.iter().position(|other| *other == register)?;
        self.el1.get(at).copied()
    }

    fn set(&mut self, register: El1, value: u64) {
        for (slot, other) in self.el1.iter_mut().zip(El1::ALL) {
            if *other == register {
                *slot = value;
            }
        }
    }

    /// Makes it the guest of this CPU: stage 2 and all of EL1's registers.
    pub(crate) fn load(&self) {
        Register::Vtcr.write(self.map.shape.vtcr());
        Register::Vttbr.write(self.map.vttbr(self.vmid));
        for (value, register) in self.el1.iter().zip(El1::ALL) {
            register.write(*value);
        }
        Register::SpEl0.write(self.sp[0]);
        Register::SpEl1.write(self.sp[1]);
    }

    /// Takes its registers off this CPU.
    pub(crate) fn save(&mut self) {
        for (value, register) in self.el1.iter_mut().zip(El1::ALL) {
            *value = register.read();
        }
        self.sp = [Register::SpEl0.read(), Register::SpEl1.read()];
    }

    /// Runs it from where it is. It must be loaded.
    pub(crate) fn run(&mut self) -> Exit {
        assert!(self.hcr & el2::VM != 0, "a guest without stage 2");
        Register::Hcr.write(self.hcr);
        let vector = self.cpu.enter();
        Register::Hcr.write(own_hcr());
        self.cpu.exit(vector)
    }

    /// Writes a program.
    pub(crate) fn program(&mut self, words: &[u32]) {
        self.program_at(PROGRAM, words);
    }

    /// Writes a program to some place of its RAM, aligned to 8 bytes.
    pub(crate) fn program_at(&mut self, ipa: u64, words: &[u32]) {
        let from = (ipa - BASE) as usize / 8;
        let slots = &self.ram[from..][..words.len().div_ceil(2)];
        for (slot, pair) in slots.iter().zip(words.chunks(2)) {
            let high = pair.get(1).copied().unwrap_or(0);
            slot.store(u64::from(pair[0]) | u64::from(high) << 32, Ordering::Relaxed);
        }
        el2::publish(slots);
    }

    /// Runs instructions at EL1.
    pub(crate) fn exec(&mut self, words: &[u32]) -> Exit {
        self.exec_in(el2::EL1H, words)
    }

    /// Runs instructions with this PSTATE.
    pub(crate) fn exec_in(&mut self, pstate: u64, words: &[u32]) -> Exit {
        self.program(words);
        self.cpu.pc = PROGRAM;
        self.cpu.pstate = pstate;
        self.run()
    }

    /// Reads a word of its RAM.
    pub(crate) fn read(&self, ipa: u64) -> u64 {
        self.ram[(ipa - BASE) as usize / 8].load(Ordering::SeqCst)
    }

    /// Writes a word of its RAM.
    pub(crate) fn write(&self, ipa: u64, value: u64) {
        let slot = &self.ram[(ipa - BASE) as usize / 8];
        slot.store(value, Ordering::SeqCst);
        el2::publish(core::slice::from_ref(slot));
    }
}
