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

/// Whether there is such a TLBI, by op1, CRm and op2, with CRn 8, where ID_AA64ISAR0_EL1.TLB is `level`: 1 with outer shareable ones, 2
/// with ranges as well (Arm ARM C5.5).
pub const fn exists(op1: u16, crm: u16, op2: u16, level: u64) -> bool {
    let (outer, ranges) = (level >= 1, level >= 2);
    match (op1, crm, op2) {
        // EL1: VMALLE1, VAE1, ASIDE1, VAAE1, VALE1, VAALE1.
        (0, 3 | 7, 0..=3 | 5 | 7) => true,
        (0, 1, 0..=3 | 5 | 7) => outer,
        // RVAE1, RVAAE1, RVALE1, RVAALE1.
        (0, 2 | 5 | 6, 1 | 3 | 5 | 7) => ranges,
        // EL2: ALLE2, VAE2, ALLE1, VALE2, VMALLS12E1.
        (4, 3 | 7, 0 | 1 | 4..=6) => true,
        (4, 1, 0 | 1 | 4..=6) => outer,
        // RVAE2, RVALE2.
        (4, 2 | 5 | 6, 1 | 5) => ranges,
        // IPAS2E1, IPAS2LE1.
        (4, 0 | 4, 1 | 5) => true,
        (4, 4, 0 | 4) => outer,
        // RIPAS2E1, RIPAS2LE1.
        (4, 0 | 4, 2 | 6) | (4, 4, 3 | 7) => ranges,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::exists;

    /// op1 and CRm, and the op2 that there are in Armv8.0, with FEAT_TLBIOS, and with FEAT_TLBIRANGE (Arm ARM C5.5, by encodings).
    const ALL: [(u16, u16, [&[u16]; 3]); 14] = [
        (0, 1, [&[], &[0, 1, 2, 3, 5, 7], &[]]),
        (0, 2, [&[], &[], &[1, 3, 5, 7]]),
        (0, 3, [&[0, 1, 2, 3, 5, 7], &[], &[]]),
        (0, 5, [&[], &[], &[1, 3, 5, 7]]),
        (0, 6, [&[], &[], &[1, 3, 5, 7]]),
        (0, 7, [&[0, 1, 2, 3, 5, 7], &[], &[]]),
        (4, 0, [&[1, 5], &[], &[2, 6]]),
        (4, 1, [&[], &[0, 1, 4, 5, 6], &[]]),
        (4, 2, [&[], &[], &[1, 5]]),
        (4, 3, [&[0, 1, 4, 5, 6], &[], &[]]),
        (4, 4, [&[1, 5], &[0, 4], &[2, 3, 6, 7]]),
        (4, 5, [&[], &[], &[1, 5]]),
        (4, 6, [&[], &[], &[1, 5]]),
        (4, 7, [&[0, 1, 4, 5, 6], &[], &[]]),
    ];

    #[test]
    fn there_are_the_instructions_of_the_book() {
        for (op1, crm, op2) in
            (0..8).flat_map(|op1| (0..16).flat_map(move |crm| (0..8).map(move |op2| (op1, crm, op2))))
        {
            let row = ALL.iter().find(|(a, b, _)| (*a, *b) == (op1, crm));
            let since = row.and_then(|(.., levels)| levels.iter().position(|level| level.contains(&op2)));
            for level in 0..3 {
                let expected = since.is_some_and(|since| level >= since);
                assert_eq!(exists(op1, crm, op2, level as u64), expected, "op1 {op1}, CRm {crm}, op2 {op2} at {level}");
            }
        }
    }
}
