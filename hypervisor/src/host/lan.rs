//! The switches of the manifest, and which VMs' network devices are at them.

use crate::bundle::VmSpec;
use crate::devices::net::Nic;
use crate::devices::switch::Switch;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use spin::mutex::SpinMutex;

/// A switch, and who is at it.
#[derive(Debug)]
pub struct Lan {
    /// Its name in the manifest.
    pub name: String,
    /// The switch; to be locked before any device.
    pub(super) switch: SpinMutex<Switch>,
    /// By the numbers of its ports: a VM, and which of its devices.
    pub(super) ports: Vec<(usize, usize)>,
}

impl Lan {
    /// The switches that somebody of these VMs is at.
    pub(super) fn of(vms: &[VmSpec<'_>]) -> Vec<Self> {
        let mut lans: Vec<Self> = Vec::new();
        for (n, vm) in vms.iter().enumerate() {
            for (nth, net) in vm.nets.iter().enumerate() {
                let at = lans.iter().position(|lan| lan.name == net.switch).unwrap_or_else(|| {
                    lans.push(Self { name: net.switch.to_string(), switch: SpinMutex::default(), ports: Vec::new() });
                    lans.len() - 1
                });
                // The manifest has no more ports and no address twice: that was checked.
                if let Some(lan) = lans.get_mut(at)
                    && lan.switch.get_mut().add(net.mac, net.promiscuous).is_some()
                {
                    lan.ports.push((n, nth));
                }
            }
        }
        lans
    }
}

/// The network devices of VM `n`, behind its disks.
pub(super) fn nics_of(n: usize, spec: &VmSpec<'_>, lans: &[Lan]) -> Vec<Nic> {
    let first = 1 + spec.disks.len();
    let at = |nth| {
        let port = |lan: &Lan| lan.ports.iter().position(|port| *port == (n, nth));
        // Below 32.
        lans.iter().enumerate().find_map(|(at, lan)| Some((at, port(lan)? as u8)))
    };
    let nics = spec.nets.iter().enumerate();
    // There are few, so that their slots fit.
    nics.filter_map(|(nth, net)| Some(Nic::new(net, (first + nth) as u8, at(nth)?))).collect()
}
