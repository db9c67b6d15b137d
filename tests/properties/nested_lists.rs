//! What a hypervisor reads of the list registers it gives its guest: ICH_EISR_EL2, ICH_ELRSR_EL2 and ICH_MISR_EL2 against what IHI
//! 0069H 12.4 says of each bit, for list registers of all kinds.

use crate::exits::{here, model};
use flatland::hwstate::nested::lists;
use flatland::vcpu::nested::page;
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

#[test]
fn a_hypervisor_reads_of_its_lists_what_the_book_says() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, true, true));
    let mut vcpu = here.slot.vcpu.lock();
    let nested = vcpu.nested_mut().unwrap();
    let mut dice = Dice::new(1);
    let mut seen = [0; 8];
    for n_lists in [1, 4, 16] {
        nested.lists = n_lists;
        for _ in 0..effort(5000) {
            // State, HW, EOI, and a number.
            let lr: Vec<_> = (0..n_lists)
                .map(|_| {
                    let state = if dice.below(2) == 0 { 0 } else { dice.below(4) };
                    state << 62 | dice.below(2) << 61 | dice.below(2) << 41 | dice.below(1024)
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

            let is_over = |lr: u64| !bit(lr, 62) && !bit(lr, 63);
            let tells = |lr: u64| is_over(lr) && !bit(lr, 61) && bit(lr, 41);
            let eisr = word(lr.iter().map(|lr| tells(*lr)));
            assert_eq!(lists::eisr(nested, &cpu), eisr, "EISR of {lr:x?}");
            let free = word(lr.iter().map(|lr| is_over(*lr) && (bit(*lr, 61) || !bit(*lr, 41))));
            assert_eq!(lists::elrsr(nested, &cpu), free, "ELRSR of {lr:x?}");
            let pending = |lr: &&u64| bit(**lr, 62) && !bit(**lr, 63);
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
            seen.iter_mut().enumerate().for_each(|(n, seen)| *seen += u32::from(bit(misr, n as u32)));
            assert_eq!(lists::is_pending(nested, &cpu), lr.iter().any(|lr| bit(*lr, 62)));
        }
    }
    assert!(seen.iter().all(|seen| *seen > 10), "{seen:?}");
}
