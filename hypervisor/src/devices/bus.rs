//! The bus of a VM: its devices beside the interrupt controller and flash (KVM's `kvm_io_bus`).
//!
//! An access to a device leaves the guest as a stage-2 abort; [`super::at`] says which [`Region`] it is to, and [`Bus::port`]
//! which device is there and what interrupt its line is. Each device has a lock of its own, under which its line is brought to
//! the interrupt controller, so that the two agree.

use super::device::Device;
use super::disk::Disk;
use super::net::Nic;
use super::rtc::Rtc;
use super::uart::Uart;
use super::virtio::balloon::Balloon;
use super::{EmptySlot, RTC_INTID, Region, UART_INTID, virtio_intid};
use crate::addr::IntId;
use alloc::boxed::Box;
use alloc::vec::Vec;
use spin::mutex::SpinMutex;

/// The devices of a VM.
#[derive(Debug, Default)]
pub struct Bus {
    /// The console.
    pub uart: SpinMutex<Uart>,
    /// The clock.
    pub rtc: SpinMutex<Rtc>,
    /// The balloon; to be locked before the VM's memory.
    pub balloon: SpinMutex<Balloon>,
    /// Its disks, in the slots that follow.
    pub disks: Box<[Disk]>,
    /// Its network devices, in the slots behind those.
    pub nics: Box<[Nic]>,
    empty: SpinMutex<EmptySlot>,
    /// Held while all are ticked, so that what was computed last is said last.
    pub ticking: SpinMutex<()>,
}

/// A device and its interrupt.
#[derive(Clone, Copy)]
pub struct Port<'a> {
    /// The device.
    pub device: &'a SpinMutex<dyn Device>,
    /// The shared interrupt that its line is.
    pub intid: IntId,
}

/// The regions of devices that are always there.
const ATTACHED: [Region; 3] = [Region::Uart, Region::Rtc, Region::Virtio(0)];

/// Whose queues a virtio slot's are.
#[derive(Clone, Copy, Debug)]
pub enum Queues<'a> {
    /// The balloon's.
    Balloon,
    /// A disk's.
    Disk(&'a Disk),
    /// A network device's.
    Nic(&'a Nic),
}

impl Bus {
    /// A bus with these disks and network devices.
    pub fn new(disks: Vec<Disk>, nics: Vec<Nic>) -> Self {
        Self { disks: disks.into(), nics: nics.into(), ..Self::default() }
    }

    /// The device in `region`; nothing where the interrupt controller is.
    #[inline(always)]
    pub fn port(&self, region: Region) -> Option<Port<'_>> {
        match region {
            Region::Uart => Some(Port { device: &self.uart, intid: UART_INTID }),
            Region::Rtc => Some(Port { device: &self.rtc, intid: RTC_INTID }),
            Region::Virtio(slot) => Some(self.virtio(slot)),
            Region::Gicd | Region::Gicc | Region::Gich | Region::Gicr(_) => None,
        }
    }

    /// What is in a virtio slot.
    fn virtio(&self, slot: u8) -> Port<'_> {
        let device: &SpinMutex<dyn Device> = match self.queues(slot) {
            Some(Queues::Balloon) => &self.balloon,
            Some(Queues::Disk(disk)) => &disk.blk,
            Some(Queues::Nic(nic)) => &nic.net,
            None => &self.empty,
        };
        Port { device, intid: virtio_intid(slot) }
    }

    /// Whose queues are those of a virtio slot.
    pub fn queues(&self, slot: u8) -> Option<Queues<'_>> {
        let Some(nth) = usize::from(slot).checked_sub(1) else { return Some(Queues::Balloon) };
        match self.disks.get(nth) {
            Some(disk) => Some(Queues::Disk(disk)),
            None => self.nics.get(nth - self.disks.len()).map(Queues::Nic),
        }
    }

    /// All devices that there are.
    pub fn ports(&self) -> impl Iterator<Item = Port<'_>> {
        let virtio = self.disks.iter().map(|disk| disk.slot).chain(self.nics.iter().map(|nic| nic.slot));
        ATTACHED.into_iter().chain(virtio.map(Region::Virtio)).filter_map(|region| self.port(region))
    }

    /// Puts all of them into the state after power-on.
    pub fn reset(&self) {
        for nic in &self.nics {
            nic.sending.lock().frame = None;
        }
        self.ports().for_each(|port| port.device.lock().reset());
    }
}

#[cfg(test)]
mod tests {
    use super::Bus;
    use crate::devices::Region;
    use crate::devices::device::tests::Bench;
    use alloc::vec;
    use alloc::vec::Vec;

    #[test]
    fn each_region_has_the_device_that_it_names() {
        let (bus, mut bench) = (Bus::default(), Bench { now: 77, room: 1, ..Bench::default() });
        let mut read = |region, offset| bus.port(region).map(|port| port.device.lock().read(offset, 4, &mut bench));
        assert_eq!(read(Region::Uart, 0xFE0), Some(0x11));
        assert_eq!(read(Region::Rtc, 0xFE0), Some(0x31));
        assert_eq!(read(Region::Rtc, 0), Some(77));
        assert_eq!(read(Region::Virtio(0), 8), Some(5), "a balloon");
        for slot in 1..32 {
            assert_eq!(read(Region::Virtio(slot), 8), Some(0), "nobody");
        }
        for region in [Region::Gicd, Region::Gicc, Region::Gich, Region::Gicr(0)] {
            assert_eq!(read(region, 0), None);
        }
    }

    #[test]
    fn devices_ask_the_board_for_what_they_need() {
        let (bus, mut bench) = (Bus::default(), Bench { room: 1, ..Bench::default() });
        let mut write = |region, offset, value| {
            bench = Bench { room: 1, ..Bench::default() };
            bus.port(region).unwrap().device.lock().write(offset, 4, value, &mut bench);
            (bench.sent.clone(), bench.ticks, bench.serves)
        };
        assert_eq!(write(Region::Uart, 0, 0x41), (vec![b'A'], false, false));
        assert_eq!(write(Region::Rtc, 4, 9), (vec![], true, false));
        assert_eq!(write(Region::Virtio(0), 0x50, 0), (vec![], false, true));
        assert_eq!(write(Region::Virtio(3), 0x50, 0), (vec![], false, false));
    }

    #[test]
    fn the_alarm_of_the_clock_is_what_ticks() {
        let (bus, mut bench) = (Bus::default(), Bench::default());
        let tick = |now| bus.ports().filter_map(|port| port.device.lock().tick(now)).collect::<Vec<_>>();
        let lines = || bus.ports().filter(|port| port.device.lock().line()).map(|port| port.intid).collect::<Vec<_>>();
        assert_eq!(tick(0), []);
        let rtc = bus.port(Region::Rtc).unwrap();
        rtc.device.lock().write(0x10, 4, 1, &mut bench);
        rtc.device.lock().write(4, 4, 20, &mut bench);
        assert_eq!((tick(19), lines()), (vec![20], vec![]));
        assert_eq!((tick(20), lines()), (vec![], vec![rtc.intid]));
        bus.reset();
        assert_eq!((tick(21), lines()), (vec![], vec![]));
    }
}
