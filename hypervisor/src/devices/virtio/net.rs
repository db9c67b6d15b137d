//! A network device: frames between a guest's driver and a switch.
//!
//! A frame is a chain of the transmit queue: a header, then the Ethernet frame (virtio 1.2, 5.1.6). [`Net::next`] takes one and says
//! where from and where to; each receiver copies it into a buffer of its own receive queue ([`Net::receive`]), straight from the sender's
//! memory ([`Wire`]); then the sender has its chain back ([`Net::sent`]). A receiver without a buffer, or without memory for it, loses the
//! frame: nobody waits for it.
//!
//! A frame whose checksum is left to the device (VIRTIO_NET_F_CSUM) is handed on as it is to drivers that take such
//! (VIRTIO_NET_F_GUEST_CSUM), and completed for others.
//!
//! Follows virtio 1.2, 5.1, with VIRTIO_NET_F_CSUM, GUEST_CSUM and MAC.

use super::super::device::{Board, Device};
use super::mmio::{CONFIG, Transport};
use super::queue::{Chain, Cursor, EVENT_IDX, Segment, bytes_of};
use super::{Left, Ram, Stop, Violation};
use crate::addr::{Addr, Ipa, Mac};
use core::ops::AddAssign;

/// A network device's id.
const ID: u32 = 1;
/// The queues (5.1.2).
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
/// The bytes of `struct virtio_net_hdr` (5.1.6).
const HEADER: usize = 12;
/// Its flag VIRTIO_NET_HDR_F_NEEDS_CSUM.
const NEEDS_CSUM: u8 = 1;
/// Of an Ethernet frame: destination, source, and what it is.
const LEAST: u64 = 14;
/// With a tag for a VLAN and 1500 bytes.
const MOST: u64 = 1518;

/// Feature bits (5.1.3).
mod feature {
    pub(super) const CSUM: u64 = 1 << 0;
    pub(super) const GUEST_CSUM: u64 = 1 << 1;
    pub(super) const MAC: u64 = 1 << 5;
}

/// Who is to blame that a piece could not be copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The sender's memory is not to be had, or is none.
    Sender(Violation),
    /// The receiver's.
    Receiver(Violation),
}

/// The memory of a receiver, and a way there from a sender's.
pub trait Wire: Ram {
    /// Copies so many bytes from the sender's memory to the receiver's.
    fn copy(&mut self, from: Addr<Ipa>, to: Addr<Ipa>, bytes: u32) -> Result<(), Fault>;
}

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Frames that the driver sent, and their bytes.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Frames that it received.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Frames that it lost, as there was no room for them.
    pub dropped: u64,
    /// Frames of its own that were none, or came from another address.
    pub refused: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.sent_bytes += other.sent_bytes;
        self.received += other.received;
        self.received_bytes += other.received_bytes;
        self.dropped += other.dropped;
        self.refused += other.refused;
    }
}

/// Where in a frame its checksum is to be: over what from `start` on, at `at`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Checksum {
    start: u16,
    offset: u16,
}

/// A frame that is being sent. Its chain is kept beside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Who it says it is from.
    pub source: Mac,
    /// Whom it is for.
    pub destination: Mac,
    head: u16,
    /// The life of the queue that it came by.
    life: u32,
    bytes: u32,
    checksum: Option<Checksum>,
}

/// A network device.
#[derive(Clone, Debug)]
pub struct Net {
    transport: Transport<2>,
    mac: Mac,
    /// The driver's buffer for the next frame, once it was taken: its head, and the life of its queue.
    taken: Option<(u16, u32)>,
    buffer: Chain,
    /// The same of the chain to send that was gathered, while what it holds could not be read for want of memory.
    gathered: Option<(u16, u32)>,
    /// What was done since it was made.
    pub counts: Counts,
}

impl Net {
    /// A device with this address.
    pub fn new(mac: Mac) -> Self {
        Self {
            transport: Transport::new(ID, feature::CSUM | feature::GUEST_CSUM | feature::MAC | EVENT_IDX),
            mac,
            taken: None,
            buffer: Chain::default(),
            gathered: None,
            counts: Counts::default(),
        }
    }

    /// Whether a driver uses it.
    pub const fn is_up(&self) -> bool {
        self.transport.is_up()
    }

    /// Which rule the driver broke, if it did.
    pub const fn broken(&self) -> Option<&'static str> {
        self.transport.broken()
    }

    /// Its address.
    pub const fn mac(&self) -> Mac {
        self.mac
    }

    /// What the guest reads at `offset`, `size` bytes.
    pub fn read(&self, offset: u64, size: u8) -> u64 {
        let Some(field) = offset.checked_sub(CONFIG) else { return self.transport.read(offset, size) };
        let [a, b, c, d, e, f] = self.mac.0;
        let word = match field & !3 {
            0 => u32::from_le_bytes([a, b, c, d]),
            4 => u32::from_le_bytes([e, f, 0, 0]),
            _ => 0,
        };
        super::super::lane(word, field, size)
    }

    /// The guest writes `value` at `offset`, `size` bytes.
    pub fn write(&mut self, offset: u64, size: u8, value: u64) {
        if offset < CONFIG && self.transport.write(offset, size, value) {
            (self.taken, self.gathered) = (None, None);
        }
    }

    /// Whether its driver may have sent something, or left buffers.
    pub const fn has_work(&self) -> bool {
        self.is_up() && self.transport.is_notified()
    }

    /// That is looked at again.
    pub const fn postpone(&mut self) {
        self.transport.notify(1 << TRANSMIT);
    }

    /// The driver broke a rule.
    pub fn fail(&mut self, why: &'static str) {
        (self.taken, self.gathered) = (None, None);
        self.transport.fail(why);
    }

    /// Takes the next frame to send, whose chain is put into `chain`; nothing where the driver has left none. Those that are none it
    /// has back at once. What is left then is [`Left::Stuck`] where its memory is not to be had.
    pub fn next(&mut self, ram: &mut impl Ram, chain: &mut Chain) -> Result<Option<Frame>, Left> {
        if !self.is_up() {
            return Ok(None);
        }
        let _ = self.transport.take_notified();
        match self.take_frame(ram, chain) {
            Ok(frame) => Ok(frame),
            Err(Stop::Short) => {
                self.postpone();
                Err(Left::Stuck)
            }
            Err(Stop::Broken(why)) => {
                self.fail(why);
                Ok(None)
            }
        }
    }

    fn take_frame(&mut self, ram: &mut impl Ram, chain: &mut Chain) -> Result<Option<Frame>, Stop> {
        // What a receiver could not be told of for want of memory.
        self.settle(RECEIVE, ram)?;
        self.settle(TRANSMIT, ram)?;
        let Some(queue) = self.transport.queues.get_mut(TRANSMIT) else { return Ok(None) };
        let life = queue.life();
        let head = match self.gathered {
            Some((head, of)) if of == life => head,
            _ => {
                let Some(head) = queue.gather(ram, chain)? else { return Ok(None) };
                self.gathered = Some((head, life));
                head
            }
        };
        let mut start = [0; HEADER + LEAST as usize];
        let bytes = bytes_of(chain.readable()).saturating_sub(HEADER as u64);
        let is_whole = Cursor::default().read(chain.readable(), ram, &mut start)?;
        self.gathered = None;
        let [flags, gso, _, _, _, _, s0, s1, o0, o1, _, _, frame @ ..] = start;
        let [d0, d1, d2, d3, d4, d5, s2, s3, s4, s5, s6, s7, ..] = frame;
        let checksum = Checksum { start: u16::from_le_bytes([s0, s1]), offset: u16::from_le_bytes([o0, o1]) };
        let needs = flags & NEEDS_CSUM != 0;
        let end = u64::from(checksum.start) + u64::from(checksum.offset) + 2;
        let has = |feature| self.transport.features() & feature != 0;
        let is_sound = is_whole && bytes <= MOST && gso == 0 && (!needs || has(feature::CSUM) && end <= bytes);
        Ok(Some(Frame {
            source: Mac([s2, s3, s4, s5, s6, s7]),
            destination: Mac([d0, d1, d2, d3, d4, d5]),
            head,
            life,
            // At most MOST; nothing of what is no frame.
            bytes: if is_sound { bytes as u32 } else { 0 },
            checksum: needs.then_some(checksum),
        }))
    }

    /// Gives the chain of `frame` back to the driver. `is_refused` says that it went nowhere, as it may not.
    pub fn sent(&mut self, ram: &mut impl Ram, frame: &Frame, is_refused: bool) -> Left {
        if is_refused {
            self.counts.refused += 1;
        } else {
            self.counts.sent += 1;
            self.counts.sent_bytes += u64::from(frame.bytes);
        }
        let Some(queue) = self.transport.queues.get_mut(TRANSMIT) else { return Left::Nothing };
        // Not if it was set up anew meanwhile.
        if queue.ready && queue.life() == frame.life {
            queue.finish(frame.head, 0);
        }
        match self.settle(TRANSMIT, ram) {
            Ok(()) => Left::Nothing,
            Err(Stop::Short) => {
                self.postpone();
                Left::Stuck
            }
            Err(Stop::Broken(why)) => {
                self.fail(why);
                Left::Nothing
            }
        }
    }

    /// Gives back what is done of a queue.
    fn settle(&mut self, number: usize, ram: &mut impl Ram) -> Result<(), Stop> {
        let Some(queue) = self.transport.queues.get_mut(number).filter(|queue| queue.ready) else { return Ok(()) };
        if queue.settle(ram)? {
            self.transport.interrupt();
        }
        Ok(())
    }

    /// Receives `frame`, whose chain is `sender`'s, if the driver has left a buffer. The error is the sender's: what it sends is not in
    /// its memory ([`Violation::Outside`]), or cannot be had just now.
    pub fn receive(&mut self, wire: &mut impl Wire, frame: &Frame, sender: &[Segment]) -> Result<(), Violation> {
        if !self.is_up() {
            return Ok(());
        }
        match self.put(wire, frame, sender) {
            Ok(true) => {
                self.counts.received += 1;
                self.counts.received_bytes += u64::from(frame.bytes);
            }
            Ok(false) | Err(Trouble::Receiver(Stop::Short)) => self.counts.dropped += 1,
            Err(Trouble::Receiver(Stop::Broken(why))) => self.fail(why),
            Err(Trouble::Sender(why)) => return Err(why),
        }
        Ok(())
    }

    /// Puts `frame` into a buffer; false if there is none that it fits in.
    fn put(&mut self, wire: &mut impl Wire, frame: &Frame, sender: &[Segment]) -> Result<bool, Trouble> {
        self.settle(RECEIVE, wire)?;
        let is_whole = self.transport.features() & feature::GUEST_CSUM != 0;
        let Some(queue) = self.transport.queues.get_mut(RECEIVE).filter(|queue| queue.ready) else { return Ok(false) };
        let life = queue.life();
        let head = match self.taken {
            Some((head, of)) if of == life => head,
            _ => {
                let Some(head) = queue.gather(wire, &mut self.buffer)? else { return Ok(false) };
                self.taken = Some((head, life));
                head
            }
        };
        let room = self.buffer.writable();
        let bytes = HEADER as u64 + u64::from(frame.bytes);
        if bytes_of(room) < bytes {
            return Ok(false);
        }
        let mut header = [0; HEADER];
        // num_buffers (5.1.6.4.1: one without VIRTIO_NET_F_MRG_RXBUF).
        header[10] = 1;
        if let Some(checksum) = frame.checksum.filter(|_| is_whole) {
            header[0] = NEEDS_CSUM;
            header[6..8].copy_from_slice(&checksum.start.to_le_bytes());
            header[8..10].copy_from_slice(&checksum.offset.to_le_bytes());
        }
        let mut to = Cursor::default();
        to.write(room, wire, &header)?;
        copy(wire, sender, room, &mut to, frame.bytes)?;
        if let Some(checksum) = frame.checksum.filter(|_| !is_whole) {
            complete(wire, room, frame.bytes, checksum)?;
        }
        self.taken = None;
        // Less than 2^12.
        queue.finish(head, bytes as u32);
        self.settle(RECEIVE, wire)?;
        Ok(true)
    }
}

/// Why a frame does not reach a receiver.
enum Trouble {
    Sender(Violation),
    Receiver(Stop),
}

impl<T: Into<Stop>> From<T> for Trouble {
    fn from(why: T) -> Self {
        Self::Receiver(why.into())
    }
}

/// Copies the `bytes` bytes behind the header of `sender`'s to where `to` is in `room`.
fn copy(
    wire: &mut impl Wire,
    sender: &[Segment],
    room: &[Segment],
    to: &mut Cursor,
    bytes: u32,
) -> Result<(), Trouble> {
    let mut from = Cursor::default();
    skip(&mut from, sender, HEADER as u32);
    let mut left = bytes;
    while left > 0 {
        let Some(source) = from.piece(sender, left) else { return Err(Trouble::Sender(Violation::Outside)) };
        let Some(target) = to.piece(room, source.bytes) else {
            return Err(Stop::Broken("a buffer without room").into());
        };
        wire.copy(source.at, target.at, target.bytes).map_err(|fault| match fault {
            Fault::Sender(why) => Trouble::Sender(why),
            Fault::Receiver(why) => why.into(),
        })?;
        from.advance(target.bytes);
        to.advance(target.bytes);
        left -= target.bytes;
    }
    Ok(())
}

/// Goes on by `bytes`, as far as there are so many.
fn skip(cursor: &mut Cursor, segments: &[Segment], bytes: u32) {
    let mut left = bytes;
    while left > 0 {
        let Some(piece) = cursor.piece(segments, left) else { return };
        cursor.advance(piece.bytes);
        left -= piece.bytes;
    }
}

/// Completes the checksum of the frame in `room`: the ones' complement of the sum of all from its start on (RFC 1071). What stands in its
/// place is the part of it that is over what comes before.
fn complete(ram: &mut impl Ram, room: &[Segment], bytes: u32, checksum: Checksum) -> Result<(), Stop> {
    let mut from = Cursor::default();
    skip(&mut from, room, HEADER as u32 + u32::from(checksum.start));
    let mut left = bytes.saturating_sub(checksum.start.into()) as usize;
    // At most 759 words of 16 bits, so it fits.
    let mut sum = 0_u32;
    while left > 0 {
        let mut part = [0; 64];
        let length = left.min(part.len());
        from.read(room, ram, part.get_mut(..length).unwrap_or_default())?;
        // Of an odd one the last byte has a zero behind it.
        sum += part.as_chunks::<2>().0.iter().map(|pair| u32::from(u16::from_be_bytes(*pair))).sum::<u32>();
        left -= length;
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Folded to 16 bits. Of UDP, no checksum is said by zero (RFC 768), and the other zero is as good for all.
    let sum = match !sum as u16 {
        0 => 0xffff,
        sum => sum,
    };
    let mut to = Cursor::default();
    skip(&mut to, room, HEADER as u32 + u32::from(checksum.start) + u32::from(checksum.offset));
    to.write(room, ram, &sum.to_be_bytes())?;
    Ok(())
}

impl Device for Net {
    fn read(&mut self, offset: u64, bytes: u8, _: &mut dyn Board) -> u64 {
        Self::read(self, offset, bytes)
    }

    fn write(&mut self, offset: u64, bytes: u8, value: u64, board: &mut dyn Board) {
        Self::write(self, offset, bytes, value);
        if self.has_work() {
            board.serve();
        }
    }

    fn line(&self) -> bool {
        self.transport.line()
    }

    fn reset(&mut self) {
        self.transport.reset();
        (self.taken, self.gathered) = (None, None);
    }
}

impl Frame {
    /// Whether it is one.
    pub const fn is_sound(&self) -> bool {
        self.bytes != 0
    }
}

#[cfg(test)]
mod tests;
