//! VMIDs: which number the hardware keeps a table's translations under, with roll-over.
//!
//! There may be more tables than numbers (255 on a Cortex-A72, and shadows need their own). So a number is lent for a
//! *generation*. [`Tag`], which lives as long as its table, holds number and generation. When a generation runs out of
//! numbers, the next begins: every TLB forgets all, and every tag of the old generation is worth nothing, save those in use
//! on a CPU at that moment, whose numbers stay theirs: the CPU that runs the guest need not be stopped.
//!
//! [`Vmids::of`] is called on the way into a guest whenever a CPU changes from one table to another. The fast path takes no
//! lock: a load of the tag, a compare with the generation, and one compare-and-exchange on this CPU's own word, which fails
//! only if a roll-over has just looked at it.
//!
//! Number 0 is nobody's: a CPU with no guest has it in VTTBR_EL2.
//!
//! Lock: the allocator's own, innermost of all; held over a `Forget::All` once for each generation.
//!
//! Follows Arm ARM D8.14 (VMID), D8.16 (maintenance).

use crate::addr::{CpuId, Vmid};
use crate::arm::vmsa::VmidBits;
use crate::machine::{Forget, Machine};
use alloc::boxed::Box;
use alloc::vec;
use core::sync::atomic::{AtomicU64, Ordering};
use spin::Mutex;

/// Generations count from here up, above the number's 16 bits. There are 2^48; they do not run out.
const ONE_GENERATION: u64 = 1 << 16;

/// Under which number, and of which generation, a table's translations are cached. 0: under none, ever.
#[derive(Debug, Default)]
pub struct Tag(AtomicU64);

impl Tag {
    /// The tag of a table that has never been used.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// The number, or nothing where the table has never been used. It may be of an old generation: to forget it is then
    /// useless and harmless.
    pub fn vmid(&self) -> Option<Vmid> {
        let number = number(self.0.load(Ordering::SeqCst));
        (number != 0).then_some(Vmid(number))
    }
}

/// The low 16 bits; the cast drops the generation.
const fn number(tag: u64) -> u16 {
    (tag & 0xffff) as u16
}

/// All numbers.
#[derive(Debug)]
pub struct Vmids {
    generation: AtomicU64,
    /// For each CPU the tag it runs under; 0 after a roll-over has looked, until the CPU's next turn.
    active: Box<[AtomicU64]>,
    pool: Mutex<Pool>,
}

#[derive(Debug)]
struct Pool {
    bits: VmidBits,
    /// One bit for each number; set if lent in this generation.
    used: Box<[u64]>,
    /// Where to look next.
    cursor: u32,
    /// For each CPU the number it ran under at the last roll-over.
    kept: Box<[u64]>,
}

impl Vmids {
    /// All numbers of `bits`, for `cpus` CPUs, of which there must be fewer than numbers.
    pub fn new(bits: VmidBits, cpus: usize) -> Self {
        let words = bits.numbers() as usize / 64;
        let mut used = vec![0; words].into_boxed_slice();
        if let Some(first) = used.first_mut() {
            *first = 1;
        }
        let pool = Pool { bits, used, cursor: 1, kept: vec![0; cpus].into_boxed_slice() };
        Self {
            generation: AtomicU64::new(ONE_GENERATION),
            active: (0..cpus).map(|_| AtomicU64::new(0)).collect(),
            pool: Mutex::new(pool),
        }
    }

    /// The number under which `cpu` runs the table of `tag` from here on. The caller writes it to VTTBR_EL2 before it
    /// enters the guest. A CPU beyond those announced gets number 0; that is the caller's mistake.
    pub fn of<M: Machine>(&self, m: &M, cpu: CpuId, tag: &Tag) -> Vmid {
        let Some(active) = self.active.get(usize::from(cpu.0)) else { return Vmid(0) };
        let current = tag.0.load(Ordering::SeqCst);
        let before = active.load(Ordering::SeqCst);
        if before != 0
            && self.is_current(current)
            && active.compare_exchange(before, current, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        {
            return Vmid(number(current));
        }
        self.of_slow(m, active, tag)
    }

    /// How many times the numbers have run out.
    pub fn rollovers(&self) -> u64 {
        self.generation.load(Ordering::SeqCst) / ONE_GENERATION - 1
    }

    fn is_current(&self, tag: u64) -> bool {
        tag / ONE_GENERATION == self.generation.load(Ordering::SeqCst) / ONE_GENERATION
    }

    fn of_slow<M: Machine>(&self, m: &M, active: &AtomicU64, tag: &Tag) -> Vmid {
        let mut pool = self.pool.lock();
        let mut current = tag.0.load(Ordering::SeqCst);
        if !self.is_current(current) {
            current = self.renew(m, &mut pool, current);
            tag.0.store(current, Ordering::SeqCst);
            // Before this CPU walks under the new number: see `stage2::map`.
            m.publish();
        }
        active.store(current, Ordering::SeqCst);
        Vmid(number(current))
    }

    /// A tag of this generation for one of an older: the same number if it was kept or is free, else another.
    fn renew<M: Machine>(&self, m: &M, pool: &mut Pool, old: u64) -> u64 {
        let generation = self.generation.load(Ordering::SeqCst);
        let same = number(old);
        if same != 0 {
            let renewed = generation | u64::from(same);
            if pool.keep(old, renewed) || pool.claim(same) {
                return renewed;
            }
        }
        let found = pool.find();
        if let Some(free) = found {
            return generation | u64::from(free);
        }
        let generation = generation + ONE_GENERATION;
        self.generation.store(generation, Ordering::SeqCst);
        self.restart(pool);
        m.forget(Forget::All);
        // There are more numbers than CPUs, so one is free; 0 translates nothing and harms nobody.
        generation | u64::from(pool.find().unwrap_or(0))
    }

    /// Takes back all numbers but 0 and those in use on a CPU.
    fn restart(&self, pool: &mut Pool) {
        pool.used.fill(0);
        pool.cursor = 1;
        pool.claim(0);
        for (cpu, active) in self.active.iter().enumerate() {
            let running = active.swap(0, Ordering::SeqCst);
            let Some(kept) = pool.kept.get_mut(cpu) else { continue };
            if running != 0 {
                *kept = running;
            }
            let number = number(*kept);
            pool.claim(number);
        }
    }
}

impl Pool {
    /// Whether `old` was kept over the roll-over for some CPU; from here on it is known as `renewed`.
    fn keep(&mut self, old: u64, renewed: u64) -> bool {
        let mut found = false;
        // All of them: two CPUs may run two vCPUs of one table.
        for kept in self.kept.iter_mut().filter(|kept| **kept == old) {
            *kept = renewed;
            found = true;
        }
        found
    }

    /// Lends `number` if it is free.
    fn claim(&mut self, number: u16) -> bool {
        let Some(word) = self.used.get_mut(usize::from(number / 64)) else { return false };
        let free = *word >> (number % 64) & 1 == 0;
        *word |= 1 << (number % 64);
        free
    }

    /// Lends the next free number, or none. Looks at each word once.
    fn find(&mut self) -> Option<u16> {
        let total = self.bits.numbers();
        while self.cursor < total {
            let word = self.used.get_mut(self.cursor as usize / 64)?;
            let free = !*word & u64::MAX << (self.cursor % 64);
            if free != 0 {
                let bit = free.trailing_zeros();
                *word |= 1 << bit;
                let found = self.cursor / 64 * 64 + bit;
                self.cursor = found;
                return u16::try_from(found).ok();
            }
            self.cursor = (self.cursor / 64 + 1) * 64;
        }
        None
    }
}
