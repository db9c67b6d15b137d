//! Syndromes: why a guest left, decoded, and the ones we inject (Arm ARM D24.2.40, ESR_EL2 and ESR_EL1).

use crate::addr::{Addr, Ipa, Size};
use aarch64_cpu::registers::ESR_EL2;
use tock_registers::register_bitfields;

register_bitfields! {u64,
    /// ESR_EL2 of an abort (its ISS by EC 0x20 and 0x24).
    ABORT [
        /// The instruction has 4 bytes.
        IL OFFSET(25) NUMBITS(1) [],
        /// The fields of the transfer are valid.
        ISV OFFSET(24) NUMBITS(1) [],
        /// The logarithm of its bytes.
        SAS OFFSET(22) NUMBITS(2) [],
        /// It is sign-extended.
        SSE OFFSET(21) NUMBITS(1) [],
        /// Its register.
        SRT OFFSET(16) NUMBITS(5) [],
        /// That is an X register.
        SF OFFSET(15) NUMBITS(1) [],
        /// FAR_EL2 is not valid.
        FNV OFFSET(10) NUMBITS(1) [],
        /// Cache maintenance.
        CM OFFSET(8) NUMBITS(1) [],
        /// Of a walk of stage 1.
        S1PTW OFFSET(7) NUMBITS(1) [],
        /// It writes.
        WNR OFFSET(6) NUMBITS(1) [],
        /// IFSC or DFSC: the fault; bits 5:2 are its kind, if that is one of the tables.
        FSC OFFSET(0) NUMBITS(6) [],
        KIND OFFSET(2) NUMBITS(4) [Translation = 0b0001],
    ],
    /// HPFAR_EL2.
    HPFAR [
        /// Bits 51:12 of the IPA.
        FIPA OFFSET(4) NUMBITS(40) [],
    ],
}

/// Exception classes (ESR_ELx.EC).
#[allow(missing_docs)]
pub mod ec {
    pub const UNKNOWN: u64 = 0x00;
    pub const WFX: u64 = 0x01;
    pub const FP: u64 = 0x07;
    pub const ILLEGAL_STATE: u64 = 0x0e;
    pub const HVC64: u64 = 0x16;
    pub const SMC64: u64 = 0x17;
    pub const SYSREG: u64 = 0x18;
    pub const SVE: u64 = 0x19;
    pub const ERET: u64 = 0x1a;
    pub const IABT_LOWER: u64 = 0x20;
    pub const IABT_SAME: u64 = 0x21;
    pub const DABT_LOWER: u64 = 0x24;
    pub const DABT_SAME: u64 = 0x25;
    pub const SERROR: u64 = 0x2f;
}

/// The registers that say why EL1 or EL0 left for EL2.
#[derive(Clone, Copy, Debug, Default)]
pub struct Syndrome {
    /// ESR_EL2.
    pub esr: u64,
    /// FAR_EL2.
    pub far: u64,
    /// HPFAR_EL2.
    pub hpfar: u64,
}

/// The exception class in a value of ESR_ELx.
#[inline(always)]
pub fn class(esr: u64) -> u64 {
    ESR_EL2::EC.read(esr)
}

impl Syndrome {
    /// The exception class.
    #[inline]
    pub fn ec(self) -> u64 {
        class(self.esr)
    }

    /// Of a data abort: whether it is of cache maintenance, itself and not a walk for it (CM, S1PTW), and a fault of stage 2 (DFSC).
    pub fn is_cache_maintenance(self) -> bool {
        ABORT::CM.is_set(self.esr) && !ABORT::S1PTW.is_set(self.esr) && ABORT::FSC.read(self.esr) < 0b01_0000
    }

    /// The instruction specific syndrome.
    #[inline(always)]
    pub fn iss(self) -> u64 {
        ESR_EL2::ISS.read(self.esr)
    }

    /// Bytes of the instruction: 4, or 2 in T32.
    #[inline(always)]
    pub fn instruction_bytes(self) -> u64 {
        if ESR_EL2::IL.is_set(self.esr) { 4 } else { 2 }
    }
}

/// The kinds of fault status (ESR_ELx.IFSC, DFSC) that are told apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// No valid descriptor.
    Translation,
    /// A descriptor whose access flag is clear.
    AccessFlag,
    /// A descriptor that does not allow the access.
    Permission,
    /// An address outside of the tables' reach.
    AddressSize,
    /// The bus refused.
    External,
    /// Anything else, by its status code.
    Other(u8),
}

impl Fault {
    /// Whether it is of a kind that our tables cause and that can be helped.
    #[inline(always)]
    pub const fn is_of_stage2(self) -> bool {
        matches!(self, Self::Translation | Self::AccessFlag | Self::Permission)
    }
}

/// What the guest wanted of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// A load.
    Read,
    /// A store, or a read-modify-write.
    Write,
    /// An instruction fetch.
    Execute,
    /// Cache maintenance that some right was missing for: writing for DC IVAC, reading for what EL0 may do. Which of them the
    /// syndrome does not say.
    Maintain,
}

/// A stage-2 abort.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Abort {
    /// Which fault.
    pub fault: Fault,
    /// What was wanted.
    pub access: Access,
    /// Whether it hit the walk of the guest's own stage-1 tables.
    pub walk: bool,
    /// The page's IPA and the offset in it, where the hardware says it: not for permission faults outside of walks
    /// (HPFAR_EL2 is UNKNOWN then, Arm ARM D24.2.58).
    pub ipa: Option<Addr<Ipa>>,
    /// Whether FAR_EL2 holds the virtual address.
    pub far_valid: bool,
}

impl Abort {
    /// Decodes an instruction or data abort from a lower exception level.
    #[inline(always)]
    pub fn decode(syndrome: Syndrome) -> Self {
        let iss = syndrome.iss();
        let fault = match ABORT::FSC.read(iss) {
            0b00_0000..=0b00_0011 | 0b10_1001 | 0b10_1011 => Fault::AddressSize,
            0b00_0100..=0b00_0111 => Fault::Translation,
            0b00_1000..=0b00_1011 => Fault::AccessFlag,
            0b00_1100..=0b00_1111 => Fault::Permission,
            0b01_0000 | 0b01_0011..=0b01_0111 => Fault::External,
            other => Fault::Other(other as u8),
        };
        let walk = ABORT::S1PTW.is_set(iss);
        let access = if syndrome.ec() == ec::IABT_LOWER {
            Access::Execute
        } else if ABORT::CM.is_set(iss) {
            // CM: WnR is set whatever it is, so where there is no page any will do. A permission it lacks says more: at EL1
            // only DC IVAC needs one, that to write (Arm ARM D8.4.1, D24.2.40).
            if matches!(fault, Fault::Permission) { Access::Maintain } else { Access::Read }
        } else if ABORT::WNR.is_set(iss) {
            Access::Write
        } else {
            Access::Read
        };
        let known = matches!(fault, Fault::Translation | Fault::AccessFlag | Fault::AddressSize) || walk;
        let page = HPFAR::FIPA.read(syndrome.hpfar) << 12;
        let offset = if walk { 0 } else { syndrome.far & (Size::Page.bytes() - 1) };
        Self { fault, access, walk, ipa: known.then(|| Addr::new(page | offset)), far_valid: !ABORT::FNV.is_set(iss) }
    }

    /// What stage 2 has to allow. Whatever the instruction wanted, a walk reads; where it is refused what may be read, it was
    /// about to write an access flag or a dirty state into the table (FEAT_HAFDBS; Arm ARM D8.5.3).
    pub const fn needs(&self) -> Access {
        match (self.walk, self.fault) {
            (false, _) => self.access,
            (true, Fault::Permission) => Access::Write,
            (true, _) => Access::Read,
        }
    }
}

/// A load or store of one register, as the syndrome of a data abort describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transfer {
    /// Bytes: 1, 2, 4 or 8.
    pub bytes: u8,
    /// The register, 31 for XZR.
    pub register: u8,
    /// Whether a load is sign-extended.
    pub signed: bool,
    /// Whether a load fills the X register (else W, upper half zeroed).
    pub wide: bool,
}

impl Transfer {
    /// Decodes it, where the hardware says it is valid (ISV): not for pairs, exclusives and write-back forms.
    #[inline(always)]
    pub fn decode(syndrome: Syndrome) -> Option<Self> {
        let iss = syndrome.iss();
        if !ABORT::ISV.is_set(iss) {
            return None;
        }
        Some(Self {
            bytes: 1 << ABORT::SAS.read(iss),
            // Five bits.
            register: ABORT::SRT.read(iss) as u8,
            signed: ABORT::SSE.is_set(iss),
            wide: ABORT::SF.is_set(iss),
        })
    }

    /// The IPA, the access and the transfer of a load or store by an instruction of 4 bytes that found no stage-2
    /// descriptor, if the syndrome has all of it (ISV) and it is not part of a walk or of cache maintenance. What most
    /// exits for devices are, decoded by one comparison.
    #[inline(always)]
    pub fn at_hole(syndrome: Syndrome) -> Option<(Addr<Ipa>, Access, Self)> {
        let valid = ABORT::IL::SET + ABORT::ISV::SET + ABORT::FNV::CLEAR;
        let is_one = valid + ABORT::CM::CLEAR + ABORT::S1PTW::CLEAR + ABORT::KIND::Translation;
        if !is_one.matches_all(syndrome.esr) {
            return None;
        }
        let ipa = HPFAR::FIPA.read(syndrome.hpfar) << 12 | syndrome.far & 0xfff;
        let access = if ABORT::WNR.is_set(syndrome.esr) { Access::Write } else { Access::Read };
        Some((Addr::new(ipa), access, Self::decode(syndrome)?))
    }

    /// What the register holds after loading `value`.
    #[inline(always)]
    pub const fn extend(self, value: u64) -> u64 {
        let bits = self.bytes as u32 * 8;
        if bits >= 64 {
            return value;
        }
        let low = value & ((1 << bits) - 1);
        if !self.signed {
            return low;
        }
        let extended = ((low << (64 - bits)) as i64 >> (64 - bits)) as u64;
        if self.wide { extended } else { extended & 0xffff_ffff }
    }
}

/// ESR_EL1 for an UNDEFINED instruction of 4 bytes.
pub const fn undefined() -> u64 {
    ec::UNKNOWN << 26 | 1 << 25
}

/// ESR_EL1 for a synchronous external abort on `access`, from the same exception level or a lower one.
pub const fn external_abort(access: Access, from: From, instruction_bytes: u64) -> u64 {
    let class = match (access, from) {
        (Access::Execute, From::Lower) => ec::IABT_LOWER,
        (Access::Execute, From::Same) => ec::IABT_SAME,
        (_, From::Lower) => ec::DABT_LOWER,
        (_, From::Same) => ec::DABT_SAME,
    };
    let il = if instruction_bytes == 4 { 1 } else { 0 };
    let wnr = if matches!(access, Access::Write) { 1 << 6 } else { 0 };
    class << 26 | il << 25 | wnr | 0b01_0000
}

/// Whether an exception to EL1 comes from EL1 itself or from EL0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum From {
    /// EL0.
    Lower,
    /// EL1.
    Same,
}

/// The name of an exception class, for reports.
pub const fn class_name(class: u64) -> &'static str {
    match class {
        ec::UNKNOWN => "undefined instruction",
        ec::WFX => "WFI or WFE",
        0x03..=0x06 | 0x08 | 0x0c => "AArch32 coprocessor access",
        ec::FP => "FP or SIMD access",
        0x09 => "pointer authentication",
        ec::ILLEGAL_STATE => "illegal execution state",
        0x11..=0x13 => "AArch32 SVC, HVC or SMC",
        0x15 => "SVC",
        ec::HVC64 => "HVC",
        ec::SMC64 => "SMC",
        ec::SYSREG => "system register access",
        ec::SVE => "SVE access",
        0x1a => "ERET",
        0x1d => "SME access",
        ec::IABT_LOWER => "instruction abort from a lower EL",
        ec::IABT_SAME => "instruction abort",
        0x22 => "PC alignment",
        ec::DABT_LOWER => "data abort from a lower EL",
        ec::DABT_SAME => "data abort",
        0x26 => "SP alignment",
        ec::SERROR => "SError",
        0x30..=0x35 => "debug exception",
        0x3c => "BRK",
        _ => "reserved class",
    }
}

#[cfg(test)]
mod tests {
    use super::{Abort, Access, Fault, From, Syndrome, Transfer, external_abort};
    use crate::addr::Addr;

    #[test]
    fn an_external_abort_says_who_did_what() {
        // ISS2, EC and IL of Arm ARM D24.2.40; DFSC 0b010000.
        let cases = [
            (Access::Execute, From::Lower, 0x20, 0),
            (Access::Execute, From::Same, 0x21, 0),
            (Access::Read, From::Lower, 0x24, 0),
            (Access::Read, From::Same, 0x25, 0),
            (Access::Write, From::Lower, 0x24, 1 << 6),
            (Access::Write, From::Same, 0x25, 1 << 6),
        ];
        for (access, from, class, wnr) in cases {
            for (bytes, il) in [(2, 0), (4, 1 << 25)] {
                assert_eq!(external_abort(access, from, bytes), class << 26 | il | wnr | 0x10, "{access:?} {from:?}");
            }
        }
    }

    #[test]
    fn a_store_to_the_uart_is_decoded() {
        // ISV, SAS word, SRT x3, WnR, translation fault level 3.
        let esr = 0x24 << 26 | 1 << 25 | 1 << 24 | 2 << 22 | 3 << 16 | 1 << 6 | 0b00_0111;
        let syndrome = Syndrome { esr, far: 0xffff_8000_1000_0018, hpfar: 0x9_0000 };
        let abort = Abort::decode(syndrome);
        assert_eq!(abort.fault, Fault::Translation);
        assert_eq!(abort.access, Access::Write);
        assert_eq!(abort.ipa, Some(Addr::new(0x0900_0018)));
        let transfer = Transfer::decode(syndrome).expect("ISV is set");
        assert_eq!((transfer.bytes, transfer.register), (4, 3));
    }

    #[test]
    fn what_is_decoded_by_one_comparison_is_what_is_decoded_field_by_field() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut n_found = 0;
        for round in 0..200_000_u64 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // All but one bit as a plain access has them, in half of the rounds.
            let plain = 0x24 << 26 | 1 << 25 | 1 << 24 | 0b00_0111 | random & 0x00ff_8040;
            let esr =
                if round % 2 == 0 { plain ^ 1 << ((random >> 40) % 26) } else { 0x24 << 26 | random & 0x03ff_ffff };
            let syndrome = Syndrome { esr, far: random.rotate_left(11), hpfar: random.rotate_left(29) };
            let is = |at: u64, value: u64| esr >> at & 1 == value;
            // IL, ISV, FnV, CM and S1PTW; DFSC is a translation fault.
            let expected = (is(25, 1) && is(24, 1) && is(10, 0) && is(8, 0) && is(7, 0) && esr & 0x3c == 4)
                .then(|| (Abort::decode(syndrome), Transfer::decode(syndrome)))
                .and_then(|(abort, transfer)| Some((abort.ipa?, abort.access, transfer?)));
            n_found += u32::from(expected.is_some());
            assert_eq!(Transfer::at_hole(syndrome), expected, "{esr:#x}, {:#x}", syndrome.hpfar);
        }
        assert!(n_found > 10_000, "{n_found}");
    }

    #[test]
    fn loads_are_extended_as_the_instruction_says() {
        let byte = Transfer { bytes: 1, register: 0, signed: true, wide: false };
        assert_eq!(byte.extend(0x1ff), 0xffff_ffff);
        assert_eq!(Transfer { wide: true, ..byte }.extend(0x80), 0xffff_ffff_ffff_ff80);
        assert_eq!(Transfer { signed: false, ..byte }.extend(0x1ff), 0xff);
    }

    #[test]
    fn a_transfer_is_read_field_by_field() {
        for at in 0..25 {
            // ISV and one bit besides: SAS, SSE, SRT, SF.
            let found = Transfer::decode(Syndrome { esr: 1 << 24 | 1 << at, ..Syndrome::default() }).unwrap();
            let expected = Transfer {
                bytes: match at {
                    22 => 2,
                    23 => 4,
                    _ => 1,
                },
                register: if (16..21).contains(&at) { 1 << (at - 16) } else { 0 },
                signed: at == 21,
                wide: at == 15,
            };
            assert_eq!(found, expected, "bit {at}");
        }
        assert_eq!(Transfer::decode(Syndrome { esr: 0xff_ffff, ..Syndrome::default() }), None);
    }
}
