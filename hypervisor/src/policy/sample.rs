//! How much of its memory a VM uses: [`Estimator`], from a few pages picked at random.
//!
//! In each period, [`PERIOD_MS`] of a VM's life, [`PAGES`] of its pages lose their translation; the first touch of one is a
//! fault that is counted. The touched part of the sample is the active part of the VM, give or take 5 % (Waldspurger, OSDI
//! 2002, section 5.3). Three averages are kept, each weighing the latest period more than the one before: a slow one, a
//! fast one, and the fast one with what is known of the running period. The greatest counts, so that an estimate rises
//! within a period and falls within minutes: memory that is taken by mistake costs more than memory left by mistake.

/// The length of a period, in milliseconds, as in ESX. In a shorter one a guest that waits for pages touches too few of them,
/// and is taken for idle.
pub const PERIOD_MS: u64 = 30_000;
/// The pages to sample in a period.
pub const PAGES: u32 = 100;

/// The binary places of an average.
const FRACTION: u32 = 10;
const HALF: u32 = 1 << (FRACTION - 1);
/// What a period weighs in the slow average, in percent: half of it is forgotten in about a minute and a quarter.
const SLOW: u32 = 25;
/// What a period weighs in the fast average, in percent.
const FAST: u32 = 75;

/// How active a VM is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Estimator {
    /// First touches in the running period.
    touched: u32,
    /// The slow and the fast average, in per mille with binary places; none before the first period's end.
    averages: Option<(u32, u32)>,
}

impl Estimator {
    /// Counts the first touch of a sampled page.
    pub fn touched(&mut self) {
        self.touched = self.touched.saturating_add(1);
    }

    /// Sets how many of the sample were touched so far in the running period.
    pub fn set_touched(&mut self, touched: u32) {
        self.touched = touched;
    }

    /// Ends a period in which `sampled` pages were watched; one without any teaches nothing.
    pub fn end(&mut self, sampled: u32) {
        if let Some(now) = self.running(sampled) {
            let (slow, fast) = self.averages.unwrap_or((now, now));
            self.averages = Some((towards(slow, now, SLOW), towards(fast, now, FAST)));
        }
        self.touched = 0;
    }

    /// The active part of the VM's pages in per mille, when `sampled` pages have been watched in the running period so
    /// far. All of it, before anything is known.
    pub fn active_permille(&self, sampled: u32) -> u32 {
        let Some((slow, fast)) = self.averages else { return 1000 };
        // A few pages are no sample: they weigh as little as they are.
        let weight = FAST * sampled.min(PAGES) / PAGES;
        let running = self.running(sampled).map_or(0, |now| towards(fast, now, weight));
        (slow.max(fast).max(running) + HALF) >> FRACTION
    }

    /// The touched part of `sampled` pages, in per mille with binary places.
    fn running(&self, sampled: u32) -> Option<u32> {
        // The touched are no more than the sampled, so the quotient is at most 1000 and its places.
        let touched = u64::from(self.touched.min(sampled)) * (1000 << FRACTION);
        touched.checked_div(sampled.into()).map(|part| part as u32)
    }
}

/// What is `percent` of the way from `old` to `new`.
fn towards(old: u32, new: u32, percent: u32) -> u32 {
    // Both below 2^20, so that all fits.
    (old * (100 - percent) + new * percent) / 100
}

#[cfg(test)]
mod tests {
    use super::{Estimator, PAGES};

    fn period(estimator: &mut Estimator, touched: u32) -> u32 {
        (0..touched).for_each(|_| estimator.touched());
        estimator.end(PAGES);
        estimator.active_permille(0)
    }

    #[test]
    fn a_vm_nothing_is_known_of_counts_as_active() {
        let mut estimator = Estimator::default();
        assert_eq!(estimator.active_permille(0), 1000);
        estimator.end(0);
        assert_eq!(estimator.active_permille(PAGES), 1000);
        assert_eq!(period(&mut estimator, 20), 200);
    }

    #[test]
    fn the_estimate_rises_within_a_period_and_falls_in_several() {
        let mut estimator = Estimator::default();
        period(&mut estimator, 10);
        (0..80).for_each(|_| estimator.touched());
        assert!(estimator.active_permille(PAGES) >= 600, "in the running period");
        estimator.end(PAGES);
        assert!(period(&mut estimator, 80) > 750, "in two");
        (0..10).for_each(|_| _ = period(&mut estimator, 80));
        let fall: [u32; 10] = core::array::from_fn(|_| period(&mut estimator, 10));
        assert!(fall[0] > 500 && fall[2] > 250 && fall[9] < 150, "{fall:?}");
        assert!(fall.is_sorted_by(|a, b| a >= b));
    }

    #[test]
    fn one_touched_page_is_not_taken_for_all() {
        let mut estimator = Estimator::default();
        period(&mut estimator, 10);
        estimator.touched();
        assert!(estimator.active_permille(1) < 120);
        (0..200).for_each(|_| estimator.touched());
        assert!(estimator.active_permille(PAGES) <= 1000, "touched more often than sampled");
    }
}
