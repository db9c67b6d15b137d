//! Telling formats apart by the start of a file, and reading where its parts want to go.
//!
//! Only the first bytes are looked at (all of them where the file is not packed, [`super::gzip::WINDOW`] where it is),
//! so a packed kernel need not be unpacked to be planned.

use crate::addr::{Addr, Ipa, Size};
use crate::bundle::place::{Ram, Stretch};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use elf::abi::{EM_AARCH64, PF_X, PT_LOAD};
use elf::endian::LittleEndian;
use elf::file::{Class, ELF64_EHDR_TAILSIZE, FileHeader, parse_ident};
use elf::segment::{ProgramHeader, SegmentTable};

/// Where flat binaries, and Linux images that do not say, go: bytes above the base of RAM.
const FLAT_OFFSET: u64 = 0x8_0000;
/// The most segments of an ELF file.
pub(super) const MOST_SEGMENTS: usize = 32;
/// The length of a program header.
const PROGRAM_HEADER: u16 = 56;

pub(super) const DAMAGED: &str = "the file is damaged: make or copy it again";

/// What a kernel's file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// An arm64 Linux `Image`.
    Image,
    /// An ELF file.
    Elf,
    /// Machine code and nothing else.
    Flat,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Image => "Linux Image",
            Self::Elf => "ELF",
            Self::Flat => "flat binary",
        })
    }
}

/// A part of a kernel and its place in RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Its place in RAM.
    pub at: Addr<Ipa>,
    /// Where it begins in the (unpacked) file, in bytes.
    pub from: u64,
    /// How many bytes of the file it has.
    pub bytes: u64,
    /// How many zero bytes follow those in RAM.
    pub zeroes: u64,
}

impl Segment {
    /// The RAM it takes.
    pub(super) fn stretch(&self) -> Stretch {
        Stretch { start: self.at, bytes: self.bytes.saturating_add(self.zeroes) }
    }

    /// What it has of the file's bytes from `from` to `to`, if any: where in RAM, and which of the file.
    pub(super) fn part(&self, from: u64, to: u64) -> Option<(Addr<Ipa>, Range<u64>)> {
        let range = self.from.max(from)..self.from.saturating_add(self.bytes).min(to);
        let at = Addr::new(self.at.bits().saturating_add(range.start - self.from));
        (!range.is_empty()).then_some((at, range))
    }
}

/// Where a kernel's parts want to go.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Layout {
    pub(super) format: Format,
    pub(super) entry: Addr<Ipa>,
    /// At most [`MOST_SEGMENTS`].
    pub(super) segments: Vec<Segment>,
}

/// Why a file is no kernel.
#[derive(Debug)]
pub(super) struct FormatError {
    pub(super) what: String,
    pub(super) remedy: String,
}

fn error(what: impl Into<String>, remedy: impl Into<String>) -> FormatError {
    FormatError { what: what.into(), remedy: remedy.into() }
}

/// Recognises the file of `len` bytes that begins with `head`.
pub(super) fn recognise(head: &[u8], len: u64, ram: Ram) -> Result<Layout, FormatError> {
    if head.is_empty() {
        return Err(error("the file is empty", "name a file with a kernel in it"));
    }
    if let Some(name) = foreign(head) {
        return Err(error(format!("it is {name}"), "unpack it first: only gzip is unpacked at boot"));
    }
    if head.starts_with(&elf::abi::ELFMAGIC) {
        return read_elf(head, len, ram);
    }
    if head.get(56..60) == Some(b"ARM\x64") {
        return read_linux(head, len, ram);
    }
    flat(ram.base, FLAT_OFFSET, len, Format::Flat)
}

/// What is neither a kernel nor gzip, and would only be run as a flat binary by mistake.
fn foreign(head: &[u8]) -> Option<&'static str> {
    const KNOWN: [(&[u8], &str); 5] = [
        (b"\x28\xb5\x2f\xfd", "packed with zstd"),
        (b"\xfd7zXZ\0", "packed with xz"),
        (b"BZh", "packed with bzip2"),
        (b"\x02\x21\x4c\x18", "packed with lz4"),
        (b"\x04\x22\x4d\x18", "packed with lz4"),
    ];
    if head.starts_with(b"MZ") && head.get(4..8) == Some(b"zimg") {
        return Some("an EFI application with a packed kernel in it (zboot)");
    }
    KNOWN.iter().find(|(magic, _)| head.starts_with(magic)).map(|&(_, name)| name)
}

/// One segment, the whole file, entered at its start.
fn flat(base: Addr<Ipa>, offset: u64, len: u64, format: Format) -> Result<Layout, FormatError> {
    let at = base.checked_add(offset).ok_or_else(|| error("its text_offset is not in RAM", DAMAGED))?;
    Ok(Layout { format, entry: at, segments: vec![Segment { at, from: 0, bytes: len, zeroes: 0 }] })
}

/// An arm64 Linux `Image`: u64 text_offset at byte 8, u64 image_size at 16, which counts memory behind the file's end
/// too: its BSS, which it would zero itself.
fn read_linux(head: &[u8], len: u64, ram: Ram) -> Result<Layout, FormatError> {
    let number = |at: usize| head.get(at..)?.first_chunk::<8>().map(|&bytes| u64::from_le_bytes(bytes));
    let (Some(text_offset), Some(image_size)) = (number(8), number(16)) else {
        return Err(error("its header is cut off", DAMAGED));
    };
    // Before Linux 3.17 the size was 0 and the offset in any byte order.
    let text_offset = if image_size == 0 { FLAT_OFFSET } else { text_offset };
    let mut layout = flat(ram.base.align_down(Size::Block), text_offset, len, Format::Image)?;
    for segment in &mut layout.segments {
        segment.zeroes = image_size.saturating_sub(len);
    }
    Ok(layout)
}

fn read_elf(head: &[u8], len: u64, ram: Ram) -> Result<Layout, FormatError> {
    let (header, table) = read_headers(head)?;
    let mut segments = Vec::new();
    let mut entry = header.e_entry;
    for program in table.iter().filter(|program| program.p_type == PT_LOAD && program.p_memsz > 0) {
        if program.p_filesz > program.p_memsz
            || program.p_offset.checked_add(program.p_filesz).is_none_or(|end| end > len)
        {
            let what = format!("its segment for {:#x} has bytes that the file does not have", program.p_paddr);
            return Err(error(what, DAMAGED));
        }
        if segments.len() == MOST_SEGMENTS {
            return Err(error(format!("it has more than {MOST_SEGMENTS} segments"), "link it again with fewer"));
        }
        entry = physical_entry(&program, header.e_entry).unwrap_or(entry);
        segments.push(Segment {
            at: Addr::new(program.p_paddr),
            from: program.p_offset,
            bytes: program.p_filesz,
            zeroes: program.p_memsz - program.p_filesz,
        });
    }
    if segments.is_empty() {
        let remedy = format!("link an executable for the RAM at {}", ram.base);
        return Err(error("it has nothing to load", remedy));
    }
    Ok(Layout { format: Format::Elf, entry: Addr::new(entry), segments })
}

/// The physical address of the entry point, where it is a virtual one of this executable segment.
fn physical_entry(program: &ProgramHeader, entry: u64) -> Option<u64> {
    let offset = entry.checked_sub(program.p_vaddr)?;
    let inside = offset < program.p_filesz && program.p_flags & PF_X != 0 && program.p_vaddr != program.p_paddr;
    if inside { program.p_paddr.checked_add(offset) } else { None }
}

/// The ELF header and the program headers, if they are those of a kernel for this board.
fn read_headers(head: &[u8]) -> Result<(FileHeader<LittleEndian>, SegmentTable<'_, LittleEndian>), FormatError> {
    const REMEDY: &str = "build it for AArch64, 64 bits, little-endian";
    let cut = || error("its ELF header is cut off", DAMAGED);
    let (ident, rest) = head.split_at_checked(elf::abi::EI_NIDENT).ok_or_else(cut)?;
    let ident = parse_ident::<LittleEndian>(ident).map_err(|_| error("it is ELF of an unknown kind", REMEDY))?;
    if ident.1 != Class::ELF64 {
        return Err(error("it is ELF for 32 bits", REMEDY));
    }
    let tail = rest.get(..ELF64_EHDR_TAILSIZE).ok_or_else(cut)?;
    let header = FileHeader::parse_tail(ident, tail).map_err(|_| cut())?;
    if header.e_machine != EM_AARCH64 {
        return Err(error(format!("it is ELF for machine {}, not AArch64", header.e_machine), REMEDY));
    }
    if header.e_phnum != 0 && header.e_phentsize != PROGRAM_HEADER {
        return Err(error(format!("its program headers have {} bytes each", header.e_phentsize), DAMAGED));
    }
    let bytes = usize::from(header.e_phnum) * usize::from(PROGRAM_HEADER);
    let table = usize::try_from(header.e_phoff).ok().and_then(|at| head.get(at..)?.get(..bytes));
    let Some(table) = table else {
        return Err(error("its program headers are not at its start", "they must lie in its first 32 KiB when packed"));
    };
    Ok((header, SegmentTable::new(LittleEndian, Class::ELF64, table)))
}
