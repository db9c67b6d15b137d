//! The flash banks that a VM starts with.

use crate::addr::VmId;
use crate::bundle::{Diagnostic, VmSpec};
use crate::devices::flash::Bank;
use crate::frames::{Order, SharedPool, Use};
use crate::machine::Machine;
use alloc::format;
use alloc::string::String;
use arrayvec::ArrayVec;

/// How many frames the flash of a VM takes.
pub(super) fn frames(spec: &VmSpec<'_>) -> u64 {
    spec.flash.map_or(0, |images| images.iter().map(|image| Bank::bytes_for(image.len()) >> 12).sum())
}

/// Makes the banks that a VM starts with, which keep what is written until the board is turned off.
pub(super) fn banks<M: Machine>(
    m: &M,
    pool: &SharedPool<'static>,
    id: VmId,
    spec: &VmSpec<'_>,
) -> Result<ArrayVec<Bank, 2>, Diagnostic> {
    let mut banks = ArrayVec::new();
    for (image, is_writable) in spec.flash.iter().flatten().zip([false, true]) {
        let bytes = Bank::bytes_for(image.len());
        let order = Order::holding(bytes >> 12);
        let frame = order.and_then(|order| pool.lock().take(order, id, Use::Hypervisor)).ok_or_else(|| Diagnostic {
            place: format!("/vms/{}/flash", spec.name),
            what: format!("there are no {} KiB of RAM in one piece for it", bytes >> 10),
            remedy: String::from("give the board more RAM"),
        })?;
        // What lies behind the image is erased.
        let word = |n: u64| {
            let mut word = [0xff; 8];
            let from = image.get(n as usize * 8..).unwrap_or_default();
            word.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            u64::from_le_bytes(word)
        };
        banks.push(Bank::new(frame.fill(m, word).into_table(), bytes, is_writable));
    }
    Ok(banks)
}
