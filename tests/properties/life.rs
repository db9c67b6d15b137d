//! VMs that stop and begin again on CPUs whose steps fall in any order: each is settled, once, and by nobody while a CPU has
//! to do with it.
//!
//! The simulated CPU does what the loop of a real one does, one call at a time; a kick is what wakes it, or takes it out of
//! its guest. When nothing is left to do on any CPU, no VM may be on its way out: nobody would look any more.

use flatland::next::Cause;
use flatland::vm::{Life, State, Stopping};
use harness::model::Dice;

const CPUS: usize = 3;
const VMS: usize = 2;
const VCPUS: usize = 3;

/// What to do wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flaw {
    None,
    /// CPUs look at a flag in place of the count: put down before they settle, up again for what they could not settle.
    Flag,
    /// Who stops a VM is not present while it tells.
    Absent,
    /// Images are loaded before the CPU is present.
    Early,
    /// Memory is given back by whoever saw before that the VM was deserted.
    Once,
}

/// Where a CPU is in its loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    Serve,
    Unload,
    Settle(usize),
    /// Saw that the VM is deserted, and waits for its memory.
    Lock(usize),
    Release(usize),
    Begin(usize),
    Pick,
    Load(usize, usize),
    Fill(usize, usize),
    Guest,
    Tell(usize, usize),
    Kick(usize),
    Asleep,
}

#[derive(Clone, Copy, Debug)]
struct Cpu {
    at: At,
    loaded: Option<(usize, usize)>,
    kicked: bool,
}

#[derive(Default)]
struct Vm {
    life: Life,
    /// How often it began.
    lives: u64,
    /// Whether a CPU loads its images.
    filling: bool,
    /// Whether a CPU has its memory's lock.
    locked: bool,
    /// The life that a CPU which tells its vCPUs has in mind.
    telling: u64,
    ready: [bool; VCPUS],
}

struct Sim {
    flaw: Flaw,
    dice: Dice,
    stopping: Stopping,
    flag: bool,
    cpus: [Cpu; CPUS],
    vms: [Vm; VMS],
    settled: u64,
}

impl Sim {
    fn new(seed: u64, flaw: Flaw) -> Self {
        let mut sim = Self {
            flaw,
            dice: Dice::new(seed),
            stopping: Stopping::default(),
            flag: false,
            cpus: [Cpu { at: At::Serve, loaded: None, kicked: false }; CPUS],
            vms: Default::default(),
            settled: 0,
        };
        for vm in &mut sim.vms {
            vm.ready = [true; VCPUS];
        }
        sim
    }

    fn any(&mut self, n: usize) -> usize {
        self.dice.below(n as u64) as usize
    }

    /// One step of CPU `c`.
    #[expect(clippy::too_many_lines, reason = "an arm for each place that a CPU can be at")]
    fn step(&mut self, c: usize) -> Result<(), String> {
        let next = match self.cpus[c].at {
            At::Serve if self.sees_one_stopping() => At::Unload,
            At::Serve => At::Pick,
            At::Unload => {
                if let Some((vm, _)) = self.cpus[c].loaded
                    && matches!(self.vms[vm].life.state(), State::Stopping(_))
                {
                    self.unload(c);
                }
                self.flag = false;
                At::Settle(0)
            }
            At::Settle(VMS) => At::Pick,
            At::Settle(n) if self.vms[n].life.is_deserted() => At::Lock(n),
            At::Lock(n) if self.vms[n].locked => At::Lock(n),
            At::Lock(n) => {
                self.vms[n].locked = true;
                At::Release(n)
            }
            At::Release(n) => {
                let vm = &mut self.vms[n];
                vm.locked = false;
                if self.flaw != Flaw::Once && !vm.life.is_deserted() {
                    self.cpus[c].at = At::Settle(n + 1);
                    return Ok(());
                }
                if !matches!(vm.life.state(), State::Stopping(_)) {
                    return Err(format!("VM {n} loses the memory of its next life"));
                }
                if vm.life.settle(&self.stopping).is_none() {
                    return Err(format!("VM {n} is deserted and cannot be settled"));
                }
                if self.cpus.iter().any(|cpu| cpu.loaded.is_some_and(|(vm, _)| vm == n)) {
                    return Err(format!("VM {n} is settled, and loaded"));
                }
                self.settled += 1;
                At::Begin(n)
            }
            At::Settle(n) => {
                self.flag |= matches!(self.vms[n].life.state(), State::Stopping(_));
                At::Settle(n + 1)
            }
            At::Begin(n) => {
                if self.vms[n].filling {
                    return Err(format!("VM {n} begins while its former life is filled"));
                }
                self.vms[n].life.load();
                self.vms[n].lives += 1;
                self.vms[n].ready = [true; VCPUS];
                At::Settle(n + 1)
            }
            At::Pick => self.pick(c),
            At::Load(vm, vcpu) => self.load(c, vm, vcpu),
            At::Fill(vm, vcpu) => {
                self.vms[vm].filling = false;
                self.vms[vm].life.run(0);
                self.hold(c, vm, vcpu)
            }
            At::Guest if std::mem::take(&mut self.cpus[c].kicked) => At::Serve,
            At::Guest => self.guest(),
            At::Tell(vm, VCPUS) => {
                if self.flaw != Flaw::Absent {
                    self.vms[vm].life.left();
                }
                At::Kick(0)
            }
            At::Tell(vm, vcpu) => {
                let told = &mut self.vms[vm];
                if told.telling != told.lives {
                    return Err(format!("VM {vm}'s next life is told to stop"));
                }
                told.ready[vcpu] = false;
                At::Tell(vm, vcpu + 1)
            }
            At::Kick(CPUS) => At::Serve,
            At::Kick(other) => {
                self.cpus[other].kicked = true;
                At::Kick(other + 1)
            }
            At::Asleep if std::mem::take(&mut self.cpus[c].kicked) => At::Serve,
            At::Asleep => At::Asleep,
        };
        self.cpus[c].at = next;
        Ok(())
    }

    fn sees_one_stopping(&self) -> bool {
        if self.flaw == Flaw::Flag { self.flag } else { self.stopping.is_any() }
    }

    fn pick(&mut self, c: usize) -> At {
        let (first, waits) = (self.any(VMS * VCPUS), self.any(4) == 0);
        let all = (0..VMS * VCPUS).map(|n| (first + n) % (VMS * VCPUS)).map(|n| (n / VCPUS, n % VCPUS));
        let elsewhere = |one| (0..CPUS).any(|other| other != c && self.holds(other, one));
        // None is ready, or it waits all the same: what is loaded stays so.
        let found = all.filter(|&(vm, vcpu)| self.vms[vm].ready[vcpu]).find(|&one| !elsewhere(one));
        found.filter(|_| !waits).map_or(At::Asleep, |(vm, vcpu)| At::Load(vm, vcpu))
    }

    fn holds(&self, c: usize, one: (usize, usize)) -> bool {
        self.cpus[c].loaded == Some(one)
            || matches!(self.cpus[c].at, At::Load(vm, vcpu) | At::Fill(vm, vcpu) if (vm, vcpu) == one)
    }

    fn load(&mut self, c: usize, vm: usize, vcpu: usize) -> At {
        if self.cpus[c].loaded == Some((vm, vcpu)) {
            return At::Guest;
        }
        self.unload(c);
        let state = match self.flaw {
            Flaw::Early => Some(self.vms[vm].life.state()),
            _ => self.vms[vm].life.enter(),
        };
        match state {
            None => At::Serve,
            Some(State::Loading) => {
                self.vms[vm].filling = true;
                At::Fill(vm, vcpu)
            }
            Some(_) => self.hold(c, vm, vcpu),
        }
    }

    /// What it loads is complete.
    fn hold(&mut self, c: usize, vm: usize, vcpu: usize) -> At {
        if self.flaw == Flaw::Early && self.vms[vm].life.enter().is_none() {
            return At::Serve;
        }
        self.cpus[c].loaded = Some((vm, vcpu));
        At::Guest
    }

    fn unload(&mut self, c: usize) {
        if let Some((vm, _)) = self.cpus[c].loaded.take() {
            self.vms[vm].life.left();
        }
    }

    /// What a guest does: it computes, waits, wakes another, or its VM or another stops.
    fn guest(&mut self) -> At {
        match self.any(12) {
            0 => At::Serve,
            1 => {
                let other = self.any(CPUS);
                self.cpus[other].kicked = true;
                At::Guest
            }
            2 => {
                let vm = self.any(VMS);
                if self.vms[vm].life.stop(Cause::Reset, &self.stopping) {
                    self.flag = true;
                    self.vms[vm].telling = self.vms[vm].lives;
                    if self.flaw == Flaw::Absent {
                        self.vms[vm].life.left();
                    }
                    return At::Tell(vm, 0);
                }
                At::Serve
            }
            _ => At::Guest,
        }
    }

    /// Nothing moves by itself any more: is somebody forgotten?
    fn check(&self) -> Result<(), String> {
        let still = |cpu: &Cpu| !cpu.kicked && matches!(cpu.at, At::Asleep | At::Guest);
        let gone = |vm: &Vm| matches!(vm.life.state(), State::Stopping(_) | State::Settling);
        if self.cpus.iter().all(still) && self.vms.iter().any(gone) {
            return Err(String::from("a VM is stopping, and nobody looks"));
        }
        Ok(())
    }
}

/// The first error, if any; or how often VMs were settled.
fn run(seed: u64, steps: u64, flaw: Flaw) -> Result<u64, String> {
    let mut sim = Sim::new(seed, flaw);
    let mut dice = Dice::new(seed + 1);
    let mut slow = 0;
    for step in 0..steps {
        // One CPU is slow for a while, as if interrupted from below.
        if dice.one_in(20) {
            slow = dice.below(CPUS as u64);
        }
        let c = dice.below(CPUS as u64);
        if c == slow && !dice.one_in(20) {
            continue;
        }
        sim.step(c as usize).and_then(|()| sim.check()).map_err(|error| format!("step {step}: {error}"))?;
        // Somebody types, a timer fires: a CPU that sleeps looks up.
        if dice.one_in(400) {
            sim.cpus[dice.below(CPUS as u64) as usize].kicked = true;
        }
    }
    Ok(sim.settled)
}

#[test]
fn every_vm_that_stops_is_settled_once() {
    let settled: u64 = (1..=20).map(|seed| run(seed, 100_000, Flaw::None).unwrap()).sum();
    println!("2000000 steps, {settled} settled");
    assert!(settled > 10_000);
}

#[test]
fn what_could_go_wrong_is_found() {
    for flaw in [Flaw::Flag, Flaw::Absent, Flaw::Early, Flaw::Once] {
        let error = (1..=20).find_map(|seed| run(seed, 100_000, flaw).err());
        println!("{flaw:?}: {}", error.as_deref().unwrap_or("not found"));
        assert!(error.is_some(), "{flaw:?}");
    }
}
