//! Pages that are compressed, side by side with another's implementation of the same format.

use flatland::frames::lz4::{Compression, Expansion, HASHES, MOST, Outcome, PAGE, Page};
use harness::model::Dice;
use lz4_flex::block::{compress_into, decompress_into};

/// A page of one of the kinds that there are: zeroes, noise, patterns of any length, words, text, and mixtures.
fn bytes(dice: &mut Dice) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    let mut at = 0;
    while at < PAGE {
        let end = if dice.one_in(3) { PAGE } else { (at + 1 + dice.below(700) as usize).min(PAGE) };
        let kind = dice.below(6);
        let period = 1 + dice.below(40) as usize;
        for n in at..end {
            page[n] = match kind {
                0 => 0,
                1 => dice.below(256) as u8,
                2 if n >= period => page[n - period],
                3 => b"the quick brown fox jumps over "[dice.below(31) as usize],
                4 if n % 8 < 5 => dice.below(4) as u8,
                5 => (n / 64) as u8,
                _ => 0xff,
            };
        }
        at = end;
    }
    page
}

fn page(bytes: &[u8; PAGE]) -> Page {
    let mut page = Page::ZERO;
    for (n, word) in bytes.as_chunks::<8>().0.iter().enumerate() {
        page.set_word(n, u64::from_le_bytes(*word));
    }
    page
}

fn bytes_of(page: &Page) -> [u8; PAGE] {
    let mut bytes = [0; PAGE];
    for (n, word) in bytes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *word = page.words()[n].to_le_bytes();
    }
    bytes
}

/// What it is compressed to, if that is at most `most` bytes.
fn compressed(bytes: &[u8; PAGE], most: usize) -> Option<Vec<u8>> {
    let mut room = page(&[0xa5; PAGE]);
    let (page, mut table) = (page(bytes), [7; HASHES]);
    let mut compression = Compression::begin(&mut table);
    // A step does something, so that there are no more of them than bytes.
    for _ in 0..=PAGE {
        match compression.step(&page, &mut table, &mut room, most) {
            Outcome::More => {}
            Outcome::Done(length) => return Some(bytes_of(&room)[..length].to_vec()),
            Outcome::Not => return None,
        }
    }
    panic!("it does not end")
}

/// What the block expands to, if it is one.
fn expanded(block: &[u8], length: usize) -> Option<[u8; PAGE]> {
    let mut room = [0xa5; PAGE];
    room[..block.len()].copy_from_slice(block);
    let mut back = page(&[0x5a; PAGE]);
    let mut expansion = Expansion::default();
    for _ in 0..=PAGE {
        match expansion.step(&page(&room), length, &mut back) {
            Outcome::More => {}
            Outcome::Done(_) => return Some(bytes_of(&back)),
            Outcome::Not => return None,
        }
    }
    panic!("it does not end")
}

#[test]
fn what_is_compressed_expands_to_what_it_was_here_and_elsewhere() {
    let mut dice = Dice::new(1);
    let (mut ours, mut theirs, mut too_long) = (0, 0, 0);
    for _ in 0..4000 {
        let page = bytes(&mut dice);
        let mut other = [0; PAGE + 512];
        let other_length = compress_into(&page, &mut other).unwrap();
        if other_length <= PAGE {
            assert!(expanded(&other[..other_length], other_length) == Some(page), "what another compressed");
        }
        let Some(block) = compressed(&page, MOST) else {
            assert!(other_length + 40 > MOST, "it can be {other_length} bytes");
            too_long += 1;
            continue;
        };
        assert!(expanded(&block, block.len()) == Some(page));
        let mut back = [0; PAGE];
        assert_eq!(decompress_into(&block, &mut back).ok(), Some(PAGE));
        assert!(back == page, "another expands it to something else");
        (ours, theirs) = (ours + block.len(), theirs + other_length);
    }
    println!("{ours} bytes here, {theirs} elsewhere, {too_long} too long");
    assert!(ours * 100 < theirs * 103 && too_long > 10, "{ours} bytes, {theirs} elsewhere, {too_long} too long");
}

#[test]
fn what_gets_longer_than_it_may_is_given_up() {
    let mut dice = Dice::new(2);
    let mut given_up = 0;
    for _ in 0..2000 {
        let page = bytes(&mut dice);
        let Some(block) = compressed(&page, MOST) else { continue };
        for most in [block.len(), block.len() - 1, dice.below(block.len() as u64 + 100) as usize] {
            let fits = compressed(&page, most);
            assert_eq!(fits.is_some(), most >= block.len(), "{most} bytes for {}", block.len());
            given_up += u32::from(fits.is_none());
        }
    }
    assert!(given_up > 2000);
}

#[test]
fn damaged_blocks_are_refused_or_are_some_page() {
    let mut dice = Dice::new(3);
    let (mut refused, mut other) = (0, 0);
    for _ in 0..20_000 {
        let Some(mut block) = compressed(&bytes(&mut dice), MOST) else { continue };
        for _ in 0..=dice.below(3) {
            let at = dice.below(block.len() as u64) as usize;
            block[at] = dice.below(256) as u8;
        }
        let length = if dice.one_in(4) { dice.below(PAGE as u64 + 64) as usize } else { block.len() };
        let ours = expanded(&block, length);
        // What is a page here is one elsewhere, and the same.
        let mut theirs = [0; PAGE];
        let mut room = [0xa5; PAGE];
        room[..block.len()].copy_from_slice(&block);
        let is_page = decompress_into(&room[..length.min(PAGE)], &mut theirs).ok() == Some(PAGE);
        assert!(ours.is_none() || is_page, "it is no page elsewhere");
        assert!(ours.is_none_or(|ours| ours == theirs));
        (refused, other) = (refused + u32::from(ours.is_none()), other + u32::from(ours.is_some()));
    }
    assert!(refused > 1000 && other > 1000, "{refused} refused, {other} expanded");
}

#[test]
fn a_match_reaches_back_to_the_first_byte_and_no_further() {
    // Some literals, then a match of all the rest but five bytes, which are literals.
    for literals in 1..15_u8 {
        for distance in 0..20_u16 {
            let mut block = vec![literals << 4 | 15];
            block.extend((0..literals).map(|n| n + 1));
            block.extend(distance.to_le_bytes());
            let mut rest = PAGE - usize::from(literals) - 5 - 4 - 15;
            while rest >= 255 {
                block.push(255);
                rest -= 255;
            }
            block.push(rest as u8);
            block.extend([5 << 4, 9, 9, 9, 9, 9]);
            let found = expanded(&block, block.len());
            let expected = (1..=u16::from(literals)).contains(&distance).then(|| {
                let mut page = [9; PAGE];
                for n in 0..PAGE - 5 {
                    let first = usize::from(literals);
                    page[n] = if n < first { n as u8 + 1 } else { page[n - usize::from(distance)] };
                }
                page
            });
            assert!(found == expected, "{literals} literals, {distance} back");
        }
    }
}

/// How many steps it takes to expand the block, and to what.
fn steps(block: &[u8]) -> (u32, [u8; PAGE]) {
    let mut room = [0; PAGE];
    room[..block.len()].copy_from_slice(block);
    let (packed, mut back) = (page(&room), page(&[0; PAGE]));
    let mut expansion = Expansion::default();
    let mut steps = 1;
    while let Outcome::More = expansion.step(&packed, block.len(), &mut back) {
        steps += 1;
        assert!(steps < 100);
    }
    (steps, bytes_of(&back))
}

/// Sequences of a byte and 63 that are repeated: a step does as many as its share of the work, and neither all nor one.
#[test]
fn a_step_expands_many_short_sequences_and_not_all() {
    let mut block = vec![0xf0, 64 - 15];
    // And four from where the first began.
    block.extend((0..64).chain([64, 0]));
    for n in 0..61 {
        block.extend([0x1f, n, 64, 0, 63 - 4 - 15]);
    }
    block.extend([0xf0, 124 - 15]);
    block.extend(0..124);
    let (steps, back) = steps(&block);
    assert_eq!(back[..66], (0..64).chain([0, 1]).collect::<Vec<u8>>()[..]);
    assert!((3..=8).contains(&steps), "{steps} steps");
}

/// The same of sequences of 64 bytes and five that are repeated: what is copied is work, too.
#[test]
fn a_step_expands_some_long_literals_and_not_all() {
    let mut block = Vec::new();
    for n in 0..58 {
        block.extend([0xf1, 64 - 15]);
        block.extend((0..64).map(|at| at ^ n));
        block.extend([64, 0]);
    }
    block.extend([0xf0, 94 - 15]);
    block.extend(0..94);
    let (steps, back) = steps(&block);
    assert_eq!(back[69..138], (0..64).chain(0..5).map(|at| at ^ 1).collect::<Vec<u8>>()[..]);
    assert!((5..=7).contains(&steps), "{steps} steps");
}

/// A step looks at its share of a page in which there is nothing to find, ever further apart, and no more.
#[test]
fn a_step_looks_for_matches_in_a_part_of_a_page() {
    let mut dice = Dice::new(9);
    for _ in 0..50 {
        let mut bytes = [0; PAGE];
        bytes.as_chunks_mut::<8>().0.iter_mut().for_each(|word| *word = dice.roll().to_le_bytes());
        let mut room = page(&[0; PAGE]);
        let (page, mut table) = (page(&bytes), [0; HASHES]);
        let mut compression = Compression::begin(&mut table);
        let steps = (1..100).find(|_| compression.step(&page, &mut table, &mut room, MOST) != Outcome::More).unwrap();
        assert!((7..=8).contains(&steps), "{steps} steps");
    }
}
