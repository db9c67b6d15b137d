//! An Ethernet switch between VMs, as plain state: which ports a frame goes to.
//!
//! Each port has an address of its own, which no other can take: what comes from there has it as its source, or is dropped, unless
//! the port is promiscuous. From promiscuous ports other addresses are learned (IEEE 802.1D, 7.8), in a table of bounded size and for
//! five minutes; frames to an address that nobody has, and to groups, go to all ports but their own.

use crate::addr::Mac;
use crate::bundle::MOST_PORTS;
use alloc::vec::Vec;

/// How many addresses are learned at most.
const STATIONS: usize = 128;
/// For how many seconds after its last frame an address is known (802.1D, table 7-5).
const AGE: u64 = 300;

/// A set of ports, bit n for port n.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ports(u32);

impl Ports {
    /// Takes one out, the lowest; nothing where there is none.
    pub const fn take(&mut self) -> Option<u8> {
        if self.0 == 0 {
            return None;
        }
        // Below 32.
        let port = self.0.trailing_zeros() as u8;
        self.0 &= self.0 - 1;
        Some(port)
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// A port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Port {
    mac: Mac,
    is_promiscuous: bool,
}

/// An address that was learned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Station {
    mac: Mac,
    port: u8,
    /// The second of its last frame.
    seen: u64,
}

/// A switch.
#[derive(Clone, Debug, Default)]
pub struct Switch {
    ports: Vec<Port>,
    stations: Vec<Station>,
}

impl Switch {
    /// Adds a port whose address is `mac`, and returns its number. Nothing if there are [`MOST_PORTS`], or one has that address.
    pub fn add(&mut self, mac: Mac, is_promiscuous: bool) -> Option<u8> {
        if self.ports.len() >= MOST_PORTS || self.owner(mac).is_some() {
            return None;
        }
        if is_promiscuous {
            // So that nothing is allocated while a guest waits.
            self.stations.reserve_exact(STATIONS);
        }
        self.ports.push(Port { mac, is_promiscuous });
        // Below 32.
        Some(self.ports.len() as u8 - 1)
    }

    /// The port whose own address `mac` is.
    fn owner(&self, mac: Mac) -> Option<u8> {
        // Below 32.
        self.ports.iter().position(|port| port.mac == mac).map(|port| port as u8)
    }

    /// Where a frame goes that came from port `from` at second `now`; nothing if it may not have come from there.
    pub fn route(&mut self, from: u8, source: Mac, destination: Mac, now: u64) -> Option<Ports> {
        let port = *self.ports.get(usize::from(from))?;
        if source != port.mac {
            // Nor with the address of somebody else here: what is for them would go astray.
            if !port.is_promiscuous || source.is_group() || self.owner(source).is_some() {
                return None;
            }
            self.learn(source, from, now);
        }
        let others = Ports(self.all().0 & !(1 << from));
        if destination.is_group() {
            return Some(others);
        }
        let to = self.owner(destination).or_else(|| {
            let known = |station: &&Station| station.mac == destination && now.saturating_sub(station.seen) < AGE;
            self.stations.iter().find(known).map(|station| station.port)
        });
        Some(to.map_or(others, |to| Ports(1 << to & others.0)))
    }

    fn all(&self) -> Ports {
        Ports(self.ports.iter().fold(0, |all, _| all << 1 | 1))
    }

    /// Learns that `mac` is behind `port`. Where there is no room, the one that was heard of least lately makes way.
    fn learn(&mut self, mac: Mac, port: u8, now: u64) {
        let station = Station { mac, port, seen: now };
        if let Some(known) = self.stations.iter_mut().find(|known| known.mac == mac) {
            *known = station;
        } else if self.stations.len() < STATIONS {
            self.stations.push(station);
        } else if let Some(oldest) = self.stations.iter_mut().min_by_key(|known| known.seen) {
            *oldest = station;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AGE, MOST_PORTS, Mac, Ports, STATIONS, Switch};
    use alloc::vec::Vec;

    const fn mac(n: u8) -> Mac {
        Mac([0x52, 0x54, 0, 0, 0, n])
    }

    const BROADCAST: Mac = Mac([0xff; 6]);

    fn list(mut ports: Ports) -> Vec<u8> {
        core::iter::from_fn(|| ports.take()).collect()
    }

    /// Three ports with the addresses 0, 1 and 2, of which the last is promiscuous.
    fn switch() -> Switch {
        let mut switch = Switch::default();
        for n in 0..3 {
            assert_eq!(switch.add(mac(n), n == 2), Some(n));
        }
        switch
    }

    fn route(switch: &mut Switch, from: u8, source: Mac, destination: Mac, now: u64) -> Option<Vec<u8>> {
        switch.route(from, source, destination, now).map(list)
    }

    #[test]
    fn frames_go_to_who_has_the_address_and_to_all_others_where_nobody_has() {
        let switch = &mut switch();
        assert_eq!(route(switch, 0, mac(0), mac(1), 0), Some([1].to_vec()));
        assert_eq!(route(switch, 0, mac(0), mac(0), 0), Some(Vec::new()), "nobody hears himself");
        assert_eq!(route(switch, 0, mac(0), mac(9), 0), Some([1, 2].to_vec()));
        assert_eq!(route(switch, 1, mac(1), BROADCAST, 0), Some([0, 2].to_vec()));
        assert_eq!(route(switch, 2, mac(2), Mac([0x33, 0x33, 0, 0, 0, 1]), 0), Some([0, 1].to_vec()), "multicast");
        assert_eq!(route(switch, 3, mac(3), mac(0), 0), None, "there is no such port");
    }

    #[test]
    fn nobody_sends_with_anothers_address() {
        let switch = &mut switch();
        assert_eq!(route(switch, 0, mac(1), mac(2), 0), None);
        assert_eq!(route(switch, 0, mac(7), mac(2), 0), None, "nor with one that nobody has");
        assert_eq!(route(switch, 2, mac(1), mac(0), 0), None, "not even who is promiscuous");
        assert_eq!(route(switch, 2, BROADCAST, mac(0), 0), None, "nor as a group");
        assert_eq!(route(switch, 0, mac(0), mac(1), 0), Some([1].to_vec()), "nothing was learned of that");
    }

    #[test]
    fn what_is_behind_a_promiscuous_port_is_learned_for_a_while() {
        let switch = &mut switch();
        assert_eq!(route(switch, 2, mac(7), mac(0), 10), Some([0].to_vec()));
        assert_eq!(route(switch, 0, mac(0), mac(7), 10 + AGE - 1), Some([2].to_vec()));
        assert_eq!(route(switch, 0, mac(0), mac(7), 10 + AGE), Some([1, 2].to_vec()), "too long ago");
        assert_eq!(route(switch, 2, mac(2), mac(7), 11), Some(Vec::new()), "it is where this comes from");
    }

    #[test]
    fn a_flood_of_addresses_makes_the_oldest_be_forgotten_and_takes_no_more_room() {
        let switch = &mut switch();
        let capacity = switch.stations.capacity();
        for n in 0..STATIONS as u64 * 3 {
            let [.., high, low] = n.to_be_bytes();
            assert!(switch.route(2, Mac([2, 0, 0, 1, high, low]), mac(0), n).is_some());
        }
        assert_eq!((switch.stations.len(), switch.stations.capacity()), (STATIONS, capacity));
        let now = STATIONS as u64 * 3;
        assert_eq!(route(switch, 0, mac(0), Mac([2, 0, 0, 1, 1, 0x7f]), now), Some([2].to_vec()), "the last one");
        assert_eq!(route(switch, 0, mac(0), Mac([2, 0, 0, 1, 0, 0xff]), now), Some([1, 2].to_vec()), "an old one");
        assert_eq!(route(switch, 0, mac(0), mac(1), now), Some([1].to_vec()), "what is configured stays");
    }

    #[test]
    fn there_are_so_many_ports_and_one_of_each_address() {
        let mut switch = Switch::default();
        for n in 0..MOST_PORTS as u8 {
            assert_eq!(switch.add(mac(n), false), Some(n));
        }
        assert_eq!(switch.add(mac(200), false), None);
        let others = route(&mut switch, 31, mac(31), BROADCAST, 0).unwrap();
        assert_eq!(others, (0..31).collect::<Vec<u8>>());
        assert_eq!(self::switch().add(mac(1), true), None);
    }
}
