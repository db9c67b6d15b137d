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
mod diagnostic;
pub mod gzip;
pub mod image;
pub mod manifest;
pub mod place;
mod spec;

pub(crate) use diagnostic::quote;
pub use diagnostic::{Amount, Diagnostic, Findings, MOST_DIAGNOSTICS};
pub use spec::{
    DiskSpec, Granule, Limits, MANIFEST, MODULES, MOST_DISKS, MOST_NETS, MOST_PORTS, Module, NetSpec, OnCrash,
    PolicySpec, VmSpec,
};

use crate::addr::{Addr, Ipa};
use alloc::format;
use alloc::vec::Vec;

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
    pub policy: PolicySpec<'a>,
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
                    missing.kept().filter(|_| is_whole).for_each(|diagnostic| findings.push(diagnostic));
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
    entry: &manifest::VmNode<'a>,
    members: &[cpio::Member<'a>],
    findings: &mut Findings,
) -> Option<VmSpec<'a>> {
    let mut short = Findings::default();
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
    let found = entry.modules.iter().map(|&manifest::ModuleNode { kind, file, bootargs }| {
        let data = find(&format!("modules/{kind}/file"), file)?;
        Some(Module { kind, data, bootargs })
    });
    // All are looked for, so that all that are missing are said.
    let modules: Vec<Option<Module<'a>>> = found.collect();
    let found = entry.disks.iter().map(|&manifest::DiskNode { name, image, read_only }| {
        let key = format!("disks/{name}/image");
        let image = find(&key, image)?;
        if image.is_empty() || image.len() % 512 != 0 {
            // The tool that makes bundles pads none: what is cut off would be missed.
            short.add(
                format!("/vms/{}/{key}", entry.name),
                format!("it has {} bytes, which are no whole sectors", image.len()),
                "make it a multiple of 512 bytes, as with truncate -s %512",
            );
            return None;
        }
        Some(DiskSpec { name, image, read_only })
    });
    let disks: Vec<Option<DiskSpec<'a>>> = found.collect();
    short.kept().for_each(|diagnostic| findings.push(diagnostic));
    // Some(None): it was named and is not there, which was said.
    if [initrd, kernel, firmware, variables].contains(&Some(None)) || modules.contains(&None) || disks.contains(&None) {
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
        modules: modules.into_iter().flatten().collect(),
        disks: disks.into_iter().flatten().collect(),
        nets: entry.nets.clone(),
        on_crash: entry.on_crash,
        affinity: entry.affinity,
        watchdog: entry.watchdog,
        granule: entry.granule,
        min: entry.min,
        domain: entry.domain,
        nested: entry.nested,
        by_traps: entry.by_traps,
        flash,
    })
}

#[cfg(test)]
mod tests {
    use super::{Bundle, Limits, MANIFEST, cpio, manifest};
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
    fn an_archive_without_members_is_no_bundle() {
        let mut archive = Vec::new();
        cpio::finish(&mut archive);
        assert_eq!(errors(&archive), ["archive: it has no members; make the bundle with scripts/bundle"]);
        assert_eq!(errors(&archive[..20]).len(), 1, "what is cut off may have had some");
    }

    #[test]
    fn the_manifest_comes_first() {
        let mut bytes = Vec::new();
        cpio::append(&mut bytes, "Image", b"code").unwrap();
        bytes.extend_from_slice(&bundle(&[]));
        assert!(errors(&bytes)[0].starts_with("archive: its first member is \"Image\" where"));
    }
}
