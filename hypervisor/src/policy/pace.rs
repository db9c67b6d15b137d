//! How fast pages are scanned for merging: [`Pace`], a share of one CPU's time, less when little is found.
//!
//! A token bucket that holds one slice: after a slice the scanner rests until the slice is no more than its percentage of
//! the time since it began. Rest that is not asked for is not saved up, as it would be paid back in one piece while a guest
//! waits.

/// The longest rest is that of a budget divided by 2 to this.
const SLOWEST: u32 = 4;
/// A round that merges less than one page in so many has found little.
const LITTLE: u64 = 1024;
/// A round that merges one page in so many, or more, has found much.
const MUCH: u64 = 64;

/// The pacing of the scanner. Times are ticks of the system counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    percent: u8,
    /// The budget is divided by 2 to this.
    halved: u32,
    /// When the next slice may begin: never, of nothing.
    next: u64,
}

impl Pace {
    /// A scanner that may take `percent` of one CPU; 0: it never scans.
    pub const fn new(percent: u8) -> Self {
        let next = if percent == 0 { u64::MAX } else { 0 };
        Self { percent: if percent > 100 { 100 } else { percent }, halved: 0, next }
    }

    /// Whether a slice may begin.
    pub const fn may(&self, now: u64) -> bool {
        now >= self.next
    }

    /// When the next slice may begin.
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// Accounts for a slice of `ticks` that ended `now`.
    pub fn spent(&mut self, now: u64, ticks: u64) {
        let budget = u64::from(self.percent).max(1);
        let rest = (ticks / budget).saturating_mul((100 << self.halved) - budget);
        let part = ticks % budget * ((100 << self.halved) - budget) / budget;
        self.next = self.next.max(now).saturating_add(rest).saturating_add(part);
    }

    /// Learns from a round: of all pages there are to scan, `scanned`, `merged` could be merged. Slows down by half if that
    /// is little, goes twice as fast if it is not, and as fast as it may if it is much.
    pub fn found(&mut self, scanned: u64, merged: u64) {
        self.halved = match merged {
            much if much > 0 && much >= scanned / MUCH => 0,
            little if little <= scanned / LITTLE => SLOWEST.min(self.halved + 1),
            _ => self.halved.saturating_sub(1),
        };
    }

    /// Goes as fast as it may: memory is short, or something was found out of turn.
    pub fn hurry(&mut self) {
        self.halved = 0;
    }

    /// The percentage of one CPU it takes now, in hundredths.
    pub fn percent_hundredths(&self) -> u32 {
        (u32::from(self.percent) * 100) >> self.halved
    }
}

#[cfg(test)]
mod tests {
    use super::Pace;

    /// The ticks of a million that go to slices of `slice`.
    fn taken(pace: &mut Pace, slice: u64) -> u64 {
        let (mut now, mut taken) = (5_000_000, 0);
        while now < 6_000_000 {
            if pace.may(now) {
                now += slice;
                taken += slice;
                pace.spent(now, slice);
            }
            now += 1;
        }
        pace.next = 0;
        taken
    }

    #[test]
    fn slices_take_their_percentage() {
        for (percent, want) in [(0, 0), (1, 10_000), (20, 200_000), (100, 1_000_000)] {
            let got = taken(&mut Pace::new(percent), 1000);
            assert!(got.abs_diff(want) <= 2000, "{percent} %: {got}");
        }
    }

    #[test]
    fn of_nothing_no_slice_ever_begins() {
        let mut pace = Pace::new(0);
        pace.hurry();
        pace.found(100_000, 5000);
        assert_eq!((pace.next(), pace.may(u64::MAX - 1)), (u64::MAX, false));
        assert_eq!((Pace::new(1).next(), Pace::new(1).may(0)), (0, true));
    }

    #[test]
    fn who_finds_little_slows_down_to_a_sixteenth_and_comes_back() {
        let mut pace = Pace::new(20);
        (0..9).for_each(|_| pace.found(100_000, 50));
        assert_eq!(pace.percent_hundredths(), 125);
        assert!(taken(&mut pace, 1000).abs_diff(12_500) <= 1000);
        pace.found(100_000, 200);
        assert_eq!(pace.percent_hundredths(), 250, "some: twice as fast");
        pace.found(100_000, 5000);
        assert_eq!(pace.percent_hundredths(), 2000, "much: full speed");
        pace.found(100, 0);
        pace.hurry();
        assert_eq!(pace.percent_hundredths(), 2000, "memory is short");
    }
}
