//! gzip: whatever the stream is, pieces come in order and of bounded length, and what is packed comes out again.

use crate::engine::{Rng, count, report, run};
use flatland::bundle::gzip::{PIECE, WINDOW, Workspace, claimed_len, head, pack, unpack};

/// Bytes of some order, so that they compress to something.
fn text(rng: &mut Rng, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        if bytes.is_empty() || rng.below(3) == 0 {
            bytes.push(rng.next() as u8);
        } else {
            let from = rng.below(bytes.len());
            let end = (from + rng.below(100)).min(bytes.len());
            let copy = bytes[from..end].to_vec();
            bytes.extend_from_slice(&copy);
        }
    }
    bytes.truncate(len);
    bytes
}

fn seeds() -> Vec<Vec<u8>> {
    let mut rng = Rng::new("texts");
    let mut seeds: Vec<Vec<u8>> = [0, 1, 100, 3000].map(|len| pack(&text(&mut rng, len))).into();
    let mut full = pack(b"with all optional fields");
    full[3] = 0b1_1110;
    full.splice(10..10, *b"\x03\x00xyzname\0comment\0\x12\x34");
    seeds.push(full);
    // Fixed-code and stored blocks by hand, a block of no kind, a bomb, and headers cut off in every field.
    let header = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    for body in [&[0x03, 0x00][..], &[1, 1, 0, 0xfe, 0xff, 7], &[1, 1, 0, 0, 0, 7], &[0x07], &[0xff; 30]] {
        seeds.push([&header[..], body, &[0; 8]].concat());
    }
    seeds.push(pack(&vec![0; 1 << 20]));
    seeds.push(vec![0x1f, 0x8b]);
    seeds.push(vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    seeds.push(vec![0x1f, 0x8b, 8, 2, 0, 0, 0, 0, 0, 0]);
    seeds.push([&[0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 0][..], &[b'x'; 100]].concat());
    seeds
}

#[test]
fn no_stream_gives_more_than_it_says_or_out_of_order() {
    run("gzip", 60_000, &seeds(), check);
}

/// One stream.
pub(crate) fn check(input: &[u8], _: &mut Rng) {
    let mut workspace = Workspace::new();
    let shown = head(input, &mut workspace).map(<[u8]>::to_vec);
    let mut total = 0;
    let mut start = Vec::new();
    let outcome = unpack(input, &mut workspace, |at, piece| {
        assert_eq!(at, total);
        assert!((1..=PIECE).contains(&piece.len()));
        start.extend(piece.iter().take(WINDOW - start.len().min(WINDOW)));
        total += piece.len() as u64;
        Ok::<(), ()>(())
    });
    // Deflate cannot make more than 1032 bytes of one.
    assert!(total <= input.len() as u64 * 1032 + 1032);
    if outcome.is_ok() {
        assert_eq!(claimed_len(input), Some(total));
        assert_eq!(shown, Ok(start));
    }
}

#[test]
fn what_is_packed_comes_out_again() {
    let mut rng = Rng::new("pack");
    let mut workspace = Workspace::new();
    let count = count(500).min(5000);
    for _ in 0..count {
        let len = rng.below(3 * WINDOW);
        let bytes = text(&mut rng, len);
        let mut out = Vec::new();
        unpack(&pack(&bytes), &mut workspace, |_, piece| {
            out.extend_from_slice(piece);
            Ok::<(), ()>(())
        })
        .expect("is valid");
        assert!(out == bytes);
    }
    report("gzip there and back", count);
}
