//! Filling a VM's memory: kernel, initrd and device tree, from the bundle, as often as it starts; in steps, between which
//! the CPU does what else there is to do.

use super::Host;
use crate::addr::{Addr, Ipa, Size, VmId};
use crate::bundle::gzip::Workspace;
use crate::bundle::image::{self, Failure, Loading, Sink};
use crate::machine::Machine;
use crate::vm::Vm;
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

/// What fills the memory of VMs, one at a time.
pub(super) struct Loader {
    /// Where compressed kernels are unpacked.
    workspace: Workspace,
    /// The VM whose images are half there.
    job: Option<(VmId, Loading)>,
}

impl Loader {
    /// One that has nothing to do.
    pub(super) const fn new(workspace: Workspace) -> Self {
        Self { workspace, job: None }
    }

    /// `vm` will not be loaded to the end: it is over.
    pub(super) fn forget(&mut self, vm: VmId) {
        if self.job.as_ref().is_some_and(|(of, _)| *of == vm) {
            self.job = None;
        }
    }

    /// The VM whose images are half there, if it is another than `vm`: what is left of them comes first, whoever does it.
    pub(super) fn other(&self, vm: VmId) -> Option<VmId> {
        self.job.as_ref().map(|(of, _)| *of).filter(|of| *of != vm)
    }

    /// Copies `vm`'s images until it `is_late`; whether that was all.
    fn copy(&mut self, vm: &Vm, into: &mut impl Sink, is_late: impl Fn() -> bool) -> Result<bool, Failure> {
        let Self { workspace, job } = self;
        let loading = match job {
            Some((_, loading)) => loading,
            None => &mut job.insert((vm.id, vm.plan.begin(workspace)?)).1,
        };
        while !vm.plan.step(loading, workspace, into)? {
            if is_late() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Fills `vm`'s memory until it `is_late`; returns where its first vCPU starts and with which X0, or nothing if there is
    /// more to do. The error is for the operator.
    pub(super) fn fill<M: Machine>(
        &mut self,
        host: &Host,
        m: &M,
        vm: &Vm,
        is_late: impl Fn() -> bool,
    ) -> Result<Option<(u64, u64)>, String> {
        let (plan, mut into) = (&vm.plan, Into { host, vm, m });
        if !self.copy(vm, &mut into, is_late).map_err(|failure| failure.to_string())? {
            return Ok(None);
        }
        into.write(plan.dtb, &vm.tree).map_err(|_| String::from("no memory is left for its device tree"))?;
        self.job = None;
        Ok(Some((plan.entry.bits(), plan.dtb.bits())))
    }
}
