//! The hardware: a virtual CPU interface that works on list registers (IHI 0069H 4.9, IHI 0048B 5.2).

use flatland::arm::gic::{ListRegister, Mask, Version, hcr};
use flatland::vgic::Lists;

/// One CPU's interface, and what the guest on it has taken and not yet given back.
pub(super) struct Cpu {
    pub(super) version: Version,
    pub(super) lists: Lists,
    pub(super) pmr: u8,
    /// The groups that are on, a bit each.
    pub(super) groups: u8,
    /// Taken, priority not dropped: the innermost last.
    pub(super) stack: Vec<Taken>,
    /// EOImode 1: dropped, not deactivated.
    pub(super) dropped: Vec<Taken>,
    /// The timer's wire, and the physical interrupt's active state.
    pub(super) timer: bool,
    pub(super) physical: bool,
    /// Has been kicked and has not looked up.
    pub(super) late: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) intid: usize,
    pub(super) source: u8,
    pub(super) priority: u8,
    group1: bool,
}

impl Cpu {
    pub(super) fn new(version: Version) -> Self {
        let (stack, dropped) = (Vec::new(), Vec::new());
        let lists = Lists::new();
        Self { version, lists, pmr: 0xf8, groups: 3, stack, dropped, timer: false, physical: false, late: true }
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = ListRegister> + '_ {
        self.lists.lr[..usize::from(self.lists.used)].iter().map(|lr| match self.version {
            Version::V2 => ListRegister::from_v2(*lr as u32),
            Version::V3 => ListRegister::from_v3(*lr),
        })
    }

    fn set(&mut self, at: usize, entry: ListRegister) {
        self.lists.lr[at] = match self.version {
            Version::V2 => u64::from(entry.v2()),
            Version::V3 => entry.v3(),
        };
    }

    /// What the controller is told of all this.
    pub(super) fn mask(&self) -> Mask {
        Mask { priority: self.pmr, groups: self.groups }
    }

    /// Below which number a priority gets through now.
    pub(super) fn threshold(&self) -> u8 {
        self.stack.last().map_or(u8::MAX, |taken| taken.priority).min(self.pmr)
    }

    /// The list register that would be taken now.
    pub(super) fn top(&self) -> Option<(usize, ListRegister)> {
        let passes = |e: &ListRegister| e.priority < self.threshold() && self.groups >> u8::from(e.group1) & 1 != 0;
        let all = self.entries().enumerate().filter(|(_, e)| e.pending && !e.active && passes(e));
        all.min_by_key(|(_, e)| e.priority)
    }

    /// Reads IAR.
    pub(super) fn ack(&mut self) -> Option<Taken> {
        let (at, entry) = self.top()?;
        self.set(at, ListRegister { pending: false, active: true, ..entry });
        let taken =
            Taken { intid: entry.intid as usize, source: entry.source, priority: entry.priority, group1: entry.group1 };
        self.stack.push(taken);
        Some(taken)
    }

    /// Writes EOIR: drops the priority, and with EOImode 0 deactivates the list register that has it, the INTID and the
    /// group (ICV_EOIR1_EL1); the end of what no list register has is counted.
    pub(super) fn end(&mut self, mode1: bool) -> Option<Taken> {
        let taken = self.stack.pop()?;
        if mode1 {
            self.dropped.push(taken);
            return Some(taken);
        }
        let found = self.entries().enumerate().find(|(_, e)| {
            let same = e.intid as usize == taken.intid && (e.physical.is_some() || e.source == taken.source);
            e.active && same && e.priority == taken.priority && e.group1 == taken.group1
        });
        match found {
            Some((at, entry)) => {
                self.set(at, ListRegister { active: false, ..entry });
                if entry.physical.is_some() {
                    self.physical = false;
                }
            }
            None => self.lists.hcr += 1 << hcr::EOI_COUNT_SHIFT,
        }
        Some(taken)
    }

    /// Whether the maintenance interrupt is asserted.
    pub(super) fn maintenance(&self) -> bool {
        let wants = |bit: u32| self.lists.hcr & bit != 0;
        let valid = self.entries().filter(|e| e.pending || e.active).count();
        self.entries().any(|e| e.eoi && !e.pending && !e.active)
            || wants(hcr::NPIE) && !self.entries().any(|e| e.pending && !e.active)
            || (0..2).any(|group| {
                wants(if self.groups >> group & 1 != 0 { hcr::VGRP0EIE } else { hcr::VGRP0DIE } << (2 * group))
            })
            || wants(hcr::UIE) && valid <= 1
            || wants(hcr::LRENPIE) && self.lists.hcr >> hcr::EOI_COUNT_SHIFT != 0
    }
}
