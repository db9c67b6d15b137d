//! Guests that write while their pages are scanned, merged, compressed, swapped, ballooned, reported and watched, for hours
//! of the board's time: [`super::memory`]'s world on a clock.
//!
//! A clock of the board's goes on by [`TICK_NS`] at a time. In each, Flatland does what its own pacing allows in that time:
//! the scanner's slices are paced by its [`Pace`], at what a page takes on a board; where memory is short, pages are put
//! away, so many every 2 ms; other pages are watched each second, thirty times as often as on a board. Guests touch pages,
//! report them and move balloons at rates that are given here; besides, they write on their own between any two steps that
//! Flatland takes. Once a minute every word of every page is compared with what its guest wrote last.
//!
//! `FLATLAND_HOURS=N` is for how long, each five minutes with other dice, as many at a time as there are CPUs:
//!
//! ```text
//! FLATLAND_HOURS=2 cargo test --release -p flatland-tests --test properties races -- --nocapture
//! ```

use super::memory::{Tally, World, live};
use flatland::policy::Pace;
use harness::model::Flaw;
use std::ops::AddAssign;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// How far the clock goes on at a time: a millisecond.
const TICK_NS: u64 = 1_000_000;
/// What the scanner takes for a page.
const SCAN_NS: u64 = 2500;
/// Pages of a slice, as in `host/overcommit.rs`.
const SLICE: u64 = 16;
/// What the scanner may take of one CPU, in percent: a tenth of what it may without a word in the manifest, as this board
/// is that much smaller.
const SCAN_CPU: u8 = 5;
/// Pages that can be scanned, which are a round.
const ROUND: u64 = 9000;
/// Pages that are put away every other tick where memory is short, as in `host/overcommit.rs`.
const AT_A_TIME: u64 = 8;
/// The seconds of a life.
const LIFE: u64 = 300;

/// How often what came to pass.
#[derive(Clone, Copy, Debug, Default)]
struct Events {
    seconds: u64,
    touched: u64,
    scanned: u64,
    merged: u64,
    zeroed: u64,
    packed: u64,
    swapped: u64,
    returned: u64,
    unshared: u64,
    balloons: u64,
    reported: u64,
    watched: u64,
    restarts: u64,
    shorts: u64,
    looked: u64,
}

impl AddAssign for Events {
    fn add_assign(&mut self, other: Self) {
        self.seconds += other.seconds;
        self.touched += other.touched;
        self.scanned += other.scanned;
        self.merged += other.merged;
        self.zeroed += other.zeroed;
        self.packed += other.packed;
        self.swapped += other.swapped;
        self.returned += other.returned;
        self.unshared += other.unshared;
        self.balloons += other.balloons;
        self.reported += other.reported;
        self.watched += other.watched;
        self.restarts += other.restarts;
        self.shorts += other.shorts;
        self.looked += other.looked;
    }
}

/// A world and its clock.
struct Life<'l, 'w> {
    world: &'l mut World<'w>,
    now_ns: u64,
    pace: Pace,
    /// What had been scanned, and given back by it, when the scanner's round began.
    round: (u64, u64),
    events: Events,
}

impl Life<'_, '_> {
    fn number(&mut self) -> usize {
        self.world.dice.below(3) as usize
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.world.dice.one_in(times)
    }

    /// What guests do in a tick.
    fn let_guests_run(&mut self) -> Result<(), String> {
        for number in 0..3 {
            self.world.touch(number)?;
            self.events.touched += 1;
        }
        if self.one_in(8) {
            self.world.twins()?;
        }
        if self.one_in(4) {
            let number = self.number();
            self.world.discard(number)?;
            self.events.reported += 1;
        }
        if self.one_in(100) {
            let number = self.number();
            self.world.balloon(number)?;
            self.events.balloons += 1;
        }
        if self.one_in(200) {
            let number = self.number();
            self.world.noise(number)?;
        }
        if self.one_in(10_000) {
            let number = self.number();
            self.world.restart(number)?;
            self.events.restarts += 1;
        }
        self.world.settle()
    }

    /// The scanner's slices that are due.
    fn scan(&mut self) -> Result<(), String> {
        let end = self.now_ns + TICK_NS;
        let mut now = self.now_ns.max(self.pace.next());
        while now < end && self.pace.may(now) {
            for _ in 0..SLICE {
                let number = self.number();
                self.world.scan(number)?;
                self.world.settle()?;
            }
            self.events.scanned += SLICE;
            now += SLICE * SCAN_NS;
            self.pace.spent(now, SLICE * SCAN_NS);
            now = self.pace.next();
        }
        let Tally { merged, zeroed, .. } = self.world.tally;
        let (scanned, given) = self.round;
        if self.events.scanned - scanned >= ROUND {
            self.pace.found(self.events.scanned - scanned, merged + zeroed - given);
            self.round = (self.events.scanned, merged + zeroed);
        }
        Ok(())
    }

    /// Where memory is short, pages are put away; now and then it is.
    fn put_away(&mut self) -> Result<(), String> {
        if self.one_in(500) {
            self.world.hoard();
            self.pace.hurry();
        }
        if self.one_in(500) {
            self.world.let_go();
        }
        let is_short = self.world.pool.lock().counts().free < 64;
        if is_short && (self.now_ns / TICK_NS).is_multiple_of(2) {
            for _ in 0..AT_A_TIME {
                let number = self.number();
                self.world.put_away(number);
            }
        }
        self.world.settle()
    }

    /// The policy's second.
    fn govern(&mut self) -> Result<(), String> {
        let (model, pool) = (self.world.model, self.world.pool);
        for number in 0..3 {
            let World { guests, dice, .. } = self.world;
            guests[number].memory.sample(model, pool, false, || dice.roll() >> 8);
            self.events.watched += u64::from(guests[number].memory.sampled().0);
        }
        self.world.settle()?;
        self.world.check()
    }

    fn go_on(&mut self) -> Result<(), String> {
        self.let_guests_run()?;
        self.scan()?;
        self.put_away()?;
        self.now_ns += TICK_NS;
        if self.now_ns.is_multiple_of(1000 * TICK_NS) {
            self.govern()?;
            self.events.seconds += 1;
            if self.events.seconds.is_multiple_of(60) {
                self.events.looked += self.world.look_at_all()?;
            }
        }
        Ok(())
    }
}

/// Lets the guests live for so many seconds. An error comes with the millisecond it was found in.
fn run(seed: u64, seconds: u64, flaw: Flaw) -> Result<Events, (u64, String)> {
    live(seed, flaw, |world| {
        let mut life = Life { world, now_ns: 0, pace: Pace::new(SCAN_CPU), round: (0, 0), events: Events::default() };
        while life.events.seconds < seconds {
            let at = life.now_ns / TICK_NS;
            life.go_on().map_err(|error| (at, error))?;
        }
        let (shorts, tally, looked) = (life.world.shorts, life.world.tally, life.world.look_at_all());
        let Tally { merged, zeroed, packed, swapped, unshared, returned, .. } = tally;
        let looked = life.events.looked + looked.map_err(|error| (seconds * 1000, error))?;
        Ok(Events { merged, zeroed, packed, swapped, unshared, returned, shorts, looked, ..life.events })
    })
}

/// For how many hours, if the environment says so.
fn hours() -> Option<u64> {
    let hours = std::env::var("FLATLAND_HOURS").ok()?;
    Some(hours.parse().expect("FLATLAND_HOURS is a number"))
}

#[test]
fn guests_that_write_to_pages_that_are_moved_keep_every_word_for_hours() {
    let (seeds, seconds) = hours().map_or((2, 2), |hours| (hours * 3600 / LIFE, LIFE));
    let at_a_time = thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(1);
    let sum = Mutex::new(Events::default());
    let live = || {
        while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed <= seeds) {
            let events = run(seed, seconds, Flaw::None).unwrap_or_else(|(ms, error)| {
                panic!("seed {seed}, after {ms} ms: {error}");
            });
            println!("seed {seed}: {events:?}");
            *sum.lock().unwrap() += events;
        }
    };
    thread::scope(|scope| (0..at_a_time).for_each(|_| drop(scope.spawn(live))));
    let sum = *sum.lock().unwrap();
    println!("{} minutes: {sum:?}", sum.seconds / 60);
    assert_eq!(sum.seconds, seeds * seconds);
    let Events { merged, zeroed, packed, swapped, unshared, returned, .. } = sum;
    assert!([merged, zeroed, packed, swapped, unshared, returned].iter().all(|n| *n > 10), "{sum:?}");
}

#[test]
fn bugs_that_are_seeded_show_within_seconds() {
    for flaw in [Flaw::Forget, Flaw::Break, Flaw::Publish] {
        let (ms, error) = run(1, 10, flaw).expect_err("a seeded bug is found");
        println!("{flaw:?}: found after {ms} ms: {error}");
    }
}
