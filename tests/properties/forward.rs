//! What a hypervisor traps of its guest, against the Arm ARM's descriptions of the controls, copied by name: HCR_EL2 (D24.2.48),
//! MDCR_EL2 (D24.3.18), CPTR_EL2 (D24.2.32), CNTHCTL_EL2 (D24.10.2), ICH_HCR_EL2 (IHI 0069H 12.4.4). Every encoding, read and
//! written, with each control on its own and with all others.

use crate::exits::{here, model};
use flatland::arm::el1::El1;
use flatland::arm::esr::ec;
use flatland::exit::nested::forward;
use flatland::vcpu::Vcpu;
use flatland::vcpu::nested::{Guest, Own, World, page};
use harness::cpu::{Cpu, host};

/// A register with controls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum In {
    Hcr,
    Mdcr,
    Ich,
    Cptr,
    Cnthctl,
}

/// A control: what it is called, where it is, whether it traps while it is clear, and for reads, for writes.
struct By(&'static str, In, u32, bool, bool, bool);

/// What it traps: op0, op1, CRn, CRm, op2, each from and to.
type Set = [(u64, u64); 5];

const fn set(op0: u64, op1: u64, crn: u64, crm: u64, op2: u64) -> Set {
    [(op0, op0), (op1, op1), (crn, crn), (crm, crm), (op2, op2)]
}

#[expect(clippy::too_many_lines, reason = "the list of the manual")]
fn list() -> Vec<(By, Vec<Set>)> {
    let any = (0, 7);
    let icc = |crm, op2| set(3, 0, 12, crm, op2);
    let memory = vec![
        set(3, 0, 1, 0, 0),  // SCTLR_EL1
        set(3, 0, 2, 0, 0),  // TTBR0_EL1
        set(3, 0, 2, 0, 1),  // TTBR1_EL1
        set(3, 0, 2, 0, 2),  // TCR_EL1
        set(3, 0, 5, 2, 0),  // ESR_EL1
        set(3, 0, 6, 0, 0),  // FAR_EL1
        set(3, 0, 5, 1, 0),  // AFSR0_EL1
        set(3, 0, 5, 1, 1),  // AFSR1_EL1
        set(3, 0, 10, 2, 0), // MAIR_EL1
        set(3, 0, 10, 3, 0), // AMAIR_EL1
        set(3, 0, 13, 0, 1), // CONTEXTIDR_EL1
    ];
    let common = || {
        vec![
            set(3, 0, 4, 6, 0), // ICC_PMR_EL1
            icc(12, 4),         // ICC_CTLR_EL1
            icc(11, 1),         // ICC_DIR_EL1
            icc(11, 3),         // ICC_RPR_EL1
        ]
    };
    let debug = |op2: &[(u64, u64)]| op2.iter().map(|(crm, op2)| set(2, 0, 1, *crm, *op2)).collect::<Vec<_>>();
    // OSLAR, OSLSR, OSDLR, DBGPRCR
    let os = || debug(&[(0, 4), (1, 4), (3, 4), (4, 4)]);
    let rom = || debug(&[(0, 0)]);
    let points = || {
        vec![
            // DBGBVR, DBGBCR, DBGWVR, DBGWCR; MDCCINT, MDSCR, OSDTRRX, OSDTRTX, OSECCR
            [(2, 2), (0, 0), (0, 0), (0, 15), any],
            set(2, 0, 7, 8, 6),
            set(2, 0, 7, 9, 6),
            set(2, 0, 7, 14, 6),
            // MDCCSR_EL0, DBGDTR_EL0, DBGDTRRX_EL0
            set(2, 3, 0, 1, 0),
            [(2, 2), (3, 3), (0, 0), (4, 4), any],
            set(2, 3, 0, 5, 0),
        ]
    };
    let both = |name, place, bit, sets| (By(name, place, bit, false, true, true), sets);
    vec![
        both("TID1", In::Hcr, 16, vec![set(3, 0, 0, 0, 6), set(3, 1, 0, 0, 7)]),
        both(
            "TID2",
            In::Hcr,
            17,
            vec![[(3, 3), (1, 1), (0, 0), (0, 0), (0, 2)], set(3, 2, 0, 0, 0), set(3, 3, 0, 0, 1)],
        ),
        both("TID3", In::Hcr, 18, vec![[(3, 3), (0, 0), (0, 0), (1, 7), any]]),
        both(
            "TIDCP",
            In::Hcr,
            20,
            vec![
                [(1, 1), any, (11, 11), (0, 15), any],
                [(1, 1), any, (15, 15), (0, 15), any],
                // Those of op1 4 and 5 are EL2's, which HCR_EL2.NV is about.
                [(3, 3), (0, 3), (11, 11), (0, 15), any],
                [(3, 3), (0, 3), (15, 15), (0, 15), any],
                [(3, 3), (6, 7), (11, 11), (0, 15), any],
                [(3, 3), (6, 7), (15, 15), (0, 15), any],
            ],
        ),
        both("TACR", In::Hcr, 21, vec![set(3, 0, 1, 0, 1)]),
        both("TSW", In::Hcr, 22, vec![set(1, 0, 7, 6, 2), set(1, 0, 7, 10, 2), set(1, 0, 7, 14, 2)]),
        both(
            "TPCP",
            In::Hcr,
            23,
            vec![
                set(1, 0, 7, 6, 1),
                set(1, 3, 7, 10, 1),
                set(1, 3, 7, 12, 1),
                set(1, 3, 7, 13, 1),
                set(1, 3, 7, 14, 1),
            ],
        ),
        both("TPU", In::Hcr, 24, vec![set(1, 3, 7, 5, 1), set(1, 0, 7, 5, 0), set(1, 0, 7, 1, 0), set(1, 3, 7, 11, 1)]),
        both("TTLB", In::Hcr, 25, vec![[(1, 1), (0, 0), (8, 9), (0, 15), any]]),
        (By("TVM", In::Hcr, 26, false, false, true), memory.clone()),
        both("TDZ", In::Hcr, 28, vec![set(1, 3, 7, 4, 1)]),
        (By("TRVM", In::Hcr, 30, false, true, false), memory),
        both("NV", In::Hcr, 42, vec![[(3, 3), (4, 5), (0, 15), (0, 15), any], [(1, 1), (4, 4), (7, 9), (0, 15), any]]),
        both("AT", In::Hcr, 44, vec![[(1, 1), (0, 0), (7, 7), (8, 9), any]]),
        both("IMO", In::Hcr, 4, vec![[(3, 3), (0, 0), (12, 12), (11, 11), (5, 7)]]),
        both("FMO", In::Hcr, 3, vec![[(3, 3), (0, 0), (12, 12), (11, 11), (5, 7)]]),
        both("TDE", In::Mdcr, 8, [points(), os(), rom()].concat()),
        both("TDA", In::Mdcr, 9, points()),
        both("TDOSA", In::Mdcr, 10, os()),
        both("TDRA", In::Mdcr, 11, rom()),
        both("TCPAC", In::Cptr, 31, vec![set(3, 0, 1, 0, 2)]),
        (By("EL1PCTEN", In::Cnthctl, 0, true, true, true), vec![set(3, 3, 14, 0, 1)]),
        (By("EL1PCEN", In::Cnthctl, 1, true, true, true), vec![[(3, 3), (3, 3), (14, 14), (2, 2), (0, 2)]]),
        both("TC", In::Ich, 10, common()),
        both("TALL0", In::Ich, 11, vec![[(3, 3), (0, 0), (12, 12), (8, 8), any], icc(12, 6)]),
        both(
            "TALL1",
            In::Ich,
            12,
            vec![[(3, 3), (0, 0), (12, 12), (12, 12), (0, 3)], [(3, 3), (0, 0), (12, 12), (9, 9), (0, 3)], icc(12, 7)],
        ),
        both("TDIR", In::Ich, 14, vec![icc(11, 1)]),
    ]
}

fn is_in(set: &Set, parts: [u64; 5]) -> bool {
    set.iter().zip(parts).all(|((from, to), part)| (*from..=*to).contains(&part))
}

/// Gives the hypervisor's registers these bits, its guest on the CPU.
fn give(cpu: &Cpu<'_>, vcpu: &mut Vcpu, vhe: bool, bits: impl Fn(In) -> u64) {
    let nested = vcpu.nested_mut().unwrap();
    (nested.world, nested.vhe) = (World::Guest(Guest::default()), vhe);
    nested.page.write(cpu, page::HCR, bits(In::Hcr) | if vhe { 1 << 34 } else { 0 });
    nested.page.write(cpu, page::ICH_HCR, bits(In::Ich));
    nested.set_own(cpu, Own::Mdcr, bits(In::Mdcr));
    // With E2H these two are where EL1's registers were; what is where they are without is not to be looked at.
    let (cptr, cnthctl) = (bits(In::Cptr), bits(In::Cnthctl));
    nested.set_own(cpu, Own::Cptr, if vhe { !cptr } else { cptr });
    nested.set_own(cpu, Own::Cnthctl, if vhe { !cnthctl } else { cnthctl });
    nested.hypervisor_el1.set(El1::Cpacr, if vhe { cptr } else { !cptr });
    nested.hypervisor_el1.set(El1::Cntkctl, if vhe { cnthctl << 10 } else { !cnthctl });
}

#[test]
fn every_encoding_traps_by_the_controls_that_the_manual_names() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, true, true));
    let mut vcpu = here.slot.vcpu.lock();
    let list = list();
    let mut asked = 0_u64;
    for vhe in [false, true] {
        // Without any, with each alone, with all but each, with all.
        let cases =
            (0..list.len()).flat_map(|n| [(Some(n), false), (Some(n), true)]).chain([(None, false), (None, true)]);
        for (n, others) in cases {
            let is_on = |at: usize| others != (n == Some(at));
            give(&cpu, &mut vcpu, vhe, |place| {
                let of = list.iter().enumerate().filter(|(_, (by, _))| by.1 == place);
                of.fold(0, |bits, (at, (by, _))| bits | u64::from(is_on(at) != by.3) << by.2)
            });
            for bits in 1 << 14..1_u64 << 16 {
                let parts = [bits >> 14, bits >> 11 & 7, bits >> 7 & 15, bits >> 3 & 15, bits & 7];
                let [op0, op1, crn, crm, op2] = parts;
                let about: Vec<_> = (0..list.len())
                    .filter(|at| is_on(*at) && list[*at].1.iter().any(|set| is_in(set, parts)))
                    .collect();
                for read in [false, true] {
                    let iss = op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | crm << 1 | u64::from(read);
                    vcpu.registers.esr = ec::SYSREG << 26 | 1 << 25 | iss;
                    let by = about.iter().map(|at| &list[*at].0).find(|by| if read { by.4 } else { by.5 });
                    assert_eq!(
                        forward::belongs(&cpu, &vcpu, vcpu.nested().unwrap()),
                        by.is_some(),
                        "S{op0}_{op1}_C{crn}_C{crm}_{op2}, read: {read}, E2H: {vhe}, by {:?}, case {:?}, {others}",
                        by.map(|by| by.0),
                        n.map(|n| list[n].0.0)
                    );
                    asked += 1;
                }
            }
        }
    }
    println!("{asked} accesses, {} controls", list.len());
}
