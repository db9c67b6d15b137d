//! Instructions that are read because the CPU does not say what they are, against the encoding diagrams of the Arm ARM (C4.1.94, C6.2)
//! as they are printed, and the diagram of the syndrome (D24.2.40): each letter is a field, and says where it comes from and goes to. Ten million words.

use flatland::arm::a64;
use harness::effort;
use harness::model::Dice;

/// The instruction, its ISS, and its exception class.
const FORMS: [(&str, &str, u64); 6] = [
    // MSR and MRS of a register: op0 is 2 or 3.
    ("1101 0101 00L1 oPPP NNNN MMMM ppp ttttt", "000 1o ppp PPP NNNN ttttt MMMM L", 0x18),
    // SYS and SYSL.
    ("1101 0101 00L0 1PPP NNNN MMMM ppp ttttt", "000 01 ppp PPP NNNN ttttt MMMM L", 0x18),
    // MSR of an immediate, which is in CRm.
    ("1101 0101 0000 0PPP 0100 MMMM ppp 11111", "000 00 ppp PPP 0100 11111 MMMM 0", 0x18),
    // ERET.
    ("1101 0110 1001 1111 0000 00 11111 00000", "0000000000000000000000000", 0x1a),
    // HVC and SMC.
    ("1101 0100 000 iiiiiiiiiiiiiiii 000 10", "000000000 iiiiiiiiiiiiiiii", 0x16),
    ("1101 0100 000 iiiiiiiiiiiiiiii 000 11", "000000000 iiiiiiiiiiiiiiii", 0x17),
];

/// A diagram's bits, the highest first.
fn bits(diagram: &str) -> Vec<u8> {
    diagram.bytes().filter(|byte| *byte != b' ').collect()
}

/// What the diagrams say of a word.
struct Form {
    mask: u32,
    value: u32,
    /// For each bit of the syndrome, a constant or the bit of the word that it is.
    iss: Vec<Result<u64, usize>>,
    class: u64,
}

impl Form {
    fn new((word, iss, class): (&str, &str, u64)) -> Self {
        let (word, iss) = (bits(word), bits(iss));
        assert_eq!((word.len(), iss.len()), (32, 25));
        let all = |want: &[u8]| {
            (0..32).filter(|at| want.contains(&word[*at])).fold(0, |mask, at| mask | 0x8000_0000_u32 >> at)
        };
        let iss = (0..25).map(|at| match iss[at] {
            b'0' => Ok(0),
            b'1' => Ok(1),
            // The n-th of its letters.
            letter => {
                let n = iss[..at].iter().filter(|other| **other == letter).count();
                Err(31 - (0..32).filter(|at| word[*at] == letter).nth(n).expect("the letter is in both"))
            }
        });
        Self { mask: all(b"01"), value: all(b"1"), iss: iss.collect(), class }
    }

    fn syndrome(&self, word: u32) -> Option<u64> {
        let bit = |from: &Result<u64, usize>| from.unwrap_or_else(|at| u64::from(word >> at & 1));
        let iss = self.iss.iter().fold(0, |iss, from| iss << 1 | bit(from));
        (word & self.mask == self.value).then_some(self.class << 26 | 1 << 25 | iss)
    }
}

#[test]
fn an_instruction_has_the_syndrome_that_its_trap_would_have() {
    let forms = FORMS.map(Form::new);
    let mut dice = Dice::new(11);
    let mut found = [0_u64; FORMS.len()];
    let mut check = |word: u32| {
        let mut of = forms.iter().enumerate().filter_map(|(n, form)| Some((n, form.syndrome(word)?)));
        let expected = of.next();
        assert!(of.next().is_none(), "{word:#x} has two forms");
        expected.inspect(|(n, _)| found[*n] += 1);
        assert_eq!(a64::syndrome(word), expected.map(|(_, syndrome)| syndrome), "{word:#010x}");
    };
    for _ in 0..effort(2_500_000) {
        // Anything; near a form by a bit or two; and of a form.
        let word = dice.roll() as u32;
        check(word);
        let form = &forms[dice.below(forms.len() as u64) as usize];
        let near = form.value | word & !form.mask;
        check(near);
        check(near ^ 1 << dice.below(32));
        check(near ^ 1 << dice.below(32) ^ 1 << dice.below(32));
    }
    // ERET is one word: nearly all words around it are none.
    for at in 0..32 {
        check(0xd69f_03e0 ^ 1 << at);
    }
    assert!(found.iter().all(|count| *count > 0), "{found:?}");
}

#[test]
fn instructions_of_a_kernel_are_what_a_disassembler_says() {
    // MRS X3, ESR_EL2; MSR VTTBR_EL2, X0; MSR ELR_EL1, XZR; TLBI VMALLS12E1IS; AT S1E2R, X1; MSR SPSel, #0.
    let words = [
        (0xd53c_5203, "3 4 5 2 0 3 1"),
        (0xd51c_2100, "3 4 2 1 0 0 0"),
        (0xd518_403f, "3 0 4 0 1 31 0"),
        (0xd50c_83df, "1 4 8 3 6 31 0"),
        (0xd50c_7801, "1 4 7 8 0 1 0"),
        (0xd500_40bf, "0 0 4 0 5 31 0"),
    ];
    for (word, parts) in words {
        let parts: Vec<u64> = parts.split(' ').map(|part| part.parse().unwrap()).collect();
        let [op0, op1, crn, crm, op2, rt, read] = parts[..] else { panic!("{parts:?}") };
        let iss = op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | rt << 5 | crm << 1 | read;
        assert_eq!(a64::syndrome(word), Some(0x18 << 26 | 1 << 25 | iss), "{word:#x}");
    }
    // HVC #0x4a48, SMC #0, ERET.
    let calls = [(0xd409_4902, 0x16, 0x4a48), (0xd400_0003, 0x17, 0), (0xd69f_03e0, 0x1a, 0)];
    for (word, class, iss) in calls {
        assert_eq!(a64::syndrome(word), Some(class << 26 | 1 << 25 | iss), "{word:#x}");
    }
    // NOP, WFI, DSB SY, ISB, SVC #0, BRK #1, HLT #0, ERETAA, RET, UDF #0, ADD X0, X0, #1.
    for word in [
        0xd503_201f,
        0xd503_207f,
        0xd503_3f9f,
        0xd503_3fdf,
        0xd400_0001,
        0xd420_0020,
        0xd440_0000,
        0xd69f_0bff,
        0xd65f_03c0,
        0,
        0x9100_0400,
    ] {
        assert_eq!(a64::syndrome(word), None, "{word:#x}");
    }
}
