//! Unpacking gzip (RFC 1952) as a stream: a window of 32 KiB, whatever the size of what comes out.
//!
//! Key types: [`Workspace`], which is allocated once and used for every unpacking, so that a VM's reset needs no memory;
//! [`Unpacking`], which goes on a piece at a time; [`Error`]. The deflate stream itself (RFC 1951) is miniz_oxide's work.
//! Length and CRC-32 at the stream's end are checked, so that an image damaged on its way to the board is not run.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, TINFL_LZ_DICT_SIZE, decompress, decompress_with_limit};

/// The first two bytes of a gzip stream.
const MAGIC: [u8; 2] = [0x1f, 0x8b];
/// How much of the unpacked stream [`head`] can show.
pub const WINDOW: usize = TINFL_LZ_DICT_SIZE;

/// What unpacking needs of memory: about 45 KiB, allocated once.
pub struct Workspace {
    state: Box<DecompressorOxide>,
    window: Vec<u8>,
}

impl Workspace {
    /// Allocates one.
    pub fn new() -> Self {
        Self { state: Box::default(), window: vec![0; WINDOW] }
    }
}

impl Default for Workspace {
    fn default() -> Self {
        Self::new()
    }
}

/// Why unpacking ended early: `Corrupt` is the archive's fault and says what is wrong, `Sink` is whatever the receiver
/// said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error<E> {
    /// The stream is damaged.
    Corrupt(&'static str),
    /// The receiver of the bytes wants no more.
    Sink(E),
}

/// Whether `bytes` begin like a gzip stream.
pub fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// How many bytes the stream says it unpacks to (its last 4 bytes, modulo 4 GiB). A claim, which [`unpack`] checks.
pub fn claimed_len(bytes: &[u8]) -> Option<u64> {
    bytes.last_chunk::<4>().map(|&len| u32::from_le_bytes(len).into())
}

/// Unpacks the start of a stream: at most [`WINDOW`] bytes, less where the stream ends before.
pub fn head<'w>(bytes: &[u8], workspace: &'w mut Workspace) -> Result<&'w [u8], &'static str> {
    let stream = bytes.get(header_len(bytes)?..).unwrap_or_default();
    let Workspace { state, window } = workspace;
    state.init();
    let (status, _, len) = decompress(state, stream, window, 0, 0);
    match status {
        TINFLStatus::Done | TINFLStatus::HasMoreOutput => window.get(..len).ok_or(BROKEN),
        _ => Err(BROKEN),
    }
}

const BROKEN: &str = "its compressed data is damaged or cut off";

/// No piece of what is unpacked is longer.
pub const PIECE: usize = 4096;

/// An unpacking under way, of the same stream and with the same workspace from begin to end.
#[derive(Debug)]
pub struct Unpacking {
    at_in: usize,
    at_out: u64,
    in_window: usize,
    crc: Crc,
}

impl Unpacking {
    /// Begins to unpack the stream that `bytes` are, all of them.
    pub fn begin(bytes: &[u8], workspace: &mut Workspace) -> Result<Self, &'static str> {
        let at_in = header_len(bytes)?;
        workspace.state.init();
        Ok(Self { at_in, at_out: 0, in_window: 0, crc: Crc::new() })
    }

    /// How many bytes were unpacked so far.
    pub const fn done(&self) -> u64 {
        self.at_out
    }

    /// Unpacks a piece and hands it to `each`, with its place. True once all is unpacked, and is what it was.
    pub fn step<E>(
        &mut self,
        bytes: &[u8],
        workspace: &mut Workspace,
        each: impl FnOnce(u64, &[u8]) -> Result<(), E>,
    ) -> Result<bool, Error<E>> {
        let Workspace { state, window } = workspace;
        let rest = bytes.get(self.at_in..).unwrap_or_default();
        let (status, read, written) = decompress_with_limit(state, rest, window, self.in_window, PIECE, 0);
        self.at_in += read;
        let piece = window.get(self.in_window..self.in_window + written).unwrap_or_default();
        self.crc.add(piece);
        if !piece.is_empty() {
            each(self.at_out, piece).map_err(Error::Sink)?;
        }
        self.at_out += written as u64;
        self.in_window = (self.in_window + written) % WINDOW;
        match status {
            TINFLStatus::Done => {
                let end = bytes.get(self.at_in..).unwrap_or_default();
                check_end(end, self.at_out, self.crc.value()).map_err(Error::Corrupt)?;
                Ok(true)
            }
            // Every step makes bytes out of a stream of bounded length, so there is a last.
            TINFLStatus::HasMoreOutput if written > 0 => Ok(false),
            _ => Err(Error::Corrupt(BROKEN)),
        }
    }
}

/// Unpacks the stream that `bytes` are, all of them, and hands it to `each` piece by piece, with the place of the piece.
pub fn unpack<E>(
    bytes: &[u8],
    workspace: &mut Workspace,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<(), Error<E>> {
    let mut unpacking = Unpacking::begin(bytes, workspace).map_err(Error::Corrupt)?;
    while !unpacking.step(bytes, workspace, &mut each)? {}
    Ok(())
}

/// Checks what stands behind the compressed data: CRC-32, then the length modulo 4 GiB, then nothing.
fn check_end(end: &[u8], len: u64, crc: u32) -> Result<(), &'static str> {
    let [c0, c1, c2, c3, rest @ ..] = end else { return Err(BROKEN) };
    if u32::from_le_bytes([*c0, *c1, *c2, *c3]) != crc {
        return Err("its checksum is wrong");
    }
    let Some((claimed, rest)) = rest.split_first_chunk::<4>() else { return Err(BROKEN) };
    if u64::from(u32::from_le_bytes(*claimed)) != len & 0xffff_ffff {
        return Err("its length is not the one it names");
    }
    if rest.is_empty() { Ok(()) } else { Err("something follows its compressed data") }
}

/// The length of the stream's header (RFC 1952, 2.3).
fn header_len(bytes: &[u8]) -> Result<usize, &'static str> {
    const CUT: &str = "its gzip header is cut off";
    const DEFLATE: u8 = 8;
    const HEADER_CRC: u8 = 1 << 1;
    const EXTRA: u8 = 1 << 2;
    const NAME: u8 = 1 << 3;
    const COMMENT: u8 = 1 << 4;
    const RESERVED: u8 = 0b1110_0000;
    let header = bytes.first_chunk::<10>().ok_or(CUT)?;
    let [m0, m1, method, flags, ..] = *header;
    if [m0, m1] != MAGIC || method != DEFLATE || flags & RESERVED != 0 {
        return Err("its gzip header is not valid");
    }
    let mut at = header.len();
    if flags & EXTRA != 0 {
        let len = bytes.get(at..).and_then(|rest| rest.first_chunk::<2>()).ok_or(CUT)?;
        at += 2 + usize::from(u16::from_le_bytes(*len));
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            let rest = bytes.get(at..).ok_or(CUT)?;
            at += rest.iter().position(|&byte| byte == 0).ok_or(CUT)? + 1;
        }
    }
    if flags & HEADER_CRC != 0 {
        at += 2;
    }
    if at <= bytes.len() { Ok(at) } else { Err(CUT) }
}

/// CRC-32 as gzip uses it (RFC 1952, 8), a byte at a time. Tables for several bytes at once save little here: where
/// unaligned words cannot be loaded, their bytes have to be put together first.
#[derive(Debug)]
struct Crc(u32);

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        // Below 256, so it fits.
        let mut value = n as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 != 0 { value >> 1 ^ 0xedb8_8320 } else { value >> 1 };
            bit += 1;
        }
        table[n] = value;
        n += 1;
    }
    table
};

impl Crc {
    fn new() -> Self {
        Self(u32::MAX)
    }

    fn add(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |crc, &byte| {
            // The index is a byte, so it is always within the table.
            crc >> 8 ^ CRC_TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)]
        });
    }

    fn value(&self) -> u32 {
        !self.0
    }
}

/// Packs `bytes` as gzip, for tests and tools on the host: deflate level 6, no name, no time.
pub fn pack(bytes: &[u8]) -> Vec<u8> {
    let mut crc = Crc::new();
    crc.add(bytes);
    let mut out = vec![MAGIC[0], MAGIC[1], 8, 0, 0, 0, 0, 0, 0, 255];
    out.extend_from_slice(&miniz_oxide::deflate::compress_to_vec(bytes, 6));
    out.extend_from_slice(&crc.value().to_le_bytes());
    out.extend_from_slice(&((bytes.len() as u64 & 0xffff_ffff) as u32).to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::{Crc, Error, WINDOW, Workspace, claimed_len, head, pack, unpack};
    use alloc::vec::Vec;

    fn unpacked(bytes: &[u8], workspace: &mut Workspace) -> Result<Vec<u8>, Error<()>> {
        let mut out = Vec::new();
        unpack(bytes, workspace, |at, piece| {
            assert_eq!(at, out.len() as u64);
            out.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(out)
    }

    /// Bytes that compress neither to nothing nor not at all.
    fn noise(len: u32) -> Vec<u8> {
        (0..len).map(|n| (n.wrapping_mul(2_654_435_761) >> 27 ^ n >> 9) as u8).collect()
    }

    #[test]
    fn the_checksum_is_the_one_in_the_standard() {
        let mut crc = Crc::new();
        crc.add(b"123456789");
        assert_eq!(crc.value(), 0xcbf4_3926);
    }

    #[test]
    fn streams_of_any_length_come_out_whole_and_again() {
        let mut workspace = Workspace::new();
        let window = WINDOW as u32;
        for len in [0, 1, window - 1, window, window + 1, 5 * window + 77] {
            let bytes = noise(len);
            let packed = pack(&bytes);
            assert_eq!(claimed_len(&packed), Some(len.into()));
            for _ in 0..2 {
                assert_eq!(unpacked(&packed, &mut workspace).unwrap(), bytes);
                let shown = head(&packed, &mut workspace).unwrap();
                assert_eq!(shown, &bytes[..bytes.len().min(WINDOW)]);
            }
        }
    }

    #[test]
    fn damage_anywhere_in_the_data_is_noticed() {
        let mut workspace = Workspace::new();
        let packed = pack(&noise(3000));
        for at in 10..packed.len() {
            let mut bad = packed.clone();
            bad[at] ^= 4;
            assert!(unpacked(&bad, &mut workspace).is_err(), "byte {at}");
            assert!(unpacked(&packed[..at], &mut workspace).is_err(), "cut at {at}");
        }
        let mut more = packed;
        more.push(0);
        assert_eq!(unpacked(&more, &mut workspace), Err(Error::Corrupt("something follows its compressed data")));
    }

    #[test]
    fn all_optional_parts_of_the_header_are_passed_over() {
        let plain = pack(b"abc");
        let mut full = Vec::from(&plain[..10]);
        full[3] = 0b1_1110;
        full.extend_from_slice(b"\x03\x00xyzname\0comment\0\x12\x34");
        full.extend_from_slice(&plain[10..]);
        assert_eq!(unpacked(&full, &mut Workspace::new()).unwrap(), b"abc");
        full[10] = 0xff;
        full[11] = 0xff;
        assert!(unpacked(&full, &mut Workspace::new()).is_err());
    }

    #[test]
    fn the_receiver_can_end_it() {
        let packed = pack(&noise(100_000));
        let mut n_calls = 0;
        let ended = unpack(&packed, &mut Workspace::new(), |_, _| {
            n_calls += 1;
            Err("enough")
        });
        assert_eq!((ended, n_calls), (Err(Error::Sink("enough")), 1));
    }

    #[test]
    fn what_stands_between_header_and_data_is_passed_over() {
        let data = noise(5_000);
        let plain = pack(&data);
        let mut workspace = Workspace::new();
        // FEXTRA with its length, FNAME, FCOMMENT, FHCRC, in this order (RFC 1952, 2.3).
        for flags in 0..16_u8 {
            let (crc, extra, name, comment) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0, flags & 8 != 0);
            let mut bytes = plain[..10].to_vec();
            bytes[3] |= u8::from(crc) << 1 | u8::from(extra) << 2 | u8::from(name) << 3 | u8::from(comment) << 4;
            if extra {
                bytes.extend([3, 1]);
                bytes.extend([0; 0x103]);
            }
            if name {
                bytes.extend(b"Image\0");
            }
            if comment {
                bytes.extend(b"\0");
            }
            if crc {
                bytes.extend([0x12, 0x34]);
            }
            bytes.extend(&plain[10..]);
            assert!(unpacked(&bytes, &mut workspace).is_ok_and(|found| found == data), "flags {flags:#06b}");
        }
        for bit in [0x20, 0x40, 0x80] {
            let mut bytes = plain.clone();
            bytes[3] |= bit;
            assert!(unpacked(&bytes, &mut workspace).is_err(), "a reserved flag");
        }
    }
}
