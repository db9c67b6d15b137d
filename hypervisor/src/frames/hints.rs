//! Which frames hold what: the hash chains by which merging finds equal pages, and the counts of those that share a frame.
//!
//! A guest's frame that was scanned is a *hint*: it hangs in the chain of its contents' hash, with the page that it backs,
//! and nothing about the page has changed; that another page has the same hash nominates both. A *shared* frame hangs in
//! its chain for good, as its contents do not change. Chains are made of the records themselves: record n holds the first
//! link of chain n, each link says the next, and the last says which chain it is, so that a frame leaves its chain
//! whatever its contents have become meanwhile.
//!
//! Frames are nominated to each other within one merge domain only. A hash is keyed ([`super::hash`]), so a guest cannot
//! make chains long; one that is long all the same takes no more hints.
//!
//! Links are numbers of records plus one, 0 is none; the last link of a chain has the top bit set and the chain's number.

use super::pool::{Pool, Stretch, owner_byte};
use super::record::{FrameState, Order, Record};
use crate::addr::{Addr, Pa, Size, VmId};

/// The longest chain.
const MOST_LINKS: usize = 24;
const LAST: u32 = 1 << 31;
/// `more` of a guest's frame: the page in the low bits, then how many scans pass it by, then how restless it is.
const PAGE: u32 = (1 << 26) - 1;
const SKIP: u32 = 26;
const LEVEL: u32 = 29;
/// How restless a page can get: one that changed so often is passed by 2^3 - 1 times.
const MOST_RESTLESS: u32 = 3;

/// The merge domain of what everybody may read: the images of the bundle.
pub const PUBLIC: u8 = 254;

/// A frame that may hold the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Match {
    /// It is shared already.
    Shared(Addr<Pa>),
    /// It backs this page of this VM, and did hold the same when it was scanned.
    Hint(VmId, u32),
}

fn tag(hash: u64) -> u16 {
    // 0 says that there is none.
    ((hash & 0xffff) as u16).max(1)
}

impl Pool<'_> {
    /// Puts `vm` into merge domain `domain`, below 64: VMs of one domain may share frames.
    pub fn set_domain(&mut self, vm: VmId, domain: u8) {
        if let Some(place) = self.merging.domains.get_mut(usize::from(vm.0)) {
            *place = domain;
        }
    }

    /// Whether a scan should read the frame of a guest at `at`; one that has kept changing is passed by for a while.
    pub fn is_due(&mut self, at: Addr<Pa>) -> bool {
        let Some(at) = self.index(at) else { return false };
        let record = &mut self.records[at];
        if record.state != FrameState::Guest {
            return false;
        }
        if record.tag != 0 && record.more >> SKIP & 7 != 0 {
            record.more -= 1 << SKIP;
            return false;
        }
        true
    }

    /// Remembers that the frame of a guest at `at`, which backs its page number `page`, has this hash. Returns a frame that
    /// had the same when it was looked at.
    pub fn visit(&mut self, at: Addr<Pa>, page: u32, hash: u64) -> Option<Match> {
        let at = self.index(at)?;
        let record = self.records[at];
        if record.state != FrameState::Guest {
            return None;
        }
        let tag = tag(hash);
        let domain = self.domain(record.owner);
        // Before it hangs there itself.
        let found = self.look(at, domain, tag, self.chain(hash));
        if record.tag != tag {
            let mut more = page & PAGE;
            if record.tag != 0 {
                let level = (record.more >> LEVEL & 7).min(MOST_RESTLESS - 1) + 1;
                more |= level << LEVEL | ((1 << level) - 1) << SKIP;
                self.unchain(at as u32);
            }
            self.records[at].more = more;
            self.insert(at, tag, self.chain(hash));
        } else if record.more >> LEVEL != 0 {
            // It kept still.
            self.records[at].more = page & PAGE;
        }
        found
    }

    /// Makes the guest's frame at `at` a shared one that one leaf names. Its contents, which have this hash, change no
    /// more.
    pub fn share(&mut self, at: Addr<Pa>, owner: VmId, hash: u64) -> bool {
        let Some(at) = self.index(at) else { return false };
        let record = self.records[at];
        if record.state != FrameState::Guest || record.owner() != Some(owner) {
            return false;
        }
        let domain = self.domain(record.owner);
        self.unchain(at as u32);
        self.records[at].turn_into(Record { state: FrameState::Shared, owner: domain, more: 1, ..Record::RESERVED });
        self.insert(at, tag(hash), self.chain(hash));
        self.count(FrameState::Guest, FrameState::Shared, owner, 1);
        self.merging.refs += 1;
        true
    }

    /// Makes the whole frames of a stretch that was not ours to give shared ones: they keep one claim for ever. Returns how
    /// many.
    pub fn adopt(&mut self, (start, bytes): Stretch) -> u64 {
        let mut adopted = 0;
        for page in (0..bytes).step_by(4096) {
            let Some(at) = start.checked_add(page).and_then(|at| self.index(at)) else { continue };
            if self.records[at].state == FrameState::Reserved {
                self.records[at].turn_into(Record {
                    state: FrameState::Shared,
                    owner: PUBLIC,
                    more: 1,
                    ..Record::RESERVED
                });
                self.count(FrameState::Reserved, FrameState::Shared, super::HYPERVISOR, 1);
                self.merging.refs += 1;
                adopted += 1;
            }
        }
        self.merging.adopted += adopted;
        adopted
    }

    /// One more leaf of `owner` names the shared frame at `at`; false if it may not, or too many do.
    pub fn acquire(&mut self, at: Addr<Pa>, owner: VmId) -> bool {
        let domain = self.domain(owner_byte(owner));
        let Some(record) = self.index(at).and_then(|at| self.records.get_mut(at)) else { return false };
        let open = record.owner == domain || record.owner == PUBLIC;
        if record.state != FrameState::Shared || !open || record.more == u32::MAX {
            return false;
        }
        record.more += 1;
        self.merging.refs += 1;
        true
    }

    /// One leaf less names the shared frame at `at`; it is free when none does.
    pub fn release(&mut self, at: Addr<Pa>) {
        let located = self.locate(at.bits() >> 12, Order::PAGE);
        let Some((range, index)) = located else { return self.contradict() };
        let record = &mut self.records[index as usize];
        if record.state != FrameState::Shared || record.more == 0 {
            return self.contradict();
        }
        record.more -= 1;
        self.merging.refs -= 1;
        if record.more == 0 {
            self.free_run(range, at.bits() >> 12, Order::PAGE, super::HYPERVISOR);
        }
    }

    /// Gives the shared frame at `at` to `owner` alone, if the leaf that asks is the only one that names it.
    pub fn unshare(&mut self, at: Addr<Pa>, owner: VmId) -> bool {
        let Some(index) = self.index(at) else { return false };
        let record = self.records[index];
        // The images keep their own claim, so they are never given.
        if record.state != FrameState::Shared || record.more != 1 || record.owner == PUBLIC {
            return false;
        }
        self.unchain(index as u32);
        self.records[index].turn_into(Record::held(FrameState::Guest, owner_byte(owner)));
        self.count(FrameState::Shared, FrameState::Guest, owner, 1);
        self.merging.refs -= 1;
        true
    }

    /// How many leaves name shared frames; the bundle's claims to its images count as such.
    pub fn sharers(&self) -> u64 {
        self.merging.refs
    }

    /// How many shared frames are the bundle's own.
    pub fn adopted(&self) -> u64 {
        self.merging.adopted
    }

    /// How many frames sharing saves: leaves that name shared frames, less the frames.
    pub fn saved(&self) -> u64 {
        self.merging.refs.saturating_sub(self.counts().shared)
    }

    /// Compares every chain with what hangs in it. The error names the invariant that does not hold.
    pub(super) fn check_chains(&self) -> Result<(), &'static str> {
        let mut hanging = 0;
        for (chain, record) in self.records.iter().enumerate() {
            let mut link = record.head;
            let mut steps = 0;
            while link != 0 && link & LAST == 0 {
                let record = self.records.get(link as usize - 1).ok_or("a link names a record")?;
                if !matches!(record.state, FrameState::Guest | FrameState::Shared) || record.tag == 0 {
                    return Err("only frames of guests hang in chains");
                }
                steps += 1;
                if steps > MOST_LINKS {
                    return Err("a chain has an end");
                }
                link = record.next;
            }
            if link != 0 && link & !LAST != chain as u32 {
                return Err("the last link says which chain it is in");
            }
            hanging += steps;
        }
        let tagged = |r: &&Record| matches!(r.state, FrameState::Guest | FrameState::Shared) && r.tag != 0;
        let refs: u64 = self.records.iter().filter(|r| r.state == FrameState::Shared).map(|r| u64::from(r.more)).sum();
        match (self.records.iter().filter(tagged).count() == hanging, refs == self.merging.refs) {
            (true, true) => Ok(()),
            (false, _) => Err("every frame with a tag hangs in a chain"),
            (_, false) => Err("the count of sharers is that of the records"),
        }
    }

    fn index(&self, at: Addr<Pa>) -> Option<usize> {
        if !at.is_aligned(Size::Page) {
            return None;
        }
        self.locate(at.bits() >> 12, Order::PAGE).map(|(_, index)| index as usize)
    }

    fn domain(&self, owner: u8) -> u8 {
        self.merging.domains.get(usize::from(owner)).copied().unwrap_or(u8::MAX)
    }

    /// The chain of a hash: its upper half, scaled to the number of records.
    fn chain(&self, hash: u64) -> usize {
        (((hash >> 32) * self.records.len() as u64) >> 32) as usize
    }

    fn look(&self, not: usize, domain: u8, tag: u16, chain: usize) -> Option<Match> {
        let mut link = self.records.get(chain)?.head;
        let mut found = None;
        while link != 0 && link & LAST == 0 {
            let at = link as usize - 1;
            let record = self.records.get(at)?;
            if record.tag == tag && at != not {
                match record.state {
                    // At most 2^31 records, so it fits.
                    FrameState::Shared if record.owner == domain => {
                        return self.address(at as u32).map(Match::Shared);
                    }
                    FrameState::Guest if found.is_none() && self.domain(record.owner) == domain => {
                        found = Some(Match::Hint(VmId(record.owner.into()), record.more & PAGE));
                    }
                    _ => {}
                }
            }
            link = record.next;
        }
        found
    }

    /// Hangs the frame of record `at`, which hangs nowhere, at the beginning of a chain, unless that is full.
    fn insert(&mut self, at: usize, tag: u16, chain: usize) {
        let first = self.records[chain].head;
        let mut link = first;
        let mut links = 0;
        while link != 0 && link & LAST == 0 {
            links += 1;
            link = self.records[link as usize - 1].next;
        }
        if links < MOST_LINKS {
            // Chains are records, of which there are fewer than 2^31.
            self.records[at].next = if first == 0 { LAST | chain as u32 } else { first };
            self.records[at].tag = tag;
            self.records[chain].head = at as u32 + 1;
        } else {
            self.records[at].tag = 0;
        }
    }

    /// Takes the frame of record `at` out of the chain it hangs in, if it does.
    pub(super) fn unchain(&mut self, at: u32) {
        let record = self.records[at as usize];
        if !matches!(record.state, FrameState::Guest | FrameState::Shared) || record.tag == 0 {
            return;
        }
        // Chains are no longer than MOST_LINKS.
        let mut link = record.next;
        while link & LAST == 0 {
            link = self.records[link as usize - 1].next;
        }
        let chain = (link & !LAST) as usize;
        if self.records[chain].head == at + 1 {
            self.records[chain].head = if record.next & LAST == 0 { record.next } else { 0 };
        } else {
            let mut before = self.records[chain].head as usize - 1;
            while self.records[before].next != at + 1 {
                before = self.records[before].next as usize - 1;
            }
            self.records[before].next = record.next;
        }
        self.records[at as usize].tag = 0;
    }
}
