//! The scheduler on simulated CPUs: kicks arrive late, timers fire when asked for, guests compute, sleep and wake each
//! other at random. After every step the rules that hold at all times are checked; at the end, who got how much.
//!
//! The simulated CPU does what the loop of a real one does: pick when it has nothing, when kicked, when its deadline
//! comes; load what it picked; let the guest run; block it, off it or yield when the guest says so.

use flatland::addr::{CpuId, VcpuId, VmId};
use flatland::sched::{CpuSet, EntityId, EntityState, Queue};
use harness::effort;
use proptest::prelude::{Strategy, any, prop, prop_assert, proptest};
use proptest::test_runner::Config;

const SLICE: u64 = 6_000;
const LATENCY: u64 = 20;

/// What a guest does with its time.
#[derive(Clone, Copy, Debug)]
enum Habit {
    /// It never lets go.
    Spin,
    /// It runs and sleeps, each for up to so many ticks; it sets a timer.
    Nap(u64, u64),
    /// The same, but no timer: others wake it.
    Serve(u64),
    /// It yields after up to so many ticks.
    Yield(u64),
}

#[derive(Clone, Copy, Debug)]
struct Guest {
    vm: u16,
    shares: u32,
    affinity: u64,
    habit: Habit,
}

#[derive(Clone, Debug, Default)]
struct Core {
    kicked_at: Option<u64>,
    timer: Option<u64>,
    /// When the guest on it does something by its habit.
    act_at: Option<u64>,
}

struct Sim {
    queue: Queue,
    guests: Vec<Guest>,
    ids: Vec<EntityId>,
    cores: Vec<Core>,
    now: u64,
    random: u64,
    /// Since when a vCPU has been ready without running.
    waiting: Vec<Option<u64>>,
    longest_wait: Vec<u64>,
    paused: Vec<bool>,
    picks: u64,
}

impl Sim {
    fn new(n_cpus: usize, guests: Vec<Guest>, seed: u64) -> Self {
        let mut queue = Queue::new(n_cpus, SLICE);
        let mut vcpus = [0; 64];
        let mut ids = Vec::new();
        for guest in &guests {
            let vcpu = &mut vcpus[usize::from(guest.vm)];
            let affinity = CpuSet::from_bits(guest.affinity);
            ids.push(queue.add(VmId(guest.vm), VcpuId(*vcpu), guest.shares, affinity).unwrap());
            *vcpu += 1;
        }
        let n = guests.len();
        let cores = vec![Core::default(); n_cpus];
        let (waiting, longest_wait, paused) = (vec![None; n], vec![0; n], vec![false; n]);
        let random = seed | 1;
        let mut sim = Self { queue, guests, ids, cores, now: 1000, random, waiting, longest_wait, paused, picks: 0 };
        for cpu in 0..n_cpus {
            sim.look(cpu);
        }
        for i in 0..n {
            let kick = sim.queue.start(sim.ids[i], sim.now);
            sim.kick(kick);
        }
        sim
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % below.max(1)
    }

    fn kick(&mut self, cpus: CpuSet) {
        for cpu in cpus {
            let delay = 1 + self.random(LATENCY);
            self.cores[usize::from(cpu.0)].kicked_at.get_or_insert(self.now + delay);
        }
    }

    /// The CPU picks, loads and enters.
    fn look(&mut self, cpu: usize) {
        self.picks += 1;
        let name = CpuId(cpu as u16);
        let before = self.queue.running(name);
        let turn = self.queue.pick(name, self.now);
        self.kick(turn.kick);
        if let Some(id) = turn.run {
            let kick = self.queue.loaded(id, name, self.now);
            self.kick(kick);
        }
        if turn.run != before || self.cores[cpu].act_at.is_none() {
            self.cores[cpu].act_at = turn.run.and_then(|id| {
                let most = match self.guests[usize::from(id.0)].habit {
                    Habit::Spin => return None,
                    Habit::Nap(run, _) | Habit::Serve(run) | Habit::Yield(run) => run,
                };
                Some(self.now + 1 + self.random(most))
            });
        }
        self.cores[cpu].timer = self.queue.deadline(name);
    }

    /// The guest on `cpu` does what it does.
    fn act(&mut self, cpu: usize) {
        self.cores[cpu].act_at = None;
        let Some(id) = self.queue.running(CpuId(cpu as u16)) else { return };
        match self.guests[usize::from(id.0)].habit {
            Habit::Spin => {}
            Habit::Nap(_, sleep) => {
                let until = self.now + self.random(sleep);
                self.queue.block(id, Some(until), self.now);
            }
            Habit::Serve(_) => {
                if self.random(8) == 0 {
                    self.queue.off(id, self.now);
                } else {
                    self.queue.block(id, None, self.now);
                }
            }
            Habit::Yield(_) => self.queue.yield_now(CpuId(cpu as u16)),
        }
    }

    /// Somebody wakes, starts, pauses, resumes or stops somebody.
    fn meddle(&mut self) {
        let i = self.random(self.ids.len() as u64) as usize;
        let id = self.ids[i];
        let kick = match self.random(16) {
            0 => {
                self.paused[i] = true;
                self.queue.pause(id, self.now)
            }
            1..4 => {
                self.paused[i] = false;
                self.queue.resume(id, self.now)
            }
            4 => self.queue.stop(id, self.now),
            5..9 => self.queue.start(id, self.now),
            9 => self.queue.expire(self.now),
            _ => self.queue.wake(id, self.now),
        };
        self.kick(kick);
    }

    /// The next thing that happens; `false` when nothing ever will, or not before `end`.
    fn step(&mut self, end: u64) -> bool {
        let due = |core: &Core| [core.kicked_at, core.timer, core.act_at].into_iter().flatten().min();
        let next = self.cores.iter().enumerate().filter_map(|(i, core)| Some((due(core)?, i))).min();
        let Some((at, cpu)) = next.filter(|&(at, _)| at <= end) else { return false };
        self.now = self.now.max(at);
        let core = &mut self.cores[cpu];
        if core.kicked_at.is_some_and(|at| at <= self.now) {
            core.kicked_at = None;
        } else if core.act_at.is_some_and(|at| at <= self.now) {
            self.act(cpu);
        }
        self.look(cpu);
        self.check();
        true
    }

    fn run(&mut self, ticks: u64) {
        let end = self.now + ticks;
        while self.step(end) {}
        self.now = end;
    }

    /// What holds at all times.
    fn check(&mut self) {
        let mut idle = CpuSet::EMPTY;
        for cpu in 0..self.cores.len() {
            let name = CpuId(cpu as u16);
            match self.queue.running(name) {
                Some(id) => {
                    assert_eq!(self.queue.state(id), EntityState::Running(name), "a CPU and its vCPU agree");
                    assert!(self.guests[usize::from(id.0)].affinity >> cpu & 1 != 0, "affinity");
                    assert_eq!(self.queue.loaded_on(id), Some(name), "what runs is loaded where it runs");
                }
                None => idle |= CpuSet::one(name),
            }
        }
        let mut loaded = CpuSet::EMPTY;
        for (i, &id) in self.ids.iter().enumerate() {
            if let Some(cpu) = self.queue.loaded_on(id) {
                assert!(!loaded.contains(cpu), "one vCPU's registers in a CPU");
                loaded |= CpuSet::one(cpu);
            }
            let in_line = self.queue.state(id) == EntityState::Ready && !self.paused[i];
            if in_line {
                let since = *self.waiting[i].get_or_insert(self.now);
                self.longest_wait[i] = self.longest_wait[i].max(self.now - since);
                let could = self.queue.loaded_on(id).map_or(CpuSet::ALL, CpuSet::one);
                let could = could & idle & CpuSet::from_bits(self.guests[i].affinity);
                let told = could.clone().any(|cpu| self.cores[usize::from(cpu.0)].kicked_at.is_some());
                assert!(could.is_empty() || told, "vCPU {i} waits and CPU {could:?} idles, untold");
            } else {
                self.waiting[i] = None;
            }
            if let EntityState::Blocked(Some(at)) = self.queue.state(id) {
                assert!(at + SLICE + LATENCY > self.now, "a wake of {at} is lost at {}", self.now);
            }
        }
    }

    fn spent(&self, vm: u16) -> u64 {
        let of_vm = self.ids.iter().filter(|id| self.queue.name(**id).0 == VmId(vm));
        of_vm.map(|&id| self.queue.spent(id, self.now)).sum()
    }
}

fn guest(vm: u16, shares: u32, affinity: u64, habit: Habit) -> Guest {
    Guest { vm, shares, affinity, habit }
}

fn assert_near(got: u64, want: u64, tolerance: u64, what: &str) {
    assert!(got.abs_diff(want) <= tolerance, "{what}: got {got}, fair is {want}, off by {}", got.abs_diff(want));
}

const ANY: u64 = u64::MAX;

#[test]
fn spinning_vms_on_one_cpu_share_by_their_weights_within_a_slice() {
    let weights = [100, 200, 300, 1000];
    let guests = weights.iter().zip(0..).map(|(&shares, vm)| guest(vm, shares, ANY, Habit::Spin)).collect();
    let mut sim = Sim::new(1, guests, 1);
    sim.run(1600 * SLICE);
    for (&shares, vm) in weights.iter().zip(0..) {
        let want = u64::from(shares) * SLICE;
        assert_near(sim.spent(vm), want, SLICE + LATENCY, "weight");
    }
}

#[test]
fn a_vm_with_many_vcpus_gets_no_more_than_one_with_few() {
    let mut guests = vec![guest(0, 512, ANY, Habit::Spin), guest(0, 512, ANY, Habit::Spin)];
    guests.extend([guest(1, 512, ANY, Habit::Spin); 8]);
    let mut sim = Sim::new(2, guests, 1);
    sim.run(2000 * SLICE);
    assert_near(sim.spent(0), 2000 * SLICE, 4 * SLICE, "the VM with two vCPUs");
    assert_near(sim.spent(1), 2000 * SLICE, 4 * SLICE, "the VM with eight vCPUs");
}

#[test]
fn three_equal_vms_on_two_cpus_get_two_thirds_each() {
    let guests = (0..3).map(|vm| guest(vm, 1024, ANY, Habit::Spin)).collect();
    let mut sim = Sim::new(2, guests, 1);
    sim.run(3000 * SLICE);
    for vm in 0..3 {
        assert_near(sim.spent(vm), 2000 * SLICE, 3 * SLICE, "a third of two");
    }
}

#[test]
fn five_equal_vms_on_four_cpus_share_though_one_kick_is_sent_at_a_time() {
    let guests = (0..5).map(|vm| guest(vm, 1024, ANY, Habit::Spin)).collect();
    let mut sim = Sim::new(4, guests, 1);
    sim.run(5000 * SLICE);
    for vm in 0..5 {
        assert_near(sim.spent(vm), 4000 * SLICE, 8 * SLICE, "a fifth of four");
    }
}

#[test]
fn shares_worth_more_than_a_cpu_leave_the_rest_to_others_by_their_weights() {
    let vms = [(0, 10_000), (1, 100), (2, 200)];
    let guests = vms.map(|(vm, shares)| guest(vm, shares, ANY, Habit::Spin)).to_vec();
    let mut sim = Sim::new(2, guests, 1);
    sim.run(3000 * SLICE);
    assert_near(sim.spent(0), 3000 * SLICE, 120 * SLICE, "the great one");
    assert_near(sim.spent(1), 1000 * SLICE, 60 * SLICE, "a third of the rest");
    assert_near(sim.spent(2), 2000 * SLICE, 60 * SLICE, "two thirds of the rest");
}

#[test]
fn nobody_lives_on_savings() {
    let guests = vec![guest(0, 100, 1, Habit::Spin), guest(1, 100, 1, Habit::Serve(1_000_000_000))];
    let mut sim = Sim::new(1, guests, 1);
    sim.queue.block(sim.ids[1], None, sim.now);
    let _ = sim.queue.stop(sim.ids[1], sim.now);
    sim.run(1000 * SLICE);
    let before = [sim.spent(0), sim.spent(1)];
    let kick = sim.queue.start(sim.ids[1], sim.now);
    sim.kick(kick);
    sim.run(100 * SLICE);
    assert_near(sim.spent(0) - before[0], 50 * SLICE, 2 * SLICE, "who ran alone pays nothing back");
    assert_near(sim.spent(1) - before[1], 50 * SLICE, 2 * SLICE, "who was away is ahead by a credit at most");
}

#[test]
fn a_sleeper_that_wakes_among_spinners_runs_at_once() {
    let mut guests: Vec<_> = (0..4).map(|vm| guest(vm, 1024, ANY, Habit::Spin)).collect();
    guests.push(guest(4, 1024, ANY, Habit::Nap(SLICE / 50, 4 * SLICE)));
    let mut sim = Sim::new(2, guests, 9);
    sim.run(2000 * SLICE);
    assert!(sim.longest_wait[4] <= SLICE + LATENCY, "waited {}", sim.longest_wait[4]);
}

#[test]
fn one_with_many_shares_that_wakes_runs_at_once_though_others_with_few_are_in_line() {
    // Those that sleep themselves are behind, too, when they wake.
    let cases =
        [1, 10, 100, 1000].into_iter().flat_map(|few| [(few, Habit::Spin), (few, Habit::Nap(3 * SLICE, SLICE))]);
    // Interrupts of others make the CPU look up, or none do.
    for ((few, habit), others) in cases.flat_map(|case| [(case, true), (case, false)]) {
        let guests =
            vec![guest(0, 100_000, ANY, Habit::Nap(10, 9_000)), guest(1, few, ANY, habit), guest(2, few, ANY, habit)];
        let mut sim = Sim::new(1, guests, 29);
        for _ in 0..20_000 {
            sim.run(SLICE / 20);
            if others {
                sim.kick(CpuSet::first(1));
            }
        }
        let wait = sim.longest_wait[0];
        let credit = if let Habit::Spin = habit { 0 } else { SLICE / 2 * u64::from(few).min(250) / 250 };
        assert!(
            wait <= credit + 2 * LATENCY,
            "others look up: {others}; beside {few} shares and {habit:?}, it waited for {wait} ticks"
        );
        let (one, two) = (sim.spent(1), sim.spent(2));
        assert!(one.abs_diff(two) <= one / 10, "beside each other, with {few} shares, they had {one} and {two} ticks");
    }
}

#[test]
fn one_with_many_shares_waits_for_what_another_is_behind_and_not_for_its_slice() {
    let cpu = CpuId(0);
    for few in [1, 10, 100, 250, 1_000, 10_000] {
        let mut queue = Queue::new(1, SLICE);
        let [many, behind, ahead] = [(0, 100_000), (1, few), (2, few)]
            .map(|(vm, shares)| queue.add(VmId(vm), VcpuId(0), shares, CpuSet::ALL).unwrap());
        // One runs for long, while the others sleep.
        let _ = queue.start(ahead, 0);
        assert_eq!(queue.pick(cpu, 0).run, Some(ahead));
        let mut now = 100 * SLICE;
        queue.block(ahead, None, now);
        // The second is behind by a credit when it comes, and the third cannot interrupt it yet.
        let _ = queue.start(behind, now);
        assert_eq!(queue.pick(cpu, now).run, Some(behind));
        now += 1;
        let _ = queue.start(many, now);
        assert_eq!(queue.pick(cpu, now).run, Some(behind), "{few} shares");
        let credit = SLICE / 2 * u64::from(few.min(250)) / 250;
        let until = now + credit + SLICE / 2 * u64::from(few) / 100_000 + 2;
        while queue.running(cpu) == Some(behind) {
            now = queue.deadline(cpu).expect("somebody waits");
            assert!(now <= until, "with {few} shares it has the CPU until {now}, and not {until}");
            let _ = queue.pick(cpu, now);
        }
    }
}

#[test]
fn a_vcpu_alone_on_its_cpu_sees_no_tick() {
    let guests = vec![guest(0, 1024, 1, Habit::Spin), guest(1, 1024, 2, Habit::Spin), guest(2, 1024, 2, Habit::Spin)];
    let mut sim = Sim::new(2, guests, 1);
    sim.run(100 * SLICE);
    assert_eq!(sim.queue.deadline(CpuId(0)), None);
    assert!(sim.queue.deadline(CpuId(1)).is_some());
}

#[test]
fn a_vcpu_in_a_wider_affinity_is_not_starved_by_cpus_of_different_pace() {
    let mut guests = vec![guest(0, 1, 1, Habit::Spin)];
    guests.extend((1..4).map(|vm| guest(vm, 1000, 2, Habit::Spin)));
    guests.extend((4..6).map(|vm| guest(vm, 1000, 3, Habit::Nap(10 * SLICE, SLICE))));
    let mut sim = Sim::new(2, guests, 1);
    sim.run(1000 * SLICE);
    let before: Vec<_> = (0..6).map(|vm| sim.spent(vm)).collect();
    sim.run(20_000 * SLICE);
    for vm in 0..6 {
        assert!(sim.spent(vm) > before[usize::from(vm)] + SLICE, "VM {vm} starves");
    }
}

#[test]
fn who_is_woken_by_a_cpu_that_is_far_behind_waits_for_the_other_as_well() {
    // CPU 0 has two to itself and falls behind CPU 1. When its timer wakes the one that naps, that one is no match for them.
    let naps = guest(0, 200, ANY, Habit::Nap(SLICE / 600, 3 * SLICE));
    let spins = |affinity| guest(0, 200, affinity, Habit::Spin);
    for seed in 1..50 {
        let mut sim = Sim::new(2, vec![naps, spins(ANY), spins(1), spins(1)], seed);
        sim.run(1000 * SLICE);
        assert!(sim.longest_wait[0] <= 2 * SLICE, "seed {seed}: waited {} slices", sim.longest_wait[0] / SLICE);
    }
}

#[test]
fn a_wake_that_comes_while_the_vcpu_runs_keeps_it_from_blocking() {
    let mut sim = Sim::new(1, vec![guest(0, 1, 1, Habit::Spin)], 1);
    sim.run(10 * LATENCY);
    let id = sim.ids[0];
    assert!(sim.queue.wake(id, sim.now).contains(CpuId(0)));
    sim.queue.block(id, None, sim.now);
    assert_eq!(sim.queue.state(id), EntityState::Running(CpuId(0)));
    sim.queue.block(id, None, sim.now);
    assert_eq!(sim.queue.state(id), EntityState::Blocked(None));
    sim.look(0);
    assert!(sim.queue.wake(id, sim.now).contains(CpuId(0)), "the CPU that holds its registers is kicked");
}

fn habits() -> impl Strategy<Value = Habit> {
    (0..6u8, 1..3 * SLICE, 1..9 * SLICE).prop_map(|(kind, run, sleep)| match kind {
        0 => Habit::Spin,
        1 | 2 => Habit::Nap(run, sleep),
        3 => Habit::Yield(run),
        _ => Habit::Serve(run),
    })
}

fn guests(n_cpus: usize) -> impl Strategy<Value = Vec<Guest>> {
    let affinity = (1..1u64 << n_cpus, any::<bool>()).prop_map(|(some, all)| if all { u64::MAX } else { some });
    let one = (0..4u16, 1..2000u32, affinity, habits());
    let one = one.prop_map(|(vm, shares, affinity, habit)| Guest { vm, shares, affinity, habit });
    prop::collection::vec(one, 1..12)
}

proptest! {
    #![proptest_config(Config { cases: effort(1_000) as u32, failure_persistence: None, ..Config::default() })]

    /// Whoever meddles: nobody on two CPUs, nobody where it may not be, no wake lost, no idle CPU while somebody waits.
    #[test]
    fn nothing_is_lost_and_nobody_is_in_two_places(
        (n_cpus, guests) in (1..5usize).prop_flat_map(|n| (proptest::strategy::Just(n), guests(n))),
        seed in any::<u64>(),
    ) {
        let mut sim = Sim::new(n_cpus, guests, seed);
        for _ in 0..300 {
            let pause = sim.random(2 * SLICE);
            sim.run(pause);
            sim.meddle();
            sim.check();
        }
    }

    /// With shares of any kind, everyone who wants to run does before long.
    #[test]
    fn nobody_starves(
        (n_cpus, guests) in (1..5usize).prop_flat_map(|n| (proptest::strategy::Just(n), guests(n))),
        seed in any::<u64>(),
    ) {
        let guests: Vec<_> = guests.into_iter().map(|g| Guest { shares: g.shares.max(200), ..g }).collect();
        let n = guests.len() as u64;
        let mut sim = Sim::new(n_cpus, guests, seed);
        sim.run(2000 * SLICE);
        for (i, &wait) in sim.longest_wait.iter().enumerate() {
            // Ten times the shares on twelve vCPUs each: a round takes so long at the most.
            prop_assert!(wait < 10 * n * n * SLICE, "vCPU {} waited {} slices", i, wait / SLICE);
        }
    }

    /// Equal spinning VMs on any number of CPUs are served equally, however they are split into vCPUs.
    #[test]
    fn equal_vms_are_served_equally(n_cpus in 1..5usize, vcpus in 0..4u16, n_vms in 1..5u16, seed in any::<u64>()) {
        let vcpus = vcpus + n_cpus as u16;
        let spin = |vm| (0..vcpus).map(move |_| guest(vm, 700, ANY, Habit::Spin));
        let mut sim = Sim::new(n_cpus, (0..n_vms).flat_map(spin).collect(), seed);
        sim.run(500 * SLICE);
        let fair = 500 * SLICE * n_cpus as u64 / u64::from(n_vms);
        for vm in 0..n_vms {
            let off = sim.spent(vm).abs_diff(fair);
            prop_assert!(off <= SLICE * u64::from(2 * vcpus), "VM {} is off by {} slices", vm, off / SLICE);
        }
    }
}

/// A queue of one CPU with three vCPUs of as many VMs in line, the first of which runs.
fn three() -> (Queue, [EntityId; 3]) {
    let mut queue = Queue::new(1, SLICE);
    let ids = [0, 1, 2].map(|n| queue.add(VmId(n), VcpuId(n), 100, CpuSet::ALL).unwrap());
    for id in ids {
        let _ = queue.start(id, 1000);
    }
    assert_eq!(queue.pick(CpuId(0), 1000).run, Some(ids[0]));
    (queue, ids)
}

#[test]
fn who_yields_lets_the_next_in_line_run() {
    let (mut queue, ids) = three();
    assert_eq!(queue.pick(CpuId(0), 1001).run, Some(ids[0]), "it has its slice");
    queue.yield_now(CpuId(0));
    assert_eq!(queue.pick(CpuId(0), 1002).run, Some(ids[1]));
    assert_eq!(queue.state(ids[0]), EntityState::Ready);
    assert_eq!(queue.pick(CpuId(0), 1003).run, Some(ids[1]), "it yielded once");
    queue.yield_now(CpuId(0));
    assert_eq!(queue.pick(CpuId(0), 1004).run, Some(ids[2]));
}

#[test]
fn who_is_paused_does_not_run_until_it_is_resumed() {
    let (mut queue, ids) = three();
    // One that runs is kicked off its CPU, one that is ready need not be.
    assert_eq!(queue.pause(ids[0], 1001), CpuSet::one(CpuId(0)));
    assert_eq!(queue.pause(ids[1], 1001), CpuSet::EMPTY);
    for now in [1002, 1003, 1002 + 3 * SLICE] {
        assert_eq!(queue.pick(CpuId(0), now).run, Some(ids[2]));
    }
    queue.block(ids[2], None, 1003 + 3 * SLICE);
    assert_eq!(queue.pick(CpuId(0), 1004 + 3 * SLICE).run, None);
    assert_eq!(queue.resume(ids[1], 1005 + 3 * SLICE), CpuSet::one(CpuId(0)), "it is idle");
    assert_eq!(queue.pick(CpuId(0), 1006 + 3 * SLICE).run, Some(ids[1]));
}

#[test]
fn who_waits_is_woken_at_the_earlier_of_two_times() {
    let (mut queue, ids) = three();
    for id in ids {
        assert_eq!(queue.pick(CpuId(0), 1001).run, Some(id));
        queue.block(id, Some(5000), 1001);
    }
    assert_eq!(queue.pick(CpuId(0), 1002).run, None);
    for (id, at, until) in
        [(ids[0], None, 5000), (ids[0], Some(9000), 5000), (ids[0], Some(3000), 3000), (ids[1], Some(1011), 1011)]
    {
        assert_eq!(queue.wake_by(id, at, 1010), CpuSet::EMPTY);
        assert_eq!(queue.state(id), EntityState::Blocked(Some(until)));
    }
    // What is over already wakes it at once.
    assert_eq!(queue.wake_by(ids[2], Some(1010), 1010), CpuSet::one(CpuId(0)));
    assert_eq!(queue.state(ids[2]), EntityState::Ready);
    assert_eq!(queue.wake_by(ids[2], Some(0), 1010), CpuSet::EMPTY, "it does not wait");
}

#[test]
fn who_could_have_run_and_did_not_has_waited() {
    let (mut queue, ids) = three();
    let waited = |queue: &Queue| ids.map(|id| queue.waited(id));
    assert_eq!(waited(&queue), [0; 3]);
    // In line since 1000; what runs on does not wait.
    assert_eq!(queue.pick(CpuId(0), 1100).run, Some(ids[0]));
    queue.block(ids[0], Some(9000), 1200);
    assert_eq!(queue.pick(CpuId(0), 1203).run, Some(ids[1]));
    assert_eq!(waited(&queue), [0, 203, 0]);
    queue.yield_now(CpuId(0));
    assert_eq!(queue.pick(CpuId(0), 1300).run, Some(ids[2]));
    assert_eq!(waited(&queue), [0, 203, 300]);
    // Who sleeps waits for nothing that others have; from its wake on it does, and again where it had to give way.
    queue.block(ids[2], None, 2000);
    assert_eq!(queue.pick(CpuId(0), 2000).run, Some(ids[1]));
    assert_eq!(waited(&queue), [0, 903, 300]);
    // Who is held by the operator waits for him.
    assert_eq!(queue.pause(ids[1], 2100), CpuSet::one(CpuId(0)));
    assert_eq!(queue.pick(CpuId(0), 2100).run, None);
    let _ = queue.resume(ids[1], 5000);
    assert_eq!(queue.pick(CpuId(0), 5010).run, Some(ids[1]));
    assert_eq!(waited(&queue), [0, 913, 300]);
}

#[test]
fn each_vcpu_has_an_entity_of_its_own() {
    let mut queue = Queue::new(2, SLICE);
    let names: Vec<_> = (0..3).flat_map(|vm| (0..4).map(move |vcpu| (VmId(vm), VcpuId(vcpu)))).collect();
    let ids: Vec<_> = names.iter().map(|(vm, vcpu)| queue.add(*vm, *vcpu, 100, CpuSet::ALL).unwrap()).collect();
    for ((vm, vcpu), id) in names.iter().zip(&ids) {
        assert_eq!((queue.find(*vm, *vcpu), queue.name(*id)), (Some(*id), (*vm, *vcpu)));
    }
    assert_eq!((queue.find(VmId(3), VcpuId(0)), queue.find(VmId(0), VcpuId(4))), (None, None));
}

#[test]
fn whose_registers_are_on_a_busy_cpu_is_not_offered_to_an_idle_one() {
    let mut queue = Queue::new(2, SLICE);
    let [a, b] = [0, 1].map(|n| queue.add(VmId(n), VcpuId(0), 100, CpuSet::ALL).unwrap());
    let (idle, busy) = (CpuId(0), CpuId(1));
    let _ = queue.start(a, 1000);
    assert_eq!(queue.pick(busy, 1000).run, Some(a));
    let _ = queue.loaded(a, busy, 1000);
    queue.block(a, None, 1001);
    assert_eq!(queue.pick(idle, 1001).run, None);
    let _ = queue.start(b, 1002);
    assert_eq!(queue.pick(busy, 1002).run, Some(b));
    // Its registers have to come off that CPU first.
    assert!(!queue.wake(a, 1003).contains(idle));
    assert_eq!(queue.pick(idle, 1003).run, None);
    // Then either has one.
    let mut kick = queue.unloaded(a, 1004);
    let turn = queue.pick(busy, 1005);
    kick |= turn.kick;
    assert!(kick.contains(idle) && turn.run.is_some());
    let other = queue.pick(idle, 1006).run;
    assert!(other.is_some() && other != turn.run);
}

#[test]
fn all_whose_time_has_come_are_woken_at_once() {
    let mut queue = Queue::new(2, SLICE);
    let ids = [0, 1, 2].map(|n| queue.add(VmId(n), VcpuId(0), 100, CpuSet::ALL).unwrap());
    for (id, at) in ids.into_iter().zip([5000, 5000, 5001]) {
        let _ = queue.start(id, 1000);
        assert_eq!(queue.pick(CpuId(0), 1000).run, Some(id));
        queue.block(id, Some(at), 1001);
    }
    assert_eq!([0, 1].map(|cpu| queue.pick(CpuId(cpu), 1002).run), [None, None]);
    assert_eq!(queue.expire(4999), CpuSet::EMPTY);
    assert_eq!(queue.expire(5000), CpuSet::one(CpuId(0)), "an idle CPU, which kicks another for who is left");
    assert_eq!(ids.map(|id| queue.state(id) == EntityState::Ready), [true, true, false]);
    let turn = queue.pick(CpuId(0), 5000);
    assert_eq!(turn.kick, CpuSet::one(CpuId(1)));
    let mut run = [turn.run, queue.pick(CpuId(1), 5000).run];
    run.sort_by_key(|id| *id != Some(ids[0]));
    assert_eq!(run, [Some(ids[0]), Some(ids[1])]);
}

/// Where there is always somebody in line the clock goes on all the same: who slept meanwhile is a credit behind and no more.
#[test]
fn who_slept_while_others_took_turns_does_not_have_the_cpu_for_all_that_time() {
    let mut queue = Queue::new(1, SLICE);
    let one = CpuSet::one(CpuId(0));
    let [first, second, sleeper] = [0, 1, 2].map(|vm| queue.add(VmId(vm), VcpuId(0), 100, one).expect("there is room"));
    let mut now = 1;
    let _ = queue.start(sleeper, now);
    assert_eq!(queue.pick(CpuId(0), now).run, Some(sleeper));
    queue.block(sleeper, None, now);
    let _ = (queue.start(first, now), queue.start(second, now));
    let mut turn = |queue: &mut Queue| {
        let run = queue.pick(CpuId(0), now).run;
        now = queue.deadline(CpuId(0)).expect("somebody is in line");
        run
    };
    for _ in 0..100 {
        assert!(matches!(turn(&mut queue), Some(id) if id == first || id == second));
    }
    let _ = queue.wake(sleeper, 100 * SLICE);
    let turns = (0..30).filter(|_| turn(&mut queue) == Some(sleeper)).count();
    assert!((8..=15).contains(&turns), "{turns} of 30 turns");
}

/// Who wakes while others take turns interrupts the one that runs if it has had much less of the CPU, and else waits for its turn.
#[test]
fn who_wakes_interrupts_one_that_has_had_more_and_nobody_else() {
    let mut queue = Queue::new(1, SLICE);
    let cpu = CpuId(0);
    let one = CpuSet::one(cpu);
    let [first, second, sleeper] = [0, 1, 2].map(|vm| queue.add(VmId(vm), VcpuId(0), 100, one).expect("there is room"));
    let mut now = 1;
    let _ = queue.start(sleeper, now);
    assert_eq!(queue.pick(cpu, now).run, Some(sleeper));
    let _ = (queue.start(first, now), queue.start(second, now));
    for (slices, interrupts) in [(1, false), (200, true)] {
        // The sleeper has had all of the CPU so far, and then sleeps while the others take turns.
        now += 10 * SLICE;
        queue.block(sleeper, None, now);
        for _ in 0..slices {
            assert!(queue.pick(cpu, now).run.is_some_and(|run| run != sleeper));
            now += SLICE - LATENCY;
            now = now.max(queue.deadline(cpu).expect("somebody is in line"));
        }
        let _ = queue.pick(cpu, now);
        assert_eq!(queue.wake(sleeper, now + SLICE / 4 * 3).contains(cpu), interrupts, "after {slices} slices");
        now += SLICE;
        while queue.pick(cpu, now).run != Some(sleeper) {
            now = queue.deadline(cpu).expect("somebody is in line");
        }
    }
}

/// What a sleeper has saved up, half a slice where it has many shares, lets it run as soon as it wakes; with few it is less, and it waits
/// until the one that runs has had that much.
#[test]
fn who_slept_has_a_credit_by_its_shares() {
    for (shares, after, interrupts) in
        [(1000, 0, true), (250, 0, true), (100, 0, false), (100, 100, false), (100, 1000, true), (100, 5000, true)]
    {
        let mut queue = Queue::new(1, SLICE);
        let cpu = CpuId(0);
        let one = CpuSet::one(cpu);
        let [first, second, sleeper] =
            [0, 1, 2].map(|vm| queue.add(VmId(vm), VcpuId(0), shares, one).expect("there is room"));
        let mut now = 1;
        let _ = (queue.start(first, now), queue.start(second, now), queue.start(sleeper, now));
        while queue.pick(cpu, now).run != Some(sleeper) {
            now = queue.deadline(cpu).expect("somebody is in line");
        }
        queue.block(sleeper, None, now);
        for _ in 0..100 {
            let _ = queue.pick(cpu, now);
            now = queue.deadline(cpu).expect("somebody is in line");
        }
        let _ = queue.pick(cpu, now);
        assert_eq!(queue.wake(sleeper, now + after).contains(cpu), interrupts, "{shares} shares, after {after}");
    }
}
