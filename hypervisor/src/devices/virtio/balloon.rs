//! The memory balloon: a guest gives pages up and takes them back, says which are free, and how it is doing.
//!
//! Everything that virtio 1.2 has for it is offered: VIRTIO_BALLOON_F_MUST_TELL_HOST, STATS_VQ, DEFLATE_ON_OOM,
//! FREE_PAGE_HINT, PAGE_POISON and PAGE_REPORTING. What is done with the pages is for [`Pages`].
//!
//! # Numbers of queues
//!
//! The specification numbers the queues for good: inflate 0, deflate 1, statistics 2, free pages 3, reporting 4. Linux and
//! QEMU count only those whose features were agreed on. A driver that agrees to statistics and hints sees no difference;
//! for one that does not, the numbers are Linux's here.
//!
//! # Hints
//!
//! A command id of 2 and above asks the guest to name its free pages; it answers with the id, the pages, and STOP (0). It
//! holds the pages until it is told DONE (1), which it is at once. Pages named under an old id are left alone. They are looked
//! at while the guest waits for its notification to be handled, so none of them is in use again by then.

use super::super::device::{Board, Device};
use super::mmio::{CONFIG, Transport};
use super::queue::Descriptor;
use super::{Left, Ram, Stop};
use crate::addr::{Addr, Ipa, Size};

/// What the balloon does with pages. Addresses are aligned to pages; whether they are RAM is not checked before.
pub trait Pages: Ram {
    /// The guest gives `pages` pages from `at` on up; what was in them is gone.
    fn inflate(&mut self, at: Addr<Ipa>, pages: u64);
    /// It uses them again.
    fn deflate(&mut self, at: Addr<Ipa>, pages: u64);
    /// They are free just now: what is in them may go. Returns how many bytes are done, all unless it [is late](Self::is_late).
    fn report(&mut self, at: Addr<Ipa>, bytes: u64) -> u64;
    /// Whether enough was done for one time: others wait.
    fn is_late(&self) -> bool;
}

/// A balloon's device id.
const ID: u32 = 5;

mod feature {
    pub(super) const MUST_TELL_HOST: u64 = 1 << 0;
    pub(super) const STATS: u64 = 1 << 1;
    pub(super) const DEFLATE_ON_OOM: u64 = 1 << 2;
    pub(super) const HINT: u64 = 1 << 3;
    pub(super) const POISON: u64 = 1 << 4;
    pub(super) const REPORTING: u64 = 1 << 5;
    pub(super) const ALL: u64 = MUST_TELL_HOST | STATS | DEFLATE_ON_OOM | HINT | POISON | REPORTING;
}

/// Command ids of hints (5.5.6.6).
const HINT_STOP: u32 = 0;
const HINT_DONE: u32 = 1;
const HINT_FIRST: u32 = 2;

/// How many page numbers are read at a time.
const PFNS: usize = 64;
/// The most pages that are given up in one go.
const RUN: u64 = 8;
/// The most bytes of statistics that are read: more than there are kinds.
const STATS_BYTES: usize = 320;

/// What a queue is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    Inflate,
    Deflate,
    Stats,
    Hint,
    Report,
}

/// What the guest says of itself. Pages in KiB where they are sizes, as the driver gives bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// The values by tag, 0 to 9: bytes swapped in and out, major and minor faults, bytes free, in all, and available, bytes of
    /// caches, huge pages allocated and failed.
    values: [Option<u64>; 10],
    /// How often it was said.
    pub reports: u32,
}

impl Stats {
    /// Bytes that the guest has free.
    pub fn free(&self) -> Option<u64> {
        self.values.get(4).copied().flatten()
    }

    /// Bytes that it has in all.
    pub fn total(&self) -> Option<u64> {
        self.values.get(5).copied().flatten()
    }

    /// Bytes that it could have without swapping.
    pub fn available(&self) -> Option<u64> {
        self.values.get(6).copied().flatten()
    }

    /// Takes up what the driver wrote: entries of 10 bytes, a tag and a value. Tags that are not known are left out.
    fn learn(&mut self, bytes: &[u8]) {
        for entry in bytes.as_chunks::<10>().0 {
            let (Some(tag), Some(value)) = (entry.first_chunk::<2>(), entry.last_chunk::<8>()) else { continue };
            if let Some(place) = self.values.get_mut(usize::from(u16::from_le_bytes(*tag))) {
                *place = Some(u64::from_le_bytes(*value));
            }
        }
        self.reports = self.reports.wrapping_add(1);
    }
}

/// A balloon.
#[derive(Clone, Debug)]
pub struct Balloon {
    transport: Transport<5>,
    target: u32,
    actual: u32,
    hint_id: u32,
    last_hint: u32,
    /// The guest names free pages of the id that is asked for.
    names: bool,
    poison: u32,
    /// What free pages are full of was [taken](Self::take_filling).
    is_known: bool,
    stats: Stats,
    /// The buffer that the driver left for the next question.
    held: Option<u16>,
    asks: bool,
}

impl Default for Balloon {
    fn default() -> Self {
        Self::new()
    }
}

impl Balloon {
    /// A balloon that nobody has blown up.
    pub fn new() -> Self {
        Self {
            transport: Transport::new(ID, feature::ALL),
            target: 0,
            actual: 0,
            hint_id: HINT_STOP,
            last_hint: HINT_DONE,
            names: false,
            poison: 0,
            is_known: false,
            stats: Stats::default(),
            held: None,
            asks: false,
        }
    }

    /// Whether a driver uses it.
    pub const fn is_up(&self) -> bool {
        self.transport.is_up()
    }

    /// What was agreed on.
    pub const fn features(&self) -> u64 {
        self.transport.features()
    }

    /// Whether the driver reports free pages by itself.
    pub const fn reports(&self) -> bool {
        self.is_up() && self.features() & feature::REPORTING != 0
    }

    /// Which rule the driver broke, if it did.
    pub const fn broken(&self) -> Option<&'static str> {
        self.transport.broken()
    }

    /// How many pages it should have.
    pub const fn target(&self) -> u32 {
        self.target
    }

    /// How many pages it has, by the driver's word.
    pub const fn actual(&self) -> u32 {
        self.actual
    }

    /// What the guest's free pages are full of, if it tells.
    pub const fn poison(&self) -> Option<u32> {
        if self.features() & feature::POISON != 0 { Some(self.poison) } else { None }
    }

    /// What the guest's free pages are full of, zeroes if it does not tell: once, after a driver came up.
    pub fn take_filling(&mut self) -> Option<u32> {
        if !self.is_up() || self.is_known {
            return None;
        }
        self.is_known = true;
        Some(self.poison().unwrap_or(0))
    }

    /// What the guest said of itself last.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Asks the driver to bring the balloon to `pages` pages.
    pub const fn set_target(&mut self, pages: u32) {
        if self.target != pages {
            self.target = pages;
            self.transport.configured();
        }
    }

    /// Asks the guest how it is doing: it answers some time after the next [`Balloon::serve`].
    pub const fn ask_stats(&mut self) {
        self.asks = self.features() & feature::STATS != 0;
    }

    /// Asks the guest to name its free pages.
    pub const fn start_hinting(&mut self) {
        if self.features() & feature::HINT != 0 {
            self.last_hint = if self.last_hint == u32::MAX { HINT_FIRST } else { self.last_hint + 1 };
            self.hint_id = self.last_hint;
            self.names = false;
            self.transport.configured();
        }
    }

    /// Whether it was asked to, and is not done.
    pub const fn is_hinting(&self) -> bool {
        self.hint_id >= HINT_FIRST
    }

    /// Tells the guest that it may have the pages back that it named.
    pub const fn stop_hinting(&mut self) {
        if self.is_hinting() {
            self.hint_id = HINT_DONE;
            self.names = false;
            self.transport.configured();
        }
    }

    /// What the guest reads at `offset`, `size` bytes.
    pub fn read(&self, offset: u64, size: u8) -> u64 {
        let Some(field) = offset.checked_sub(CONFIG) else { return self.transport.read(offset, size) };
        let word = match field & !3 {
            0 => self.target,
            4 => self.actual,
            8 => self.hint_id,
            12 => self.poison,
            _ => 0,
        };
        super::super::lane(word, field, size)
    }

    /// The guest writes `value` at `offset`, `size` bytes.
    pub fn write(&mut self, offset: u64, size: u8, value: u64) {
        match offset.checked_sub(CONFIG) {
            None => {
                if self.transport.write(offset, size, value) {
                    // The target is the operator's and the policy's: it outlives a driver.
                    let target = self.target;
                    let transport = self.transport.clone();
                    *self = Self { transport, target, last_hint: self.last_hint, ..Self::new() };
                }
            }
            // Four bytes.
            Some(4) if size == 4 => self.actual = value as u32,
            Some(12) if size == 4 => self.poison = value as u32,
            Some(_) => {}
        }
    }

    /// Whether [`Balloon::serve`] has something to do.
    pub fn has_work(&self) -> bool {
        self.is_up() && (self.transport.is_notified() || self.asks && self.held.is_some())
    }

    /// Does what the driver has asked for, until about `budget` page numbers or buffers are done or it is late.
    pub fn serve(&mut self, ram: &mut impl Pages, budget: usize) -> Left {
        if !self.is_up() {
            return Left::Nothing;
        }
        let mut left = budget;
        let mut stuck = false;
        let mut notified = self.transport.take_notified();
        for number in 0..self.transport.queues.len() {
            if notified >> number & 1 == 0 {
                continue;
            }
            match self.serve_queue(number, ram, budget, &mut left) {
                Ok(true) => notified &= !(1 << number),
                // Later.
                Ok(false) => {}
                Err(Stop::Short) => stuck = true,
                Err(Stop::Broken(why)) => {
                    self.transport.fail(why);
                    return Left::Nothing;
                }
            }
        }
        self.transport.notify(notified);
        if let Some(head) = self.held.filter(|_| self.asks) {
            let number = self.number(Role::Stats);
            let given = self.settle(number, ram).and_then(|()| {
                (self.held, self.asks) = (None, false);
                self.finish(number, head);
                self.settle(number, ram)
            });
            match given {
                Ok(()) => {}
                // There are fewer queues than bits.
                Err(Stop::Short) => {
                    self.transport.notify(1 << (number & 31));
                    stuck = true;
                }
                Err(Stop::Broken(why)) => self.transport.fail(why),
            }
        }
        match (self.transport.is_notified(), stuck) {
            (false, _) => Left::Nothing,
            (true, false) => Left::More,
            (true, true) => Left::Stuck,
        }
    }

    /// The queues that the driver has, by number.
    fn roles(&self) -> impl Iterator<Item = Role> {
        let agreed = self.features();
        [
            (Role::Inflate, 0),
            (Role::Deflate, 0),
            (Role::Stats, feature::STATS),
            (Role::Hint, feature::HINT),
            (Role::Report, feature::REPORTING),
        ]
        .into_iter()
        .filter(move |(_, needs)| agreed & needs == *needs)
        .map(|(role, _)| role)
    }

    fn number(&self, role: Role) -> usize {
        self.roles().position(|other| other == role).unwrap_or(usize::MAX)
    }

    /// Serves one queue until it is empty (true), or what is `left` of `budget` is used up or it is late; something is done in
    /// any case.
    fn serve_queue(
        &mut self,
        number: usize,
        ram: &mut impl Pages,
        budget: usize,
        left: &mut usize,
    ) -> Result<bool, Stop> {
        let Some(role) = self.roles().nth(number) else { return Ok(true) };
        loop {
            self.settle(number, ram)?;
            let Some(queue) = self.transport.queues.get_mut(number) else { return Ok(true) };
            if *left == 0 || *left < budget && ram.is_late() {
                return Ok(false);
            }
            let Some((this, done)) = queue.current(ram)? else { return Ok(true) };
            *left -= 1;
            let rest = this.bytes.saturating_sub(done);
            let step = match role {
                Role::Inflate | Role::Deflate => pfns(ram, role, &this, done, rest, left)?,
                Role::Stats => self.hear(ram, &this)?,
                Role::Hint => self.name(ram, &this, done)?,
                Role::Report => free(ram, &this, done)?,
            };
            let Some(queue) = self.transport.queues.get_mut(number) else { return Ok(true) };
            if step < rest {
                queue.progress(step);
                continue;
            }
            let Some(head) = queue.advance(&this)? else { continue };
            if role == Role::Stats {
                if let Some(old) = self.held.replace(head) {
                    // A second buffer: the first has no question to wait for.
                    self.finish(number, old);
                }
            } else {
                self.finish(number, head);
            }
        }
    }

    fn finish(&mut self, number: usize, head: u16) {
        if let Some(queue) = self.transport.queues.get_mut(number) {
            queue.finish(head, 0);
        }
    }

    /// Gives back what is done.
    fn settle(&mut self, number: usize, ram: &mut impl Pages) -> Result<(), Stop> {
        let Some(queue) = self.transport.queues.get_mut(number).filter(|queue| queue.ready) else { return Ok(()) };
        if queue.settle(ram)? {
            self.transport.interrupt();
        }
        Ok(())
    }

    /// Reads statistics, the whole buffer.
    fn hear(&mut self, ram: &mut impl Pages, this: &Descriptor) -> Result<u32, Stop> {
        let mut bytes = [0; STATS_BYTES];
        let length = (this.bytes as usize).min(STATS_BYTES);
        let bytes = bytes.get_mut(..length).unwrap_or_default();
        ram.read(this.at, bytes)?;
        self.stats.learn(bytes);
        Ok(u32::MAX)
    }

    /// Reads a command id, or drops the free pages that were named under the one that counts.
    fn name(&mut self, ram: &mut impl Pages, this: &Descriptor, done: u32) -> Result<u32, Stop> {
        if this.is_writable {
            return if self.names { free(ram, this, done) } else { Ok(u32::MAX) };
        }
        let mut id = [0; 4];
        if this.bytes < 4 {
            return Err(Stop::Broken("a command id of less than four bytes"));
        }
        ram.read(this.at, &mut id)?;
        match u32::from_le_bytes(id) {
            HINT_STOP if self.names => self.stop_hinting(),
            id => self.names = self.is_hinting() && id == self.hint_id,
        }
        Ok(u32::MAX)
    }
}

/// Reads some page numbers of a buffer, and gives runs of them to `ram`. Returns how many bytes are done.
fn pfns(
    ram: &mut impl Pages,
    role: Role,
    this: &Descriptor,
    done: u32,
    rest: u32,
    left: &mut usize,
) -> Result<u32, Stop> {
    if this.is_writable {
        return Err(Stop::Broken("page numbers in a buffer for the device to write"));
    }
    let mut bytes = [0; 4 * PFNS];
    // At most PFNS, so it fits.
    let n = (rest as usize / 4).min(PFNS).min(*left + 1);
    let Some(part) = bytes.get_mut(..4 * n).filter(|part| !part.is_empty()) else { return Ok(u32::MAX) };
    let at = this.at.checked_add(done.into()).ok_or(Stop::Broken("a buffer ends behind the last address"))?;
    ram.read(at, part)?;
    let mut hand = |first: u32, pages: u64| {
        // 32 bits of page number, shifted by 12.
        let at = Addr::new(u64::from(first) << 12);
        match role {
            Role::Inflate => ram.inflate(at, pages),
            _ => ram.deflate(at, pages),
        }
        ram.is_late()
    };
    let mut run: Option<(u32, u64)> = None;
    let mut n_done = 0;
    for (n, pfn) in part.as_chunks::<4>().0.iter().enumerate() {
        let pfn = u32::from_le_bytes(*pfn);
        match run {
            Some((first, pages)) if pages < RUN && u64::from(first) + pages == pfn.into() => {
                run = Some((first, pages + 1))
            }
            // Linux hands them out from the highest down.
            Some((first, pages)) if pages < RUN && pfn.checked_add(1) == Some(first) => run = Some((pfn, pages + 1)),
            Some((first, pages)) => {
                n_done = n;
                run = None;
                if hand(first, pages) {
                    break;
                }
                run = Some((pfn, 1));
            }
            None => run = Some((pfn, 1)),
        }
    }
    if let Some((first, pages)) = run {
        hand(first, pages);
        n_done = n;
    }
    *left = left.saturating_sub(n_done);
    Ok(4 * n_done as u32)
}

/// Drops the whole pages of what is left of a free buffer. Returns how many bytes are done.
fn free(ram: &mut impl Pages, this: &Descriptor, done: u32) -> Result<u32, Stop> {
    if !this.is_writable {
        return Err(Stop::Broken("free pages in a buffer for the device to read"));
    }
    let page = Size::Page.bytes();
    let end =
        this.at.bits().checked_add(this.bytes.into()).ok_or(Stop::Broken("free pages behind the last address"))?;
    // Not beyond the end.
    let from = this.at.bits() + u64::from(done);
    let start = from.checked_next_multiple_of(page).unwrap_or(u64::MAX);
    let bytes = (end & !(page - 1)).saturating_sub(start);
    if bytes > 0 {
        let reported = ram.report(Addr::new(start), bytes);
        if reported < bytes {
            // Less than the buffer, whose length has 32 bits.
            return Ok((start - from + reported) as u32);
        }
    }
    Ok(u32::MAX)
}

impl Device for Balloon {
    fn read(&mut self, offset: u64, bytes: u8, _: &mut dyn Board) -> u64 {
        Self::read(self, offset, bytes)
    }

    fn write(&mut self, offset: u64, bytes: u8, value: u64, board: &mut dyn Board) {
        Self::write(self, offset, bytes, value);
        board.serve();
    }

    fn line(&self) -> bool {
        self.transport.line()
    }

    fn reset(&mut self) {
        *self = Self { last_hint: self.last_hint, ..Self::new() };
    }
}
