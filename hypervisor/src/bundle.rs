//! What the board boots: a cpio archive whose first member is a manifest, and whose others are the images it names.
//!
//! [`Bundle::open`] reads it all and reports every error it finds at once, each a [`Diagnostic`] that says where, what
//! and how to mend it. [`VmSpec::plan`] then finds out where a VM's images go ([`image::Plan`]), and
//! [`image::Plan::load`] puts them there, as often as the VM is reset.
//!
//! A bundle is untrusted: nothing in it makes this room panic, and nothing in it decides how much is allocated beyond
//! the constants named here ([`MOST_DIAGNOSTICS`], [`manifest::MOST_VMS`], [`cpio::MOST_MEMBERS`]). The same code runs
//! on the host when a bundle is made, so what passes there passes at boot.
//!
//! Below: [`crate::addr`]. Above: [`crate::vm`], which builds VMs from the specifications.

pub mod cpio;
pub mod gzip;
pub mod image;
pub mod manifest;
pub mod place;

use crate::addr::{Addr, Ipa};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

/// The name of the archive's first member.
pub const MANIFEST: &str = "manifest.dtb";

/// The most errors that are reported before the rest is only counted.
pub const MOST_DIAGNOSTICS: usize = 64;

/// One error of the operator's: where it is, what is wrong, and what mends it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// Where: a path in the manifest such as `/vms/alpha/memory`, or a place in the archive.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.place, self.what, self.remedy)
    }
}

/// Errors while they are being collected: the first [`MOST_DIAGNOSTICS`], and a count of the rest.
#[derive(Default, Debug)]
pub struct Findings {
    list: Vec<Diagnostic>,
    more: usize,
}

impl Findings {
    /// Adds one error.
    pub fn add(&mut self, place: impl ToString, what: impl ToString, remedy: impl ToString) {
        self.push(Diagnostic { place: place.to_string(), what: what.to_string(), remedy: remedy.to_string() });
    }

    /// Adds one error that is already in words.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if self.list.len() < MOST_DIAGNOSTICS {
            self.list.push(diagnostic);
        } else {
            self.more += 1;
        }
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The `value` where nothing was found, else all that was: at most [`MOST_DIAGNOSTICS`] and one that counts the
    /// rest.
    pub fn unless<T>(mut self, value: T) -> Result<T, Vec<Diagnostic>> {
        if self.more > 0 {
            let what = format!("{} more errors are not shown", self.more);
            self.list.push(Diagnostic { place: MANIFEST.into(), what, remedy: "mend those above first".into() });
        }
        if self.list.is_empty() { Ok(value) } else { Err(self.list) }
    }
}

/// What a board can give, which a manifest may not exceed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The most vCPUs of a VM: 8 with a GICv2, 16 with a GICv3.
    pub vcpus: u16,
    /// The number of CPUs, which `affinity` may name from 0; at most 64.
    pub cpus: u16,
    /// The most memory of a VM, in bytes.
    pub memory: u64,
}

impl Limits {
    /// What holds for every board: for use where the board is not known, as when a bundle is made.
    pub const ANY_BOARD: Self = Self { vcpus: 16, cpus: 64, memory: 255 << 30 };
}

/// What becomes of a VM that cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnCrash {
    /// It stays down and its memory goes back to the pool.
    #[default]
    Stop,
    /// It starts again from pristine images.
    Restart,
    /// As `Stop`, with the memory around its PC and its stack in the report.
    Dump,
}

/// What a first touch of a VM's memory allocates.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Granule {
    /// 2 MiB where it can be had: fewer faults, shorter walks.
    #[default]
    Block,
    /// 4 KiB: nothing that is not used.
    Page,
}

/// One VM, as its manifest wants it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VmSpec<'a> {
    /// Its name: 1 to 15 of `[a-z0-9-]`, unlike any other in the bundle.
    pub name: &'a str,
    /// How many vCPUs, at least 1.
    pub vcpus: u16,
    /// Bytes of RAM: a multiple of 2 MiB, at least one.
    pub memory: u64,
    /// Its weight when CPU time is short.
    pub shares: u32,
    /// The kernel's image, in any form that [`image`] knows; nothing only where there is flash.
    pub kernel: Option<&'a [u8]>,
    /// The initial RAM disk, passed on as it is.
    pub initrd: Option<&'a [u8]>,
    /// The kernel's command line.
    pub bootargs: &'a str,
    /// What becomes of it when it crashes.
    pub on_crash: OnCrash,
    /// The CPUs that may run it, bit n for CPU n. All ones where the manifest does not say.
    pub affinity: u64,
    /// After how many seconds without a sign of life it counts as crashed.
    pub watchdog: Option<u32>,
    /// What a first touch allocates.
    pub granule: Granule,
    /// Bytes of RAM that it gets whatever the others need; all of it where the manifest does not say.
    pub min: Option<u64>,
    /// The VMs that it may share equal pages with: those of the same name here.
    pub domain: Option<&'a str>,
    /// Whether it starts at EL2, to be a hypervisor itself.
    pub nested: bool,
    /// What its flash holds at first, firmware and then variables: it starts in the former. The latter may be empty.
    pub flash: Option<[&'a [u8]; 2]>,
}

/// How the board's memory is managed, as the manifest wants it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PolicySpec {
    /// The most bytes of RAM for guests, their tables included; all there are where the manifest does not say.
    pub pool: Option<u64>,
    /// The idle-memory tax in percent.
    pub tax: Option<u8>,
    /// How much of what sharing saves must be there to be copied, in percent.
    pub risk: Option<u8>,
    /// How much of one CPU the scanner may use, in percent.
    pub scan_cpu: Option<u8>,
}

impl<'a> VmSpec<'a> {
    /// Finds a place in the VM's RAM, which begins at `ram_base`, for its images and its device tree. All that does not
    /// fit, or is no image, is the operator's error. `workspace` is where a compressed kernel's header is unpacked.
    pub fn plan(
        &self,
        ram_base: Addr<Ipa>,
        workspace: &mut gzip::Workspace,
    ) -> Result<image::Plan<'a>, Vec<Diagnostic>> {
        image::Plan::new(self, place::Ram { base: ram_base, bytes: self.memory }, workspace)
    }
}

/// An opened bundle: the VMs in the manifest's order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bundle<'a> {
    /// The VMs, 1 to [`manifest::MOST_VMS`] of them.
    pub vms: Vec<VmSpec<'a>>,
    /// How memory is managed.
    pub policy: PolicySpec,
}

impl<'a> Bundle<'a> {
    /// Opens the bundle that fills `bytes` from its start (what follows the archive is ignored). All errors in the
    /// archive and the manifest, which are the operator's, are returned at once.
    pub fn open(bytes: &'a [u8], limits: &Limits) -> Result<Self, Vec<Diagnostic>> {
        let mut findings = Findings::default();
        let members = cpio::read(bytes, &mut findings);
        // What a damaged archive lacks is not missing by the operator's mistake.
        let is_whole = findings.is_empty();
        let mut vms = Vec::new();
        let mut policy = PolicySpec::default();
        match members.first() {
            Some(first) if first.name == MANIFEST => {
                policy = manifest::policy(first.data, limits, &mut findings);
                for entry in manifest::read(first.data, limits, &mut findings) {
                    let mut missing = Findings::default();
                    vms.extend(resolve(&entry, &members, &mut missing));
                    missing.list.into_iter().filter(|_| is_whole).for_each(|diagnostic| findings.push(diagnostic));
                }
            }
            Some(first) => findings.add(
                "archive",
                format!("its first member is {} where {MANIFEST} is expected", quote(first.name)),
                "make the bundle with scripts/bundle",
            ),
            None if is_whole => {
                findings.add("archive", "it has no members", "make the bundle with scripts/bundle");
            }
            None => {}
        }
        findings.unless(Self { vms, policy })
    }

    /// Plans all VMs ([`VmSpec::plan`]) and reports all errors at once.
    pub fn plan(
        &self,
        ram_base: Addr<Ipa>,
        workspace: &mut gzip::Workspace,
    ) -> Result<Vec<image::Plan<'a>>, Vec<Diagnostic>> {
        let mut findings = Findings::default();
        let mut plans = Vec::new();
        for vm in &self.vms {
            match vm.plan(ram_base, workspace) {
                Ok(plan) => plans.push(plan),
                Err(list) => list.into_iter().for_each(|diagnostic| findings.push(diagnostic)),
            }
        }
        findings.unless(plans)
    }
}

/// Finds the images that `entry` names. Nothing where something is missing, which is then among the findings.
fn resolve<'a>(
    entry: &manifest::Entry<'a>,
    members: &[cpio::Member<'a>],
    findings: &mut Findings,
) -> Option<VmSpec<'a>> {
    let mut find = |key: &str, name: &'a str| {
        let found = members.iter().skip(1).find(|member| member.name == name);
        if found.is_none() {
            findings.add(
                format!("/vms/{}/{key}", entry.name),
                format!("the archive has no member {}", quote(name)),
                "add the file to the archive or correct the name",
            );
        }
        found.map(|member| member.data)
    };
    let initrd = entry.initrd.map(|name| find("initrd", name));
    let kernel = entry.kernel.map(|name| find("kernel", name));
    let firmware = entry.flash.map(|name| find("flash", name));
    let variables = entry.variables.map(|name| find("flash-variables", name));
    // Some(None): it was named and is not there, which was said.
    if [initrd, kernel, firmware, variables].contains(&Some(None)) {
        return None;
    }
    let flash = firmware.flatten().map(|firmware| [firmware, variables.flatten().unwrap_or_default()]);
    Some(VmSpec {
        name: entry.name,
        vcpus: entry.vcpus,
        memory: entry.memory?,
        shares: entry.shares,
        kernel: kernel.flatten(),
        initrd: initrd.flatten(),
        bootargs: entry.bootargs,
        on_crash: entry.on_crash,
        affinity: entry.affinity,
        watchdog: entry.watchdog,
        granule: entry.granule,
        min: entry.min,
        domain: entry.domain,
        nested: entry.nested,
        flash,
    })
}

/// The `text` in quotes, made harmless for a terminal and cut where it is long.
pub(crate) fn quote(text: &str) -> String {
    const MOST: usize = 40;
    let mut quoted = String::from("\"");
    for (n, c) in text.chars().enumerate() {
        if n == MOST {
            quoted.push_str("...");
            break;
        }
        match c {
            ' '..='~' if c != '"' && c != '\\' => quoted.push(c),
            _ => quoted += &format!("\\u{{{:x}}}", u32::from(c)),
        }
    }
    quoted.push('"');
    quoted
}

/// A number of bytes, shown as manifests write it where it is a whole number of K, M or G.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Amount(pub u64);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = *self;
        match bytes {
            0 => f.write_str("0 bytes"),
            1 => f.write_str("1 byte"),
            _ if bytes % (1 << 30) == 0 => write!(f, "{}G", bytes >> 30),
            _ if bytes % (1 << 20) == 0 => write!(f, "{}M", bytes >> 20),
            _ if bytes % (1 << 10) == 0 => write!(f, "{}K", bytes >> 10),
            _ => write!(f, "{bytes} bytes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Amount, Bundle, Findings, Limits, MANIFEST, MOST_DIAGNOSTICS, cpio, manifest, quote};
    use alloc::string::{String, ToString};
    use alloc::vec::Vec;
    use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

    /// A bundle with the VM `a`, whose images are `Image` and `initrd`, and these files.
    fn bundle(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut vm = DeviceTreeNode::new("a").unwrap();
        for (key, value) in [("memory", "4M"), ("kernel", "Image"), ("initrd", "initrd")] {
            vm.add_property(DeviceTreeProperty::new(key, value).unwrap());
        }
        let mut vms = DeviceTreeNode::new("vms").unwrap();
        vms.add_child(vm);
        let mut tree = DeviceTree::new();
        tree.root.add_property(DeviceTreeProperty::new("compatible", manifest::COMPATIBLE).unwrap());
        tree.root.add_child(vms);
        let mut archive = Vec::new();
        cpio::append(&mut archive, MANIFEST, &tree.to_dtb()).unwrap();
        for (name, data) in files {
            cpio::append(&mut archive, name, data).unwrap();
        }
        cpio::finish(&mut archive);
        archive
    }

    fn errors(bytes: &[u8]) -> Vec<String> {
        Bundle::open(bytes, &Limits::ANY_BOARD).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_bundle_brings_each_vm_its_images() {
        let bytes = bundle(&[("initrd", b"disk"), ("Image", b"code"), ("other", b"")]);
        let vms = Bundle::open(&bytes, &Limits::ANY_BOARD).unwrap().vms;
        assert_eq!(
            (vms.len(), vms[0].name, vms[0].kernel, vms[0].initrd),
            (1, "a", Some(&b"code"[..]), Some(&b"disk"[..]))
        );
    }

    #[test]
    fn every_missing_image_is_named_unless_the_archive_is_cut_off() {
        let bytes = bundle(&[]);
        let remedy = "add the file to the archive or correct the name";
        assert_eq!(
            errors(&bytes),
            [
                "/vms/a/initrd: the archive has no member \"initrd\"; ",
                "/vms/a/kernel: the archive has no member \"Image\"; "
            ]
            .map(|error| error.to_string() + remedy)
        );
        assert_eq!(errors(&bytes[..bytes.len() - 20]).len(), 1);
        assert!(errors(&bundle(&[])[..0])[0].contains("ends inside the header"));
    }

    #[test]
    fn the_manifest_comes_first() {
        let mut bytes = Vec::new();
        cpio::append(&mut bytes, "Image", b"code").unwrap();
        bytes.extend_from_slice(&bundle(&[]));
        assert!(errors(&bytes)[0].starts_with("archive: its first member is \"Image\" where"));
    }

    #[test]
    fn too_many_findings_are_counted_not_kept() {
        let mut findings = Findings::default();
        for n in 0..MOST_DIAGNOSTICS + 7 {
            findings.add(n, "what", "remedy");
        }
        let list = findings.unless(()).unwrap_err();
        assert_eq!(list.len(), MOST_DIAGNOSTICS + 1);
        assert_eq!(list[0].to_string(), "0: what; remedy");
        assert!(list[MOST_DIAGNOSTICS].what.starts_with("7 more"));
    }

    #[test]
    fn quoted_text_cannot_drive_a_terminal() {
        assert_eq!(quote("a\x1b[2J"), r#""a\u{1b}[2J""#);
        assert!(quote(&"x".repeat(1000)).len() < 50);
    }

    #[test]
    fn amounts_read_like_manifests() {
        assert_eq!(Amount(128 << 20).to_string(), "128M");
        assert_eq!(Amount(4 << 30).to_string(), "4G");
        assert_eq!(Amount(4097).to_string(), "4097 bytes");
    }
}
