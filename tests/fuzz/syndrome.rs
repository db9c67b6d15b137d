//! The decoder: whatever a syndrome says, what comes out lies within the architecture's bounds, and the quick way and the
//! long one agree. A guest chooses most of these bits.

use crate::engine::{Rng, count, report};
use flatland::addr::Addr;
use flatland::arm::esr::{self, Abort, Access, Fault, Syndrome, Transfer, ec};
use flatland::arm::exception::{self, Kind, psr};
use flatland::arm::smccc::{self, Call};
use flatland::arm::sysreg::{self, Encoding};
use flatland::devices;

#[test]
fn every_syndrome_is_decoded_within_bounds() {
    let mut rng = Rng::new("syndrome");
    let n = count(400_000);
    for _ in 0..n {
        check(&mut rng);
    }
    report("syndrome", n);
}

/// One syndrome.
pub(crate) fn check(rng: &mut Rng) {
    // The classes that reach the decoder, and any other.
    let any = rng.next() & 0x3f;
    let class = *rng.pick(&[ec::DABT_LOWER, ec::IABT_LOWER, ec::SYSREG, ec::HVC64, any]);
    let esr = class << 26 | rng.next() & 0x3ff_ffff;
    let syndrome = Syndrome { esr, far: rng.edge(), hpfar: rng.edge() };
    assert!(!esr::class_name(syndrome.ec()).is_empty());
    abort(syndrome);
    register(syndrome.iss());
}

fn abort(syndrome: Syndrome) {
    let abort = Abort::decode(syndrome);
    if let Some(ipa) = abort.ipa {
        // HPFAR_EL2 has 52 bits of address at most.
        assert!(ipa.bits() >> 52 == 0, "{ipa}");
        if let Some((_, offset)) = devices::at(ipa) {
            assert!(ipa < devices::RAM_BASE && offset < 1 << 26);
        }
    }
    if let Some(transfer) = Transfer::decode(syndrome) {
        assert!(matches!(transfer.bytes, 1 | 2 | 4 | 8) && transfer.register < 32);
        for value in [0, 0x80, 0x8000, 0x8000_0000, u64::MAX] {
            let extended = transfer.extend(value);
            let bits = u32::from(transfer.bytes) * 8;
            let mask = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
            assert_eq!(extended & mask, value & mask, "{transfer:?}");
            assert!(transfer.wide || bits == 64 || extended >> 32 == 0, "{transfer:?} fills a W register");
        }
    }
    if syndrome.ec() == ec::DABT_LOWER
        && let Some((ipa, access, transfer)) = Transfer::at_hole(syndrome)
    {
        assert_eq!(abort.fault, Fault::Translation);
        assert!(!abort.walk && abort.far_valid);
        assert_eq!((abort.ipa, abort.access), (Some(ipa), access));
        assert_eq!(Transfer::decode(syndrome), Some(transfer));
        assert_ne!(access, Access::Execute);
    }
}

fn register(iss: u64) {
    let encoding = Encoding::from_iss(iss);
    assert!(!encoding.to_string().is_empty());
    if let Some((crm, op2)) = sysreg::id_read(iss) {
        assert!(crm < 8 && op2 < 8 && iss & 1 == 1);
        assert_eq!(sysreg::decode(encoding), None, "{encoding} is both");
    }
}

#[test]
fn exceptions_go_to_a_vector_with_everything_masked() {
    let mut rng = Rng::new("exception");
    let n = count(100_000);
    for _ in 0..n {
        let (pstate, vbar, sctlr) = (rng.next(), rng.edge(), rng.next());
        for kind in [Kind::Sync, Kind::SError] {
            let entry = exception::take(kind, pstate, vbar, sctlr, rng.next() & 1 == 0, rng.next() & 1 == 0);
            assert_eq!(entry.pstate & (psr::MODE | psr::DAIF), psr::EL1H | psr::DAIF);
            assert_eq!(Addr::<flatland::addr::Va>::new(entry.pc & !0x7ff).bits(), vbar & !0x7ff);
            assert!(entry.pc & 0x7f == 0);
        }
    }
    report("exception", n);
}

#[test]
fn every_call_has_an_answer() {
    let mut rng = Rng::new("call");
    let n = count(100_000);
    for _ in 0..n {
        // Around the PSCI and SMCCC ranges, and anywhere.
        let base = *rng.pick(&[0x8000_0000, 0x8400_0000, 0xc400_0000, 0]);
        let function = base | (rng.next() & if base == 0 { 0xffff_ffff } else { 0x3f }) as u32;
        let known = Call::decode(function) != Call::Unknown;
        assert_eq!(smccc::features(function) == 0, known, "{function:#x}");
    }
    report("call", n);
}
