//! Two network devices under drivers that do almost what they should: each does bounded work, stays within the memory that it was given,
//! and neither's driver breaks the other's.

use crate::engine::{Rng, count, report};
use crate::guest::{Guest, RAM, nearly};
use flatland::addr::{Addr, Ipa, Mac};
use flatland::devices::device::Device as _;
use flatland::devices::virtio::net::{Fault, Net, Wire};
use flatland::devices::virtio::queue::Chain;
use flatland::devices::virtio::{Ram, Violation};

const BYTES: usize = 1 << 15;
/// How seldom something is not as it should be.
const SELDOM: usize = 400;

struct Between<'a>(&'a mut Guest, &'a mut Guest);

impl Ram for Between<'_> {
    fn read(&mut self, at: Addr<Ipa>, into: &mut [u8]) -> Result<(), Violation> {
        self.1.read(at, into)
    }

    fn write(&mut self, at: Addr<Ipa>, bytes: &[u8]) -> Result<(), Violation> {
        self.1.write(at, bytes)
    }
}

impl Wire for Between<'_> {
    fn copy(&mut self, from: Addr<Ipa>, to: Addr<Ipa>, bytes: u32) -> Result<(), Fault> {
        assert!(bytes > 0 && bytes <= 1518, "{bytes}");
        let mut part = vec![0; bytes as usize];
        self.0.read(from, &mut part).map_err(Fault::Sender)?;
        self.1.write(to, &part).map_err(Fault::Receiver)
    }
}

fn set_up(rng: &mut Rng, net: &mut Net) {
    let size = 1 << rng.below(9);
    let features = if rng.below(4) == 0 { rng.next() & 0x3000_0023 } else { 0x3000_0023 };
    let queue = |n: u64| {
        let base = RAM + n * 0x2000;
        [(0x30, n), (0x38, size), (0x80, base), (0x90, base + 0x1000), (0xa0, base + 0x1800), (0x44, 1)]
    };
    let start = [(0x70, 0), (0x70, 3), (0x24, 1), (0x20, 1), (0x24, 0), (0x20, features), (0x70, 11)];
    for (offset, value) in start.into_iter().chain(queue(0)).chain(queue(1)).chain([(0x70, 15)]) {
        let (offset, value) = (nearly(rng, offset, SELDOM), nearly(rng, value, SELDOM));
        net.write(offset, if rng.below(300) == 0 { 1 << rng.below(4) } else { 4 }, value);
    }
}

/// Makes chains available in queue `n`, most of them of three buffers.
fn fill(rng: &mut Rng, guest: &mut Guest, n: u64, turn: u16) {
    let base = RAM + n * 0x2000;
    let writable = if n == 0 { 2 } else { 0 };
    let flags = [writable | 1, writable | 1, writable];
    for (nth, flags) in flags.into_iter().enumerate() {
        let flags = if rng.below(200) == 0 { rng.next() as u16 } else { flags };
        let length = [12, 30, 600, 1480, 13][rng.below(5)];
        let at = RAM + 0x4000 + (rng.next() & 0x2fff);
        let mut descriptor = nearly(rng, at, SELDOM).to_le_bytes().to_vec();
        descriptor.extend((nearly(rng, length, SELDOM) as u32).to_le_bytes());
        descriptor.extend(flags.to_le_bytes());
        descriptor.extend((nearly(rng, nth as u64 + 1, SELDOM) as u16).to_le_bytes());
        guest.put(base + nth as u64 * 16, &descriptor);
        if nth == 0 && at + 12 < RAM + BYTES as u64 {
            let (flags, gso) = (rng.next() as u8 & 1, u8::from(rng.below(20) == 0));
            let (start, offset) = (rng.below(60) as u8, rng.below(40) as u8);
            guest.put(at, &[flags, gso, 0, 0, 0, 0, start, 0, offset, 0, 0, 0]);
        }
    }
    for slot in 0..8 {
        let head = nearly(rng, 0, SELDOM) as u16;
        guest.put(base + 0x1004 + slot * 2, &head.to_le_bytes());
    }
    let index = if rng.below(200) == 0 { rng.next() as u16 } else { turn };
    guest.put(base + 0x1002, &index.to_le_bytes());
}

#[test]
fn hostile_drivers_cost_a_network_bounded_work_and_harm_themselves() {
    let mut rng = Rng::new("net");
    let n = count(4000);
    let (mut received, mut broken) = (0, 0);
    for _ in 0..n {
        let one = check(&mut rng);
        received += one.0;
        broken += usize::from(one.1);
    }
    assert!(received > n as u64 && broken > n / 20 && broken < n * 19 / 20, "{received} {broken} of {n}");
    report("net", n);
}

/// One life of two drivers: how many frames were received, and whether one broke the rules.
pub(crate) fn check(rng: &mut Rng) -> (u64, bool) {
    let mut nets = [1, 2].map(|n| Net::new(Mac([2, 0, 0, 0, 0, n])));
    let mut guests = [Guest::new(rng, BYTES), Guest::new(rng, BYTES)];
    nets.iter_mut().for_each(|net| set_up(rng, net));
    let mut chain = Chain::default();
    for turn in 1..12 {
        for (net, guest) in nets.iter_mut().zip(&mut guests) {
            fill(rng, guest, 0, turn);
            fill(rng, guest, 1, turn);
            net.write(0x50, 4, nearly(rng, 1, SELDOM));
            match rng.below(30) {
                0 => set_up(rng, net),
                1 => net.reset(),
                _ => {}
            }
        }
        let ([from, to], [sender, receiver]) = (&mut nets, &mut guests);
        for _ in 0..4 {
            (sender.work, receiver.work) = (0, 0);
            let was_broken = [from.broken(), to.broken()].map(|why| why.is_some());
            let next = from.next(sender, &mut chain);
            // A chain of 256 descriptors, each read by itself, and what it begins with.
            assert!(sender.work <= 600 && (!was_broken[0] || sender.work == 0), "{} accesses at once", sender.work);
            let Ok(Some(frame)) = next else { break };
            if frame.is_sound() {
                let was = to.broken();
                let ended = to.receive(&mut Between(sender, receiver), &frame, chain.readable());
                assert!(
                    ended != Err(Violation::Outside) || to.broken() == was,
                    "the sender's fault is not the receiver's"
                );
                assert!(receiver.work <= 2000 && (!was_broken[1] || receiver.work == 0), "{} at once", receiver.work);
                if ended == Err(Violation::Outside) {
                    from.fail("outside");
                }
            }
            let _ = from.sent(sender, &frame, !frame.is_sound());
        }
        nets.swap(0, 1);
        guests.swap(0, 1);
    }
    (nets.iter().map(|net| net.counts.received).sum(), nets.iter().any(|net| net.broken().is_some()))
}
