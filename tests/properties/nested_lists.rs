//! What a hypervisor reads of the list registers it gives its guest: ICH_EISR_EL2, ICH_ELRSR_EL2 and ICH_MISR_EL2 against what IHI
//! 0069H 12.4 says of each bit, for list registers of all kinds; and of GICH_EISR, GICH_ELRSR and GICH_MISR, what IHI 0048B 5.3 says.

use crate::exits::{here, model};
use flatland::arm::gic::Version;
use flatland::hwstate::nested::lists;
use flatland::vcpu::nested::{Guest, World, page};
use harness::cpu::{Cpu, host};
use harness::effort;
use harness::model::Dice;

/// A bit of a word.
fn bit(word: u64, n: u32) -> bool {
    word >> n & 1 != 0
}

/// A word with these bits, the lowest first.
fn word(bits: impl IntoIterator<Item = bool>) -> u64 {
    bits.into_iter().enumerate().fold(0, |word, (n, is)| word | u64::from(is) << n)
}

/// Where the bits of a list register are: pending, active, HW, EOI; and pINTID, its first and how many.
struct Book {
    pending: u32,
    active: u32,
    hw: u32,
    eoi: u32,
    physical: (u32, u32),
}

/// ICH_LR<n>_EL2 and GICH_LR<n>.
const BOOKS: [(Version, Book); 2] = [
    (Version::V3, Book { pending: 62, active: 63, hw: 61, eoi: 41, physical: (32, 13) }),
    (Version::V2, Book { pending: 28, active: 29, hw: 31, eoi: 19, physical: (10, 10) }),
];

#[test]
fn a_hypervisor_reads_of_its_lists_what_the_book_says() {
    for (version, book) in BOOKS {
        reads_of_its_lists(version, &book);
    }
}

fn reads_of_its_lists(version: Version, book: &Book) {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, true, true));
    let mut vcpu = here.slot.vcpu.lock();
    let nested = vcpu.nested_mut().unwrap();
    nested.version = version;
    let mut dice = Dice::new(1);
    let mut seen = [0; 8];
    for n_lists in [1, 4, 16] {
        nested.lists = n_lists;
        for _ in 0..effort(5000) {
            // State, HW, EOI, and a number.
            let lr: Vec<_> = (0..n_lists)
                .map(|_| {
                    let state = if dice.below(2) == 0 { 0 } else { dice.below(4) };
                    let bits = dice.below(2) << book.hw | dice.below(2) << book.eoi | dice.below(1024);
                    (state & 1) << book.pending | (state >> 1) << book.active | bits
                })
                .collect();
            for (n, lr) in lr.iter().enumerate() {
                nested.page.write(&cpu, page::ICH_LR + n as u64 * 8, *lr);
            }
            // En, what it asks for, EOIcount; VENG0 and VENG1.
            let conditions = if dice.below(4) == 0 { 0 } else { dice.below(256) & !1 };
            let (control, vmcr) = (dice.below(2) | conditions | dice.below(2) << 27, dice.below(4));
            nested.page.write(&cpu, page::ICH_HCR, control);
            nested.page.write(&cpu, page::ICH_VMCR, vmcr);

            let is_over = |lr: u64| !bit(lr, book.pending) && !bit(lr, book.active);
            let tells = |lr: u64| is_over(lr) && !bit(lr, book.hw) && bit(lr, book.eoi);
            let eisr = word(lr.iter().map(|lr| tells(*lr)));
            assert_eq!(lists::eisr(nested, &cpu), eisr, "EISR of {lr:x?}");
            let free = word(lr.iter().map(|lr| is_over(*lr) && (bit(*lr, book.hw) || !bit(*lr, book.eoi))));
            assert_eq!(lists::elrsr(nested, &cpu), free, "ELRSR of {lr:x?}");
            let pending = |lr: &&u64| bit(**lr, book.pending) && !bit(**lr, book.active);
            let misr = word([
                eisr != 0,
                bit(control, 1) && lr.iter().filter(|lr| !is_over(**lr)).count() < 2,
                bit(control, 2) && bit(control, 27),
                bit(control, 3) && lr.iter().find(pending).is_none(),
                bit(control, 4) && bit(vmcr, 0),
                bit(control, 5) && !bit(vmcr, 0),
                bit(control, 6) && bit(vmcr, 1),
                bit(control, 7) && !bit(vmcr, 1),
            ]);
            assert_eq!(lists::misr(nested, &cpu), misr, "MISR of {lr:x?}, ICH_HCR {control:#x}, ICH_VMCR {vmcr}");
            assert_eq!(lists::raises_maintenance(nested, &cpu), bit(control, 0) && misr != 0);
            let at = |offset: u64| lists::read_gich(nested, &cpu, offset);
            assert_eq!([at(0x20), at(0x30), at(0x10)], [eisr, free, misr]);
            seen.iter_mut().enumerate().for_each(|(n, seen)| *seen += u32::from(bit(misr, n as u32)));
            assert_eq!(lists::is_pending(nested, &cpu), lr.iter().any(|lr| bit(*lr, book.pending)));
        }
    }
    assert!(seen.iter().all(|seen| *seen > 10), "{seen:?}");
}

/// What the CPU gets of a hypervisor's list register: what is done says nothing any more, and what is tied to an interrupt of the hypervisor's
/// tells us of its end.
#[test]
fn list_registers_of_a_hypervisor_are_not_those_of_the_cpu() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, true, true));
    let mut vcpu = here.slot.vcpu.lock();
    let nested = vcpu.nested_mut().unwrap();
    nested.world = World::Guest(Guest { lends_interface: true, ..Guest::default() });
    let mut dice = Dice::new(2);
    for (version, Book { pending, active, hw, eoi, physical: (first, width) }) in BOOKS {
        (nested.version, nested.lists) = (version, 4);
        let most = if version == Version::V3 { u64::MAX } else { u32::MAX.into() };
        for _ in 0..effort(2000) {
            let lr: [u64; 4] = [(); 4].map(|()| dice.below(u64::MAX) & dice.below(u64::MAX) & most);
            for (n, lr) in (0..).zip(lr) {
                nested.page.write(&cpu, page::ICH_LR + n * 8, lr);
            }
            nested.page.write(&cpu, page::ICH_HCR, u64::from(u32::MAX));
            lists::lend(&cpu, nested);
            let (on_cpu, control) = *cpu.lists.borrow();
            for (n, lr) in lr.into_iter().enumerate().take(nested.lent) {
                let mask = ((1_u64 << width) - 1) << first;
                let expected = if !bit(lr, pending) && !bit(lr, active) {
                    0
                } else if bit(lr, hw) {
                    lr & !(1 << hw | mask) | 1 << eoi
                } else {
                    lr
                };
                assert_eq!(on_cpu[n], expected, "{lr:#x}");
            }
            // TC, TALL0, TALL1 and TDIR are a GICv3's; En, conditions and EOIcount both have.
            let traps = if version == Version::V3 { 1 << 10 | 1 << 11 | 1 << 12 | 1 << 14 } else { 0 };
            assert_eq!(control, 0xff | 0x1f << 27 | traps);
        }
    }
}
