//! What there is to tell about memory, gathered from where it is counted.

use super::Host;
use super::pressure::{Overcommit, Stats};
use crate::devices::virtio::{blk, net};
use crate::frames::{Record, Work};
use crate::memory::check::Checked;
use crate::memory::shadow::ShadowCounts;
use crate::monitor::memory::{self, Board, MemRow};
use crate::vm::{Slot, Vm};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// Pages as KiB.
const fn kib(pages: u64) -> u64 {
    pages.saturating_mul(4)
}

impl Host {
    /// Gathers the rows of all VMs and the board's, and shows them to `show`.
    pub fn tell_memory<T>(&self, overcommit: &Overcommit, show: impl FnOnce(&Board<'_>, &[MemRow<'_>]) -> T) -> T {
        let rows: Vec<MemRow<'_>> =
            self.fleet.vms.iter().enumerate().map(|(n, vm)| self.row(vm, n, overcommit)).collect();
        let level = overcommit.policy.level().to_string();
        let totals = self.pressure.scanner.lock().totals;
        let (reserve, can) = self.copy_reserve();
        let pool = self.pool.lock();
        let counts = pool.counts();
        let (blocks, used) = pool.swap.counts();
        let own = self.facts.own_bytes >> 10;
        let board = Board {
            level: &level,
            total: kib(counts.total),
            hypervisor: own,
            reserved: kib(counts.reserved + counts.hypervisor).saturating_sub(own),
            private: kib(counts.guest),
            tables: kib(counts.table),
            shared: kib(counts.shared - pool.adopted()),
            images: kib(pool.adopted()),
            store: kib(counts.store),
            free: kib(counts.free),
            saved: kib(pool.saved()),
            reserve: (kib(reserve), kib(can)),
            swap: (kib(blocks.into()), kib(used.into())),
            scan: [totals.scanned, totals.merged, totals.zeroed, totals.differed],
            record_bytes: size_of::<Record>() as u64,
        };
        drop(pool);
        show(&board, &rows)
    }

    fn row<'a>(&self, vm: &'a Vm, n: usize, overcommit: &Overcommit) -> MemRow<'a> {
        let facts = self.facts(vm, n, overcommit);
        let resident = vm.memory.lock().resident();
        let part = self.shared_part(&resident);
        MemRow {
            name: &vm.name,
            configured: vm.spec.memory >> 10,
            private: kib(resident.frames),
            shared: kib(resident.shared),
            saved: kib(resident.shared.saturating_sub(part)),
            zero: kib(resident.zero),
            packed: kib(resident.packed),
            packed_in: resident.units / 4,
            swapped: kib(resident.swapped),
            balloon: kib(facts.balloon),
            target: kib(facts.target),
            active: kib(facts.active),
            // And the page that tells of stolen time.
            tables: kib(resident.tables + super::admit::STOLEN),
            entitled: kib(vm.entitled.load(Ordering::Relaxed).min(facts.max)),
        }
    }

    /// What each kind of work on a page has cost: its name, how many pages, and nanoseconds for each.
    pub fn costs(&self) -> [(&'static str, u64, u64); Work::ALL.len()] {
        Work::ALL.map(|work| {
            let (pages, ticks) = self.pool.costs().of(work);
            (work.name(), pages, self.facts.frequency.nanos(ticks).checked_div(pages).unwrap_or(0))
        })
    }

    /// Says at the end what the work on pages has cost, if there was any.
    pub fn sum_up(&self) {
        let costs = self.costs();
        if costs.iter().any(|(_, pages, _)| *pages > 0) {
            let mut line = String::new();
            let _ = memory::costs(&mut line, &costs);
            self.console.say(format_args!("memory:{line} (pages * ns)"));
        }
        let (mut sum, mut lent) = (blk::Counts::default(), 0);
        for disk in self.fleet.vms.iter().flat_map(|vm| &vm.bus.disks) {
            sum += disk.blk.lock().counts;
            lent += disk.lent.load(Ordering::Relaxed);
        }
        if sum.requests > 0 {
            let blk::Counts { requests, read, written, errors } = sum;
            let (read, written, lent) = (read >> 10, written >> 10, lent << 2);
            self.console.say(format_args!(
                "disks: requests={requests} read={read} written={written} lent={lent} errors={errors} (KiB)"
            ));
        }
        let mut sum = net::Counts::default();
        for nic in self.fleet.vms.iter().flat_map(|vm| &vm.bus.nics) {
            sum += nic.net.lock().counts;
        }
        if sum.sent > 0 {
            let net::Counts { sent, received, dropped, refused, received_bytes, .. } = sum;
            let bytes = received_bytes >> 10;
            self.console.say(format_args!(
                "nets: sent={sent} received={received} dropped={dropped} refused={refused} (frames) bytes={bytes} (KiB)"
            ));
        }
        let mut sum = ShadowCounts::default();
        let mut exits = 0;
        for vm in self.fleet.vms.iter().filter(|vm| vm.spec.nested) {
            sum += vm.memory.lock().shadow_counts();
            exits += vm.slots.iter().map(Slot::exits).sum::<u64>();
        }
        if sum.filled > 0 {
            let Checked { leaves, wrong, stale } = self.pressure.overcommit.lock().checked;
            let ShadowCounts { filled, moved, killed, dropped, .. } = sum;
            self.console.say(format_args!(
                "shadows: filled={filled} moved={moved} killed={killed} dropped={dropped} checked={leaves} wrong={wrong} stale={stale} exits={exits}"
            ));
        }
    }

    /// Goes on with the statistics that are due: a line for the board, one for what work has cost, one for each VM. A step makes half of
    /// a line, or writes it. False if there is no more.
    pub(super) fn write_stats(&self, overcommit: &mut Overcommit) -> bool {
        let mut text = core::mem::take(&mut overcommit.stats.text);
        let Stats { millis, step, .. } = overcommit.stats;
        overcommit.stats.step += 1;
        // Writing to a string does not fail.
        let _ = match (step / 3, step % 3) {
            (_, 2) => {
                self.console.show(format_args!("{text}"));
                text.clear();
                Ok(())
            }
            (0, half) => self.tell_memory(overcommit, |board, _| memory::board_stats(&mut text, half, millis, board)),
            (1, 0) => memory::cost_stats(&mut text, millis, &self.costs()),
            (1, _) => Ok(()),
            (n, half) => {
                let Some(vm) = self.fleet.vms.get(n - 2) else { return false };
                memory::vm_stats(&mut text, half, millis, &self.row(vm, n - 2, overcommit))
            }
        };
        overcommit.stats.text = text;
        true
    }
}
