//! The controller, its reference and the CPUs side by side; each operation is played on all of them.

use super::cpu::{Cpu, Taken};
use super::model::Model;
use flatland::addr::{IntId, VcpuId};
use flatland::arm::gic::{SgiRegister, Version, gicd, gicr, hcr};
use flatland::next::Kicks;
use flatland::vgic::{Line, Vgic};
use std::ops::Add;

const TIMER: usize = 27;
const SPIS: usize = 64;

/// How often things happened.
#[derive(Default, Debug, Clone, Copy)]
pub(super) struct Counts {
    pub(super) steps: u64,
    pub(super) taken: u64,
    pub(super) ended: u64,
    pub(super) late: u64,
    pub(super) crowded: u64,
}

impl Add for Counts {
    type Output = Self;
    fn add(self, more: Self) -> Self {
        Self {
            steps: self.steps + more.steps,
            taken: self.taken + more.taken,
            ended: self.ended + more.ended,
            late: self.late + more.late,
            crowded: self.crowded + more.crowded,
        }
    }
}

pub(super) struct World {
    vgic: Vgic,
    model: Model,
    cpus: Vec<Cpu>,
    version: Version,
    mode1: bool,
    /// Who looks later at the kicks of this operation, a bit each.
    lazy: u32,
    pub(super) counts: Counts,
}

impl World {
    pub(super) fn new(version: Version, cpus: usize, lists: u8, mode1: bool) -> Self {
        let mut vgic = Vgic::new(version, cpus as u16, SPIS as u32, lists);
        for id in 0..cpus {
            vgic.map_hw(VcpuId(id as u16), IntId(27), IntId(27));
        }
        let mut world = Self {
            vgic,
            model: Model::new(version, cpus, SPIS),
            cpus: (0..cpus).map(|_| Cpu::new(version)).collect(),
            version,
            mode1,
            lazy: 0,
            counts: Counts::default(),
        };
        world.settle();
        world.groups(3);
        for cpu in 0..cpus {
            for intid in (16..32).chain(if cpu == 0 { 32..32 + SPIS } else { 0..0 }) {
                world.priority(cpu, cpu, intid, if decreed(intid) { 0xff } else { (intid * 0x28) as u8 });
            }
            (0..3).for_each(|n| world.enable(cpu, cpu, n, u32::MAX, true));
        }
        world
    }

    /// Plays one operation, chosen by `op` with the arguments `a` and `b`, and checks.
    pub(super) fn step(&mut self, op: u8, a: u32, b: u32) {
        self.counts.steps += 1;
        let cpus = self.cpus.len();
        let (actor, other) = (a as usize % cpus, (a >> 8) as usize % cpus);
        let n = (a >> 16) as usize % 3;
        let intid = (a >> 16) as usize % (32 + SPIS);
        if matches!(op % 32, 2..5) {
            // What follows folds these two; if there is anything to adopt, it has to be before the reference changes.
            [actor, other].into_iter().for_each(|cpu| self.refill(cpu));
        }
        self.lazy = if a >> 30 == 3 { a >> 26 } else { 0 };
        match op % 32 {
            0 => self.enable(actor, other, n, b, true),
            1 => self.enable(actor, other, n, b & b >> 7, false),
            2 => self.set_pending(actor, other, n, b & b >> 9, true),
            3 => self.set_pending(actor, other, n, b & b >> 5, false),
            4 => self.decree(actor, other, n, b, b & 1 != 0),
            5 => self.priority(actor, other, intid, b as u8),
            6 => self.config(actor, intid, b & 1 != 0),
            7 => self.target(actor, intid, b as usize % (cpus + 1)),
            8 => self.group(actor, other, n, b, 1 << (b >> 30)),
            9 => self.groups(if b & 15 == 0 { b >> 8 & 3 } else { 3 }),
            10 if b >> 31 != 0 => self.cpus[actor].pmr = (b as u8 & 0xf8).max(0x40),
            10 => self.cpus[actor].groups = if b & 3 == 0 { 3 } else { b as u8 & 3 },
            11 => self.timer(actor, b & 1 != 0),
            12 => self.check_words(),
            13..17 => self.sgi(actor, b as usize % 16, b >> 8, b >> 24 & 7),
            17..19 => self.line(actor, intid, b & 1 != 0),
            19 => self.pulse(actor, intid),
            20..27 => self.take(actor),
            _ => self.end(actor, b),
        }
        self.lazy = 0;
        if self.counts.steps.is_multiple_of(8) {
            self.settle();
        }
        self.interrupt();
        self.check();
    }

    // What a caller of the controller does.

    fn kicked(&mut self, kicks: Kicks) {
        for cpu in kicks {
            let cpu = usize::from(cpu.0);
            // Another one that was kicked may have kicked it on the way.
            if !self.vgic.needs_fill(id(cpu)) {
                continue;
            }
            self.cpus[cpu].late = true;
            if self.lazy >> cpu & 1 == 0 {
                self.refill(cpu);
            } else {
                self.counts.late += 1;
            }
        }
    }

    fn fold(&mut self, cpu: usize) -> Kicks {
        let kicks = self.vgic.fold(id(cpu), &mut self.cpus[cpu].lists);
        let below = if self.cpus[cpu].timer { Kicks::NONE } else { self.vgic.set_line(id(cpu), IntId(27), Line::Low) };
        self.cpus[cpu].physical = self.vgic.hw_active(id(cpu), IntId(27));
        self.adopt(cpu);
        kicks | below
    }

    fn refill(&mut self, cpu: usize) {
        let kicks = self.fold(cpu);
        self.fill(cpu);
        self.kicked(kicks.without(id(cpu)));
    }

    fn fill(&mut self, cpu: usize) {
        let mask = self.cpus[cpu].mask();
        self.vgic.fill(id(cpu), &mut self.cpus[cpu].lists, mask);
        self.cpus[cpu].late = false;
        self.counts.crowded += u64::from(self.cpus[cpu].lists.hcr & (hcr::NPIE | hcr::LRENPIE) != 0);
    }

    /// Physical interrupts and maintenance, until there are none.
    fn interrupt(&mut self) {
        for _ in 0..8 {
            for cpu in 0..self.cpus.len() {
                if self.cpus[cpu].timer && !self.cpus[cpu].physical {
                    self.cpus[cpu].physical = true;
                    let kicks = self.vgic.set_line(id(cpu), IntId(27), Line::High);
                    self.kicked(kicks);
                }
                if self.cpus[cpu].maintenance() {
                    self.refill(cpu);
                }
            }
        }
        for (id, cpu) in self.cpus.iter().enumerate() {
            assert!(!cpu.maintenance(), "the maintenance interrupt of vcpu {id} does not go away");
        }
    }

    fn settle(&mut self) {
        for cpu in 0..self.cpus.len() {
            if self.cpus[cpu].late {
                self.refill(cpu);
            }
        }
    }

    fn write(&mut self, actor: usize, frame: usize, offset: u64, size: u8, value: u64) {
        let folded = Vgic::touches_state(offset);
        let private = match offset {
            0x400..0x800 => offset < 0x420,
            0x80..0x400 => offset & 0x7f < 4,
            _ => false,
        };
        let redist = private && self.version == Version::V3;
        let mut kicks = Kicks::NONE;
        if folded {
            kicks |= self.fold(actor);
            if redist && frame != actor {
                kicks |= self.fold(frame);
            }
        }
        kicks |= if redist {
            self.vgic.redist_write(id(frame), gicr::SGI_FRAME + offset, size, value)
        } else {
            self.vgic.dist_write(id(actor), offset, size, value)
        };
        if folded {
            self.fill(actor);
            if redist && frame != actor {
                self.fill(frame);
            }
            kicks = kicks.without(id(actor)).without(if redist { id(frame) } else { id(actor) });
        }
        self.kicked(kicks);
    }

    fn word(&self, cpu: usize, offset: u64) -> u32 {
        if offset & 0x7f == 0 && self.version == Version::V3 {
            self.vgic.redist_read(id(cpu), gicr::SGI_FRAME + offset, 4) as u32
        } else {
            self.vgic.dist_read(id(cpu), offset, 4) as u32
        }
    }

    /// Whose private interrupts a write by `actor` is about.
    fn frame(&self, actor: usize, other: usize) -> usize {
        if self.version == Version::V3 { other } else { actor }
    }

    // The guest's operations.

    fn each(&mut self, cpu: usize, n: usize, word: u32, mut change: impl FnMut(&mut super::model::Int, usize)) {
        for at in (0..32).filter(|at| word >> at & 1 != 0) {
            change(self.model.int(cpu, n * 32 + at), n * 32 + at);
        }
    }

    fn enable(&mut self, actor: usize, other: usize, n: usize, word: u32, on: bool) {
        let frame = self.frame(actor, other);
        let always = self.version == Version::V2;
        self.each(frame, n, word, |int, intid| int.enabled = on || always && intid < 16);
        self.write(actor, frame, if on { 0x100 } else { 0x180 } + n as u64 * 4, 4, word.into());
    }

    fn set_pending(&mut self, actor: usize, other: usize, n: usize, word: u32, on: bool) {
        let frame = self.frame(actor, other);
        let sourced = self.version == Version::V2;
        self.each(frame, n, word, |int, intid| {
            if !(sourced && intid < 16) {
                int.latch = on;
            }
        });
        self.write(actor, frame, if on { 0x200 } else { 0x280 } + n as u64 * 4, 4, word.into());
    }

    /// Writes the active state of interrupts that are never taken, being of the lowest priority.
    fn decree(&mut self, actor: usize, other: usize, n: usize, word: u32, on: bool) {
        let frame = self.frame(actor, other);
        let word = (0..32).filter(|at| decreed(n * 32 + at)).fold(0, |w, at| w | word & 1 << at);
        self.each(frame, n, word, |int, _| int.active = on);
        self.write(actor, frame, if on { 0x300 } else { 0x380 } + n as u64 * 4, 4, word.into());
    }

    fn priority(&mut self, actor: usize, other: usize, intid: usize, value: u8) {
        let frame = self.frame(actor, other);
        if !decreed(intid) || value == 0xff {
            self.model.int(frame, intid).priority = value & 0xf8;
            self.write(actor, frame, 0x400 + intid as u64, 1, value.into());
        }
    }

    fn config(&mut self, actor: usize, intid: usize, edge: bool) {
        if intid >= 32 {
            self.model.int(actor, intid).edge = edge;
            let all = (0..16).fold(0_u32, |word, at| {
                word | u32::from(self.model.int(actor, intid / 16 * 16 + at).edge) << (at * 2 + 1)
            });
            self.write(actor, actor, 0xc00 + intid as u64 / 16 * 4, 4, all.into());
        }
    }

    fn target(&mut self, actor: usize, intid: usize, to: usize) {
        // One that somebody's lists have, if there is one.
        let listed = self.cpus[actor].entries().map(|e| e.intid as usize).find(|intid| *intid >= 32);
        let intid = listed.unwrap_or(intid);
        if intid < 32 {
            return;
        }
        let cpus = self.cpus.len();
        let to = (to < cpus).then_some(to);
        match self.version {
            Version::V2 => {
                self.model.int(actor, intid).target = if cpus == 1 { Some(0) } else { to };
                // Later CPUs in the mask are never chosen.
                let mask = to.map_or(0, |to| 0xff << to);
                self.write(actor, actor, gicd::ITARGETSR + intid as u64, 1, mask & 0xff);
            }
            Version::V3 => {
                self.model.int(actor, intid).target = to;
                let route = to.map_or(0xff, |to| to as u64);
                self.write(actor, actor, gicd::IROUTER + intid as u64 * 8, 8, route);
            }
        }
    }

    fn group(&mut self, actor: usize, other: usize, n: usize, word: u32, size: u8) {
        let frame = self.frame(actor, other);
        let size = size.min(4);
        // The upper bytes of the word, or all.
        let shift = 4 - size;
        let mask = (0xffff_ffff_u64 << (shift * 8)) as u32;
        self.each(frame, n, mask, |int, intid| int.group1 = word >> (intid % 32) & 1 != 0);
        let shift = u64::from(shift);
        self.write(actor, frame, 0x80 + n as u64 * 4 + shift, size, u64::from(word) >> (shift * 8));
    }

    fn groups(&mut self, groups: u32) {
        self.model.groups = groups;
        self.write(0, 0, gicd::CTLR, 4, groups.into());
    }

    fn timer(&mut self, cpu: usize, on: bool) {
        self.model.int(cpu, TIMER).line = on;
        self.cpus[cpu].timer = on;
        // The list still says that it is pending, and nobody is told.
        self.cpus[cpu].late |= !on;
    }

    fn sgi(&mut self, from: usize, sgi: usize, list: u32, filter: u32) {
        let cpus = self.cpus.len();
        let all = filter == 1;
        let to: Vec<_> = (0..cpus).filter(|cpu| if all { *cpu != from } else { list >> cpu & 1 != 0 }).collect();
        let kicks = match self.version {
            Version::V2 => {
                to.iter().for_each(|cpu| self.model.int(*cpu, sgi).sources |= 1 << from);
                let value = u64::from(all) << 24 | u64::from(list & 0xff) << 16 | sgi as u64;
                self.vgic.dist_write(id(from), gicd::SGIR, 4, value)
            }
            Version::V3 => {
                let group1 = filter & 2 == 0;
                for cpu in to {
                    let int = self.model.int(cpu, sgi);
                    int.latch |= int.group1 == group1;
                }
                let value = u64::from(all) << 40 | (sgi as u64) << 24 | u64::from(list & 0xffff);
                let register = if group1 { SgiRegister::Sgi1r } else { SgiRegister::Sgi0r };
                self.vgic.sgi1r(id(from), register, value)
            }
        };
        self.kicked(kicks);
    }

    fn line(&mut self, cpu: usize, intid: usize, high: bool) {
        if intid >= 16 && intid != TIMER {
            let int = self.model.int(cpu, intid);
            int.latch |= int.edge && high && !int.line;
            int.line = high;
            let level = if high { Line::High } else { Line::Low };
            let kicks = self.vgic.set_line(id(cpu), IntId(intid as u32), level);
            self.kicked(kicks);
        }
    }

    fn pulse(&mut self, cpu: usize, intid: usize) {
        if intid >= 16 && intid != TIMER {
            let int = self.model.int(cpu, intid);
            int.latch |= int.edge;
            let kicks = self.vgic.pend(id(cpu), IntId(intid as u32));
            self.kicked(kicks);
        }
    }

    fn take(&mut self, cpu: usize) {
        let (best, legal, any) = (self.model.best(cpu, self.cpus[cpu].groups), !self.cpus[cpu].late, self.any_late());
        let Some(Taken { intid, source, priority, .. }) = self.cpus[cpu].ack() else { return };
        self.counts.taken += 1;
        if legal {
            assert!(self.model.takes(cpu, intid), "vcpu {cpu} took {intid}: {:?}", self.model.int(cpu, intid));
            assert!(any || Some(priority) == best, "vcpu {cpu} took {intid} of {priority:#x}, but {best:?} waits");
        }
        let sourced = self.version == Version::V2 && intid < 16;
        let int = self.model.int(cpu, intid);
        assert!(!int.active, "vcpu {cpu} took {intid}, which is active");
        assert!(!sourced || !legal || int.sources >> source & 1 != 0, "SGI {intid} came from {source}");
        int.fuzzy = (!legal).then_some(cpu);
        int.sources &= !(1 << source);
        int.latch = false;
        int.active = true;
    }

    fn end(&mut self, cpu: usize, b: u32) {
        if self.mode1 && b & 1 == 0 && !self.cpus[cpu].dropped.is_empty() {
            let at = (b >> 8) as usize % self.cpus[cpu].dropped.len();
            let taken = self.cpus[cpu].dropped.swap_remove(at);
            self.counts.ended += 1;
            self.model.int(cpu, taken.intid).active = false;
            // An SPI may be deactivated by any vCPU.
            let by = if taken.intid < 32 { cpu } else { (b >> 16) as usize % self.cpus.len() };
            let mut kicks = self.fold(by);
            kicks |= self.vgic.deactivate(id(by), taken.intid as u64 | u64::from(taken.source) << 10);
            self.cpus[by].physical = self.vgic.hw_active(id(by), IntId(27));
            self.fill(by);
            // The guest may not take it again before the deactivation has reached the one who holds it.
            self.lazy = 0;
            self.kicked(kicks.without(id(by)));
            return;
        }
        if let Some(taken) = self.cpus[cpu].end(self.mode1)
            && !self.mode1
        {
            self.counts.ended += 1;
            self.model.int(cpu, taken.intid).active = false;
        }
    }

    // The checks.

    fn any_late(&self) -> bool {
        self.cpus.iter().any(|cpu| cpu.late)
    }

    /// After a fold: what was taken from an outdated list may be pending once more, but not less.
    fn adopt(&mut self, cpu: usize) {
        for intid in (0..32 + SPIS).filter(|intid| *intid != TIMER) {
            let int = self.model.int(cpu, intid);
            if int.fuzzy != Some(cpu) {
                continue;
            }
            int.fuzzy = None;
            // The wire is lowered for a moment, to see what is behind it.
            let (line, was) = (int.line, int.latch || int.sources != 0);
            let _ = self.vgic.set_line(id(cpu), IntId(intid as u32), Line::Low);
            let now = self.word(cpu, 0x200 + intid as u64 / 32 * 4) >> (intid % 32) & 1 != 0;
            let sources = self.vgic.dist_read(id(cpu), gicd::SPENDSGIR + intid as u64 % 16, 1) as u8;
            if line && !self.model.int(cpu, intid).edge {
                let _ = self.vgic.set_line(id(cpu), IntId(intid as u32), Line::High);
            }
            let int = self.model.int(cpu, intid);
            assert!(now || !was, "{intid} was lost: {int:?}");
            if self.version == Version::V2 && intid < 16 {
                assert_eq!(int.sources & !sources, 0, "SGI {intid} was lost");
                int.sources = sources;
            } else {
                int.latch = now;
            }
            // An edge must not be made by raising it again: it stays low for both.
            int.line &= !int.edge;
        }
    }

    /// Whoever is up to date is offered exactly what the books say.
    fn check(&mut self) {
        if self.any_late() {
            return;
        }
        for (id, cpu) in self.cpus.iter().enumerate() {
            let want = self.model.best(id, cpu.groups).filter(|priority| *priority < cpu.threshold());
            assert_eq!(cpu.top().map(|(_, e)| e.priority), want, "vcpu {id}: {}", self.vgic.view(VcpuId(id as u16)));
        }
    }

    /// Every register says what the reference says, with nothing in the lists.
    fn check_words(&mut self) {
        for cpu in 0..self.cpus.len() {
            let _ = self.fold(cpu);
        }
        for cpu in 0..self.cpus.len() {
            for intid in 0..32 + SPIS {
                let n = intid as u64 / 32 * 4;
                let [enabled, pending, active, group] =
                    [0x100, 0x200, 0x300, 0x80].map(|at| self.word(cpu, at + n) >> (intid % 32) & 1 != 0);
                let sources = self.vgic.dist_read(id(cpu), gicd::SPENDSGIR + intid as u64 % 16, 1) as u8;
                let sourced = self.version == Version::V2 && intid < 16;
                let int = self.model.int(cpu, intid);
                assert_eq!((enabled, active, group), (int.enabled, int.active, int.group1), "{cpu}: {intid}");
                // While the timer's interrupt is active, only the physical controller knows whether it pends again.
                assert!(pending == int.pending() || intid == TIMER && active, "{cpu}: {intid} pends {pending}");
                assert!(!sourced || sources == int.sources, "{cpu}: {intid} from {sources:#x}");
            }
        }
        for cpu in 0..self.cpus.len() {
            self.fill(cpu);
        }
    }
}

/// Interrupts that are made active by decree, and have the lowest priority for it.
fn decreed(intid: usize) -> bool {
    intid >= 16 && intid % 8 == 5
}

fn id(cpu: usize) -> VcpuId {
    VcpuId(cpu as u16)
}
