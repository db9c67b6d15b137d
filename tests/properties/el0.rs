//! Virtual EL2 at EL0: what EL1's registers are for it, bit by bit as the Arm ARM numbers them (D24.2), and the vectors of EL1.

use flatland::addr::{Addr, Pa, VcpuId};
use flatland::arm::gic::Version;
use flatland::arm::sysreg::Encoding;
use flatland::arm::vmsa::granule_of;
use flatland::arm::vncr::slot;
use flatland::machine::Machine;
use flatland::memory::el2_vectors::{
    FRAMES, N_VECTORS, UPPER_BITS, add_registers, interface_access, register_vectors, registers, vectors, word, write,
};
use flatland::vcpu::el0_state::El2State;
use harness::cpu::Cpu;
use harness::model::{EL0_VECTORS, Flaw, Model};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

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

/// Where they do accesses to a page of registers, they and it are memory as EL2 has it: write-back, inner and outer (D24.2.108).
#[test]
fn registers_are_write_back_memory() {
    for kind in 0..=u8::MAX {
        // 0b01RW but for RW 0, 0b11RW.
        let is_so = [kind >> 4, kind & 15].iter().all(|half| matches!(half, 5..=7 | 12..=15));
        for at in [0, 3, 7] {
            let state = El2State { mair: u64::from(kind) << (at * 8), ..ON };
            let expected = (register_vectors(at), registers(at, VcpuId(2)).unwrap());
            assert_eq!(state.register_vectors(VcpuId(2)), is_so.then_some(expected), "{kind:#x}");
        }
        for off in [1, 4] {
            let state = El2State { mair: u64::from(kind), sctlr: ON.sctlr & !off, ..ON };
            assert_eq!(state.register_vectors(VcpuId(0)), None);
        }
    }
}

/// All pages of the upper range, by what is there.
#[test]
fn pages_of_the_upper_range_are_where_the_code_looks() {
    let base = 0xffff_ffff_fe00_0000;
    let mut pages: Vec<u64> = (0..8).map(vectors).collect();
    for kind in 0..8 {
        // The offsets are in the two pages behind the code.
        pages.extend((0..3).map(|n| register_vectors(kind) + n * 4096));
        pages.extend((0..60).map(|n| registers(kind, VcpuId(n)).unwrap()));
        assert_eq!(registers(kind, VcpuId(60)), None);
    }
    assert_eq!(pages, (0..512).map(|n| base + n * 4096).collect::<Vec<_>>());
}

#[test]
fn vectors_with_code_are_what_the_code_expects() {
    let model = Model::new(Addr::new(0x4000_0000), 16 * 4096, 1, Flaw::None);
    let cpu = Cpu::new(&model);
    let frames: [Addr<Pa>; FRAMES] = core::array::from_fn(|n| Addr::new(0x4000_0000 + n as u64 * 4096));
    let window = 0x2000_0000;
    cpu.zero(frames[0], FRAMES as u64);
    for version in [Version::V2, Version::V3] {
        assert!(write(&cpu, frames, Addr::new(window), version));
        let words = |frame: usize| {
            let pairs = cpu.frame(frames[frame]).iter().map(|pair| pair.load(Relaxed));
            pairs.flat_map(|pair| [pair as u32, (pair >> 32) as u32]).collect::<Vec<_>>()
        };
        for n in 0..1024 {
            let code = EL0_VECTORS[n];
            // The tables of the upper range are in the middle of those without code.
            if !(0x800 / 4..0x880 / 4).contains(&n) {
                assert_eq!(words(0)[n], word(n));
            }
            assert_eq!(words(2)[n], if code == 0 { word(n) } else { code });
        }
        let offsets = [words(3), words(4)].concat();
        for (n, pair) in offsets.iter().enumerate() {
            for (n, code) in [(n * 2, pair & 0xffff), (n * 2 + 1, pair >> 16)] {
                // op1 is 0 or 4, and what else there is of an instruction is in its order.
                let [op1, crn, crm, op2] = [n >> 11 << 2, n >> 7 & 15, n >> 3 & 15, n & 7].map(|part| part as u16);
                let slot = slot(Encoding::new(3, op1, crn, crm, op2), version);
                let expected = slot.map_or(0, |slot| slot.offset | slot.write as u16);
                assert_eq!(code, u32::from(expected), "{n:#x}");
            }
        }
    }
    // Pages: EL1's alone, accessed, inner shareable; of the code to be executed by EL1 and not written.
    const CODE: u64 = 1 << 54 | 1 << 10 | 3 << 8 | 1 << 7 | 3;
    const REGISTERS: u64 = 1 << 54 | 1 << 53 | 1 << 10 | 3 << 8 | 3;
    assert!(add_registers(&cpu, frames, VcpuId(1), Addr::new(window + 0x9000)));
    assert!(!add_registers(&cpu, frames, VcpuId(60), Addr::new(window + 0x9000)));
    for n in 0..512 {
        let (kind, place) = if n < 8 { (n, None) } else { ((n - 8) / 63, Some((n - 8) % 63)) };
        let expected = match place {
            None => CODE | kind << 2 | window,
            Some(place @ 0..=2) => CODE | kind << 2 | (window + 0x2000 + place * 0x1000),
            Some(4) => REGISTERS | kind << 2 | (window + 0x9000),
            Some(_) => 0,
        };
        assert_eq!(Machine::load(&cpu, frames[1] + n * 8), expected, "page {n}");
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
