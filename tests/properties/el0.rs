//! Virtual EL2 at EL0: what EL1's registers are for it, bit by bit as the Arm ARM numbers them (D24.2), and the vectors of EL1.

use flatland::arm::sysreg::Encoding;
use flatland::arm::vmsa::granule_of;
use flatland::memory::el2_vectors::{N_VECTORS, UPPER_BITS, interface_access, vectors, word};
use flatland::vcpu::el0_state::El2State;
use std::collections::BTreeMap;

const fn bit(n: u32) -> u64 {
    1 << n
}

/// MMU and caches on; no bit of SCTLR_EL2 that is not RES1 besides.
const ON: El2State = El2State { sctlr: 0x30c5_1835, tcr: 25 | 2 << 16, mair: 0x44_ff_04, cptr: 0x33ff };

#[test]
fn el0_may_do_what_el2_may() {
    // UCI, nTWE, nTWI, UCT, DZE, UMA; M, C, I; and what is RES1.
    let always = bit(26) | bit(18) | bit(16) | bit(15) | bit(14) | bit(9) | bit(2) | bit(0);
    let res1 = bit(29) | bit(28) | bit(23) | bit(22) | bit(20) | bit(11);
    // EL2's I, SA, A, EE, and where EL1 has them for EL0: I, SA0, A, E0E.
    for n in 0..16 {
        let of = |places: [u32; 4]| (0..4).filter(|k| n >> k & 1 != 0).map(|k| bit(places[k])).sum::<u64>();
        let state = El2State { sctlr: of([12, 3, 1, 25]), ..ON };
        assert_eq!(state.sctlr_el1(), always | res1 | of([12, 4, 1, 24]), "{:#x}", state.sctlr);
        // Its MMU, its caches and WXN make no difference to EL1's.
        let other = El2State { sctlr: state.sctlr | bit(0) | bit(2) | bit(19), ..ON };
        assert_eq!(other.sctlr_el1(), state.sctlr_el1());
    }
}

#[test]
fn its_addresses_have_48_bits_and_the_vectors_are_above() {
    for (tbi, pa_range) in [(0, 2), (1, 4), (1, 5)] {
        // A granule of 64 KiB, 42 bits, not cacheable: none of that is for the shadow.
        let tcr = El2State { tcr: 22 | 1 << 14 | tbi << 20, ..ON }.tcr_el1(pa_range);
        let of = |first: u32, n: u32| tcr >> first & ((1 << n) - 1);
        // T0SZ, TG0, T1SZ, TG1, IPS, TBI0.
        assert_eq!([of(0, 6), of(16, 6), of(32, 3), of(37, 1)], [16, 39, pa_range, tbi]);
        assert_eq!((granule_of(of(14, 2)), of(30, 2)), (Some(12), 0b10));
        // IRGN, ORGN, SH of both: write-back, allocating; inner shareable.
        assert_eq!([of(8, 2), of(10, 2), of(12, 2), of(24, 2), of(26, 2), of(28, 2)], [1, 1, 3, 1, 1, 3]);
        // EPD0, A1, EPD1, AS, TBI1, HA, HD, and what is above.
        assert_eq!([of(7, 1), of(22, 2), of(36, 1), of(38, 26)], [0; 4]);
    }
    assert_eq!((UPPER_BITS, vectors(0), vectors(7)), (25, 0xffff_ffff_fe00_0000, 0xffff_ffff_fe00_7000));
}

#[test]
fn memory_is_what_el2_says_while_its_caches_are_on() {
    assert_eq!(ON.mair_el1(), ON.mair);
    let no_mmu = El2State { sctlr: ON.sctlr & !1, mair: u64::MAX, ..ON };
    assert_eq!(no_mmu.mair_el1() & 0xff, 0x44);
    // All of it Device memory: then its MMU may as well be off.
    assert_eq!(El2State { mair: 0x0c_04_08_00_0c_04_08_00, ..ON }.mair_el1(), 0x44);
    let no_caches = El2State { sctlr: ON.sctlr & !4, mair: 0xf4_ff_0c_04_bb_08_44_00, ..ON };
    assert_eq!(no_caches.mair_el1(), 0x44_44_0c_04_44_08_44_00);
}

/// Vectors are not run from Device memory.
#[test]
fn vectors_are_normal_memory() {
    for (mair, sctlr, kind) in
        [(0x44_ff_04, 1, 1), (0xff, 1, 0), (0x4c << 56, 1, 7), (0x04, 1, 0), (0x44_ff_04, 0, 0), (0x44_ff_04_00, 1, 2)]
    {
        let state = El2State { mair, sctlr: 4 | sctlr, ..ON };
        assert_eq!(state.vbar_el1(), vectors(kind), "{mair:#x}");
        assert_ne!(state.mair_el1() >> (kind * 8) & 0xf0, 0);
    }
}

#[test]
fn fp_and_counters_are_its_own_and_timers_are_not() {
    assert_eq!(ON.cpacr_el1(), 3 << 20);
    assert_eq!(El2State { cptr: 0x33ff | bit(10), ..ON }.cpacr_el1(), 0);
    // EL0PCTEN, EL0VCTEN.
    assert_eq!(El2State::cntkctl_el1(), 0b11);
}

/// The registers of a GICv3's CPU interface that EL1 alone has, CRn, CRm, op2 (IHI 0069H 12.2): what traps at EL1 by itself apart.
const INTERFACE: [(&str, [u32; 3]); 21] = [
    ("ICC_PMR_EL1", [4, 6, 0]),
    ("ICC_IAR0_EL1", [12, 8, 0]),
    ("ICC_EOIR0_EL1", [12, 8, 1]),
    ("ICC_HPPIR0_EL1", [12, 8, 2]),
    ("ICC_BPR0_EL1", [12, 8, 3]),
    ("ICC_AP0R0_EL1", [12, 8, 4]),
    ("ICC_AP0R1_EL1", [12, 8, 5]),
    ("ICC_AP0R2_EL1", [12, 8, 6]),
    ("ICC_AP0R3_EL1", [12, 8, 7]),
    ("ICC_AP1R0_EL1", [12, 9, 0]),
    ("ICC_AP1R1_EL1", [12, 9, 1]),
    ("ICC_AP1R2_EL1", [12, 9, 2]),
    ("ICC_AP1R3_EL1", [12, 9, 3]),
    ("ICC_RPR_EL1", [12, 11, 3]),
    ("ICC_IAR1_EL1", [12, 12, 0]),
    ("ICC_EOIR1_EL1", [12, 12, 1]),
    ("ICC_HPPIR1_EL1", [12, 12, 2]),
    ("ICC_BPR1_EL1", [12, 12, 3]),
    ("ICC_CTLR_EL1", [12, 12, 4]),
    ("ICC_IGRPEN0_EL1", [12, 12, 6]),
    ("ICC_IGRPEN1_EL1", [12, 12, 7]),
];

/// HVC (C6.2.130) with a number in bits 20 to 5.
const fn hvc(number: u32) -> u32 {
    0b110_1010_0000 << 21 | number << 5 | 0b00010
}

/// Each entry of the vectors leads to EL2 and says which it is; nothing in the page leads elsewhere, but where it is an access to the
/// interface, after which it leads there too.
#[test]
fn vectors_say_which_they_are() {
    let mut accesses = BTreeMap::new();
    for (name, [crn, crm, op2]) in INTERFACE {
        for is_read in [true, false] {
            // A few bits each.
            let encoding = Encoding::new(3, 0, crn as u16, crm as u16, op2 as u16);
            let at = interface_access(encoding, is_read).unwrap_or_else(|| panic!("{name}")) as usize / 4;
            // MRS and MSR of it, with X0 (C6.2.228, C6.2.231).
            let fields = 0b11 << 19 | crn << 12 | crm << 8 | op2 << 5;
            assert_eq!(accesses.insert(at, 0b11_0101_0100 << 22 | u32::from(is_read) << 21 | fields), None);
            assert_eq!(accesses.insert(at + 1, hvc(u32::from(N_VECTORS))), None);
        }
    }
    for n in 0..1024 {
        let (vector, place) = (n / 32, n % 32);
        let expected = match (accesses.get(&n), place) {
            (Some(word), _) => *word,
            (None, 0) if vector < usize::from(N_VECTORS) => hvc(vector as u32),
            // B to itself (C6.2.25).
            _ => 0b000101 << 26,
        };
        assert_eq!(word(n), expected, "word {n}");
    }
    assert_eq!(N_VECTORS, 16);
    for bits in 0..=u16::MAX {
        let encoding = Encoding::new(bits >> 14, bits >> 11 & 7, bits >> 7 & 15, bits >> 3 & 15, bits & 7);
        let [op0, op1, crn, crm, op2] = encoding.parts().map(u32::from);
        let is_one = (op0, op1) == (3, 0) && INTERFACE.iter().any(|(_, register)| *register == [crn, crm, op2]);
        assert_eq!(interface_access(encoding, true).is_some(), is_one, "{encoding}");
    }
}
