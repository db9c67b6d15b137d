//! The board's UART, shared by all VMs and the operator, and what is known of it without its lock.

use crate::monitor::{Answer, Console, Typing};
use core::sync::atomic::{AtomicBool, Ordering};
use spin::mutex::{SpinMutex, SpinMutexGuard};

/// The console. Its lock is taken under all others and holds none.
pub struct SharedConsole {
    console: SpinMutex<Console>,
    /// Set when it has something to send: whoever sees it drives the UART.
    pub to_send: AtomicBool,
    /// How fast what is typed is taken. Whoever takes it has this, and nobody takes it while he has the console, a VM's devices
    /// or its interrupt controller.
    pub typing: SpinMutex<Typing>,
    /// Whether what is typed is held back until a guest has read some: who sees that has happened sets [`Self::to_send`].
    pub held: AtomicBool,
    /// Whether the UART of some VM waits for room on the line.
    pub(super) closed: AtomicBool,
    /// The answer that is being given; whoever has this takes all other locks.
    pub answer: SpinMutex<Option<Answer>>,
    /// Whether there is one: nothing that is typed is taken until its end.
    pub answers: AtomicBool,
}

impl SharedConsole {
    /// `console`, with nothing to send.
    pub(super) const fn new(console: Console) -> Self {
        Self {
            console: SpinMutex::new(console),
            to_send: AtomicBool::new(false),
            typing: SpinMutex::new(Typing::Open),
            held: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            answer: SpinMutex::new(None),
            answers: AtomicBool::new(false),
        }
    }

    /// The console itself.
    #[inline(always)]
    pub fn lock(&self) -> SpinMutexGuard<'_, Console> {
        self.console.lock()
    }

    /// The same, if nobody has it.
    pub fn try_lock(&self) -> Option<SpinMutexGuard<'_, Console>> {
        self.console.try_lock()
    }

    /// A line of our own for the operator.
    pub fn say(&self, what: core::fmt::Arguments<'_>) {
        self.lock().log(what);
        self.to_send.store(true, Ordering::Release);
    }

    /// The same, of what is not kept in the log.
    pub fn show(&self, what: core::fmt::Arguments<'_>) {
        self.lock().show(what);
        self.to_send.store(true, Ordering::Release);
    }
}
