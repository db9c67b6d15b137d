//! Filling a VM's memory: kernel, initrd and device tree, from the bundle, as often as it starts.

use super::Host;
use crate::addr::{Addr, Ipa, Size};
use crate::bundle::image::{self, Sink};
use crate::bundle::place::{self, Ram};
use crate::devices::{self, flash::Bank};
use crate::machine::Machine;
use crate::vm::Vm;
use crate::vm::tree::Description;
use alloc::string::{String, ToString};

const PAGE: usize = 4096;

/// A VM's memory as the image loader sees it.
struct Into<'a, M: Machine> {
    host: &'a Host,
    vm: &'a Vm,
    m: &'a M,
}

impl<M: Machine> Sink for Into<'_, M> {
    fn write(&mut self, at: Addr<Ipa>, bytes: &[u8]) -> Result<(), image::Short> {
        for (n, page) in (0..).zip(bytes.chunks(PAGE)) {
            let at = at + n * PAGE as u64;
            if !self.lend(at, page) {
                self.copy(at, page)?;
            }
        }
        Ok(())
    }

    fn zero(&mut self, at: Addr<Ipa>, bytes: u64) -> Result<(), image::Short> {
        // Memory is zero from birth, but an image may be followed by room that shares a page with it.
        let zero = || self.vm.memory.lock().zero(self.m, &self.host.pool, at, bytes);
        self.host.with_relief(self.m, zero).map_err(|_| image::Short { at })?;
        self.vm.memory.lock().clean(self.m, at, bytes);
        Ok(())
    }
}

impl<M: Machine> Into<'_, M> {
    fn copy(&self, at: Addr<Ipa>, bytes: &[u8]) -> Result<(), image::Short> {
        let write = || self.vm.memory.lock().write(self.m, &self.host.pool, at, bytes);
        self.host.with_relief(self.m, write).map_err(|_| image::Short { at })?;
        // A guest starts with its MMU and caches off: what it reads then is what has reached the point of coherency.
        self.vm.memory.lock().clean(self.m, at, bytes.len() as u64);
        Ok(())
    }

    /// Lets the page at `at` be the bundle's own page that holds `bytes`, until the guest writes to it. False if they are
    /// not a whole page there, or the VM does not merge.
    fn lend(&self, at: Addr<Ipa>, bytes: &[u8]) -> bool {
        let (images, start) = self.host.images;
        if !self.vm.merges || bytes.len() != PAGE || !at.is_aligned(Size::Page) {
            return false;
        }
        // Where the bytes lie in the bundle says where they are in physical memory.
        let offset = (bytes.as_ptr().addr()).wrapping_sub(images.as_ptr().addr());
        if offset > images.len() - PAGE.min(images.len()) {
            return false;
        }
        let frame = start + offset as u64;
        frame.is_aligned(Size::Page) && self.vm.memory.lock().lend(self.m, &self.host.pool, at, frame)
    }
}

/// Fills `vm`'s memory; returns where its first vCPU starts and with which X0. The error is for the operator.
pub(super) fn fill<M: Machine>(host: &Host, m: &M, vm: &Vm) -> Result<(u64, u64), String> {
    let mut workspace = host.workspace.lock();
    let plan = vm
        .spec
        .plan(devices::RAM, &mut workspace)
        .map_err(|errors| errors.first().map_or_else(|| String::from("its images do not fit"), ToString::to_string))?;
    let mut into = Into { host, vm, m };
    plan.load(&mut workspace, &mut into).map_err(|failure| failure.to_string())?;
    let tree = Description {
        name: &vm.name,
        ram: Ram { base: devices::RAM, bytes: vm.spec.memory },
        vcpus: vm.spec.vcpus,
        gic: vm.gic,
        initrd: plan.initrd,
        bootargs: vm.spec.bootargs,
        // The balloon.
        virtio: 1,
        nested: vm.spec.nested,
        flash: vm.spec.flash.map(|images| images.map(|image| Bank::bytes_for(image.len()))),
        seed: &[],
    }
    .build();
    if tree.len() as u64 > place::DTB_ROOM {
        return Err(String::from("its device tree is too long; shorten its bootargs"));
    }
    into.write(plan.dtb, &tree).map_err(|_| String::from("no memory is left for its device tree"))?;
    Ok((plan.entry.bits(), plan.dtb.bits()))
}
