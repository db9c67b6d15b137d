//! Making bundles, checking them, and showing the device trees of their VMs.

use crate::Failure;
use crate::arguments::Arguments;
use flatland::addr::{Addr, Ipa};
use flatland::bundle::gzip::Workspace;
use flatland::bundle::image::{Plan, Short, Sink};
use flatland::bundle::place::DTB_ROOM;
use flatland::bundle::{Amount, Bundle, Diagnostic, Limits, MANIFEST, VmSpec, cpio, manifest};
use flatland::devices::RAM_BASE;
use flatland::vm::device_tree::{self, Description, Gic};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// `tool bundle`.
pub(crate) fn make(mut arguments: Arguments) -> Result<(), Failure> {
    let out = arguments.output()?;
    let folders: Vec<PathBuf> = arguments.options("-I")?.into_iter().map(PathBuf::from).collect();
    let [source] = arguments.places(["MANIFEST.dts"])?;
    let dtb = compile(&source, &folders)?;
    let mut errors = Vec::new();
    let archive = pack(&dtb, &source, &folders, &mut errors)?;
    if let Err(list) = open(&archive) {
        // A file that is missing here is missing in the archive too; that need not be said twice.
        let new: Vec<_> = list.into_iter().filter(|new| errors.iter().all(|old| old.place != new.place)).collect();
        errors.extend(new);
    }
    if !errors.is_empty() {
        return Err(Failure::Work(in_words(&source, &errors)));
    }
    std::fs::write(&out, &archive).map_err(|error| Failure::Work(format!("{}: {error}", out.display())))
}

/// `tool check`.
pub(crate) fn check(arguments: Arguments) -> Result<(), Failure> {
    let [file] = arguments.places(["BUNDLE"])?;
    let archive = read(&file)?;
    let (bundle, plans) = open(&archive).map_err(|errors| in_words(&file, &errors))?;
    for (vm, plan) in bundle.vms.iter().zip(&plans) {
        println!("{}", describe(vm, plan));
    }
    Ok(())
}

/// `tool tree`.
pub(crate) fn tree(mut arguments: Arguments) -> Result<(), Failure> {
    let out = arguments.output()?;
    let gic = match arguments.option("--gic")? {
        Some(version) if version == "2" => Gic::V2,
        Some(version) if version != "3" => return Err(Failure::Usage("--gic is 2 or 3".into())),
        _ => Gic::V3,
    };
    let [file, name] = arguments.places(["BUNDLE", "VM"])?;
    let archive = read(&file)?;
    let (bundle, plans) = open(&archive).map_err(|errors| in_words(&file, &errors))?;
    let Some((vm, plan)) = bundle.vms.iter().zip(&plans).find(|(vm, _)| Path::new(vm.name) == name) else {
        return Err(Failure::Work(format!("{}: there is no VM {}", file.display(), name.display())));
    };
    let modules = device_tree::modules_of(vm, plan);
    let description = Description::of(vm, plan, gic, &modules);
    std::fs::write(&out, description.build()).map_err(|error| Failure::Work(format!("{}: {error}", out.display())))
}

/// The manifest as dtc compiles it. What dtc says goes to standard error as it is, with file and line.
fn compile(source: &Path, folders: &[PathBuf]) -> Result<Vec<u8>, Failure> {
    // dtc would say less clearly that there is no such file.
    read(source)?;
    let mut words: Vec<OsString> = ["-I", "dts", "-O", "dtb", "-o", "-"].map(Into::into).into();
    for folder in folders {
        words.extend(["-i".into(), folder.into()]);
    }
    let dtc = Command::new("dtc").args(words).arg("--").arg(source).stderr(Stdio::inherit()).output();
    let output = dtc.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            "dtc is not installed; Debian and Ubuntu have it in the package device-tree-compiler".into()
        }
        _ => format!("dtc: {error}"),
    })?;
    if !output.status.success() {
        return Err(Failure::Work(format!("{}: dtc could not compile it (see above)", source.display())));
    }
    Ok(output.stdout)
}

/// Packs the manifest and all images that it names and that are there. Those that are not go to `missing`.
fn pack(dtb: &[u8], source: &Path, folders: &[PathBuf], missing: &mut Vec<Diagnostic>) -> Result<Vec<u8>, Failure> {
    let beside =
        source.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf();
    let searched: Vec<PathBuf> = std::iter::once(beside).chain(folders.iter().cloned()).collect();
    let mut archive = Vec::new();
    let mut packed: Vec<&str> = Vec::new();
    add(&mut archive, MANIFEST, dtb)?;
    for (place, name) in manifest::images(dtb) {
        if packed.contains(&name) {
            continue;
        }
        let Some(path) = searched.iter().map(|folder| folder.join(name)).find(|path| path.is_file()) else {
            let folders: Vec<String> = searched.iter().map(|folder| format!("\"{}\"", folder.display())).collect();
            missing.push(Diagnostic {
                place,
                what: format!("there is no file \"{name}\""),
                remedy: format!("correct the name or add -I DIR; searched in {}", folders.join(", ")),
            });
            continue;
        };
        add(&mut archive, name, &read(&path)?)?;
        packed.push(name);
    }
    cpio::finish(&mut archive);
    Ok(archive)
}

fn add(archive: &mut Vec<u8>, name: &str, data: &[u8]) -> Result<(), Failure> {
    cpio::append(archive, name, data).ok_or_else(|| Failure::Work(format!("{name}: too large for an archive")))
}

/// Opens a bundle and loads every image into nowhere, which finds what only unpacking shows.
fn open(archive: &[u8]) -> Result<(Bundle<'_>, Vec<Plan<'_>>), Vec<Diagnostic>> {
    let bundle = Bundle::open(archive, &Limits::ANY_BOARD)?;
    let mut workspace = Workspace::new();
    let plans = bundle.plan(RAM_BASE, &mut workspace)?;
    let mut errors = Vec::new();
    for (vm, plan) in bundle.vms.iter().zip(&plans) {
        if let Err(failure) = plan.load(&mut workspace, &mut Nowhere) {
            errors.push(Diagnostic {
                place: format!("/vms/{}/kernel", vm.name),
                what: failure.to_string(),
                remedy: "make or copy the file again".into(),
            });
        }
    }
    if errors.is_empty() { Ok((bundle, plans)) } else { Err(errors) }
}

struct Nowhere;

impl Sink for Nowhere {
    fn write(&mut self, _: Addr<Ipa>, _: &[u8]) -> Result<(), Short> {
        Ok(())
    }
    fn zero(&mut self, _: Addr<Ipa>, _: u64) -> Result<(), Short> {
        Ok(())
    }
}

/// One VM in a few lines.
fn describe(vm: &VmSpec<'_>, plan: &Plan<'_>) -> String {
    let mut lines = format!("{}: {} vCPUs, {}, {} shares", vm.name, vm.vcpus, Amount(vm.memory), vm.shares);
    let parts = plan.segments.iter().map(|part| (part.at.bits(), part.bytes + part.zeroes));
    let parts: Vec<String> = parts.map(|(at, bytes)| format!("{at:#x} to {:#x}", at + bytes)).collect();
    if let Some(format) = plan.format {
        lines += &format!("\n  kernel ({format}): {}", parts.join(", "));
    }
    lines += &format!("\n  entered at {}", plan.entry);
    if let Some(initrd) = plan.initrd {
        lines += &format!("\n  initrd: {} to {:#x}", initrd.start, initrd.end());
    }
    lines + &format!("\n  device tree: {} to {:#x}", plan.dtb, plan.dtb.bits() + DTB_ROOM)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::Work(format!("{}: {error}", path.display())))
}

fn in_words(file: &Path, errors: &[Diagnostic]) -> String {
    errors.iter().map(|error| format!("{}: {error}\n", file.display())).collect()
}
