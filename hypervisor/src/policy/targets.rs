//! Who is entitled to how much memory: shares, and the tax on what lies idle.
//!
//! # The rule
//!
//! VMware ESX (Waldspurger, OSDI 2002, section 5) takes from whoever pays least: a VM with *S* shares and *P* pages of
//! which a fraction *f* is active pays `S / (P (f + k (1 - f)))` for a page, `k = 1 / (1 - tax)`. An idle page costs as much
//! as *k* active ones. Taking page after page from the least price ends where all prices are the same (but for those who
//! are down at their min or up at their max). That end is computed here at once, for *A* active pages that stay what they are:
//! at the price of one page for `1 / rate` of a share,
//!
//! ```text
//! P = S rate                           as long as that is no more than A
//! P = A + (S rate - A) (1 - tax)       from there on
//! ```
//!
//! within min and max. All grow with the rate, so it is found by bisection. With a tax of 100 % nobody would ever be
//! entitled to an idle page: that is taken as the limit, where active pages go first and what is left is shared by shares.

/// The most pages anything may count: 4 PiB.
const MOST: u64 = 1 << 40;
/// The binary places of a rate.
const RATE: u32 = 31;
/// The binary places of the part of an idle page that is left after tax.
const KEPT: u32 = 24;
/// Whoever has one share reaches `MOST` idle pages at this rate, with the least that a tax leaves.
const GREATEST_RATE: u128 = (MOST as u128) << (RATE + KEPT);

/// What a VM puts forward. Amounts are pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Claim {
    /// What it is left with in any case.
    pub min: u64,
    /// What it can use.
    pub max: u64,
    /// Its weight; 0 counts as 1.
    pub shares: u32,
    /// What it has been using lately.
    pub active: u64,
}

impl Claim {
    fn least(&self) -> u64 {
        self.min.min(MOST)
    }

    fn most(&self) -> u64 {
        self.max.min(MOST).max(self.least())
    }

    /// The pages it is entitled to at `rate`, when `kept` is left of an idle page.
    fn at(&self, rate: u128, kept: u128) -> u64 {
        // At most 2^(32 + 95), and 2^(96 + 24) below.
        let pages = u128::from(self.shares.max(1)).wrapping_mul(rate) >> RATE;
        let active = u128::from(self.active);
        let idle = pages.saturating_sub(active).wrapping_mul(kept) >> KEPT;
        u64::try_from(pages.min(active) + idle).unwrap_or(u64::MAX).clamp(self.least(), self.most())
    }
}

/// Divides `available` pages by shares, idle ones taxed by `tax` percent: `out[i]` is what `claims[i]` is entitled to.
///
/// The sum is `available`, unless that is less than all mins, which everyone gets in any case, or more than all maxes.
pub fn entitle(claims: &[Claim], available: u64, tax: u8, out: &mut [u64]) {
    let tax = u32::from(tax.min(100));
    let kept = u128::from(((100 - tax) << KEPT) / 100).max(1);
    let sum = |rate| claims.iter().fold(0_u64, |sum, claim| sum.saturating_add(claim.at(rate, kept)));
    // At `low` the sum is no more than what is available, or all are at their min; at `high` it is more, or all at max. First how many
    // binary places it has, which is not the middle of all there are, then what they are.
    let (mut low, mut high) = (0, GREATEST_RATE.ilog2() + 1);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if sum(1 << middle) <= available { low = middle } else { high = middle }
    }
    let (mut low, mut high) = (if low == 0 { 0 } else { 1 << low }, 1 << high);
    let mut sums = (sum(low), sum(high));
    // Where only one page is between them, it is one VM's: no rate between has another answer.
    while high - low > 1 && sums.1 > sums.0 + 1 {
        let middle = low + (high - low) / 2;
        let pages = sum(middle);
        if pages <= available { (low, sums.0) = (middle, pages) } else { (high, sums.1) = (middle, pages) }
    }
    // What rounding left over goes to those who would get more at the next rate.
    let mut left = available.saturating_sub(sums.0);
    for (claim, out) in claims.iter().zip(out) {
        let pages = claim.at(low, kept);
        let more = left.min(claim.at(high, kept) - pages);
        left -= more;
        *out = pages + more;
    }
}

#[cfg(test)]
mod tests {
    use super::{Claim, entitle};

    const IDLE: Claim = Claim { min: 10, max: 1000, shares: 100, active: 0 };
    const BUSY: Claim = Claim { min: 10, max: 1000, shares: 100, active: 1000 };

    fn divide<const N: usize>(claims: [Claim; N], available: u64, tax: u8) -> [u64; N] {
        let mut out = [0; N];
        entitle(&claims, available, tax, &mut out);
        out
    }

    #[test]
    fn without_tax_only_shares_count() {
        assert_eq!(divide([IDLE, BUSY], 1000, 0), [500, 500]);
        assert_eq!(divide([Claim { shares: 300, ..IDLE }, BUSY], 1000, 0), [750, 250]);
    }

    #[test]
    fn an_idle_page_costs_as_much_as_four_active_ones() {
        assert_eq!(divide([IDLE, BUSY], 1000, 75), [200, 800]);
        assert_eq!(divide([Claim { active: 100, ..IDLE }, BUSY], 1000, 75), [260, 740]);
    }

    #[test]
    fn at_full_tax_idle_pages_go_first_down_to_min() {
        assert_eq!(divide([IDLE, BUSY], 1000, 100), [10, 990]);
        assert_eq!(divide([IDLE, Claim { active: 300, ..BUSY }], 1000, 100), [350, 650], "all idle pages by shares");
    }

    #[test]
    fn nobody_leaves_min_and_max_and_the_rest_is_shared_by_the_others() {
        assert_eq!(divide([Claim { min: 400, ..IDLE }, BUSY], 1000, 75), [400, 600]);
        assert_eq!(divide([IDLE, Claim { max: 300, ..BUSY }], 1000, 75), [700, 300]);
        assert_eq!(divide([IDLE, BUSY], 5, 75), [10, 10]);
        assert_eq!(divide([IDLE, BUSY], 5000, 75), [1000, 1000]);
        assert_eq!(divide([Claim { min: 500, max: 20, ..IDLE }, BUSY], 1000, 75), [500, 500], "min comes first");
    }

    #[test]
    fn numbers_beyond_reason_do_no_harm() {
        let vast = Claim { min: 0, max: u64::MAX, shares: u32::MAX, active: u64::MAX };
        assert_eq!(divide([vast, vast], 1001, 75), [501, 500]);
        assert_eq!(divide([vast, Claim { shares: 0, ..vast }], u64::MAX, 100), [1 << 40, 1 << 40]);
    }

    #[test]
    fn who_claims_alike_gets_alike_but_for_a_page() {
        for available in [30, 31, 32, 100, 101, 998, 1000, 2998, 2999] {
            let out = divide([BUSY, BUSY, BUSY], available, 75);
            let (least, most) = (*out.iter().min().unwrap(), *out.iter().max().unwrap());
            assert!(out.iter().sum::<u64>() == available && most - least <= 1, "{out:?} of {available}");
        }
        let out = divide([Claim { shares: 200, ..BUSY }, BUSY, Claim { shares: 400, ..BUSY }], 700, 75);
        assert!(out.iter().zip([200, 100, 400]).all(|(pages, ideal)| pages.abs_diff(ideal) <= 1), "{out:?}");
    }
}
