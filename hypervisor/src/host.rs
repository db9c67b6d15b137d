//! All there is: one value, which the binary makes at boot and every CPU uses.
//!
//! Its parts are by what changes together: [`Facts`] of the board, the [`Fleet`] of VMs, the pool of frames and the [`Pressure`] on
//! it, the [`RunQueue`] and the console. Each says who holds its lock when. What takes several of them is said once for
//! [`Host`], a file for each subject: the life of a VM, its balloon, its flash, what is scanned, put away, watched and reported, and
//! what the operator commands.

mod admit;
mod balloon;
mod banks;
mod build;
mod bus;
mod console;
mod disk;
mod facts;
mod fill;
pub mod flash;
mod fleet;
mod guest_ram;
mod lan;
mod life;
mod load;
mod net;
pub mod operator;
mod overcommit;
mod pressure;
mod queue;
mod relief;
mod report;
mod scan;
mod stats;
mod watch;

pub use admit::heap_for;
pub use console::SharedConsole;
pub use facts::{Facts, HOUSEKEEPING_CPU};
pub use fleet::{Fleet, Shutdown};
pub use pressure::{Overcommit, Pressure, Scanner};
pub use queue::RunQueue;

use crate::addr::VmId;
use crate::bundle::gzip::Workspace;
use crate::bundle::{Bundle, Diagnostic};
use crate::devices;
use crate::devices::entropy::Entropy;
use crate::frames::{Pool, SharedPool};
use crate::machine::Machine;
use crate::monitor::Console;
use crate::sched::Queue;
use crate::stage2::vmid::Vmids;
use crate::vm::{Slot, Vm};
use alloc::vec::Vec;
use spin::mutex::SpinMutex;

use lan::Lan;
use load::Loader;

/// A vCPU that left its guest, and where it belongs.
#[derive(Clone, Copy)]
pub struct Here<'a> {
    /// All there is.
    pub host: &'a Host,
    /// Its VM.
    pub vm: &'a Vm,
    /// Its slot there.
    pub slot: &'a Slot,
}

/// All there is, what is used most first: what lies farther than 4 KiB in takes an instruction more to reach.
#[repr(C)]
pub struct Host {
    /// The VMIDs in use.
    pub vmids: Vmids,
    /// The board's free memory.
    pub pool: SharedPool<'static>,
    /// Who runs where.
    pub queue: RunQueue,
    /// The board's UART, shared by all.
    pub console: SharedConsole,
    /// The VMs.
    pub fleet: Fleet,
    /// What the board offers.
    pub facts: Facts,
    /// What is done where there is little memory.
    pub pressure: Pressure,
    /// What guests have random numbers from; nothing where the board has no source.
    pub entropy: Option<SpinMutex<Entropy>>,
    /// The switches between the VMs.
    pub lans: Vec<Lan>,
}

/// How long a vCPU runs while others wait, in nanoseconds.
const SLICE: u64 = 5_000_000;

impl Host {
    /// Builds the VMs of `bundle`. Every error of the operator's is returned, and nothing was started then.
    pub fn build<M: Machine>(
        m: &M,
        mut pool: Pool<'static>,
        facts: Facts,
        bundle: Bundle<'static>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut workspace = Workspace::new();
        let plans = bundle.plan(devices::RAM_BASE, &mut workspace)?;
        let admitted = admit::admit(m, &mut pool, &facts, &bundle)?;
        let pool = SharedPool::new(pool, facts.seed);
        let mut queue = Queue::new(facts.n_cpus, facts.frequency.ticks(SLICE));
        let lans = Lan::of(&bundle.vms);
        let mut vms = Vec::new();
        let mut errors = Vec::new();
        for (id, (spec, plan)) in (0_u16..).zip(bundle.vms.into_iter().zip(plans)) {
            match build::vm(m, &pool, &facts, &mut queue, VmId(id), (spec, plan), (&admitted, &lans)) {
                Ok(vm) => vms.push(vm),
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let console = Console::new(vms.iter().map(|vm| vm.name.as_str()));
        let overcommit = Overcommit::new(admitted.settings, admitted.total, vms.len(), admitted.is_overcommitted);
        let merges = vms.iter().any(|vm| vm.merges);
        Ok(Self {
            pool,
            pressure: Pressure::new(overcommit, admitted.settings, merges, facts.seed),
            vmids: Vmids::new(facts.vmid_bits, facts.n_cpus),
            queue: RunQueue::new(queue, facts.n_cpus),
            console: SharedConsole::new(console),
            fleet: Fleet::new(vms, Loader::new(workspace)),
            lans,
            entropy: facts.entropy.begin().map(SpinMutex::new),
            facts,
        })
    }
}
