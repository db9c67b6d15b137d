//! CPUs that race: each runs its [`RunLoop`] as a coroutine, and where it asks something of the machine and holds no lock,
//! others run, for as long as dice want.
//!
//! Guests are on them that do what guests do (interrupts taken and ended, WFI, SGIs, timers, PSCI, memory, FP, devices), and an
//! operator who pauses, stops and starts VMs. What a CPU shows its guest is checked whenever that is entered: that the registers
//! are its own, that nothing is left undone which was asked of the vCPU, that it is on no CPU besides. What was lost shows when
//! all CPUs sleep: then nobody may wait for anything but time.
//!
//! One thing at a time happens, by dice, so every run is the same.

mod guest;
mod machine;

use crate::cpu::{BOARD, BOARD_BYTES, BoardPlan, host_on};
use crate::model::{Dice, Flaw, Model};
use corosensei::{Coroutine, CoroutineResult, Yielder};
use flatland::addr::{Addr, CpuId, VcpuId};
use flatland::arm::el1::{Context, El1};
use flatland::arm::el2::El2Registers;
use flatland::arm::gic::{Mask, hcr};
use flatland::host::Host;
use flatland::run::{Irq, RunLoop};
use flatland::sched;
use flatland::vcpu::Fp;
use flatland::vm::{Power, Slot, State, Vm};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// `ICH_LR<n>_EL2`.
const PENDING: u64 = 1 << 62;
const ACTIVE: u64 = 1 << 63;
const HW: u64 = 1 << 61;
/// ICH_VMCR_EL2: all priorities, both groups.
const OPEN: u64 = 0xf8 << 24 | 3;
/// An edge-triggered SPI.
const SPI: u64 = 40;
/// CNTV_CTL_EL0.
const ENABLE: u64 = 1;
const ISTATUS: u64 = 4;

/// How often what happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct Counts {
    /// Times that one CPU gave way to another, and between two instructions of EL2 at that.
    pub switches: u64,
    pub entries: u64,
    pub loads: u64,
    /// Loads of a vCPU that was on another CPU before.
    pub migrations: u64,
    pub sleeps: u64,
    /// Times that a CPU slept.
    pub idles: u64,
    /// Times that all CPUs slept, and all that was waited for was looked at.
    pub quiet: u64,
    pub sgis: u64,
    pub taken: u64,
    pub timers: u64,
    pub starts: u64,
    pub pauses: u64,
    pub stops: u64,
    /// Lives of VMs.
    pub lives: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.switches += more.switches;
        self.entries += more.entries;
        self.loads += more.loads;
        self.migrations += more.migrations;
        self.sleeps += more.sleeps;
        self.idles += more.idles;
        self.quiet += more.quiet;
        self.sgis += more.sgis;
        self.taken += more.taken;
        self.timers += more.timers;
        self.starts += more.starts;
        self.pauses += more.pauses;
        self.stops += more.stops;
        self.lives += more.lives;
    }
}

/// What a guest knows of itself.
#[derive(Clone, Default, Debug)]
struct Guest {
    /// What it takes next.
    taken: Option<u64>,
    /// When its virtual timer fires, by the system counter.
    timer: Option<u64>,
    /// When its physical one does, and whether that interrupted and has to be turned off.
    physical: Option<u64>,
    silence: bool,
    /// What its V0 holds.
    v0: u128,
    /// In which of its VM's lives it was told to start, where, and with what.
    start: Option<(u32, u64, u64)>,
    /// On which CPU it was last.
    cpu: Option<usize>,
    /// It never lets go of its CPU.
    spins: bool,
    /// Since when it waits for a CPU, and since when while one sleeps.
    ready: Option<u64>,
    ready_beside: Option<u64>,
}

/// How long a vCPU waits for a CPU at most: far more slices than there are vCPUs.
const MOST_READY: u64 = 30 * 312_500;
/// The same while a CPU sleeps that could have it.
const MOST_BESIDE: u64 = 50_000;

/// How many turns of the loops of all CPUs there are at most without a guest that is entered or a CPU that sleeps: where images are
/// loaded and VMs cleared away.
const MOST_TURNS: u64 = 1000;

/// How often in a row a guest is entered at most and interrupted before it does anything.
const MOST_FRUITLESS: u64 = 50;

/// A CPU's registers, and what waits for it.
struct Hardware {
    el1: Context,
    el2: Option<El2Registers>,
    lr: [u64; 16],
    hcr: u32,
    fp: Fp,
    fp_traps: bool,
    /// For each VM: whose translations of stage 1 are in the TLB.
    tlb: Vec<Option<u16>>,
    deadline: Option<u64>,
    signal: bool,
    nudge: bool,
    /// The virtual timer's physical interrupt is active.
    timer_active: bool,
    asleep: bool,
    /// It tells vCPUs something, and may not be done with it.
    tells: bool,
    /// How often in a row a guest was entered and left before it did anything.
    fruitless: u64,
}

/// The board.
pub struct Board {
    /// All there is.
    pub host: &'static Host,
    model: Model,
    dice: RefCell<Dice>,
    time: Cell<u64>,
    cpus: Vec<RefCell<Hardware>>,
    guests: Vec<RefCell<Vec<Guest>>>,
    /// Where each VM's root table is.
    roots: Vec<u64>,
    uart: Cell<bool>,
    counts: Cell<Counts>,
    /// Its guests run at an EL2 of their own, and stay there.
    nested: bool,
    /// How many list registers a CPU has.
    lists: usize,
    /// How many times longer all that EL2 does takes.
    slow: u64,
}

const ROOT: u64 = 0xffff_ffff_fffe;

impl Board {
    fn new(plan: &BoardPlan<'_>, seed: u64) -> Rc<Self> {
        let model = Model::new(Addr::new(BOARD), BOARD_BYTES, seed, Flaw::None);
        let host = host_on(&model, plan);
        let cpu = || Hardware {
            el1: Context::reset(),
            el2: None,
            lr: [0; 16],
            hcr: 0,
            fp: Fp { v: [0; 32], fpcr: 0, fpsr: 0 },
            fp_traps: false,
            tlb: vec![None; plan.names.len()],
            deadline: None,
            signal: false,
            nudge: false,
            timer_active: false,
            asleep: false,
            tells: false,
            fruitless: 0,
        };
        Rc::new(Self {
            roots: host.fleet.vms.iter().map(|vm| vm.root.vttbr(&model, &host.vmids, CpuId(0)) & ROOT).collect(),
            guests: host.fleet.vms.iter().map(|vm| RefCell::new(vec![Guest::default(); vm.slots.len()])).collect(),
            host,
            model,
            dice: RefCell::new(Dice::new(seed)),
            time: Cell::new(1000),
            cpus: (0..plan.n_cpus).map(|_| RefCell::new(cpu())).collect(),
            uart: Cell::new(false),
            counts: Cell::new(Counts::default()),
            nested: plan.nested,
            lists: usize::from(plan.lists),
            slow: plan.slow,
        })
    }

    fn below(&self, limit: u64) -> u64 {
        self.dice.borrow_mut().below(limit)
    }

    fn one_in(&self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn count(&self, what: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        what(&mut counts);
        self.counts.set(counts);
    }

    fn pass(&self, most: u64) {
        self.time.set(self.time.get() + self.below(most));
    }

    /// Whether no CPU holds a lock that another may want, as far as can be seen.
    fn is_free(&self) -> bool {
        let host = self.host;
        let of_vm = |vm: &Vm| {
            vm.memory.try_lock().is_some()
                && vm.vgic.try_lock().is_some()
                && vm.bus.ports().all(|port| port.device.try_lock().is_some())
                && vm.bus.ticking.try_lock().is_some()
                && vm.flash.try_lock().is_some()
        };
        host.queue.try_lock().is_some()
            && host.console.try_lock().is_some()
            && host.pressure.overcommit.try_lock().is_some()
            && host.pressure.scanner.try_lock().is_some()
            && host.fleet.vms.iter().all(of_vm)
    }

    /// The interrupts that wait for CPU `n`.
    fn pending(&self, n: usize) -> Vec<Irq> {
        let cpu = self.cpus[n].borrow();
        let now = self.time.get();
        let maintenance = cpu.hcr & hcr::EN != 0
            && (cpu.hcr & hcr::NPIE != 0 && cpu.lr.iter().all(|lr| lr & PENDING == 0)
                || cpu.hcr & hcr::UIE != 0 && cpu.lr.iter().filter(|lr| **lr & (PENDING | ACTIVE) != 0).count() <= 1
                || cpu.hcr & hcr::LRENPIE != 0 && cpu.hcr >> hcr::EOI_COUNT_SHIFT != 0);
        [
            (Irq::Nudge, cpu.nudge),
            (Irq::Signal, cpu.signal),
            (Irq::Deadline, cpu.deadline.is_some_and(|at| at <= now)),
            (Irq::VirtualTimer, !cpu.timer_active && self.fires_at(&cpu).is_some_and(|at| at <= now)),
            (Irq::Maintenance, maintenance),
            // The first CPU's, as GICD_ITARGETSR or GICD_IROUTER would have it.
            (Irq::Uart, n == 0 && self.uart.get()),
        ]
        .into_iter()
        .filter_map(|(irq, waits)| waits.then_some(irq))
        .collect()
    }

    /// When the virtual timer that is on a CPU fires, by the system counter.
    fn fires_at(&self, cpu: &Hardware) -> Option<u64> {
        let armed = cpu.el1.get(El1::CntvCtl) & 3 == ENABLE;
        armed.then(|| cpu.el1.get(El1::CntvCval).wrapping_add(cpu.el2.map_or(0, |el2| el2.cntvoff)))
    }

    /// The vCPU that is on CPU `n`, by what registers say of it.
    fn on(&self, n: usize) -> (&'static Vm, &'static Slot, usize) {
        let el2 = self.cpus[n].borrow().el2.expect("nobody is loaded");
        let at = self.roots.iter().position(|root| *root == el2.vttbr & ROOT).expect("no VM's table");
        let vm = &self.host.fleet.vms[at];
        let vcpu = vm.slots.iter().position(|slot| slot.mpidr == el2.vmpidr & 0xff_00ff_ffff).expect("no vCPU's MPIDR");
        (vm, &vm.slots[vcpu], vcpu)
    }

    /// Whoever can run does so soon: at once where a CPU sleeps, and in its turn where none does.
    fn watch(&self) {
        let now = self.time.get();
        let sleeps: Vec<_> =
            (0..self.cpus.len()).map(|n| self.cpus[n].borrow().asleep && self.pending(n).is_empty()).collect();
        let Some(queue) = self.host.queue.try_lock() else { return };
        for vm in &self.host.fleet.vms {
            let mut guests = self.guests[usize::from(vm.id.0)].borrow_mut();
            for (n, slot) in vm.slots.iter().enumerate() {
                let guest = &mut guests[n];
                if queue.state(slot.entity) != sched::EntityState::Ready || vm.life.state() != State::Running {
                    (guest.ready, guest.ready_beside) = (None, None);
                    continue;
                }
                let since = now - *guest.ready.get_or_insert(now);
                assert!(since < MOST_READY * self.slow, "vCPU {n} of {} waits for a CPU for {since} ticks", vm.name);
                let loaded = queue.loaded_on(slot.entity);
                if !(0..sleeps.len()).any(|cpu| sleeps[cpu] && loaded.is_none_or(|on| usize::from(on.0) == cpu)) {
                    guest.ready_beside = None;
                    continue;
                }
                let since = now - *guest.ready_beside.get_or_insert(now);
                assert!(since < MOST_BESIDE * self.slow, "vCPU {n} of {} waits beside a CPU that sleeps", vm.name);
            }
        }
    }

    /// All CPUs sleep: whatever is waited for can only be time. Returns what is wrong.
    fn look(&self) -> Vec<String> {
        self.count(|counts| counts.quiet += 1);
        let (host, now) = (self.host, self.time.get());
        let mut wrong = Vec::new();
        let deadlines: Vec<_> = self.cpus.iter().filter_map(|cpu| cpu.borrow().deadline).collect();
        for (v, vm) in host.fleet.vms.iter().enumerate() {
            match vm.life.state() {
                State::Running => {}
                State::Paused | State::Ended(_) => continue,
                state => wrong.push(format!("{} is {state:?}", vm.name)),
            }
            for (n, slot) in vm.slots.iter().enumerate() {
                let name = format!("vCPU {n} of {}", vm.name);
                let state = host.queue.lock().state(slot.entity);
                match (slot.power(), state) {
                    (Power::Off, sched::EntityState::Off) => continue,
                    (Power::On, sched::EntityState::Blocked(_)) => {}
                    (power, state) => wrong.push(format!("{name} is {power:?} and {state:?}")),
                }
                if vm.vgic.lock().deliverable(VcpuId(n as u16), Mask::from_ich_vmcr(OPEN)) {
                    wrong.push(format!("{name} has an interrupt to take"));
                }
                let guest = &self.guests[v].borrow()[n];
                let loaded = host.queue.lock().loaded_on(slot.entity);
                for at in [guest.timer, guest.physical].into_iter().flatten() {
                    let watched = loaded.is_some() && guest.timer == Some(at) || deadlines.iter().any(|is| *is <= at);
                    if at <= now || !watched {
                        wrong.push(format!("{name} waits at {now} for a timer that fires at {at}, with {deadlines:?}"));
                    }
                }
            }
        }
        wrong
    }
}

/// Lets the CPUs of a board run its VMs for `turns` turns of the dice. Panics with what went wrong.
pub fn race(plan: &BoardPlan<'_>, seed: u64, turns: u64) -> Counts {
    let n_cpus = plan.n_cpus;
    let board = Board::new(plan, seed);
    let mut cpus: Vec<_> = (0..n_cpus)
        .map(|n| {
            let board = Rc::clone(&board);
            Coroutine::<(), (), ()>::new(move |yielder, ()| {
                let cpu = Racer { board: Rc::clone(&board), n, yielder };
                if n == 0 {
                    board.host.begin_all(&cpu);
                }
                let mut run = RunLoop::new(board.host, &cpu, CpuId(n as u16));
                let progress = || (board.counts.get().entries, board.counts.get().idles);
                let mut last = (progress(), 0);
                loop {
                    run.turn(&cpu);
                    last = if last.0 == progress() { (last.0, last.1 + 1) } else { (progress(), 0) };
                    assert!(last.1 < MOST_TURNS * board.slow, "CPU {n} neither enters a guest nor sleeps, seed {seed}");
                }
            })
        })
        .collect();
    let mut held = (0, 0);
    for _ in 0..turns {
        let awake: Vec<_> =
            (0..n_cpus).filter(|n| !board.cpus[*n].borrow().asleep || !board.pending(*n).is_empty()).collect();
        if awake.is_empty() {
            let wrong = board.look();
            assert!(wrong.is_empty(), "all CPUs sleep, seed {seed}, but\n{}", wrong.join("\n"));
            let timers = board.cpus.iter().flat_map(|cpu| {
                let cpu = cpu.borrow();
                [cpu.deadline, board.fires_at(&cpu).filter(|_| !cpu.timer_active)]
            });
            let next = timers.flatten().min();
            board.time.set(next.unwrap_or(0).max(board.time.get()));
            board.uart.set(next.is_none() || board.one_in(4));
            continue;
        }
        if board.one_in(100) {
            board.uart.set(true);
        }
        board.watch();
        // One is held up now and then, as by a slow bus, while others go far.
        if held.1 == 0 && board.one_in(30) {
            held = (board.below(n_cpus as u64) as usize, board.below(60));
        }
        held.1 = held.1.saturating_sub(1);
        let n = awake[board.below(awake.len() as u64) as usize];
        if held.1 > 0 && held.0 == n && awake.len() > 1 {
            continue;
        }
        assert!(matches!(cpus[n].resume(()), CoroutineResult::Yield(())));
    }
    let errors = board.model.errors();
    assert!(errors.is_empty(), "{errors:?}");
    board.count(|counts| counts.lives = board.host.fleet.vms.iter().map(|vm| u64::from(vm.life.starts())).sum());
    board.counts.get()
}

/// A CPU while it runs.
struct Racer<'y> {
    board: Rc<Board>,
    n: usize,
    yielder: &'y Yielder<(), ()>,
}

impl Racer<'_> {
    /// Time goes by, and perhaps others run.
    fn between(&self) {
        self.board.pass(40 * self.board.slow);
        // Whoever copies images holds the loader, which cannot be seen.
        let loads = self.board.host.fleet.vms.iter().any(|vm| vm.life.state() == State::Loading);
        if self.board.one_in(3) && !loads && self.board.is_free() {
            self.give_way();
        }
    }

    /// The same while it tells vCPUs something.
    fn telling(&self) {
        self.own(|own| own.tells = true);
        self.between();
        self.own(|own| own.tells = false);
    }

    fn give_way(&self) {
        self.board.count(|counts| counts.switches += 1);
        self.yielder.suspend(());
    }

    /// Lets others run until something waits for this CPU.
    fn sleep(&self) {
        self.yielder.suspend(());
    }

    fn own<T>(&self, what: impl FnOnce(&mut Hardware) -> T) -> T {
        what(&mut self.board.cpus[self.n].borrow_mut())
    }

    fn guest<T>(&self, vm: &Vm, vcpu: usize, what: impl FnOnce(&mut Guest) -> T) -> T {
        what(&mut self.board.guests[usize::from(vm.id.0)].borrow_mut()[vcpu])
    }
}
