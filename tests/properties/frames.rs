//! The pool against a set of what is held.

use flatland::addr::{Addr, Pa, Size, VmId};
use flatland::frames::hints::Match;
use flatland::frames::pool::{MAX_OWNERS, Stretch, Unusable};
use flatland::frames::{Dirty, Frame, FrameState, HYPERVISOR, Order, Pool, Record, Use};
use harness::model::Dice;
use std::collections::BTreeMap;
use std::mem::ManuallyDrop;

/// Three stretches, odd at the ends, two of them touching; the last has room for a whole 1 GiB.
fn ram() -> Vec<Stretch> {
    let at = |start: u64, end: u64| (Addr::new(start), end - start);
    vec![at(0x1000, 0x0230_0000), at(0x0230_0000, 0x0a00_0800), at(0x4000_0000, 0x9012_3000)]
}

fn records(ram: &[Stretch]) -> Vec<Record> {
    vec![Record::RESERVED; Pool::records_for(ram).unwrap()]
}

struct Held {
    /// Not dropped when a test fails, which would be a second failure on top of it.
    frame: ManuallyDrop<Frame<Dirty>>,
    owner: VmId,
    state: FrameState,
}

/// Marks each frame of a run as held by nobody else.
fn hold(all: &mut BTreeMap<u64, u64>, start: Addr<Pa>, order: Order) {
    let end = start.bits() + order.bytes();
    let before = all.range(..end).next_back();
    assert!(before.is_none_or(|(_, &before)| before <= start.bits()), "{start:?} {order:?} is held twice");
    all.insert(start.bits(), end);
}

#[test]
fn no_frame_has_two_holders_and_all_come_together_again() {
    let (ram, mut dice) = (ram(), Dice::new(7));
    let mut records = records(&ram);
    let mut pool = Pool::new(&mut records, &ram).unwrap();
    assert_eq!(pool.counts().free, 0);
    let donated: u64 = ram.iter().map(|&stretch| pool.donate(stretch)).sum();
    // 0x0a00_0800 ends within a frame.
    assert_eq!(donated, (0x0a00_0000 - 0x1000 + 0x5012_3000) / 4096);
    let start = (*pool.free_runs(), pool.check().unwrap());
    let mut held: Vec<Held> = Vec::new();
    let mut extents = BTreeMap::new();
    let mut refused = 0;
    let steps = 40_000;
    for step in 0..steps {
        if held.is_empty() || dice.one_in(2) {
            let order = match dice.below(40) {
                0 => Order::MAX,
                1..6 => Order::from(Size::Block),
                6..12 => Order::new(dice.below(19) as u8).unwrap(),
                _ => Order::PAGE,
            };
            let owner = dice.pick(&[VmId(0), VmId(1), VmId(63), HYPERVISOR]);
            let purpose = dice.pick(&[Use::Guest, Use::Table, Use::Hypervisor]);
            match pool.take(order, owner, purpose) {
                Some(frame) => {
                    assert_eq!(frame.start().bits() % order.bytes(), 0);
                    hold(&mut extents, frame.start(), order);
                    let frame = ManuallyDrop::new(frame);
                    held.push(Held { frame, owner, state: purpose.state() });
                }
                None => refused += 1,
            }
        } else {
            let index = dice.below(held.len() as u64) as usize;
            let Held { frame, owner, state } = held.swap_remove(index);
            extents.remove(&frame.start().bits());
            give(&mut pool, &mut dice, ManuallyDrop::into_inner(frame), owner, state);
        }
        if step % 2000 == 0 {
            check(&pool, &held);
        }
    }
    println!("{steps} steps, {refused} refused, {} held at the end", held.len());
    assert!(refused > 100);
    held.drain(..).for_each(|Held { frame, owner, state }| {
        give(&mut pool, &mut dice, ManuallyDrop::into_inner(frame), owner, state)
    });
    assert_eq!((*pool.free_runs(), pool.check().unwrap()), start);
}

/// Gives a run back whole, or frame by frame.
fn give(pool: &mut Pool<'_>, dice: &mut Dice, frame: Frame<Dirty>, owner: VmId, state: FrameState) {
    let (start, order) = (frame.start(), frame.order());
    assert_eq!(pool.record(start).map(|r| (r.state(), r.owner(), r.refs())), Some((state, Some(owner), 1)));
    if order > Order::from(Size::Block) || dice.one_in(2) {
        pool.give_back(frame);
        return;
    }
    // The address is left in the records as a table would keep it.
    std::mem::forget(frame);
    if dice.one_in(2) {
        assert!(pool.free_held(start, order, owner), "all of it is held");
        return;
    }
    for part in 0..order.frames() {
        assert!(pool.free_held(start + part * 4096, Order::PAGE, owner), "each frame is held");
    }
}

fn check(pool: &Pool<'_>, held: &[Held]) {
    let counts = pool.check().unwrap();
    let of =
        |state: FrameState| held.iter().filter(|h| h.state == state).map(|h| h.frame.order().frames()).sum::<u64>();
    assert_eq!(
        (counts.guest, counts.table, counts.hypervisor),
        (of(FrameState::Guest), of(FrameState::Table), of(FrameState::Hypervisor))
    );
    assert_eq!(counts.total, counts.reserved + counts.free + counts.guest + counts.table + counts.hypervisor);
    for owner in [VmId(0), VmId(1), VmId(2), VmId(63), HYPERVISOR] {
        let frames: u64 = held.iter().filter(|h| h.owner == owner).map(|h| h.frame.order().frames()).sum();
        assert_eq!(pool.owned_by(owner), frames);
    }
}

#[test]
fn what_contradicts_the_records_is_refused_and_counted() {
    let ram = [(Addr::new(0), 64 << 12)];
    let mut records = records(&ram);
    let mut pool = Pool::new(&mut records, &ram).unwrap();
    pool.donate(ram[0]);
    let frame = pool.take(Size::Page, VmId(1), Use::Guest).unwrap();
    let at = frame.start();
    let other = pool.take(Size::Page, VmId(2), Use::Guest).unwrap();
    assert!(!pool.free_held(at, Size::Page, VmId(2)), "another's");
    assert!(!pool.free_held(at, Order::new(1).unwrap(), VmId(1)), "the half of it is another's");
    assert!(!pool.free_held(at, Size::Block, VmId(1)), "larger than RAM");
    assert!(!pool.free_held(at + 8, Size::Page, VmId(1)), "no frame");
    assert!(!pool.free_held(Addr::new(1 << 40), Size::Page, VmId(1)), "no RAM");
    assert_eq!(pool.check().unwrap().guest, 2, "nothing is done");
    assert!(pool.free_held(at, Size::Page, VmId(1)));
    assert!(!pool.free_held(at, Size::Page, VmId(1)), "it is free already");
    pool.give_back(frame);
    pool.give_back(other);
    assert_eq!(pool.counts().contradictions, 7);
    assert_eq!(pool.check().unwrap().free, 64);
    assert!(pool.take(Size::Page, VmId(MAX_OWNERS as u16), Use::Guest).is_none(), "nobody's");
}

#[test]
fn a_board_that_cannot_be_is_refused() {
    let at = |start, bytes| (Addr::new(start), bytes);
    let mut records = vec![Record::RESERVED; 4096];
    let mut new = |ram: &[Stretch]| Pool::new(&mut records, ram).map(|pool| pool.counts().total);
    assert_eq!(new(&[at(0, 1 << 20), at(1 << 19, 1 << 20)]), Err(Unusable::Overlap));
    assert_eq!(new(&[at(u64::MAX - 4096, 1 << 20)]), Err(Unusable::Overlap));
    assert_eq!(new(&[at(0, 1 << 30)]), Err(Unusable::Records));
    assert_eq!(new(&[at(0, 1 << 50)]), Err(Unusable::TooMuch));
    assert_eq!(new(&[at(0x800, 0x1000), at(0x10_0000, 0x1fff)]), Ok(1));
}

#[test]
fn what_is_donated_twice_is_taken_once() {
    let ram = [(Addr::new(0x10_0000), 300 << 12)];
    let mut records = records(&ram);
    let mut pool = Pool::new(&mut records, &ram).unwrap();
    assert_eq!(pool.donate((Addr::new(0x10_0000 + (7 << 12)), 100 << 12)), 100);
    assert_eq!(pool.donate((Addr::new(0), 1 << 40)), 200);
    let counts = pool.check().unwrap();
    assert_eq!((counts.free, counts.reserved), (300, 0));
}

#[test]
fn frames_of_one_content_and_domain_are_nominated_to_each_other() {
    let ram = [(Addr::new(0x10_0000), 256 << 12)];
    let mut records = records(&ram);
    let mut pool = Pool::new(&mut records, &ram).unwrap();
    pool.donate(ram[0]);
    // Two VMs of one domain, and one of another.
    for (vm, domain) in [(1, 5), (2, 5), (3, 6)] {
        pool.set_domain(VmId(vm), domain);
    }
    let take = |pool: &mut Pool<'_>, vm, purpose| {
        let frame = pool.take(Size::Page, VmId(vm), purpose).unwrap();
        let at = frame.start();
        std::mem::forget(frame);
        at
    };
    let hash = 0x1234_5678_9abc_def0;
    let [one, two, three] = [1, 2, 3].map(|vm| take(&mut pool, vm, Use::Guest));
    let table = take(&mut pool, 1, Use::Table);
    assert_eq!(pool.visit(one, 7, hash), None, "the first");
    assert_eq!(pool.visit(one, 7, hash), None, "not to itself");
    assert_eq!(pool.visit(two, 9, hash), Some(Match::Hint(VmId(1), 7)));
    assert_eq!(pool.visit(three, 3, hash), None, "another domain");
    assert_eq!(pool.visit(two, 9, hash ^ 1), None, "another content");
    assert_eq!(pool.visit(two, 9, hash), Some(Match::Hint(VmId(1), 7)));
    assert_eq!(pool.visit(table, 1, hash), None, "no guest's");
    assert_eq!(pool.visit(Addr::new(1 << 40), 1, hash), None, "no RAM");

    assert!(!pool.share(one, VmId(2), hash), "another's");
    assert!(!pool.share(table, VmId(1), hash), "no guest's");
    assert!(!pool.share(Addr::new(1 << 40), VmId(1), hash), "no RAM");
    assert_eq!((pool.sharers(), pool.counts().shared), (0, 0));
    assert!(pool.share(one, VmId(1), hash));
    assert!(!pool.share(one, VmId(1), hash), "it is shared already");
    assert_eq!(pool.visit(two, 9, hash), Some(Match::Shared(one)));
    assert_eq!(pool.visit(three, 3, hash), None, "another domain");
    assert!(!pool.acquire(one, VmId(3)) && !pool.acquire(two, VmId(1)) && pool.acquire(one, VmId(2)));
    assert_eq!((pool.sharers(), pool.saved(), pool.counts().shared), (2, 1, 1));
    assert!(!pool.unshare(one, VmId(2)), "two name it");
    pool.release(one);
    assert!(pool.unshare(one, VmId(2)));
    assert_eq!((pool.sharers(), pool.counts().shared, pool.owned_by(VmId(2))), (0, 0, 2));

    // Contents of which there are more than a chain has links are found all the same.
    let hashes: Vec<u64> = (0..60).map(|n| n << 58 | 1).collect();
    for (page, hash) in hashes.iter().enumerate() {
        let at = take(&mut pool, 1, Use::Guest);
        assert_eq!(pool.visit(at, page as u32, *hash), None);
    }
    for (page, hash) in hashes.iter().enumerate() {
        let at = take(&mut pool, 2, Use::Guest);
        assert_eq!(pool.visit(at, 1, *hash), Some(Match::Hint(VmId(1), page as u32)), "{hash:#x}");
    }
    pool.check().unwrap();
}

/// A frame that changes from scan to scan is read ever less often, and as often as any other once it has kept still.
#[test]
fn a_restless_frame_is_passed_by() {
    let ram = [(Addr::new(0x10_0000), 64 << 12)];
    let mut records = records(&ram);
    let mut pool = Pool::new(&mut records, &ram).unwrap();
    pool.donate(ram[0]);
    let frame = pool.take(Size::Page, VmId(1), Use::Guest).unwrap();
    let at = frame.start();
    std::mem::forget(frame);
    let passed = |pool: &mut Pool<'_>| (0..100).find(|_| pool.is_due(at)).unwrap();
    assert_eq!(passed(&mut pool), 0);
    let mut skips = Vec::new();
    for hash in 1..6 {
        assert_eq!(pool.visit(at, 8, hash), None);
        skips.push(passed(&mut pool));
    }
    assert_eq!(skips, [0, 1, 3, 7, 7]);
    assert_eq!(pool.visit(at, 8, 5), None);
    assert_eq!(passed(&mut pool), 0);
    assert_eq!(pool.visit(at, 8, 6), None);
    assert_eq!(passed(&mut pool), 1, "as if for the first time");
}

/// What has come out of its chain is found no more; whoever asks for it gets to know whether that was work.
#[test]
fn contents_that_are_forgotten_are_not_found() {
    let ram = [(Addr::new(0x10_0000), 64 << 12)];
    let mut records = records(&ram);
    let mut pool = Pool::new(&mut records, &ram).unwrap();
    pool.donate(ram[0]);
    let frame = pool.take(Order::holding(4).unwrap(), VmId(1), Use::Guest).unwrap();
    let first = frame.start();
    std::mem::forget(frame);
    let at = |n: u64| first + n * 4096;
    assert_eq!((pool.visit(at(1), 7, 5), pool.visit(at(3), 8, 5)), (None, Some(Match::Hint(VmId(1), 7))));
    assert!(!pool.forget_contents(at(0), 1) && !pool.forget_contents(at(2), 1), "they hang in none");
    assert!(pool.forget_contents(at(0), 2));
    assert!(!pool.forget_contents(at(0), 2), "again");
    assert_eq!(pool.visit(at(2), 9, 5), Some(Match::Hint(VmId(1), 8)));
    assert!(pool.forget_contents(at(0), 4) && !pool.forget_contents(at(0), 4));
}

/// No chain has more than so many frames: those that have no place in it are as if they had not been read.
#[test]
fn a_chain_is_no_longer_than_it_may_be() {
    const MOST_LINKS: usize = 24;
    let ram = [(Addr::new(0x10_0000), 64 << 12)];
    let mut records = records(&ram);
    let mut pool = Pool::new(&mut records, &ram).unwrap();
    pool.donate(ram[0]);
    let frames: Vec<_> = (0..60)
        .map(|_| {
            let frame = pool.take(Size::Page, VmId(1), Use::Guest).unwrap();
            let at = frame.start();
            std::mem::forget(frame);
            at
        })
        .collect();
    for hash in [5, 6] {
        for at in &frames {
            let _ = pool.visit(*at, 7, hash);
        }
    }
    // Those that had a place are restless by now.
    assert_eq!(frames.iter().filter(|at| !pool.is_due(**at)).count(), MOST_LINKS);
}

#[test]
fn what_the_bundle_has_is_everybodys_to_read_and_stays() {
    let ram = [(Addr::new(0x10_0000), 64 << 12)];
    let mut records = records(&ram);
    let mut pool = Pool::new(&mut records, &ram).unwrap();
    // What begins and ends within a frame is not whole, and what is donated already not the bundle's.
    pool.donate((Addr::new(0x12_0000), 32 << 12));
    assert_eq!(pool.adopt((Addr::new(0x11_e000), 4 << 12)), 2);
    assert_eq!(pool.adopt((Addr::new(0x11_e000), 4 << 12)), 0, "they are");
    let counts = pool.counts();
    assert_eq!((pool.adopted(), pool.sharers(), counts.shared, counts.reserved), (2, 2, 2, 30));
    let at = Addr::new(0x11_f000);
    assert!(pool.acquire(at, VmId(1)) && pool.acquire(at, VmId(63)), "of whichever domain");
    assert!(!pool.acquire(Addr::new(0x12_0000), VmId(1)), "it is free");
    pool.release(at);
    pool.release(at);
    assert!(!pool.unshare(at, VmId(1)), "the bundle keeps its claim");
    assert_eq!((pool.sharers(), pool.saved()), (2, 0));
    pool.check().unwrap();
}

#[test]
fn a_page_that_keeps_changing_is_passed_by_longer_and_longer() {
    let ram = [(Addr::new(0x10_0000), 64 << 12)];
    let mut records = records(&ram);
    let mut pool = Pool::new(&mut records, &ram).unwrap();
    pool.donate(ram[0]);
    let frame = pool.take(Size::Page, VmId(1), Use::Guest).unwrap();
    let at = frame.start();
    let passed = |pool: &mut Pool<'_>| (0..20).take_while(|_| !pool.is_due(at)).count();
    for (hash, times) in [(1, 0), (2, 1), (3, 3), (4, 7), (5, 7), (5, 0), (6, 1)] {
        let _ = pool.visit(at, 3, hash << 32 | hash);
        assert_eq!(passed(&mut pool), times, "after content {hash}");
        assert!(pool.is_due(at), "and then it is due until it is looked at");
    }
    assert!(!pool.is_due(Addr::new(0x11_0000)), "free");
    pool.give_back(frame);
}
