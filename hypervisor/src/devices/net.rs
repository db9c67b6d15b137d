//! A network device of a VM: its device, and its port at a switch.

use super::switch::Ports;
use super::virtio::net::{Frame, Net};
use super::virtio::queue::Chain;
use crate::bundle::NetSpec;
use alloc::string::{String, ToString};
use spin::mutex::SpinMutex;

/// A network device.
#[derive(Debug)]
pub struct Nic {
    /// Its name in the manifest.
    pub name: String,
    /// The virtio-mmio slot it is in.
    pub slot: u8,
    /// The number of its switch, and of its port there.
    pub at: (usize, u8),
    /// What is being sent; to be locked before any device.
    pub sending: SpinMutex<Sending>,
    /// The device; to be locked before memory, and no other of them with it.
    pub net: SpinMutex<Net>,
}

/// The frame that is on its way.
#[derive(Debug, Default)]
pub struct Sending {
    /// Its chain.
    pub chain: Chain,
    /// The frame, if there is one, and the ports that it has yet to go to; nothing where it may go nowhere.
    pub frame: Option<(Frame, Option<Ports>)>,
}

impl Nic {
    /// The device that `spec` describes, in this slot and `at` this switch and port.
    pub fn new(spec: &NetSpec<'_>, slot: u8, at: (usize, u8)) -> Self {
        Self {
            name: spec.name.to_string(),
            slot,
            at,
            sending: SpinMutex::new(Sending::default()),
            net: SpinMutex::new(Net::new(spec.mac)),
        }
    }
}
