//! Numbers with a name: exception classes, function ids, encodings and fields, each against the list that its book has of them.

use flatland::addr::{Addr, Ipa, Ipa2, Pa, VcpuId};
use flatland::arm::esr::{class_name, ec};
use flatland::arm::exception::{Kind, psr, take};
use flatland::arm::gic::{ListRegister, Sgi, SgiTargets};
use flatland::arm::idreg::{IdRegs, Offer};
use flatland::arm::smccc::{Call, features, is_64bit};
use flatland::arm::sysreg::{Encoding, Register, decode, id_read};
use flatland::arm::vmsa::VmidBits;
use flatland::next::Kicks;

#[test]
fn each_exception_class_is_called_what_it_is() {
    // Arm ARM D24.2.40, EC; words that its name has here.
    let names = [
        (0x00, "undefined"),
        (0x01, "WFI"),
        (0x07, "FP"),
        (0x09, "pointer authentication"),
        (0x0e, "illegal execution state"),
        (0x15, "SVC"),
        (0x16, "HVC"),
        (0x17, "SMC"),
        (0x18, "system register"),
        (0x19, "SVE"),
        (0x1a, "ERET"),
        (0x1d, "SME"),
        (0x20, "instruction abort from a lower EL"),
        (0x21, "instruction abort"),
        (0x22, "PC alignment"),
        (0x24, "data abort from a lower EL"),
        (0x25, "data abort"),
        (0x26, "SP alignment"),
        (0x2f, "SError"),
        (0x3c, "BRK"),
    ];
    let coprocessor = [0x03, 0x04, 0x05, 0x06, 0x08, 0x0c];
    for class in 0..64 {
        let name = class_name(class);
        match names.iter().find(|(known, _)| *known == class) {
            Some((_, words)) => assert!(name.starts_with(words), "{class:#x} is {name}"),
            None if coprocessor.contains(&class) => assert_eq!(name, "AArch32 coprocessor access", "{class:#x}"),
            None if (0x11..0x14).contains(&class) => assert!(name.starts_with("AArch32 SVC"), "{class:#x}"),
            None if (0x30..0x36).contains(&class) => assert_eq!(name, "debug exception", "{class:#x}"),
            None => assert_eq!(name, "reserved class", "{class:#x}"),
        }
        // Nobody else is called the same.
        assert_eq!(
            (0..64).filter(|other| class_name(*other) == name).count() > 1,
            match class {
                0x11..0x14 | 0x30..0x36 => true,
                _ => coprocessor.contains(&class) || name == "reserved class",
            }
        );
    }
    assert_eq!((ec::WFX, ec::HVC64, ec::SYSREG, ec::DABT_LOWER), (0x01, 0x16, 0x18, 0x24));
}

#[test]
fn a_function_id_is_the_call_that_its_book_has() {
    // DEN0028 7, DEN0022 5.
    let calls = [
        (0x8000_0000, Call::SmcccVersion),
        (0x8000_0001, Call::SmcccArchFeatures),
        (0x8000_8000, Call::Workaround),
        (0x8000_7fff, Call::Workaround),
        (0x8000_3fff, Call::Workaround),
        (0x8400_0000, Call::PsciVersion),
        (0x8400_0001, Call::CpuSuspend),
        (0xc400_0001, Call::CpuSuspend),
        (0x8400_0002, Call::CpuOff),
        (0x8400_0003, Call::CpuOn),
        (0xc400_0003, Call::CpuOn),
        (0x8400_0004, Call::AffinityInfo),
        (0xc400_0004, Call::AffinityInfo),
        (0x8400_0006, Call::MigrateInfoType),
        (0x8400_0008, Call::SystemOff),
        (0x8400_0009, Call::SystemReset),
        (0x8400_000a, Call::PsciFeatures),
        (0x8400_0012, Call::SystemReset2),
        (0xc400_0012, Call::SystemReset2),
        // DEN0098 2.
        (0x8400_0050, Call::TrngVersion),
        (0x8400_0051, Call::TrngFeatures),
        (0x8400_0052, Call::TrngUuid),
        (0x8400_0053, Call::TrngRandom),
        (0xc400_0053, Call::TrngRandom),
    ];
    let near =
        [0x8000_0000_u32, 0x8000_3f00, 0x8000_7f00, 0x8000_8000, 0xc000_0000, 0x8400_0000, 0xc400_0000, 0x0400_0000];
    for function in near.into_iter().flat_map(|base| base..base + 0x100) {
        let known = calls.iter().find(|(known, _)| *known == function).map(|(_, call)| *call);
        assert_eq!(Call::decode(function), known.unwrap_or(Call::Unknown), "{function:#x}");
        // Workarounds depend on the CPU, and random numbers have features of their own.
        let apart = |call: Call| {
            matches!(
                call,
                Call::Workaround | Call::TrngVersion | Call::TrngFeatures | Call::TrngUuid | Call::TrngRandom
            )
        };
        let has = known.is_some_and(|call| !apart(call));
        assert_eq!(features(function), if has { 0 } else { -1 }, "{function:#x}");
        assert_eq!(is_64bit(function), function & 0x4000_0000 != 0, "{function:#x}");
    }
}

#[test]
fn an_encoding_is_written_as_the_manual_writes_it() {
    let mut seen = 0;
    for op0 in 0..4 {
        for op1 in 0..8 {
            for (crn, crm) in (0..256).map(|n| (n >> 4, n & 15)) {
                for op2 in 0..8 {
                    let encoding = Encoding::new(op0, op1, crn, crm, op2);
                    let [a, b, c, d, e] = encoding.parts();
                    assert_eq!([a, b, c, d, e], [op0, op1, crn, crm, op2]);
                    assert_eq!(encoding.to_string(), format!("S{op0}_{op1}_C{crn}_C{crm}_{op2}"));
                    for is_read in [0, 1] {
                        let iss = [(op0, 20), (op2, 17), (op1, 14), (crn, 10), (7, 5), (crm, 1)];
                        let iss = iss.iter().map(|(field, at)| u64::from(*field) << at).sum::<u64>() | is_read;
                        assert_eq!(Encoding::from_iss(iss), encoding);
                        // The ID space but for MIDR_EL1 and its neighbours; reads alone.
                        let is_id = is_read == 1 && (op0, op1, crn) == (3, 0, 0) && (1..8).contains(&crm);
                        // CRm 0 does not trap: what it would be does not matter.
                        if crm != 0 {
                            assert_eq!(id_read(iss), is_id.then_some((crm as u8, op2 as u8)), "{encoding}");
                        }
                        seen += u32::from(is_id);
                    }
                    let is_point = (op0, op1, crn) == (2, 0, 0) && op2 >= 4;
                    assert_eq!(decode(encoding) == Some(Register::Point), is_point, "{encoding}");
                }
            }
        }
    }
    assert_eq!(seen, 56);
}

#[test]
fn vmids_have_16_bits_where_the_field_says_two() {
    for field in 0..16 {
        // The fields beside it say something else.
        for others in [0, !0xf0] {
            let expected = if field == 2 { 65_536 } else { 256 };
            assert_eq!(VmidBits::from_mmfr1(others | field << 4).numbers(), expected, "field {field}");
        }
    }
}

#[test]
fn a_cpu_with_nested_virtualization_shows_it_to_who_starts_at_el2() {
    let ids = IdRegs::new(|_, _| 0x1111_1111_1111_1111, Offer { gic_registers: true, pa_range: 2 });
    for nv in 0..16 {
        // ID_AA64MMFR2_EL1.NV: 2 is FEAT_NV2.
        let found = ids.nested(nv << 24 | !(0xf << 24));
        assert_eq!(found.is_some(), nv >= 2, "NV {nv}");
        let Some(found) = found else { continue };
        // EL2 in AArch64, SPECRES, HAFDBS, VMIDBits, VH, NV; whatever the CPU has of these. All else is as for others.
        let fields = [(4, 0, 8, 1), (6, 1, 40, 0), (7, 1, 0, 0), (7, 1, 4, 0), (7, 1, 8, 1), (7, 2, 24, 2)];
        for (crm, op2) in (0..64).map(|n| (n >> 3, n & 7)) {
            let mut expected = ids.get(crm, op2);
            for (_, _, at, what) in fields.into_iter().filter(|field| (field.0, field.1) == (crm, op2)) {
                expected = expected & !(0xf << at) | what << at;
            }
            assert_eq!(found.get(crm, op2), expected, "CRm {crm}, op2 {op2}");
        }
    }
}

#[test]
fn an_sgi_goes_where_its_fields_say() {
    // IHI 0069H 12.2.19: TargetList, Aff1, INTID, Aff2, IRM, RS, Aff3.
    for (aff3, aff2, aff1, list, intid) in
        [(0, 0, 0, 1, 0), (0xff, 0, 0, 0x8001, 15), (1, 2, 4, 0xffff, 7), (0x80, 0xff, 0x55, 0, 9)]
    {
        let value = aff3 << 48 | aff2 << 32 | aff1 << 16 | intid << 24 | list;
        let sgi = Sgi::from_register(value);
        let cluster = (aff3 << 16 | aff2 << 8 | aff1) as u32;
        assert_eq!((sgi.intid.0, sgi.to), (intid as u32, SgiTargets::Cluster { cluster, list: list as u16 }));
        assert_eq!(Sgi::from_register(value | 1 << 40).to, SgiTargets::Others);
        for selector in 1..16 {
            assert_eq!(Sgi::from_register(value | selector << 44).to, SgiTargets::Nobody, "RS {selector}");
        }
        assert_eq!(Sgi::from_register(value | 3 << 44 | 1 << 40).to, SgiTargets::Others, "IRM comes first");
    }
}

#[test]
fn a_list_register_has_its_fields_apart() {
    // Each field full, the others empty; then all at once is their sum (IHI 0048B 5.3.13, IHI 0069H 12.4.8).
    let none = ListRegister::default();
    let fields = [
        (ListRegister { intid: 0x3ff, ..none }, 0x3ff, 0x3ff),
        (ListRegister { priority: 0xf8, ..none }, 0x1f << 23, 0xf8 << 48),
        (ListRegister { pending: true, ..none }, 1 << 28, 1 << 62),
        (ListRegister { active: true, ..none }, 1 << 29, 1 << 63),
        (ListRegister { group1: true, ..none }, 1 << 30, 1 << 60),
        (ListRegister { eoi: true, ..none }, 1 << 19, 1 << 41),
        (ListRegister { physical: Some(0), ..none }, 1 << 31, 1 << 61),
        (ListRegister { physical: Some(0x3ff), ..none }, 1 << 31 | 0x3ff << 10, 1 << 61 | 0x3ff << 32),
    ];
    for (entry, v2, v3) in fields {
        assert_eq!((u64::from(entry.v2()), entry.v3()), (v2, v3), "{entry:?}");
        assert_eq!((ListRegister::from_v2(entry.v2()), ListRegister::from_v3(entry.v3())), (entry, entry));
    }
    let source = ListRegister { source: 7, ..none };
    assert_eq!((source.v2(), ListRegister::from_v2(source.v2())), (7 << 10, source));
}

#[test]
fn an_exception_is_taken_as_the_architecture_takes_it() {
    // What PSTATE keeps, whatever it is: flags and DIT. PAN stays or is set, SSBS is what SCTLR says.
    let kept = psr::NZCV | psr::DIT;
    for (pstate, group) in
        [(psr::EL0T, 0x400), (psr::EL1T, 0), (psr::EL1H, 0x200), (psr::AARCH32 | 0x10, 0x600), (psr::AARCH32, 0x600)]
    {
        for (kind, offset) in [(Kind::Sync, 0), (Kind::Irq, 0x80), (Kind::SError, 0x180)] {
            for bits in
                [0, psr::PAN, psr::SSBS, psr::SS | psr::IL, kept, kept | psr::PAN | psr::F, psr::A | psr::D | psr::I]
            {
                for (span, dssbs, has) in (0..8).map(|n| (n & 1 != 0, n & 2 != 0, n & 4 != 0)) {
                    let sctlr = if span { 1 << 23 } else { 0 } | if dssbs { 1 << 44 } else { 0 };
                    let found = take(kind, pstate | bits, 0x1_0000_07ff, sctlr, has, has);
                    let pan = if has && (!span || bits & psr::PAN != 0) { psr::PAN } else { 0 };
                    let ssbs = if has && dssbs { psr::SSBS } else { 0 };
                    assert_eq!(found.pc, 0x1_0000_0000 + group + offset);
                    assert_eq!(
                        found.pstate,
                        bits & kept | psr::DAIF | psr::EL1H | pan | ssbs,
                        "{pstate:#x}, {bits:#x}"
                    );
                }
            }
        }
    }
    // Their places in SPSR_EL1 (Arm ARM C5.2.19).
    assert_eq!([psr::F, psr::I, psr::A, psr::D, psr::SSBS], [6, 7, 8, 9, 12].map(|bit| 1 << bit));
    assert_eq!([psr::IL, psr::SS, psr::PAN, psr::DIT], [20, 21, 22, 24].map(|bit| 1 << bit));
    assert_eq!((psr::NZCV, psr::AARCH32, psr::DAIF), (0xf000_0000, 0x10, 0x3c0));
}

#[test]
fn a_set_of_vcpus_has_whom_it_was_given() {
    let mut all = Kicks::NONE;
    for n in [0, 1, 5, 63] {
        let one = Kicks::one(VcpuId(n));
        assert!(!one.is_empty() && !all.contains(VcpuId(n)));
        all |= one;
    }
    for n in 0..64 {
        assert_eq!(all.contains(VcpuId(n)), [0, 1, 5, 63].contains(&n), "{n}");
        assert!(!all.without(VcpuId(n)).contains(VcpuId(n)));
        assert_eq!(all.without(VcpuId(n)).count(), if [0, 1, 5, 63].contains(&n) { 3 } else { 4 });
    }
    assert_eq!(all.map(|vcpu| vcpu.0).collect::<Vec<_>>(), [0, 1, 5, 63]);
    assert!(Kicks::NONE.is_empty());
}

#[test]
fn an_address_says_of_what_space_it_is() {
    let at = 0x4000_1000;
    let shown = [
        format!("{:?}", Addr::<Ipa>::new(at)),
        format!("{:?}", Addr::<Pa>::new(at)),
        format!("{:?}", Addr::<Ipa2>::new(at)),
    ];
    assert!(shown.iter().all(|text| text.ends_with(":0x40001000")), "{shown:?}");
    assert!(shown[0] != shown[1] && shown[1] != shown[2] && shown[0] != shown[2], "{shown:?}");
    assert_eq!(Addr::<Ipa>::new(at).to_string(), "0x40001000");
}
