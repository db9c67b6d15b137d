//! What every device of the virtual board is to its [bus](super::bus): [`Device`] (KVM's `kvm_io_device`), and what the board
//! is to a device: [`Board`].
//!
//! A device is plain state. What it needs while it is accessed, the time, the console or somebody who serves its queues, it asks
//! of the board.

/// A device, as the bus sees it. Offsets and sizes are in bytes; a size is 1, 2, 4 or 8.
pub trait Device {
    /// What the guest reads at `offset`, `bytes` bytes.
    fn read(&mut self, offset: u64, bytes: u8, board: &mut dyn Board) -> u64;
    /// The guest writes `value` at `offset`, `bytes` bytes.
    fn write(&mut self, offset: u64, bytes: u8, value: u64, board: &mut dyn Board);
    /// Whether the interrupt line is high.
    fn line(&self) -> bool;
    /// As after power-on.
    fn reset(&mut self);
    /// Lets time come to `now`, in the board's seconds, and says when that is needed again, if ever.
    fn tick(&mut self, _now: u64) -> Option<u64> {
        None
    }
}

/// What the board does for a device while its guest accesses it.
pub trait Board {
    /// The board's clock, in seconds.
    fn seconds(&self) -> u64;
    /// Sends `byte` to the console; false if it has no room, and then the device is [told](super::uart::Uart::resume) when it has.
    fn send(&mut self, byte: u8) -> bool;
    /// There is room for input that the console may have held back.
    fn take_input(&mut self);
    /// What [`Device::tick`] says may be another time now.
    fn tick_again(&mut self);
    /// There may be work in the device's queues.
    fn serve(&mut self);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::Board;
    use alloc::vec::Vec;

    /// A board that keeps what it is asked for.
    #[derive(Default)]
    pub(crate) struct Bench {
        pub now: u64,
        /// For how many bytes the console has room.
        pub room: usize,
        pub sent: Vec<u8>,
        pub takes_input: bool,
        pub ticks: bool,
        pub serves: bool,
    }

    impl Board for Bench {
        fn seconds(&self) -> u64 {
            self.now
        }

        fn send(&mut self, byte: u8) -> bool {
            let sends = self.room > 0;
            if sends {
                self.room -= 1;
                self.sent.push(byte);
            }
            sends
        }

        fn take_input(&mut self) {
            self.takes_input = true;
        }

        fn tick_again(&mut self) {
            self.ticks = true;
        }

        fn serve(&mut self) {
            self.serves = true;
        }
    }
}
