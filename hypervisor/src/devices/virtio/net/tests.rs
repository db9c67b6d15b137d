//! Network devices under drivers that do what Linux's does, and under ones that do not: frames from one's memory to another's.

use super::super::queue::{Chain, EVENT_IDX, INDIRECT_DESC, MOST as MOST_DESCRIPTORS};
use super::super::{Left, Ram, Violation};
use super::{Counts, Fault, HEADER, MOST, Net, Wire, feature};
use crate::addr::{Addr, Ipa, Mac};
use crate::devices::device::Device as _;
use alloc::vec;
use alloc::vec::Vec;

const RAM: u64 = 0x4000_0000;
/// The parts of queue n lie from here on, with a page for each queue.
const QUEUES: u64 = RAM;
const AVAILABLE: u64 = 0x400;
const USED: u64 = 0x800;
const DATA: u64 = RAM + 0x2000;
const BYTES: usize = 0x8000;
const SIZE: u64 = 8;

const ALICE: Mac = Mac([2, 0, 0, 0, 0, 1]);
const BOB: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// A guest's memory.
#[derive(Clone)]
struct Guest {
    ram: Vec<u8>,
    /// How many accesses until there is no memory to be had.
    until_short: usize,
}

impl Guest {
    fn range(&mut self, at: Addr<Ipa>, length: usize) -> Result<core::ops::Range<usize>, Violation> {
        self.until_short = self.until_short.checked_sub(1).ok_or(Violation::Short)?;
        let start = at.bits().checked_sub(RAM).ok_or(Violation::Outside)? as usize;
        if start + length > self.ram.len() { Err(Violation::Outside) } else { Ok(start..start + length) }
    }
}

impl Ram for Guest {
    fn read(&mut self, at: Addr<Ipa>, into: &mut [u8]) -> Result<(), Violation> {
        let range = self.range(at, into.len())?;
        into.copy_from_slice(&self.ram[range]);
        Ok(())
    }

    fn write(&mut self, at: Addr<Ipa>, bytes: &[u8]) -> Result<(), Violation> {
        let range = self.range(at, bytes.len())?;
        self.ram[range].copy_from_slice(bytes);
        Ok(())
    }
}

struct Between<'a> {
    from: &'a mut Guest,
    to: &'a mut Guest,
}

impl Ram for Between<'_> {
    fn read(&mut self, at: Addr<Ipa>, into: &mut [u8]) -> Result<(), Violation> {
        self.to.read(at, into)
    }

    fn write(&mut self, at: Addr<Ipa>, bytes: &[u8]) -> Result<(), Violation> {
        self.to.write(at, bytes)
    }
}

impl Wire for Between<'_> {
    fn copy(&mut self, from: Addr<Ipa>, to: Addr<Ipa>, bytes: u32) -> Result<(), Fault> {
        let mut part = vec![0; bytes as usize];
        self.from.read(from, &mut part).map_err(Fault::Sender)?;
        self.to.write(to, &part).map_err(Fault::Receiver)
    }
}

/// A guest with a driver.
#[derive(Clone)]
struct Driver {
    net: Net,
    guest: Guest,
    /// How many chains each queue was given.
    given: [u16; 2],
}

impl Driver {
    fn new(mac: Mac, features: u64) -> Self {
        let guest = Guest { ram: vec![0; BYTES], until_short: usize::MAX };
        let mut driver = Self { net: Net::new(mac), guest, given: [0; 2] };
        driver.start(features | feature::MAC);
        driver
    }

    /// Brings the device up as virtio 1.2, 3.1.1 and 4.2.3.1 have it.
    fn start(&mut self, features: u64) {
        for (offset, value) in
            [(0x70, 0), (0x70, 3), (0x24, 0), (0x20, features as u32), (0x24, 1), (0x20, 1), (0x70, 11)]
        {
            self.net.write(offset, 4, value.into());
        }
        for queue in 0..2 {
            let base = QUEUES + queue * 0x1000;
            let registers = [(0x80, base), (0x90, base + AVAILABLE), (0xa0, base + USED)];
            self.net.write(0x30, 4, queue);
            self.net.write(0x38, 4, SIZE);
            registers.into_iter().for_each(|(offset, at)| self.net.write(offset, 4, at));
            self.net.write(0x44, 4, 1);
        }
        self.net.write(0x70, 4, 15);
        self.guest.ram[..0x2000].fill(0);
        self.given = [0; 2];
        assert!(self.net.is_up());
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        let at = (at - RAM) as usize;
        self.guest.ram[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn get(&self, at: u64, length: usize) -> &[u8] {
        let at = (at - RAM) as usize;
        &self.guest.ram[at..at + length]
    }

    /// Makes a chain of these pieces of memory available, the descriptors from `first` on.
    fn offer(&mut self, queue: usize, first: u16, pieces: &[(u64, u32)], flags: u16) {
        let base = QUEUES + queue as u64 * 0x1000;
        for (n, (at, bytes)) in (first..).zip(pieces) {
            let more = usize::from(n - first) + 1 < pieces.len();
            let mut descriptor = at.to_le_bytes().to_vec();
            descriptor.extend(bytes.to_le_bytes());
            descriptor.extend((flags | u16::from(more)).to_le_bytes());
            descriptor.extend((n + 1).to_le_bytes());
            self.put(base + u64::from(n) * 16, &descriptor);
        }
        let index = self.given[queue];
        self.put(base + AVAILABLE + 4 + u64::from(index) % SIZE * 2, &first.to_le_bytes());
        self.given[queue] = index + 1;
        self.put(base + AVAILABLE + 2, &(index + 1).to_le_bytes());
        self.net.write(0x50, 4, queue as u64);
    }

    /// A buffer for a frame, in two pieces.
    fn offer_buffer(&mut self) {
        self.offer(0, 0, &[(DATA + 0x4000, 20), (DATA + 0x4800, 1600)], 2);
    }

    /// What the buffer holds: the header and the frame.
    fn received(&self, bytes: usize) -> (Vec<u8>, Vec<u8>) {
        let all = [self.get(DATA + 0x4000, 20), self.get(DATA + 0x4800, 1600)].concat();
        (all[..HEADER].to_vec(), all[HEADER..HEADER + bytes].to_vec())
    }

    fn send(&mut self, header: [u8; HEADER], frame: &[u8]) {
        let all = [&header, frame].concat();
        // In pieces that are those of no boundary.
        let cut = all.len() / 3;
        self.put(DATA, &all[..cut]);
        self.put(DATA + 0xfff, &all[cut..]);
        self.offer(1, 0, &[(DATA, cut as u32), (DATA + 0xfff, (all.len() - cut) as u32)], 0);
    }

    /// How many chains of a queue were given back, and the last one's head and bytes.
    fn used(&self, queue: u64) -> (u16, u32, u32) {
        let base = QUEUES + queue * 0x1000 + USED;
        let word = |at, n| {
            let mut bytes = [0; 4];
            bytes[..n].copy_from_slice(self.get(at, n));
            u32::from_le_bytes(bytes)
        };
        let index = word(base + 2, 2) as u16;
        let last = base + 4 + u64::from(index.wrapping_sub(1)) % SIZE * 8;
        if index == 0 { (0, 0, 0) } else { (index, word(last, 4), word(last + 4, 4)) }
    }
}

/// A frame from Alice to Bob with so many bytes behind its header.
fn frame(bytes: usize) -> Vec<u8> {
    let mut frame = [BOB.0, ALICE.0].concat();
    frame.extend([0x08, 0x00]);
    frame.extend((0..bytes).map(|n| (n * 7) as u8));
    frame
}

/// Sends all that `from` has to send to `to`. Says how many frames that were.
fn carry(from: &mut Driver, to: &mut Driver) -> Result<usize, Left> {
    carry_by(&mut Chain::default(), from, to)
}

/// The same, with the chain that is kept for that.
fn carry_by(chain: &mut Chain, from: &mut Driver, to: &mut Driver) -> Result<usize, Left> {
    let mut count = 0;
    while let Some(frame) = from.net.next(&mut from.guest, chain)? {
        if frame.is_sound() {
            let wire = &mut Between { from: &mut from.guest, to: &mut to.guest };
            if to.net.receive(wire, &frame, chain.readable()) == Err(Violation::Outside) {
                from.net.fail("outside");
            }
        }
        let refused = !frame.is_sound();
        assert_eq!(from.net.sent(&mut from.guest, &frame, refused), Left::Nothing);
        count += 1;
    }
    Ok(count)
}

const ALL: u64 = feature::CSUM | feature::GUEST_CSUM | INDIRECT_DESC;

fn both(features: u64) -> (Driver, Driver) {
    (Driver::new(ALICE, ALL), Driver::new(BOB, features))
}

#[test]
fn a_frame_goes_from_memory_to_memory_and_both_have_their_chains_back() {
    for bytes in [0, 1, 46, 500, 1500, 1504] {
        let (mut alice, mut bob) = both(ALL);
        bob.offer_buffer();
        alice.send([0; HEADER], &frame(bytes));
        assert_eq!(carry(&mut alice, &mut bob), Ok(1));
        let (header, got) = bob.received(bytes + 14);
        assert_eq!(got, frame(bytes));
        assert_eq!(header, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], "one buffer");
        assert_eq!(alice.used(1), (1, 0, 0));
        assert_eq!(bob.used(0), (1, 0, (bytes + 14 + HEADER) as u32));
        assert!(alice.net.line() && bob.net.line());
        let n = bytes as u64 + 14;
        assert_eq!(alice.net.counts, Counts { sent: 1, sent_bytes: n, ..Counts::default() });
        assert_eq!(bob.net.counts, Counts { received: 1, received_bytes: n, ..Counts::default() });
    }
}

#[test]
fn who_has_no_buffer_or_one_that_is_too_small_loses_the_frame_and_nobody_waits() {
    let (mut alice, mut bob) = both(ALL);
    alice.send([0; HEADER], &frame(100));
    assert_eq!(carry(&mut alice, &mut bob), Ok(1));
    bob.offer(0, 0, &[(DATA + 0x4000, 100)], 2);
    alice.send([0; HEADER], &frame(100));
    assert_eq!(carry(&mut alice, &mut bob), Ok(1));
    assert_eq!((bob.net.counts.dropped, bob.used(0).0, alice.used(1).0), (2, 0, 2));
    // The buffer is for the next that fits in.
    alice.send([0; HEADER], &frame(40));
    assert_eq!(carry(&mut alice, &mut bob), Ok(1));
    assert_eq!((bob.net.counts.received, bob.used(0)), (1, (1, 0, 66)));
    // Nor who is not up.
    bob.net.write(0x70, 4, 0);
    alice.send([0; HEADER], &frame(40));
    assert_eq!(carry(&mut alice, &mut bob), Ok(1));
    assert_eq!((bob.net.counts.received, bob.net.counts.dropped, alice.used(1).0), (1, 2, 4));
}

/// The checksum of RFC 1071, of all of `bytes`.
fn sum_of(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let sum: u64 = words.map(u64::from).sum();
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[test]
fn a_checksum_is_left_to_who_takes_it_so_and_completed_for_others() {
    for bytes in [22, 23, 777, 1500] {
        for features in [ALL, INDIRECT_DESC] {
            let (mut alice, mut bob) = both(features);
            bob.offer_buffer();
            let mut sent = frame(bytes);
            // As TCP has it: over all from byte 18 on, at byte 16 of that, where the sum of the pseudo header is.
            sent[34..36].copy_from_slice(&[0x12, 0x34]);
            let header = [1, 0, 0, 0, 0, 0, 18, 0, 16, 0, 0, 0];
            alice.send(header, &sent);
            assert_eq!(carry(&mut alice, &mut bob), Ok(1));
            let (got_header, got) = bob.received(bytes + 14);
            if features & feature::GUEST_CSUM != 0 {
                assert_eq!((got_header[0], &got_header[6..10], &got), (1, &[18, 0, 16, 0][..], &sent));
                continue;
            }
            assert_eq!(got_header[..10], [0; 10]);
            // What was left there counts as a part of the sum: with it replaced by the complement all add up to ones.
            let mut expected = sent.clone();
            let sum = !sum_of(&sent[18..]);
            expected[34..36].copy_from_slice(&sum.to_be_bytes());
            assert_eq!(got, expected, "{bytes}");
        }
    }
}

#[test]
fn what_is_no_frame_goes_nowhere_and_its_chain_comes_back() {
    let long = frame(MOST as usize - 13);
    let good = frame(100);
    let short = &good[..13];
    let header = |flags: u8, gso: u8, start: u16, offset: u16| {
        let ([a, b], [c, d]) = (start.to_le_bytes(), offset.to_le_bytes());
        [flags, gso, 0, 0, 0, 0, a, b, c, d, 0, 0]
    };
    let cases: [([u8; HEADER], &[u8]); 6] = [
        ([0; HEADER], &long),
        ([0; HEADER], short),
        // Segmentation was not agreed on; a checksum that lies behind the frame.
        (header(0, 1, 0, 0), &good),
        (header(1, 0, 112, 1), &good),
        (header(1, 0, 0xffff, 0xffff), &good),
        (header(1, 0, 115, 0), &good),
    ];
    for (header, frame) in cases {
        let (mut alice, mut bob) = both(ALL);
        bob.offer_buffer();
        alice.send(header, frame);
        assert_eq!(carry(&mut alice, &mut bob), Ok(1), "{header:?}");
        assert_eq!((alice.net.counts.refused, alice.used(1).0, bob.used(0).0), (1, 1, 0), "{header:?}");
    }
    // A checksum that just fits; and one by who has not agreed to leave any.
    for (features, refused) in [(ALL, 0), (INDIRECT_DESC, 1)] {
        let (mut alice, mut bob) = (Driver::new(ALICE, features), Driver::new(BOB, ALL));
        bob.offer_buffer();
        alice.send(header(1, 0, 112, 0), &good);
        assert_eq!(carry(&mut alice, &mut bob), Ok(1));
        assert_eq!(alice.net.counts.refused, refused);
    }
}

#[test]
fn a_broken_queue_is_its_owners_own() {
    // The sender's buffer is not in RAM: the receiver keeps his buffer.
    let (mut alice, mut bob) = both(ALL);
    bob.offer_buffer();
    alice.put(DATA, &[[0; HEADER].as_slice(), &frame(20)].concat());
    alice.offer(1, 0, &[(DATA, 46), (RAM - 8, 8)], 0);
    assert_eq!(carry(&mut alice, &mut bob), Ok(1));
    assert!(alice.net.broken().is_some() && bob.net.broken().is_none());
    assert_eq!(bob.used(0).0, 0);
    // The receiver's is not: the sender has his chain back.
    let (mut alice, mut bob) = both(ALL);
    bob.offer(0, 0, &[(DATA + 0x4000, 12), (RAM + BYTES as u64 - 10, 2000)], 2);
    alice.send([0; HEADER], &frame(100));
    assert_eq!(carry(&mut alice, &mut bob), Ok(1));
    assert!(alice.net.broken().is_none() && bob.net.broken().is_some());
    assert_eq!((alice.used(1).0, bob.used(0).0), (1, 0));
    // Until it is started anew.
    bob.start(ALL);
    bob.offer_buffer();
    alice.send([0; HEADER], &frame(100));
    assert_eq!((carry(&mut alice, &mut bob), bob.used(0).0), (Ok(1), 1));
    // Tables of descriptors that lead nowhere.
    let (mut alice, mut bob) = both(ALL);
    alice.offer(1, 0, &[(DATA, 46)], 4);
    assert_eq!(carry(&mut alice, &mut bob), Ok(0));
    assert!(alice.net.broken().is_some());
}

#[test]
fn where_memory_is_short_the_sender_goes_on_later_and_a_receiver_loses() {
    let mut accesses = 0;
    loop {
        let (mut alice, mut bob) = both(ALL | EVENT_IDX);
        bob.offer_buffer();
        alice.send([0; HEADER], &frame(300));
        // The sender's, at each access of it: all is as it would have been.
        alice.guest.until_short = accesses;
        let mut chain = Chain::default();
        match alice.net.next(&mut alice.guest, &mut chain) {
            Err(Left::Stuck) => assert!(alice.net.has_work()),
            Ok(Some(_)) => break,
            other => panic!("{other:?}"),
        }
        alice.guest.until_short = usize::MAX;
        assert_eq!(carry_by(&mut chain, &mut alice, &mut bob), Ok(1), "{accesses}");
        assert_eq!((alice.used(1).0, bob.used(0).0, bob.received(314).1), (1, 1, frame(300)));
        accesses += 1;
    }
    assert!(accesses > 3);
    for accesses in 0.. {
        let (mut alice, mut bob) = both(ALL | EVENT_IDX);
        bob.offer_buffer();
        alice.send([0; HEADER], &frame(300));
        bob.guest.until_short = accesses;
        assert_eq!(carry(&mut alice, &mut bob), Ok(1));
        bob.guest.until_short = usize::MAX;
        let lost = bob.net.counts.dropped;
        if lost == 0 {
            assert!(accesses > 6);
            break;
        }
        // What could not be told of is, with the next; what was lost is lost, and its buffer there for others.
        bob.offer_buffer();
        alice.send([0; HEADER], &frame(200));
        assert_eq!(carry(&mut alice, &mut bob), Ok(1));
        assert!(bob.used(0).0 >= 1, "after {accesses}");
        assert_eq!(alice.used(1).0, 2);
    }
}

#[test]
fn nothing_of_a_frame_comes_back_after_a_reset() {
    let (mut alice, mut bob) = both(ALL);
    bob.offer_buffer();
    alice.send([0; HEADER], &frame(60));
    let mut chain = Chain::default();
    let on_its_way = alice.net.next(&mut alice.guest, &mut chain).unwrap().unwrap();
    alice.start(ALL);
    assert_eq!(alice.net.sent(&mut alice.guest, &on_its_way, false), Left::Nothing);
    assert_eq!(alice.used(1).0, 0, "it is of another life");
    // Nor is a buffer used that was taken before.
    alice.send([0; HEADER], &frame(1500));
    bob.start(ALL);
    bob.offer(0, 0, &[(DATA + 0x4000, 60)], 2);
    assert_eq!(carry(&mut alice, &mut bob), Ok(1));
    bob.start(ALL);
    alice.send([0; HEADER], &frame(20));
    assert_eq!(carry(&mut alice, &mut bob), Ok(1));
    assert_eq!((bob.used(0).0, bob.net.counts.dropped), (0, 2));
}

#[test]
fn a_driver_finds_the_address_and_what_is_offered() {
    let net = Net::new(Mac([0x52, 0x54, 1, 2, 3, 0xff]));
    let bytes: Vec<u64> = (0x100..0x106).map(|at| net.read(at, 1)).collect();
    assert_eq!(bytes, [0x52, 0x54, 1, 2, 3, 0xff]);
    assert_eq!((net.read(0x106, 2), net.read(8, 4)), (0, 1));
    assert_eq!(net.read(0x34, 4), u64::from(MOST_DESCRIPTORS));
    let mut net = net;
    net.write(0x14, 4, 0);
    assert_eq!(net.read(0x10, 4), feature::CSUM | feature::GUEST_CSUM | feature::MAC | INDIRECT_DESC | EVENT_IDX);
    net.reset();
    assert!(!net.is_up() && !net.line());
}
