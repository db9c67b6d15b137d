//! Images: what a kernel file is, where its bytes go, and putting them there.
//!
//! | format | known by | loaded at | entered at |
//! |---|---|---|---|
//! | arm64 Linux `Image` | `ARM\x64` at byte 56 | RAM base + text_offset | its first byte |
//! | ELF, 64 bits, AArch64, little-endian | `\x7fELF` | the physical addresses of its segments | its entry point |
//! | flat binary | neither | RAM base + 0x80000 | its first byte |
//!
//! A VM with flash starts in that, at 0. Its kernel lies 2 MiB higher, for the firmware to boot, and the device tree at the
//! base of RAM, where QEMU's `virt` has it for firmware.
//!
//! Each may be packed with gzip. Key types: [`Plan`], made once, and [`Sink`], a VM's RAM. It is loaded in steps ([`Loading`]) and unpacked again
//! each time, so a VM starts from pristine images as often as it likes and no unpacked copy is kept. A plan's stretches
//! lie within RAM and do not overlap; a sink is never asked to write anywhere else. Formats are told apart in
//! `image/format.rs`, places are found in [`super::place`].
//!
//! Follows Linux's `Documentation/arch/arm64/booting.rst` and the ELF specification's program headers.

mod format;

use super::gzip::{self, Workspace};
use super::place::{self, Dtb, LoadedPart, Misfit, Ram, Stretch};
use super::{Amount, Diagnostic, Findings, VmSpec};
use crate::addr::{Addr, Ipa};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
pub use format::{Format, Segment};
use format::{FormatError, Layout};

/// The most bytes of a bank of flash, as on QEMU's `virt`.
pub const FLASH_BANK: u64 = 64 << 20;
/// Bytes at the base of RAM that are left to firmware: for the device tree.
const FIRMWARE_ROOM: u64 = 2 << 20;

/// No frame is left for the VM's memory at this address: nobody's fault; load again when there is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Short {
    /// The first address that could not be written.
    pub at: Addr<Ipa>,
}

/// Why an image was not loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// Memory is short.
    Short(Short),
    /// The image is damaged, which its headers did not show: the operator's error.
    Corrupt(&'static str),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short(Short { at }) => write!(f, "memory ran out at {at}"),
            Self::Corrupt(what) => write!(f, "the kernel cannot be unpacked: {what}"),
        }
    }
}

/// A VM's RAM, to be written.
pub trait Sink {
    /// Makes `bytes` from `at` on ready to be written, as far as that is long: false if there is more to do.
    fn prepare(&mut self, _at: Addr<Ipa>, _bytes: u64) -> Result<bool, Short> {
        Ok(true)
    }

    /// Writes `bytes` from `at` on. They lie within the RAM that the plan was made for, and may be many.
    fn write(&mut self, at: Addr<Ipa>, bytes: &[u8]) -> Result<(), Short>;
    /// Makes `bytes` from `at` on zero: nothing to do where they are so from birth.
    fn zero(&mut self, at: Addr<Ipa>, bytes: u64) -> Result<(), Short>;
}

/// Where everything of a VM goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan<'a> {
    /// Where the first vCPU starts.
    pub entry: Addr<Ipa>,
    /// Where the device tree goes (its address goes into X0): [`place::DTB_ROOM`] bytes are free there.
    pub dtb: Addr<Ipa>,
    /// Where the initrd goes.
    pub initrd: Option<Stretch>,
    /// Where the modules go.
    pub modules: Vec<Stretch>,
    /// What the kernel's file is, if there is one.
    pub format: Option<Format>,
    /// The parts of the kernel.
    pub segments: Vec<Segment>,
    /// How long the file is, unpacked.
    len: u64,
    packing: Packing,
    kernel: &'a [u8],
    /// The initrd and the modules, and where they go.
    images: Vec<(Stretch, &'a [u8])>,
}

/// The most bytes that a sink is asked to make zero at once.
const MOST_ZEROES: u64 = 16 << 10;

/// How far a loading is ([`Plan::begin`]).
#[derive(Debug)]
pub struct Loading(Stage);

#[derive(Debug)]
enum Stage {
    /// So many bytes of the kernel's file are done.
    Kernel(u64),
    Packed(gzip::Unpacking),
    /// So many zeroes of the segment of this number are done.
    Zeroes(usize, u64),
    /// So many bytes of the image of this number are done.
    Image(usize, u64),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Packing {
    None,
    Gzip,
}

impl<'a> Plan<'a> {
    /// Finds out what `vm`'s kernel is and where in `ram` everything goes. What is no image or does not fit is the
    /// operator's error; it is said by how much.
    pub fn new(vm: &VmSpec<'a>, ram: Ram, workspace: &mut Workspace) -> Result<Self, Vec<Diagnostic>> {
        let mut findings = Findings::default();
        let kernel_at = format!("/vms/{}/kernel", vm.name);
        check_flash(vm, &mut findings);
        // The kernel's part of RAM.
        let own = match vm.flash {
            Some(_) => Ram { base: ram.base + FIRMWARE_ROOM, bytes: ram.bytes.saturating_sub(FIRMWARE_ROOM) },
            None => ram,
        };
        let found = vm.kernel.map(|kernel| look(kernel, own, workspace)).transpose();
        let (layout, len, packing) = match found {
            Ok(found) => found.map_or((None, 0, Packing::None), |(layout, len, packing)| (Some(layout), len, packing)),
            Err(FormatError { what, remedy }) => {
                findings.add(kernel_at, what, remedy);
                return Err(findings.unless(()).err().unwrap_or_default());
            }
        };
        let files = images_of(vm);
        for (key, _) in files.iter().filter(|(_, file)| file.is_empty()) {
            findings.add(format!("/vms/{}/{key}", vm.name), "the file is empty", format!("leave {key} out"));
        }
        let lengths: Vec<u64> = files.iter().map(|(_, file)| file.len() as u64).collect();
        let extent = match &layout {
            Some(layout) => check(layout, own, &lengths, &kernel_at, &mut findings),
            None => Stretch { start: own.base, bytes: 0 },
        };
        let format = layout.as_ref().map(|layout| layout.format);
        let first = if vm.flash.is_some() || format == Some(Format::Elf) { Dtb::AtBase } else { Dtb::Behind };
        let places = match place::find(ram, extent, &lengths, first) {
            Ok(places) => places,
            Err(misfit) => {
                // What lies outside of RAM was found by `check` already.
                if misfit.part != LoadedPart::Kernel {
                    findings.push(explain(misfit, vm, extent, ram, &files));
                }
                return Err(findings.unless(()).err().unwrap_or_default());
            }
        };
        let modules = places.images.iter().skip(usize::from(vm.initrd.is_some())).copied().collect();
        let (entry, segments) = layout.map_or((own.base, Vec::new()), |layout| (layout.entry, layout.segments));
        findings.unless(Self {
            entry: if vm.flash.is_some() { Addr::new(0) } else { entry },
            dtb: places.dtb,
            initrd: vm.initrd.and_then(|_| places.images.first().copied()),
            modules,
            format,
            segments,
            len,
            packing,
            kernel: vm.kernel.unwrap_or_default(),
            images: places.images.into_iter().zip(files.into_iter().map(|(_, file)| file)).collect(),
        })
    }

    /// Begins to write kernel, initrd and modules to a sink, with a workspace that is this loading's until its end. It can be begun again
    /// and again.
    pub fn begin(&self, workspace: &mut Workspace) -> Result<Loading, Failure> {
        Ok(Loading(match self.packing {
            Packing::None => Stage::Kernel(0),
            Packing::Gzip => Stage::Packed(gzip::Unpacking::begin(self.kernel, workspace).map_err(Failure::Corrupt)?),
        }))
    }

    /// Goes on with it by a piece; true once all is there, but for the device tree, which is the caller's. After a failure the
    /// sink holds a part of it.
    pub fn step(
        &self,
        loading: &mut Loading,
        workspace: &mut Workspace,
        sink: &mut impl Sink,
    ) -> Result<bool, Failure> {
        if !self.prepare(loading, sink).map_err(Failure::Short)? {
            return Ok(false);
        }
        match &mut loading.0 {
            Stage::Kernel(done) => match piece_from(self.kernel, done) {
                Some((at, bytes)) => self.piece(at, bytes, sink).map_err(Failure::Short)?,
                None => loading.0 = Stage::Zeroes(0, 0),
            },
            Stage::Packed(unpacking) => {
                let each = |at: u64, bytes: &[u8]| {
                    if at.saturating_add(bytes.len() as u64) > self.len {
                        return Err(Failure::Corrupt("it is longer than it says"));
                    }
                    self.piece(at, bytes, sink).map_err(Failure::Short)
                };
                match unpacking.step(self.kernel, workspace, each) {
                    Ok(false) => {}
                    Ok(true) => loading.0 = Stage::Zeroes(0, 0),
                    Err(gzip::Error::Corrupt(what)) => return Err(Failure::Corrupt(what)),
                    Err(gzip::Error::Sink(failure)) => return Err(failure),
                }
            }
            Stage::Zeroes(n, done) => match self.segments.get(*n) {
                Some(segment) if *done < segment.zeroes => {
                    let bytes = MOST_ZEROES.min(segment.zeroes - *done);
                    let at = segment.at.bits().saturating_add(segment.bytes).saturating_add(*done);
                    sink.zero(Addr::new(at), bytes).map_err(Failure::Short)?;
                    *done += bytes;
                }
                Some(_) => (*n, *done) = (*n + 1, 0),
                None => loading.0 = Stage::Image(0, 0),
            },
            Stage::Image(n, done) => {
                let Some((place, file)) = self.images.get(*n) else { return Ok(true) };
                match piece_from(file, done) {
                    Some((at, bytes)) => sink.write(place.start + at, bytes).map_err(Failure::Short)?,
                    None => (*n, *done) = (*n + 1, 0),
                }
            }
        }
        Ok(false)
    }

    /// Has the sink make ready where the next piece goes.
    fn prepare(&self, loading: &Loading, sink: &mut impl Sink) -> Result<bool, Short> {
        let at = match &loading.0 {
            Stage::Kernel(done) => *done,
            Stage::Packed(unpacking) => unpacking.done(),
            Stage::Image(n, done) => {
                let Some((place, file)) = self.images.get(*n) else { return Ok(true) };
                let bytes = (gzip::PIECE as u64).min((file.len() as u64).saturating_sub(*done));
                return if bytes > 0 { sink.prepare(place.start + *done, bytes) } else { Ok(true) };
            }
            Stage::Zeroes(..) => return Ok(true),
        };
        let end = at.saturating_add(gzip::PIECE as u64).min(self.len);
        for segment in &self.segments {
            if let Some((to, range)) = segment.part(at, end)
                && !sink.prepare(to, range.end - range.start)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes all of it at once.
    pub fn load(&self, workspace: &mut Workspace, sink: &mut impl Sink) -> Result<(), Failure> {
        let mut loading = self.begin(workspace)?;
        while !self.step(&mut loading, workspace, sink)? {}
        Ok(())
    }

    /// Writes what the segments have of `bytes`, which lie at `at` in the unpacked file.
    fn piece(&self, at: u64, bytes: &[u8], sink: &mut impl Sink) -> Result<(), Short> {
        let end = at.saturating_add(bytes.len() as u64);
        for segment in &self.segments {
            let Some((to, range)) = segment.part(at, end) else { continue };
            // Both lie within `bytes`, so they fit.
            let part = bytes.get((range.start - at) as usize..(range.end - at) as usize).unwrap_or_default();
            sink.write(to, part)?;
        }
        Ok(())
    }
}

/// The initrd and the modules of a VM, each by its key.
fn images_of<'a>(vm: &VmSpec<'a>) -> Vec<(String, &'a [u8])> {
    let initrd = vm.initrd.map(|initrd| (String::from("initrd"), initrd));
    let modules = vm.modules.iter().map(|module| (format!("modules/{}", module.kind), module.data));
    initrd.into_iter().chain(modules).collect()
}

/// Reports images that are no contents for flash.
fn check_flash(vm: &VmSpec<'_>, findings: &mut Findings) {
    let Some([firmware, variables]) = vm.flash else { return };
    if firmware.is_empty() {
        findings.add(format!("/vms/{}/flash", vm.name), "the file is empty", "name a file with firmware in it");
    }
    for (key, image) in [("flash", firmware), ("flash-variables", variables)] {
        if image.len() as u64 > FLASH_BANK {
            let what = format!("it has more than {}", Amount(FLASH_BANK));
            findings.add(format!("/vms/{}/{key}", vm.name), what, "leave out what is behind that");
        }
    }
}

/// The next piece of `bytes`, of which `done` are done, and its place.
fn piece_from<'b>(bytes: &'b [u8], done: &mut u64) -> Option<(u64, &'b [u8])> {
    let at = *done;
    let rest = bytes.get(usize::try_from(at).ok()?..).filter(|rest| !rest.is_empty())?;
    let piece = rest.get(..gzip::PIECE).unwrap_or(rest);
    *done += piece.len() as u64;
    Some((at, piece))
}

/// What the file `kernel` is: its layout, its length unpacked, and how it is packed.
fn look(kernel: &[u8], ram: Ram, workspace: &mut Workspace) -> Result<(Layout, u64, Packing), FormatError> {
    if !gzip::is_gzip(kernel) {
        let len = kernel.len() as u64;
        return format::recognise(kernel, len, ram).map(|layout| (layout, len, Packing::None));
    }
    let corrupt = |what| FormatError { what: format!("it cannot be unpacked: {what}"), remedy: format::DAMAGED.into() };
    let head = gzip::head(kernel, workspace).map_err(corrupt)?;
    let len = gzip::claimed_len(kernel).unwrap_or(0);
    if len < head.len() as u64 {
        return Err(corrupt("its length is not the one it names"));
    }
    format::recognise(head, len, ram).map(|layout| (layout, len, Packing::Gzip))
}

/// Checks that the kernel's segments lie in RAM and apart from each other. Returns the RAM from the first to the last.
fn check(layout: &Layout, ram: Ram, images: &[u64], place: &str, findings: &mut Findings) -> Stretch {
    let base = ram.base.bits();
    let low = layout.segments.iter().map(|segment| segment.at.bits()).min().unwrap_or(base);
    let high = layout.segments.iter().map(|segment| segment.stretch().end()).max().unwrap_or(base);
    let extent = Stretch { start: Addr::new(low), bytes: high.saturating_sub(low) };
    let whole = |stretch: Stretch| format!("{} at {:#x}", Amount(stretch.bytes), stretch.start.bits());
    for (n, segment) in layout.segments.iter().enumerate() {
        let stretch = segment.stretch();
        if segment.at.bits() < base || segment.at.bits() >= ram.end() {
            let what = format!("its part of {} is not in RAM, {base:#x} to {:#x}", whole(stretch), ram.end());
            findings.add(place, what, String::from("link it for the RAM of the virtual board, or give it more memory"));
        } else if stretch.end() > ram.end() {
            let over = Amount(stretch.end() - ram.end());
            let what = format!("its part of {} does not fit: it is too large by {over}", whole(stretch));
            findings.add(place, what, place::remedy(high.saturating_sub(base), images));
        }
        // One overlap of each is enough: all pairs of them could be 500.
        let overlaps = |other: &Stretch| other.start.bits() < stretch.end() && stretch.start.bits() < other.end();
        if let Some(other) = layout.segments.iter().take(n).map(Segment::stretch).find(overlaps) {
            let what = format!("its parts of {} and of {} overlap", whole(other), whole(stretch));
            findings.add(place, what, "link it again: each segment needs a physical address of its own");
        }
    }
    if !(base..ram.end()).contains(&layout.entry.bits()) || !layout.entry.bits().is_multiple_of(4) {
        let what = format!("its entry point {} is not an instruction in RAM", layout.entry);
        findings.add(place, what, "link it for the RAM of the virtual board");
    }
    extent
}

/// A misfit in words.
fn explain(misfit: Misfit, vm: &VmSpec<'_>, extent: Stretch, ram: Ram, files: &[(String, &[u8])]) -> Diagnostic {
    let lengths: Vec<u64> = files.iter().map(|(_, file)| file.len() as u64).collect();
    let remedy = place::remedy(extent.end().saturating_sub(ram.base.bits()), &lengths);
    let over = Amount(misfit.over);
    let (key, what) = match misfit.part {
        LoadedPart::Kernel => ("kernel", format!("it does not fit: {over} too large")),
        LoadedPart::Image(n) => {
            let (key, len) = files.get(n).map_or(("initrd", 0), |(key, file)| (key.as_str(), file.len() as u64));
            (key, format!("its {} do not fit behind the kernel: {over} too large", Amount(len)))
        }
        LoadedPart::DeviceTree => {
            ("memory", format!("no room is left for the device tree behind the images: {over} too little"))
        }
    };
    Diagnostic { place: format!("/vms/{}/{key}", vm.name), what, remedy }
}

#[cfg(test)]
mod tests;
