//! Stretches of physical addresses and sorted lists of them.
//!
//! Key type: [`Range`]. Lists of ranges are kept sorted and merged by [`insert`], so that two ranges in a
//! list never touch. All arithmetic is checked: the numbers come from a device tree.

use arrayvec::ArrayVec;
use core::fmt;

/// The size of a frame, in bytes: the 4 KiB granule.
pub const FRAME: u64 = 4096;

/// Physical addresses from `start` up to, but not including, `end`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Range {
    /// The first address.
    pub start: u64,
    /// The address after the last one; never below `start` when made by [`Range::sized`].
    pub end: u64,
}

impl Range {
    /// Makes the range of `size` bytes from `start`, or nothing where it would pass the end of the address space.
    pub const fn sized(start: u64, size: u64) -> Option<Self> {
        match start.checked_add(size) {
            Some(end) => Some(Self { start, end }),
            None => None,
        }
    }

    /// Tells how many bytes the range holds.
    pub const fn size(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Tells whether the range holds no byte.
    pub const fn is_empty(&self) -> bool {
        self.end <= self.start
    }

    /// Tells whether `other` lies inside this range.
    pub const fn holds(&self, other: &Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// Tells whether the two ranges share a byte.
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end && !self.is_empty() && !other.is_empty()
    }

    /// Shrinks the range to the whole frames inside it: for memory that is to be handed out.
    pub const fn frames_inside(&self) -> Self {
        let start = match self.start.checked_next_multiple_of(FRAME) {
            Some(start) => start,
            None => u64::MAX - (FRAME - 1),
        };
        let end = self.end - self.end % FRAME;
        if end < start { Self { start, end: start } } else { Self { start, end } }
    }

    /// Grows the range to the whole frames it touches: for memory that must be left alone, and for device windows.
    pub const fn frames_around(&self) -> Self {
        let end = match self.end.checked_next_multiple_of(FRAME) {
            Some(end) => end,
            None => self.end,
        };
        Self { start: self.start - self.start % FRAME, end }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}-{:#x}", self.start, self.end)
    }
}

/// Says that a list of ranges has no room left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// Puts `range` into a list that [`insert`] keeps sorted and merged. Empty ranges are left out.
///
/// Fails with [`Full`], the list unchanged, where the range touches none in the list and there is no room for another.
pub fn insert<const N: usize>(list: &mut ArrayVec<Range, N>, range: Range) -> Result<(), Full> {
    if range.is_empty() {
        return Ok(());
    }
    let touches = |other: &Range| other.start <= range.end && range.start <= other.end;
    let merged = list
        .iter()
        .filter(|other| touches(other))
        .fold(range, |sum, other| Range { start: sum.start.min(other.start), end: sum.end.max(other.end) });
    let stays = list.iter().filter(|other| !touches(other)).count();
    if stays == list.capacity() {
        return Err(Full);
    }
    list.retain(|other| !touches(other));
    let place = list.iter().take_while(|other| other.start < merged.start).count();
    list.try_insert(place, merged).map_err(|_| Full)
}

/// Puts `range` into a list as [`insert`] does; where there is no room, the two ranges that are nearest to each other become
/// one, with what lies between them.
pub fn insert_or_join<const N: usize>(list: &mut ArrayVec<Range, N>, range: Range) {
    while insert(list, range).is_err() {
        let gaps = list.iter().zip(list.iter().skip(1)).map(|(low, high)| high.start - low.end);
        // A full list of two or more, whose ranges do not touch.
        let Some((n, _)) = gaps.enumerate().min_by_key(|&(_, gap)| gap) else { return };
        let high = list.remove(n + 1);
        if let Some(low) = list.get_mut(n) {
            low.end = high.end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Full, Range, insert, insert_or_join};
    use arrayvec::ArrayVec;

    fn list(of: &[(u64, u64)]) -> ArrayVec<Range, 4> {
        let mut list = ArrayVec::new();
        for &(start, end) in of {
            insert(&mut list, Range { start, end }).unwrap();
        }
        list
    }

    #[test]
    fn ranges_that_touch_become_one_and_all_stay_sorted() {
        let merged = list(&[(8, 9), (1, 2), (4, 5), (2, 4), (20, 20)]);
        assert_eq!(merged[..], [Range { start: 1, end: 5 }, Range { start: 8, end: 9 }]);
        assert_eq!(list(&[(1, 3), (5, 7), (9, 11), (0, 20)])[..], [Range { start: 0, end: 20 }]);
    }

    #[test]
    fn a_full_list_still_takes_what_merges() {
        let mut full = list(&[(0, 1), (10, 11), (20, 21), (30, 31)]);
        assert_eq!(insert(&mut full, Range { start: 40, end: 41 }), Err(Full));
        assert_eq!(full.len(), 4);
        assert_eq!(insert(&mut full, Range { start: 31, end: 41 }), Ok(()));
        assert_eq!(full[3], Range { start: 30, end: 41 });
    }

    #[test]
    fn a_full_list_joins_the_nearest_two_and_forgets_nothing() {
        let mut full = list(&[(0, 1), (10, 11), (14, 21), (30, 31)]);
        insert_or_join(&mut full, Range { start: 50, end: 51 });
        assert_eq!(full[..], [(0, 1), (10, 21), (30, 31), (50, 51)].map(|(start, end)| Range { start, end }));
        insert_or_join(&mut full, Range { start: 33, end: 34 });
        assert_eq!(full[..], [(0, 21), (30, 31), (33, 34), (50, 51)].map(|(start, end)| Range { start, end }));
        let mut none = ArrayVec::<Range, 0>::new();
        insert_or_join(&mut none, Range { start: 1, end: 2 });
    }

    #[test]
    fn frames_round_in_for_memory_and_out_for_windows() {
        let odd = Range { start: 0x1001, end: 0x3fff };
        assert_eq!(odd.frames_inside(), Range { start: 0x2000, end: 0x3000 });
        assert_eq!(odd.frames_around(), Range { start: 0x1000, end: 0x4000 });
        let top = Range { start: u64::MAX - 1, end: u64::MAX };
        assert!(top.frames_inside().is_empty());
        assert!(Range { start: 0x1001, end: 0x1fff }.frames_inside().is_empty());
        assert_eq!(Range::sized(u64::MAX, 2), None);
    }
}
