//! The board's UART: for the console's ring, and for last words.

use super::machine::El2;
use super::mmio::{self, Mmio};
use super::power;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};
use flatland::host::operator;
use flatland::host::{Host, Shutdown};
use platform::board::{self, UartKind};
use platform::uart::{Port, mini, pl011};
use spin::Once;

/// The UART's registers, by kind.
enum Uart {
    Pl011(Mmio<pl011::Registers>),
    Mini(Mmio<mini::Registers>),
}

static UART: Once<Uart> = Once::new();

/// Takes the UART that the board describes. Without one Flatland is silent.
pub(crate) fn init(uart: &board::Uart) {
    // SAFETY: the device tree says that such a UART lies there; drivers only touch its registers.
    let uart = unsafe {
        match uart.kind {
            UartKind::Pl011 => mmio::registers(uart.base).map(Uart::Pl011),
            UartKind::BcmAux => mmio::registers(uart.base).map(Uart::Mini),
        }
    };
    if let Ok(uart) = uart {
        UART.call_once(|| uart);
    }
    if let Some(port) = port() {
        port.adopt();
    }
}

/// Takes a UART that no tree names, unless there is one already: for last words alone, since where nothing is known, to look
/// for one may be what ends the board. It would have ended without a word.
pub(crate) fn guess() {
    if port().is_some() {
        return;
    }
    let found = board::guess(|at| {
        // SAFETY: a word is read, as Device memory; what that may do is said above.
        unsafe { mmio::registers::<AtomicU32>(at) }.map_or(0, |word| word.load(Ordering::Relaxed))
    });
    if let Some(uart) = found {
        init(&uart);
    }
}

/// The UART, if there is one.
pub(crate) fn port() -> Option<Port<'static>> {
    Some(match UART.get()? {
        Uart::Pl011(registers) => Port::Pl011(registers.get()),
        Uart::Mini(registers) => Port::Mini(registers.get()),
    })
}

/// How many bytes are sent at one time: a UART may take them as fast as they come. If there are more, its interrupt comes at once.
const SENT: usize = 64;

/// Sends what the console has for as long as the UART takes it, and takes what is typed if it was held back. Behind that the board ends,
/// if the operator wants it to.
pub(crate) fn drain(host: &Host) {
    let Some(port) = port() else { return };
    if host.console.held.load(Ordering::Relaxed) {
        take(host, &port);
    }
    let mut console = host.console.lock();
    let mut places = 0..SENT;
    console.drain(|byte| places.next().is_some() && port.put(byte));
    if console.is_drained() {
        port.disable_tx_interrupt();
        drop(console);
        host.resume_uarts(&El2);
    } else {
        port.enable_tx_interrupt();
        drop(console);
    }
    let order = *host.fleet.shutdown.lock();
    match order {
        Some(Shutdown::Restart) => power::restart(),
        Some(Shutdown::Off) => power::off(),
        None => {}
    }
}

/// Takes what was typed until now, and from now on.
pub(crate) fn listen(host: &Host) {
    if let Some(port) = port() {
        take(host, &port);
    }
}

/// The UART's interrupt: takes what was typed, sends what waits.
pub(crate) fn serve(host: &Host) {
    let Some(port) = port() else { return };
    port.acknowledge();
    take(host, &port);
    drain(host);
}

/// How many bytes are taken at one time: each is shown to the operator, which costs some 4,000 instructions, or a guest is told. If
/// there are more, the interrupt is still raised and is taken again, after others.
const TYPED: usize = 3;

/// Takes what was typed, for as long as it has somewhere to go. When it has not, the UART does not interrupt either.
fn take(host: &Host, port: &Port<'_>) {
    let mut typing = host.console.typing.lock();
    for _ in 0..TYPED {
        if !operator::may_take(host, &El2, &mut typing) {
            // The console's lock is also that of the UART's interrupt mask.
            let _console = host.console.lock();
            port.disable_rx_interrupt();
            return;
        }
        let Some(byte) = port.get() else { break };
        operator::typed(host, &El2, byte);
    }
    let _console = host.console.lock();
    port.enable_rx_interrupt();
}

/// Writes past the console, waiting for each byte: for boot, before there is a console, and for last words.
pub(crate) struct Emergency;

/// How often a full transmitter is asked again before a byte is given up: far longer than a byte takes at 9600 baud.
const PATIENCE: u32 = 10_000_000;

impl fmt::Write for Emergency {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let Some(port) = port() else { return Ok(()) };
        for byte in text.bytes() {
            if byte == b'\n' {
                put(&port, b'\r');
            }
            put(&port, byte);
        }
        Ok(())
    }
}

fn put(port: &Port<'_>, byte: u8) {
    for _ in 0..PATIENCE {
        if port.put(byte) {
            return;
        }
        core::hint::spin_loop();
    }
}
