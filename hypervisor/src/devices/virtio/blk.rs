//! A disk: requests of a guest's driver, carried out on whatever holds the disk's blocks ([`Storage`]).
//!
//! A request is a chain: a header to read, then data, then a status byte to write, the chain's last (virtio 1.2, 5.2.6). It is
//! checked once, when its header is read, and done in steps of at most a block, so that it can wait in the middle. One is under
//! way at a time; what the driver asked for first is done first.
//!
//! A request that cannot be carried out gets VIRTIO_BLK_S_IOERR, one of a kind that is not known VIRTIO_BLK_S_UNSUPP; only a
//! chain that has no room for a header or for the status breaks the rules.
//!
//! Follows virtio 1.2, 5.2, with VIRTIO_BLK_F_SEG_MAX, RO, TOPOLOGY, FLUSH, DISCARD and WRITE_ZEROES.

use super::super::device::{Board, Device};
use super::mmio::{CONFIG, Transport};
use super::queue::{Chain, Cursor, EVENT_IDX, MOST, Segment, bytes_of};
use super::{Left, Ram, Stop};
use alloc::string::String;
use core::ops::AddAssign;

/// The bytes of a sector, in which virtio counts.
pub const SECTOR: u64 = 512;
/// The bytes of a block of a disk: what is read, written and shared at once.
pub const BLOCK: u64 = 4096;

/// A disk's device id.
const ID: u32 = 2;
/// The bytes of a request's header, and of a range to discard or zero.
const HEADER: usize = 16;
/// The bytes of a disk's serial number.
const SERIAL: usize = 20;
/// How many sectors may be discarded or zeroed at once: 1 GiB.
const MOST_CLEARED: u32 = 1 << 21;

mod feature {
    pub(super) const SEG_MAX: u64 = 1 << 2;
    pub(super) const RO: u64 = 1 << 5;
    pub(super) const FLUSH: u64 = 1 << 9;
    pub(super) const TOPOLOGY: u64 = 1 << 10;
    pub(super) const DISCARD: u64 = 1 << 13;
    pub(super) const WRITE_ZEROES: u64 = 1 << 14;
}

/// Kinds of requests (5.2.6).
mod kind {
    pub(super) const IN: u32 = 0;
    pub(super) const OUT: u32 = 1;
    pub(super) const FLUSH: u32 = 4;
    pub(super) const GET_ID: u32 = 8;
    pub(super) const DISCARD: u32 = 11;
    pub(super) const WRITE_ZEROES: u32 = 13;
}

/// What a request came to (5.2.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Status {
    Ok = 0,
    IoErr = 1,
    Unsupp = 2,
}

/// Why a step of a request could not be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// The disk failed.
    Disk,
    /// Guest memory was not to be had, or was none.
    Memory(Stop),
}

impl<T: Into<Stop>> From<T> for Trouble {
    fn from(why: T) -> Self {
        Self::Memory(why.into())
    }
}

/// What holds a disk's blocks. Offsets are in bytes from the disk's start; a step lies in one [`BLOCK`] and in the disk. Only a request
/// is whole sectors: what of it lies together in guest memory may be less.
pub trait Storage: Ram {
    /// Copies from the disk to guest memory.
    fn load(&mut self, offset: u64, to: Segment) -> Result<(), Trouble>;
    /// Copies from guest memory to the disk.
    fn store(&mut self, offset: u64, from: Segment) -> Result<(), Trouble>;
    /// Makes so many bytes of the disk zero.
    fn clear(&mut self, offset: u64, bytes: u32) -> Result<(), Trouble>;
    /// What was stored before is there for good when this returns.
    fn flush(&mut self) -> Result<(), Trouble>;
    /// Whether enough was done for one time: others wait.
    fn is_late(&self) -> bool;
}

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Requests.
    pub requests: u64,
    /// Bytes that guests read.
    pub read: u64,
    /// Bytes that they wrote.
    pub written: u64,
    /// Requests that failed.
    pub errors: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.read += other.read;
        self.written += other.written;
        self.errors += other.errors;
    }
}

/// What a request does next, and where on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Work {
    /// Its header is to be read.
    Begin,
    Load,
    Store,
    Clear,
    Flush,
    /// All is done but the status.
    End(Status),
}

/// The request under way; its chain is the device's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Job {
    head: u16,
    /// The life of the queue that it came by.
    life: u32,
    work: Work,
    /// Where in the data.
    cursor: Cursor,
    /// Where on the disk, and how many bytes are left.
    offset: u64,
    left: u64,
    /// How many bytes were written to guest memory.
    written: u64,
}

/// A disk.
#[derive(Clone, Debug)]
pub struct Blk {
    transport: Transport<1>,
    sectors: u64,
    is_read_only: bool,
    serial: String,
    chain: Chain,
    job: Option<Job>,
    /// What was done since it was made.
    pub counts: Counts,
}

impl Blk {
    /// A disk of `sectors` sectors that calls itself `serial`, of which 20 bytes count.
    pub fn new(sectors: u64, is_read_only: bool, serial: &str) -> Self {
        let written =
            if is_read_only { feature::RO } else { feature::FLUSH | feature::DISCARD | feature::WRITE_ZEROES };
        Self {
            transport: Transport::new(ID, feature::SEG_MAX | feature::TOPOLOGY | EVENT_IDX | written),
            sectors,
            is_read_only,
            serial: String::from(serial),
            chain: Chain::default(),
            job: None,
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

    /// How many sectors it has.
    pub const fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Whether it may not be written.
    pub const fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// What the guest reads at `offset`, `size` bytes.
    pub fn read(&self, offset: u64, size: u8) -> u64 {
        let Some(field) = offset.checked_sub(CONFIG) else { return self.transport.read(offset, size) };
        let word = match field & !3 {
            // Halves; the casts drop the other.
            0x00 => self.sectors as u32,
            0x04 => (self.sectors >> 32) as u32,
            // seg_max: a header and a status beside it.
            0x0c => u32::from(MOST) - 2,
            // blk_size, which is said though it was not agreed on that it counts.
            0x14 => SECTOR as u32,
            // topology: 2^3 sectors are a block, none before the first; at least one is to be read, and at best.
            0x18 => 3 | 1 << 16,
            0x1c => 1,
            0x24 | 0x30 => MOST_CLEARED,
            // max_discard_seg and discard_sector_alignment; max_write_zeroes_seg.
            0x28 | 0x34 => 1,
            0x2c => (BLOCK / SECTOR) as u32,
            // write_zeroes_may_unmap.
            0x38 => 1,
            _ => 0,
        };
        super::super::lane(word, field, size)
    }

    /// The guest writes `value` at `offset`, `size` bytes.
    pub fn write(&mut self, offset: u64, size: u8, value: u64) {
        if offset < CONFIG && self.transport.write(offset, size, value) {
            self.job = None;
        }
    }

    /// Whether [`Blk::serve`] has something to do.
    pub const fn has_work(&self) -> bool {
        self.is_up() && self.transport.is_notified()
    }

    /// Carries out what the driver has asked for, until it is late; a step is done in any case.
    pub fn serve(&mut self, storage: &mut impl Storage) -> Left {
        if !self.is_up() {
            return Left::Nothing;
        }
        let _ = self.transport.take_notified();
        let left = match self.run(storage) {
            Ok(false) => Left::Nothing,
            Ok(true) => Left::More,
            Err(Stop::Short) => Left::Stuck,
            Err(Stop::Broken(why)) => {
                self.job = None;
                self.transport.fail(why);
                Left::Nothing
            }
        };
        if left != Left::Nothing {
            self.transport.notify(1);
        }
        left
    }

    /// The memory that the request under way waits for is not to be had: it fails, and the next begins.
    pub fn give_up(&mut self) {
        if let Some(job) = &mut self.job {
            job.work = Work::End(Status::IoErr);
        }
    }

    /// Does requests until there are no more (false) or it is late.
    fn run(&mut self, storage: &mut impl Storage) -> Result<bool, Stop> {
        let mut is_first = true;
        loop {
            let [queue] = &mut self.transport.queues;
            if !queue.ready {
                self.job = None;
                return Ok(false);
            }
            // What was begun before the queue was set up anew is not to be given back.
            let life = queue.life();
            if self.job.as_ref().is_some_and(|job| job.life != life) {
                self.job = None;
            }
            if queue.settle(storage)? {
                self.transport.interrupt();
            }
            if !is_first && storage.is_late() {
                return Ok(true);
            }
            is_first = false;
            if self.job.is_some() {
                self.step(storage)?;
                continue;
            }
            let [queue] = &mut self.transport.queues;
            let Some(head) = queue.gather(storage, &mut self.chain)? else { return Ok(false) };
            let (work, cursor) = (Work::Begin, Cursor::default());
            self.job = Some(Job { head, life, work, cursor, offset: 0, left: 0, written: 0 });
        }
    }

    /// Reads the header of the chain and says what is to be done of this job.
    fn begin(&self, ram: &mut impl Ram, Job { head, life, .. }: Job) -> Result<Job, Stop> {
        let (readable, writable) = (bytes_of(self.chain.readable()), bytes_of(self.chain.writable()));
        let mut header = [0; HEADER];
        let mut cursor = Cursor::default();
        if writable == 0 || !cursor.read(self.chain.readable(), ram, &mut header)? {
            return Err(Stop::Broken("a request without a header or without room for its status"));
        }
        let word = u128::from_le_bytes(header);
        // 32 bits of kind, 32 reserved, 64 of sector; the casts cut them out.
        let (kind, sector) = (word as u32, (word >> 64) as u64);
        let job = |work, cursor, offset, left| Job { head, life, work, cursor, offset, left, written: 0 };
        let end = |status| job(Work::End(status), Cursor::default(), 0, 0);
        // Behind the header, before the status: neither is less than nothing.
        let (data, room) = (readable - HEADER as u64, writable - 1);
        Ok(match kind {
            kind::IN => match self.range(sector, room) {
                Some(offset) => job(Work::Load, Cursor::default(), offset, room),
                None => end(Status::IoErr),
            },
            kind::OUT => match self.range(sector, data).filter(|_| !self.is_read_only) {
                Some(offset) => job(Work::Store, cursor, offset, data),
                None => end(Status::IoErr),
            },
            kind::FLUSH => job(Work::Flush, cursor, 0, 0),
            kind::GET_ID => {
                let mut serial = [0; SERIAL];
                serial.iter_mut().zip(self.serial.bytes()).for_each(|(to, from)| *to = from);
                let most = SERIAL.min(usize::try_from(room).unwrap_or(SERIAL));
                let mut to = Cursor::default();
                to.write(self.chain.writable(), ram, serial.get(..most).unwrap_or_default())?;
                Job { written: most as u64, ..end(Status::Ok) }
            }
            kind::DISCARD | kind::WRITE_ZEROES if self.is_read_only => end(Status::IoErr),
            kind::DISCARD | kind::WRITE_ZEROES if data == HEADER as u64 => {
                let mut range = [0; HEADER];
                cursor.read(self.chain.readable(), ram, &mut range)?;
                let word = u128::from_le_bytes(range);
                // 64 bits of sector, 32 of how many, 32 of flags.
                let (sector, count, flags) = (word as u64, (word >> 64) as u32, (word >> 96) as u32);
                // Bit 0 is unmap, which a discard must not have (5.2.6.2).
                let known = if kind == kind::DISCARD { 0 } else { 1 };
                match self.range(sector, u64::from(count) * SECTOR) {
                    _ if flags & !known != 0 => end(Status::Unsupp),
                    Some(offset) if count <= MOST_CLEARED => {
                        job(Work::Clear, Cursor::default(), offset, u64::from(count) * SECTOR)
                    }
                    _ => end(Status::IoErr),
                }
            }
            _ => end(Status::Unsupp),
        })
    }

    /// Where on the disk `bytes` bytes from `sector` on begin, if they are whole sectors of it.
    fn range(&self, sector: u64, bytes: u64) -> Option<u64> {
        let fits = bytes.is_multiple_of(SECTOR) && self.sectors.checked_sub(sector)? >= bytes / SECTOR;
        fits.then(|| sector * SECTOR)
    }

    /// Does a step of the job under way, which stays as it was where that cannot be.
    fn step(&mut self, storage: &mut impl Storage) -> Result<(), Stop> {
        let Some(mut job) = self.job else { return Ok(()) };
        // The rest of the block.
        let most = (BLOCK - job.offset % BLOCK).min(job.left);
        let done = match job.work {
            Work::Begin => {
                self.job = Some(self.begin(storage, job)?);
                return Ok(());
            }
            Work::End(status) => return self.end(storage, &job, status),
            Work::Flush => {
                job.work = Work::End(Status::Ok);
                storage.flush().map(|()| 0)
            }
            _ if job.left == 0 => {
                job.work = Work::End(Status::Ok);
                Ok(0)
            }
            // At most a block, so it fits.
            Work::Clear => storage.clear(job.offset, most as u32).map(|()| most),
            Work::Load | Work::Store => {
                let is_load = job.work == Work::Load;
                let segments = if is_load { self.chain.writable() } else { self.chain.readable() };
                match job.cursor.piece(segments, most as u32) {
                    Some(piece) => {
                        let done =
                            if is_load { storage.load(job.offset, piece) } else { storage.store(job.offset, piece) };
                        done.map(|()| {
                            job.cursor.advance(piece.bytes);
                            piece.bytes.into()
                        })
                    }
                    // The bytes were counted before.
                    None => Err(Trouble::Disk),
                }
            }
        };
        match done {
            Ok(bytes) => {
                job.offset += bytes;
                job.left -= bytes;
                if job.work == Work::Load {
                    job.written += bytes;
                }
            }
            Err(Trouble::Disk) => job.work = Work::End(Status::IoErr),
            Err(Trouble::Memory(why)) => return Err(why),
        }
        self.count(&job, done.unwrap_or(0));
        self.job = Some(job);
        Ok(())
    }

    fn count(&mut self, job: &Job, bytes: u64) {
        match job.work {
            Work::Load => self.counts.read += bytes,
            Work::Store => self.counts.written += bytes,
            _ => {}
        }
    }

    /// Writes the status of `job` and gives its chain back.
    fn end(&mut self, storage: &mut impl Storage, job: &Job, status: Status) -> Result<(), Stop> {
        let last = self.chain.writable().iter().rfind(|segment| segment.bytes > 0);
        if let Some(last) = last {
            let at = last.at.checked_add(u64::from(last.bytes) - 1);
            storage.write(at.ok_or(Stop::Broken("a status behind the last address"))?, &[status as u8])?;
        }
        self.counts.requests += 1;
        self.counts.errors += u64::from(status != Status::Ok);
        let [queue] = &mut self.transport.queues;
        queue.finish(job.head, u32::try_from(job.written + 1).unwrap_or(u32::MAX));
        self.job = None;
        Ok(())
    }
}

impl Device for Blk {
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
        self.job = None;
    }
}

#[cfg(test)]
mod tests;
