//! The pool as all CPUs use it: each part behind its lock.

use super::compressor::Compressor;
use super::costs::Costs;
use super::hash::Hash;
use super::pool::Pool;

/// The pool as several CPUs share it, with the room to compress pages and the hash that finds equal ones.
#[derive(Debug)]
pub struct SharedPool<'a> {
    pool: spin::Mutex<Pool<'a>>,
    compressor: spin::Mutex<Compressor>,
    hash: Hash,
    costs: Costs,
}

impl<'a> SharedPool<'a> {
    /// Shares `pool`; hashes are keyed by `seed`, which guests should not be able to guess.
    pub fn new(pool: Pool<'a>, seed: u64) -> Self {
        Self {
            pool: spin::Mutex::new(pool),
            compressor: spin::Mutex::new(Compressor::default()),
            hash: Hash::new(seed),
            costs: Costs::default(),
        }
    }

    /// The pool, for as long as the guard lives.
    #[inline(always)]
    pub fn lock(&self) -> spin::MutexGuard<'_, Pool<'a>> {
        self.pool.lock()
    }

    /// The room to compress, for as long as the guard lives; to be taken before the pool.
    pub fn compressor(&self) -> spin::MutexGuard<'_, Compressor> {
        self.compressor.lock()
    }

    /// What the work on pages has cost.
    pub const fn costs(&self) -> &Costs {
        &self.costs
    }

    /// The hash of pages.
    pub const fn hash(&self) -> &Hash {
        &self.hash
    }
}
