//! Stage 2 changes while a guest runs: what is forgotten is seen to be gone, VMIDs keep guests apart, walks fault too.

use crate::faults::{PERMISSION, Reach, S1PTW, TRANSLATION, WNR, check_fault, got_there, reach};
use crate::l2::{CODE, DATA_ABORT, FETCH, PROGRAM, Vm};
use crate::memory;
use crate::ops::{DSB, ISB, Sys, hvc, ldr};
use crate::stage1::{self, APART, LEAF, VA};
use crate::tables::{AF, ALL, MEMORY, READ, WRITE};
use core::sync::atomic::{AtomicU64, Ordering};
use rt::el2::tlb::{self, Forget};
use rt::el2::{El1, guest};
use rt::{check, check_eq};

/// Checks what a guest read.
macro_rules! check_read {
    ($got:expr, $want:expr, $name:literal) => {{
        let (got, want) = ($got, $want);
        check!(got == want, $name, "got {got:x?}, want {want:x?}");
    }};
}

const TARGET: u64 = 0xc000_0000;
/// TLBI VMALLE1, as a guest does it.
const TLBI: u32 = Sys(1, 0, 8, 7, 0).msr(31);

/// Runs the group.
pub(crate) fn run() {
    permissions();
    memory::reset();
    moves();
    memory::reset();
    machines();
    memory::reset();
    walks();
}

fn page_of(value: u64) -> &'static [AtomicU64] {
    let page = memory::take(0x1000, 0x1000);
    page[0].store(value, Ordering::SeqCst);
    rt::el2::publish(&page[..8]);
    page
}

/// What the guest reads at `address`, or none.
fn read(vm: &mut Vm, address: u64) -> Option<u64> {
    got_there(reach(vm, Reach::Read, address)).then_some(vm.cpu.x[2])
}

fn permissions() {
    let mut vm = Vm::plain(1);
    let page = page_of(0x11);
    let pa = memory::address(page);
    let set = |vm: &Vm, flags: u64| vm.map.map(TARGET, pa, 3, MEMORY | flags);
    // What was not there or without its flag is not remembered: what is there now has to be found.
    check_read!(read(&mut vm, TARGET), None, "nothing is mapped");
    set(&vm, READ | WRITE);
    check_read!(read(&mut vm, TARGET), None, "a page without its access flag");
    set(&vm, READ | AF);
    check_read!(read(&mut vm, TARGET), Some(0x11), "the access flag is seen without a TLBI");
    let exit = reach(&mut vm, Reach::Write, TARGET);
    check_fault(format_args!("a read-only page"), exit, Reach::Write, TARGET, PERMISSION | 3);
    // Arm ARM D8.17: an entry may be remembered that admits less; this far it is the fault that makes it forgotten.
    set(&vm, READ | WRITE | AF);
    let first = reach(&mut vm, Reach::Write, TARGET);
    let again = if got_there(first) { first } else { reach(&mut vm, Reach::Write, TARGET) };
    check!(got_there(again), "more is admitted without a TLBI, at the second try at the latest", "{again:x?}");
    check_eq!(page[0].load(Ordering::SeqCst), 0x3333, "and what was written is there");
    for forget in ways() {
        set(&vm, READ | WRITE | AF);
        tlb::forget(Forget::Vm);
        let exit = reach(&mut vm, Reach::Write, TARGET);
        check!(got_there(exit), "{forget:?}: a page can be written", "{exit:x?}");
        set(&vm, READ | AF);
        tlb::forget(forget);
        let exit = reach(&mut vm, Reach::Write, TARGET);
        check_fault(format_args!("{forget:?}: a page made read-only"), exit, Reach::Write, TARGET, PERMISSION | 3);
        check!(read(&mut vm, TARGET).is_some(), "{forget:?}: which can still be read");
        set(&vm, AF);
        tlb::forget(forget);
        let exit = reach(&mut vm, Reach::Read, TARGET);
        check_fault(format_args!("{forget:?}: a page that nobody may use"), exit, Reach::Read, TARGET, PERMISSION | 3);
        set(&vm, READ | WRITE | AF);
        tlb::forget(forget);
        let exit = reach(&mut vm, Reach::Write, TARGET);
        check!(got_there(exit), "{forget:?}: a page that can be written again", "{exit:x?}");
        set(&vm, READ | WRITE);
        tlb::forget(forget);
        check_read!(read(&mut vm, TARGET), None, "{forget:?}: a page whose access flag is gone");
    }
}

/// The ways to forget a page at [`TARGET`].
fn ways() -> impl Iterator<Item = Forget> {
    // ID_AA64ISAR0_EL1.TLB
    let has_range = rt::read_register!("id_aa64isar0_el1") >> 56 & 15 >= 2;
    let all = [
        Forget::Ipa(TARGET),
        Forget::LastLevel(TARGET),
        Forget::Vm,
        Forget::VmHere,
        Forget::All,
        Forget::Range(TARGET),
    ];
    all.into_iter().take(if has_range { 6 } else { 5 })
}

/// Pages and blocks are put elsewhere: broken, forgotten, made.
fn moves() {
    let mut vm = Vm::plain(1);
    let pages = [page_of(0xa1), page_of(0xa2)];
    for forget in ways() {
        for (round, page) in pages.iter().chain(&pages).enumerate() {
            let value = page[0].load(Ordering::SeqCst);
            vm.map.map(TARGET, memory::address(page), 3, ALL);
            check_read!(read(&mut vm, TARGET), Some(value), "{forget:?}: the page of round {round}");
            vm.map.put(TARGET, 3, 0);
            tlb::forget(forget);
            let exit = reach(&mut vm, Reach::Read, TARGET);
            check_fault(format_args!("{forget:?}: the page is gone"), exit, Reach::Read, TARGET, TRANSLATION | 3);
        }
    }
    // A block in place of a table and back.
    let block = memory::take(4 << 20, 2 << 20);
    let (pa, half) = (memory::address(block), block.len() / 2);
    block[0].store(0xb1, Ordering::SeqCst);
    block[half].store(0xb2, Ordering::SeqCst);
    for round in 0..3 {
        vm.map.put(TARGET, 2, 0);
        tlb::forget(Forget::Ipa(TARGET));
        check_read!(read(&mut vm, TARGET), None, "no table, round {round}");
        vm.map.map(TARGET, pa, 2, ALL);
        check_read!(read(&mut vm, TARGET), Some(0xb1), "a block for a table, round {round}");
        vm.map.put(TARGET, 2, 0);
        tlb::forget(Forget::Ipa(TARGET));
        check_read!(read(&mut vm, TARGET), None, "no block, round {round}");
        vm.map.map(TARGET, pa + (2 << 20), 2, ALL);
        check_read!(read(&mut vm, TARGET), Some(0xb2), "another block, round {round}");
        vm.map.put(TARGET, 2, 0);
        tlb::forget(Forget::Vm);
        vm.map.map(TARGET, memory::address(pages[0]), 3, ALL);
        check_read!(read(&mut vm, TARGET), Some(0xa1), "a table for a block, round {round}");
        check_read!(read(&mut vm, TARGET + 0x1000), None, "and only one page of it, round {round}");
    }
    // Memory changes below a mapping that stays.
    for value in 0..16u64 {
        pages[0][0].store(value, Ordering::SeqCst);
        check_read!(read(&mut vm, TARGET), Some(value), "what EL2 writes is read");
    }
    pages_of_a_region(&mut vm);
}

/// Many pages, changed one by one: only that one is forgotten by IPA, and no other is mistaken for it.
fn pages_of_a_region(vm: &mut Vm) {
    const N: u64 = 32;
    let at = |n: u64| TARGET + 0x20_0000 + n * 0x1000;
    let first = memory::take(N * 0x1000, 0x1000);
    let second = memory::take(N * 0x1000, 0x1000);
    for n in 0..N {
        first[n as usize * 512].store(0x100 + n, Ordering::SeqCst);
        second[n as usize * 512].store(0x200 + n, Ordering::SeqCst);
        vm.map.map(at(n), memory::address(first) + n * 0x1000, 3, ALL);
    }
    let sum = |vm: &mut Vm| (0..N).map(|n| read(vm, at(n)).unwrap_or(!0) ^ n).fold(0u64, u64::wrapping_add);
    check_eq!(sum(vm), N * 0x100, "many pages are where they should be");
    for n in 0..N {
        vm.map.put(at(n), 3, 0);
        tlb::forget(Forget::Ipa(at(n)));
        vm.map.map(at(n), memory::address(second) + n * 0x1000, 3, ALL);
        check_eq!(sum(vm), (N - n - 1) * 0x100 + (n + 1) * 0x200, "page {n} of many is moved");
    }
}

/// Two guests with tables of their own: by VMID, and one VMID after the other.
fn machines() {
    let mut vms = [Vm::plain(7), Vm::plain(8)];
    for (n, vm) in vms.iter_mut().enumerate() {
        let page = page_of(0xc1 + n as u64);
        vm.map.map(TARGET, memory::address(page), 3, ALL);
        vm.load();
        tlb::forget(Forget::Vm);
    }
    for round in 0..8 {
        for (n, vm) in vms.iter_mut().enumerate() {
            vm.load();
            check_read!(read(vm, TARGET), Some(0xc1 + n as u64), "guest {n} has its own page, round {round}");
            vm.save();
        }
    }
    // What is forgotten is that of VTTBR_EL2's VMID, though the other ran last.
    let [a, b] = &mut vms;
    b.load();
    read(b, TARGET);
    b.save();
    a.load();
    a.map.put(TARGET, 3, 0);
    tlb::forget(Forget::Ipa(TARGET));
    check_read!(read(a, TARGET), None, "the page of one VMID is gone");
    a.save();
    b.load();
    check_read!(read(b, TARGET), Some(0xc2), "and that of the other is not");
    b.save();
    // The VMID of one for the tables of the other.
    for (round, forget) in [Forget::Vm, Forget::All, Forget::Vm, Forget::All].into_iter().enumerate() {
        let vm = &mut vms[round % 2];
        vm.vmid = 9;
        vm.load();
        tlb::forget(forget);
        let want = if round % 2 == 0 { None } else { Some(0xc2) };
        check_read!(read(vm, TARGET), want, "a VMID that is used again, {forget:?}, round {round}");
        vm.save();
    }
    // VMIDs that differ in the highest bit.
    let high = 1 << (crate::tables::vmid_bits() - 1);
    let page = page_of(0xc1);
    vms[0].map.map(TARGET, memory::address(page), 3, ALL);
    for (vm, vmid) in vms.iter_mut().zip([3, 3 | high]) {
        vm.vmid = vmid;
        vm.load();
        tlb::forget(Forget::Vm);
    }
    for round in 0..4 {
        for (n, vm) in vms.iter_mut().enumerate() {
            vm.load();
            let vmid = vm.vmid;
            check_read!(read(vm, TARGET), Some(0xc1 + n as u64), "VMID {vmid:#x}, round {round}");
            vm.save();
        }
    }
}

/// The guest's own tables: its TLBIs, and faults of stage 2 on its walks.
fn walks() {
    let mut vm = Vm::plain(1);
    stage1::build(&vm);
    let table = memory::take(0x1000, 0x1000);
    let pages = [page_of(0xd1), page_of(0xd2)];
    vm.map.map(APART, memory::address(table), 3, ALL);
    for (n, page) in pages.iter().enumerate() {
        vm.map.map(TARGET + n as u64 * 0x1000, memory::address(page), 3, ALL);
    }
    let entry = |value: u64| {
        table[0].store(value, Ordering::SeqCst);
        rt::el2::publish(&table[..8]);
    };
    entry(TARGET | LEAF);
    stage1::switch(true);
    check_read!(read(&mut vm, VA), Some(0xd1), "a guest's own map");
    // It changes its map and forgets by itself.
    for round in 0..4u64 {
        entry((TARGET + (round % 2) * 0x1000) | LEAF);
        vm.cpu.x[1] = VA;
        let exit = vm.exec(&[DSB, TLBI, DSB, ISB, ldr(2, 1), hvc(0x77)]);
        check!(got_there(exit) && vm.cpu.x[2] == 0xd1 + round % 2, "a guest's own TLBI, round {round}", "{exit:x?}");
    }
    entry(TARGET | LEAF);
    tlb::forget(Forget::StageOne);
    walk_faults(&mut vm, table);
    leaf_faults(&mut vm);
    // A fault of stage 1 is the guest's own.
    entry(0);
    tlb::forget(Forget::Vm);
    let exit = reach(&mut vm, Reach::Read, VA + 8);
    let is_own = exit.pc == CODE + 4 * 0x80 + 4 && exit.iss() == guest::VECTOR + 4;
    check!(is_own, "a fault of stage 1 goes to EL1", "{exit:x?}");
    check!(
        El1::Far.read() == VA + 8 && El1::Esr.read() >> 26 == 0x25 && El1::Esr.read() & 0x3f == TRANSLATION | 3,
        "a fault of stage 1 is told at EL1",
        "{:#x} {:#x}",
        El1::Esr.read(),
        El1::Far.read()
    );
    stage1::switch(false);
}

/// The last table of the guest's is a page that is not there, or may not be read.
fn walk_faults(vm: &mut Vm, table: &'static [AtomicU64]) {
    let pa = memory::address(table);
    // Index 3, so that the IPA of the descriptor is not that of the page.
    let va = VA + 3 * 0x1000 + 0x18;
    for (flags, name, status) in [
        (None, "is not there", TRANSLATION | 3),
        (Some(AF), "may not be read", PERMISSION | 3),
        (Some(READ | WRITE), "has no access flag", 0x0b),
    ] {
        match flags {
            None => vm.map.put(APART, 3, 0),
            Some(flags) => vm.map.map(APART, pa, 3, MEMORY | flags),
        }
        for how in crate::faults::REACHES {
            tlb::forget(Forget::Vm);
            let exit = reach(vm, how, va);
            let (class, wnr) = match how {
                Reach::Read => (DATA_ABORT, 0),
                // A walk reads; WnR may tell of the access all the same.
                Reach::Write => (DATA_ABORT, exit.iss() & WNR),
                Reach::Run => (FETCH, 0),
            };
            let is_right = exit.class() == class && exit.iss() == S1PTW | status | wnr;
            check!(is_right, "a table that {name}: {how:?}", "{exit:x?}");
            check_eq!(exit.far, va, "a table that {name}: {how:?}: FAR_EL2 is the VA");
            check_eq!(exit.hpfar, APART >> 8, "a table that {name}: {how:?}: HPFAR_EL2 is the table");
        }
    }
    vm.map.map(APART, pa, 3, ALL);
    tlb::forget(Forget::Vm);
    check_read!(read(vm, VA), Some(0xd1), "a walk that is mended");
    // HCR_EL2.PTW: a table in Device memory.
    vm.map.map(APART, pa, 3, READ | WRITE | AF);
    tlb::forget(Forget::Vm);
    check_read!(read(vm, VA), Some(0xd1), "a table in Device memory");
    vm.hcr |= 1 << 2;
    tlb::forget(Forget::Vm);
    let exit = reach(vm, Reach::Read, VA);
    // QEMU tells no level of this one.
    let is_right = exit.class() == DATA_ABORT && exit.iss() & !3 == S1PTW | PERMISSION;
    check!(is_right, "a table in Device memory under HCR_EL2.PTW", "{exit:x?}");
    vm.hcr &= !(1 << 2);
    vm.map.map(APART, pa, 3, ALL);
    tlb::forget(Forget::Vm);
}

/// With stage 1 on, FAR is a VA and HPFAR an IPA that differ.
fn leaf_faults(vm: &mut Vm) {
    let before = vm.map.slot(TARGET, 3).load(Ordering::SeqCst);
    vm.map.put(TARGET, 3, 0);
    tlb::forget(Forget::Vm);
    for how in crate::faults::REACHES {
        let exit = reach(vm, how, VA + 0x48);
        let status = exit.iss() & 0xbf;
        check!(status == TRANSLATION | 3, "a page below a guest's map is gone: {how:?}", "{exit:x?}");
        check_eq!(exit.far, VA + 0x48, "a page below a guest's map: {how:?}: FAR_EL2 is the VA");
        check_eq!(exit.hpfar, TARGET >> 8, "a page below a guest's map: {how:?}: HPFAR_EL2 is the IPA");
        check!((exit.pc == PROGRAM) == (how != Reach::Run), "a page below a guest's map: {how:?}: ELR_EL2");
    }
    vm.map.put(TARGET, 3, before);
    check_read!(read(vm, VA), Some(0xd1), "a page below a guest's map is back");
}
