//! Why a VM lost memory or got some: [`Journal`], the last events, each with its rule and the numbers it went by.

use super::Level;
use crate::addr::VmId;
use arrayvec::ArrayVec;
use core::fmt;
use core::mem::discriminant;

/// The events that are kept.
const EVENTS: usize = 64;
/// Events of the same VM and rule are one if no further apart, in milliseconds.
const SAME_MS: u64 = 1000;

/// By which rule. Amounts are pages; they are shown in KiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// Its balloon grows: it has more than it is entitled to.
    Above {
        /// How short the board is.
        level: Level,
        /// By how much.
        above: u64,
        /// Of its memory, in percent.
        active: u8,
        /// In percent.
        tax: u8,
    },
    /// Its balloon shrinks: it has less than it is entitled to.
    Below {
        /// How short the board is.
        level: Level,
        /// By how much.
        below: u64,
        /// What is free on the board.
        free: u64,
    },
    /// Its balloon need not grow any further.
    Enough {
        /// How short the board is.
        level: Level,
        /// What is free on the board.
        free: u64,
    },
    /// It has more than it is entitled to and no balloon driver, or does not run, so other means take.
    Driverless {
        /// How short the board is.
        level: Level,
        /// By how much it is above.
        above: u64,
    },
    /// The same with a balloon that does not do as asked.
    Stuck {
        /// How short the board is.
        level: Level,
        /// By how much it is above.
        above: u64,
        /// For how long nothing has moved, in milliseconds.
        since: u64,
    },
    /// The same with a balloon as large as it may be.
    Full {
        /// How short the board is.
        level: Level,
        /// By how much it is above.
        above: u64,
        /// How large that is.
        balloon: u64,
    },
    /// Memory is so short that other means take as well.
    Short {
        /// How short the board is.
        level: Level,
        /// By how much it is above its entitlement.
        above: u64,
        /// What is free on the board.
        free: u64,
    },
    /// Memory is so short that it stands still.
    Blocked {
        /// By how much it is above its entitlement.
        above: u64,
        /// What is free on the board.
        free: u64,
    },
    /// It goes on.
    Unblocked {
        /// What is free on the board.
        free: u64,
    },
    /// The operator has set its balloon.
    Pinned {
        /// How large.
        balloon: u64,
    },
}

/// Pages, shown in KiB.
struct Kib(u64);

impl fmt::Display for Kib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB", self.0.saturating_mul(4))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let above = |f: &mut fmt::Formatter<'_>, level: Level, above| {
            write!(f, "{level}: above its entitlement by {}", Kib(above))
        };
        match *self {
            Self::Above { level, above: pages, active, tax } => {
                above(f, level, pages)?;
                write!(f, " (active {active} %, tax {tax} %)")
            }
            Self::Below { level, below, free } => {
                write!(f, "{level}: below its entitlement by {} ({} free)", Kib(below), Kib(free))
            }
            Self::Enough { level, free } => write!(f, "{level}: no more is asked for ({} free)", Kib(free)),
            Self::Driverless { level, above: pages } => {
                above(f, level, pages)?;
                f.write_str(", and no balloon takes it")
            }
            Self::Stuck { level, above: pages, since } => {
                above(f, level, pages)?;
                write!(f, ", and its balloon has stood still for {} s", since / 1000)
            }
            Self::Full { level, above: pages, balloon } => {
                above(f, level, pages)?;
                write!(f, ", and its balloon is full at {}", Kib(balloon))
            }
            Self::Short { level, above: pages, free } => {
                above(f, level, pages)?;
                write!(f, ", and balloons are too slow ({} free)", Kib(free))
            }
            Self::Blocked { above: pages, free } => {
                above(f, Level::Low, pages)?;
                write!(f, ", and stands still ({} free)", Kib(free))
            }
            Self::Unblocked { free } => write!(f, "goes on ({} free)", Kib(free)),
            Self::Pinned { balloon } => write!(f, "operator: balloon set to {}", Kib(balloon)),
        }
    }
}

/// What happened to a VM's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// When, in milliseconds; of several that are one, the first.
    pub at_ms: u64,
    /// To whom.
    pub vm: VmId,
    /// The pages it is to get; below 0: to give.
    pub pages: i64,
    /// Why.
    pub rule: Rule,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, tenth) = (self.at_ms / 1000, self.at_ms % 1000 / 100);
        write!(f, "{seconds}.{tenth} s  {:+} KiB  {}", self.pages.saturating_mul(4), self.rule)
    }
}

/// The last events, the oldest first.
#[derive(Debug, Default)]
pub struct Journal {
    events: ArrayVec<Event, EVENTS>,
    /// Where the oldest is, once all places are taken.
    oldest: usize,
}

impl Journal {
    /// Enters an event; one of the same VM and rule within a second is added to, and its rule's numbers are replaced.
    pub fn enter(&mut self, event: Event) {
        let same = |old: &&mut Event| {
            old.vm == event.vm
                && discriminant(&old.rule) == discriminant(&event.rule)
                && event.at_ms.saturating_sub(old.at_ms) < SAME_MS
        };
        if let Some(old) = self.events.iter_mut().find(same) {
            old.pages = old.pages.saturating_add(event.pages);
            old.rule = event.rule;
        } else if self.events.try_push(event).is_err()
            && let Some(old) = self.events.get_mut(self.oldest)
        {
            *old = event;
            self.oldest = (self.oldest + 1) % EVENTS;
        }
    }

    /// All events, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Event> {
        let (late, early) = self.events.split_at(self.oldest);
        early.iter().chain(late)
    }

    /// The events of a VM, the oldest first.
    pub fn of(&self, vm: VmId) -> impl Iterator<Item = &Event> {
        self.iter().filter(move |event| event.vm == vm)
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, Journal, Rule};
    use crate::addr::VmId;
    use crate::policy::Level;
    use alloc::string::ToString;
    use alloc::vec::Vec;

    fn event(at_ms: u64, vm: u16, pages: i64) -> Event {
        let rule = Rule::Above { level: Level::Soft, above: 5120, active: 12, tax: 75 };
        Event { at_ms, vm: VmId(vm), pages, rule }
    }

    #[test]
    fn an_event_says_by_which_rule_and_with_which_numbers() {
        assert_eq!(
            event(12_345, 0, -4096).to_string(),
            "12.3 s  -16384 KiB  soft: above its entitlement by 20480 KiB (active 12 %, tax 75 %)"
        );
        let rule = Rule::Below { level: Level::High, below: 256, free: 1024 };
        assert_eq!(
            Event { rule, ..event(900, 0, 256) }.to_string(),
            "0.9 s  +1024 KiB  high: below its entitlement by 1024 KiB (4096 KiB free)"
        );
        let stuck = Rule::Stuck { level: Level::Hard, above: 1, since: 5999 };
        assert_eq!(stuck.to_string(), "hard: above its entitlement by 4 KiB, and its balloon has stood still for 5 s");
    }

    #[test]
    fn repeated_events_within_a_second_are_one() {
        let mut journal = Journal::default();
        for (at, vm, pages) in [(1000, 0, -1), (1500, 1, -2), (1999, 0, -3), (2000, 0, -4)] {
            journal.enter(event(at, vm, pages));
        }
        assert_eq!(journal.of(VmId(0)).map(|e| (e.at_ms, e.pages)).collect::<Vec<_>>(), [(1000, -4), (2000, -4)]);
        journal.enter(Event { rule: Rule::Unblocked { free: 0 }, ..event(2001, 0, 0) });
        assert_eq!(journal.iter().count(), 4, "another rule is another event");
    }

    #[test]
    fn the_last_64_are_kept_in_order() {
        let mut journal = Journal::default();
        (0..150).for_each(|second| journal.enter(event(second * 1000, 0, 1)));
        assert!(journal.iter().map(|event| event.at_ms / 1000).eq(86..150));
    }
}
