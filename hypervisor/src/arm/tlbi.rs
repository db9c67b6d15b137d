//! What a TLBI by address is given in its register (Arm ARM C5.5).

use tock_registers::register_bitfields;

register_bitfields! {u64,
    /// Of an address of stage 2.
    IPA [
        /// Bits 47:12.
        IPA OFFSET(0) NUMBITS(36) [],
    ],
    /// Of an address of stage 1.
    VA [
        /// Bits 55:12.
        VA OFFSET(0) NUMBITS(44) [],
    ],
    /// Of a range (FEAT_TLBIRANGE).
    RANGE [
        TG OFFSET(46) NUMBITS(2) [],
        SCALE OFFSET(44) NUMBITS(2) [],
        NUM OFFSET(39) NUMBITS(5) [],
        /// In granules.
        BASE OFFSET(0) NUMBITS(37) [],
    ],
}

/// The IPA of an IPAS2E1.
pub fn ipa(value: u64) -> u64 {
    IPA::IPA.read(value) << 12
}

/// The virtual address of a VAE2 or a VAE1.
pub fn va(value: u64) -> u64 {
    VA::VA.read(value) << 12
}

/// Where a range begins, and how many bytes it has: from a granule on, (NUM + 1) * 2^(5 * SCALE + 1) of them.
pub fn range(value: u64) -> (u64, u64) {
    let granule = match RANGE::TG.read(value) {
        2 => 14,
        3 => 16,
        _ => 12,
    };
    let (num, scale) = (RANGE::NUM.read(value), RANGE::SCALE.read(value));
    (RANGE::BASE.read(value) << granule, (num + 1) << (5 * scale + 1) << granule)
}
