//! How fast the board's line is read: as fast as who has the keyboard takes what was typed.
//!
//! [`Typing`] says before each byte whether it may be taken. While a guest's UART has as much before it as it can hold, nothing
//! is: what is typed stays in the board's FIFO, and with the sender, if that knows how to wait. A guest that reads nothing
//! for long does not keep the operator from the monitor: from then on bytes are taken and lost, until it reads again.
//! Time is an argument, in ticks.

/// What is to be done with the next byte.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Take {
    /// It is taken, and there is room for it.
    Yes,
    /// It stays where it is.
    No,
    /// It is taken; if it is for a guest, it is lost. The first of some that are is told apart.
    Lost {
        /// Whether bytes were kept until now.
        first: bool,
    },
}

/// Whether the board's line is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Typing {
    /// It is.
    #[default]
    Open,
    /// Not while a guest has so many bytes before it, and not for longer than that if it takes none.
    Held {
        /// The bytes before the guest.
        waiting: usize,
        /// When patience ends.
        until: u64,
    },
    /// It is, though the guest that has the keyboard does not read.
    Deaf,
}

impl Typing {
    /// Whether a byte may be taken now. Whoever has the keyboard has `waiting` bytes before it and room for `room`; it is
    /// waited for until no more than half of that wait, or for `patience` ticks in which it takes none.
    pub fn take(&mut self, waiting: usize, room: usize, now: u64, patience: u64) -> Take {
        let full = waiting >= room;
        let until = now.saturating_add(patience);
        let (state, take) = match *self {
            Self::Open | Self::Deaf if !full => (Self::Open, Take::Yes),
            Self::Open => (Self::Held { waiting, until }, Take::No),
            Self::Held { .. } if waiting <= room / 2 => (Self::Open, Take::Yes),
            Self::Held { waiting: before, .. } if waiting < before => (Self::Held { waiting, until }, Take::No),
            Self::Held { until, .. } if now < until => (*self, Take::No),
            // It does not fill up again that way: it was not full, or it is.
            Self::Held { .. } if !full => (Self::Open, Take::Yes),
            Self::Held { .. } => (Self::Deaf, Take::Lost { first: true }),
            Self::Deaf => (Self::Deaf, Take::Lost { first: false }),
        };
        *self = state;
        take
    }

    /// When to look again at the latest, while nothing is taken.
    pub const fn held_until(self) -> Option<u64> {
        match self {
            Self::Held { until, .. } => Some(until),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Take, Typing};

    const ROOM: usize = 256;
    const PATIENCE: u64 = 1000;

    #[test]
    fn a_guest_that_reads_slowly_loses_nothing() {
        let (mut typing, mut waiting, mut taken) = (Typing::Open, 0, 0);
        for now in 0..1_000_000 {
            while typing.take(waiting, ROOM, now, PATIENCE) == Take::Yes {
                waiting += 1;
                taken += 1;
                assert!(waiting <= ROOM);
            }
            assert!(typing.held_until().is_some_and(|until| until > now), "it is looked at again");
            // A byte in almost as long as is waited.
            if now % (PATIENCE - 1) == 0 {
                waiting -= 1;
            }
        }
        assert!(taken > 1_000);
    }

    #[test]
    fn a_guest_that_does_not_read_keeps_nobody_from_the_monitor() {
        let mut typing = Typing::Open;
        assert_eq!(typing.take(ROOM, ROOM, 5, PATIENCE), Take::No);
        assert_eq!(typing.held_until(), Some(5 + PATIENCE));
        assert_eq!(typing.take(ROOM, ROOM, 4 + PATIENCE, PATIENCE), Take::No);
        assert_eq!(typing.take(ROOM, ROOM, 5 + PATIENCE, PATIENCE), Take::Lost { first: true });
        assert_eq!(typing.take(ROOM, ROOM, 6 + PATIENCE, PATIENCE), Take::Lost { first: false });
        assert_eq!(typing.held_until(), None);
        assert_eq!(typing.take(ROOM - 1, ROOM, 7 + PATIENCE, PATIENCE), Take::Yes, "it reads again");
        assert_eq!(typing, Typing::Open);
    }

    #[test]
    fn who_has_read_half_gets_more() {
        let mut typing = Typing::Open;
        assert_eq!(typing.take(ROOM, ROOM, 0, PATIENCE), Take::No);
        assert_eq!(typing.take(ROOM / 2 + 1, ROOM, 1, PATIENCE), Take::No);
        assert_eq!(typing.take(ROOM / 2, ROOM, 2, PATIENCE), Take::Yes);
        // Somebody else has the keyboard now.
        assert_eq!(typing.take(ROOM, ROOM, 3, PATIENCE), Take::No);
        assert_eq!(typing.take(0, ROOM, 4, PATIENCE), Take::Yes);
    }

    #[test]
    fn each_byte_that_is_taken_is_waited_for_anew() {
        let mut typing = Typing::Open;
        assert_eq!(typing.take(ROOM, ROOM, 0, PATIENCE), Take::No);
        assert_eq!(typing.take(ROOM - 1, ROOM, 900, PATIENCE), Take::No);
        assert_eq!(typing.held_until(), Some(900 + PATIENCE));
        assert_eq!(typing.take(ROOM - 1, ROOM, 1500, PATIENCE), Take::No);
        assert_eq!(typing.held_until(), Some(900 + PATIENCE), "it took none");
        // Not full by then: there is room for what is typed, which fills it up to where it is told of again.
        assert_eq!(typing.take(ROOM - 1, ROOM, 900 + PATIENCE, PATIENCE), Take::Yes);
    }
}
