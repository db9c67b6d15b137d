//! What of a VM's images is in its memory already: kernel, initrd and device tree are copied in steps, between which the CPU does
//! what else there is to do.

use crate::addr::VmId;
use crate::bundle::gzip::Workspace;
use crate::bundle::image::{Failure, Loading, Sink};
use crate::vm::Vm;
use alloc::string::{String, ToString};

const NO_ROOM: &str = "no memory is left for its device tree";

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

    /// Fills `vm`'s memory, which is `into`, until it `is_late`; returns where its first vCPU starts and with which X0, or nothing
    /// if there is more to do. The error is for the operator.
    pub(super) fn fill(
        &mut self,
        vm: &Vm,
        into: &mut impl Sink,
        is_late: impl Fn() -> bool,
    ) -> Result<Option<(u64, u64)>, String> {
        if !self.copy(vm, into, is_late).map_err(|failure| failure.to_string())? {
            return Ok(None);
        }
        let plan = &vm.plan;
        if !into.prepare(plan.dtb, vm.tree.len() as u64).map_err(|_| String::from(NO_ROOM))? {
            return Ok(None);
        }
        into.write(plan.dtb, &vm.tree).map_err(|_| String::from(NO_ROOM))?;
        self.job = None;
        Ok(Some((plan.entry.bits(), plan.dtb.bits())))
    }
}
