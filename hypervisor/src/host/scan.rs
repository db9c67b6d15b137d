//! Looking for equal pages, one page at a time, in time that nobody else wants.
//!
//! The scanner goes through the pages of all VMs that merge, in order, again and again ([`crate::memory::share`] does
//! the work on a page). A block is read as a whole first: it is split only if enough of its pages are equal to others, or
//! zero, to pay for the table and for the guest's longer walks; and then only those are read again.

use super::Host;
use super::pressure::Scanner;
use crate::addr::Size;
use crate::frames::hints::Match;
use crate::machine::Machine;
use crate::memory::share::{PageClass, ZeroBlock};
use crate::vm::{State, Vm};

/// How many pages the scanner reads in one slice.
const SLICE: u32 = 16;
/// How many pages of a block must be worth merging, while there is memory and while it is short.
const WORTH: [u32; 2] = [8, 4];
const BLOCK: u64 = Size::Block.frames();

/// A bit for each page of a block.
fn bit(page: u64) -> (usize, u64) {
    // Below 512.
    let at = (page % BLOCK) as usize;
    (at / 64, 1 << (at % 64))
}

fn note(bits: &mut [u64; 8], page: u64) {
    let (word, bit) = bit(page);
    if let Some(word) = bits.get_mut(word) {
        *word |= bit;
    }
}

fn is_noted(bits: &[u64; 8], page: u64) -> bool {
    let (word, bit) = bit(page);
    bits.get(word).is_some_and(|word| word & bit != 0)
}

fn count(bits: &[u64; 8]) -> u32 {
    bits.iter().map(|word| word.count_ones()).sum()
}

impl Host {
    /// Scans a slice of pages, or a part of it until it `is_late`. False if there is no VM to look at.
    pub(super) fn scan<M: Machine>(
        &self,
        m: &M,
        scanner: &mut Scanner,
        short: bool,
        is_late: &mut dyn FnMut() -> bool,
    ) -> bool {
        let mut read = 0;
        // Gaps cost little: a few of them for each page.
        for _ in 0..SLICE * 4 {
            if read >= SLICE || is_late() {
                break;
            }
            let Some(vm) = self.next_vm(scanner) else { return false };
            read += u32::from(self.scan_page(m, scanner, vm, short));
        }
        true
    }

    /// The VM the scanner is in, or goes on with.
    fn next_vm(&self, scanner: &mut Scanner) -> Option<&Vm> {
        for _ in 0..=self.fleet.vms.len() {
            if let Some(vm) = self.fleet.vms.get(scanner.vm)
                && vm.merges
                && vm.life.state() == State::Running
                && scanner.page < vm.pages
            {
                return Some(vm);
            }
            scanner.page = 0;
            scanner.forget_block();
            scanner.vm += 1;
            if scanner.vm >= self.fleet.vms.len() {
                scanner.vm = 0;
                scanner.totals.rounds += 1;
            }
        }
        None
    }

    /// Looks at one page; true if that took its reading.
    fn scan_page<M: Machine>(&self, m: &M, scanner: &mut Scanner, vm: &Vm, short: bool) -> bool {
        let mut memory = vm.memory.lock();
        // Below 2^26, so it fits.
        let at = memory.page_at(scanner.page as u32);
        let mut read = false;
        let mut step = 1;
        if scanner.acts && is_noted(&scanner.zero, scanner.page) {
            read = true;
            scanner.totals.zeroed += u64::from(memory.drop_zeroes(m, &self.pool, at));
        } else if !scanner.acts || is_noted(&scanner.same, scanner.page) {
            let in_block = memory.is_block(m, at);
            match memory.classify(m, &self.pool, at) {
                PageClass::Gap(bytes) => step = (bytes >> 12).max(1),
                PageClass::Passed => {}
                PageClass::Single => read = true,
                PageClass::Zero if in_block => {
                    read = true;
                    note(&mut scanner.zero, scanner.page);
                }
                PageClass::Same(..) if in_block => {
                    read = true;
                    note(&mut scanner.same, scanner.page);
                }
                PageClass::Zero => {
                    read = true;
                    scanner.totals.zeroed += u64::from(memory.drop_zeroes(m, &self.pool, at));
                }
                PageClass::Same(found, hash) => {
                    read = true;
                    let frame = match found {
                        Match::Shared(frame) => Some(frame),
                        Match::Hint(other, page) => {
                            drop(memory);
                            let other = self.fleet.vms.get(usize::from(other.0));
                            let frame = other.and_then(|vm| vm.memory.lock().freeze(m, &self.pool, page, hash));
                            memory = vm.memory.lock();
                            frame
                        }
                    };
                    let merged = frame.is_some_and(|frame| memory.merge(m, &self.pool, at, frame));
                    scanner.totals.merged += u64::from(merged);
                    scanner.totals.differed += u64::from(!merged);
                }
            }
        }
        scanner.totals.scanned += u64::from(read);
        scanner.page += step;
        if scanner.page.is_multiple_of(BLOCK) {
            self.end_block(m, scanner, vm, &mut memory, short);
        }
        read
    }

    /// The scanner has come to the end of a block.
    fn end_block<M: Machine>(
        &self,
        m: &M,
        scanner: &mut Scanner,
        vm: &Vm,
        memory: &mut crate::memory::Memory,
        short: bool,
    ) {
        debug_assert!(memory.layout().owner == vm.id);
        let start = scanner.page.saturating_sub(BLOCK);
        let at = memory.page_at(start as u32);
        let zeroes = count(&scanner.zero);
        let noted = zeroes + count(&scanner.same);
        if scanner.acts || noted == 0 || !memory.is_block(m, at) {
            // Where all its pages are zero, they need no table either.
            let _ = memory.join_holes(m, &self.pool, at);
            return scanner.forget_block();
        }
        if u64::from(zeroes) == BLOCK {
            loop {
                match memory.drop_zero_block(m, &self.pool, at) {
                    ZeroBlock::Dropped => {
                        scanner.totals.zeroed += BLOCK;
                        return scanner.forget_block();
                    }
                    ZeroBlock::Differs => break,
                    ZeroBlock::More if m.is_interrupt_pending() => {
                        // Its last page is read again, and leads here.
                        scanner.page -= 1;
                        return;
                    }
                    ZeroBlock::More => {}
                }
            }
        }
        let worth = WORTH[usize::from(short)];
        if noted >= worth && memory.split(m, &self.pool, at).is_ok() {
            scanner.acts = true;
            scanner.page = start;
        } else {
            scanner.forget_block();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, count, is_noted, note};

    #[test]
    fn each_page_of_a_block_is_noted_by_itself() {
        let mut bits = [0; 8];
        for page in (0..BLOCK).step_by(3) {
            assert_eq!(u64::from(count(&bits)), page / 3);
            // Of whichever block.
            note(&mut bits, 7 * BLOCK + page);
            note(&mut bits, page);
        }
        for page in 0..BLOCK {
            assert_eq!(is_noted(&bits, page), page % 3 == 0, "{page}");
        }
    }
}
