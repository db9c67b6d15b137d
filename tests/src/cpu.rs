//! A CPU that a vCPU is loaded on: EL1's registers, both stages of translation over [`Model`], and the syndromes that
//! accesses leave with, as the Arm ARM has them where QEMU has not (D8.4 permissions, D24.2.40 ESR_EL2, D24.2.58 HPFAR_EL2).
//!
//! What HPFAR_EL2 does not say is garbage here, cache maintenance reports CM and WnR, and a translation of stage 1 may stay
//! in the TLB when its tables say something else, until it is forgotten.

use crate::model::Model;
use crate::script::Script;
use flatland::addr::{Addr, CpuId, IntId, Pa};
use flatland::arm::desc::{Desc, Rights};
use flatland::arm::el1::{Context, El1};
use flatland::arm::el2::El2Registers;
use flatland::arm::esr::{Access, ec};
use flatland::arm::exception::psr;
use flatland::arm::gic::Interface;
use flatland::arm::idreg::{IdRegs, Offer};
use flatland::arm::speculation::{Speculation, WORKAROUND_1};
use flatland::arm::vmsa::{Geometry, PaRange, VmidBits};
use flatland::bundle::{Bundle, Limits, MANIFEST, cpio, manifest};
use flatland::devices::entropy::Seed;
use flatland::exit;
use flatland::frames::{Pool, Record};
use flatland::host::Here;
use flatland::host::{Facts, Host};
use flatland::hwstate::nested::registers;
use flatland::machine::{Forget, Machine, Point, Whose, Words};
use flatland::memory::stage1::{self, End, Regime};
use flatland::next::Next;
use flatland::sched::Frequency;
use flatland::vcpu::nested::{Nested, hcr};
use flatland::vcpu::{Common, Vcpu, VcpuKind};
use flatland::vm::Gic;
use std::cell::{Cell, RefCell};
use std::sync::atomic::Ordering;

/// Where the board's RAM begins.
pub const BOARD: u64 = 0x8000_0000;
/// How much there is.
pub const BOARD_BYTES: u64 = 16 << 20;

/// A board with one VM of 4 MiB and two vCPUs, which starts at EL2 or not. ID registers are those of a CPU with everything,
/// AArch32 at EL0 included or not.
pub fn host(model: &Model, nested: bool, aarch32: bool) -> &'static Host {
    let board = BoardPlan { nested, ..BoardPlan::new(1, &["one"]) };
    build(model, &board, aarch32, &[("kernel", &[0; 64])])
}

/// The same with VMs of these names, and these images, by the keys of the manifest that name them.
pub fn host_of(model: &Model, names: &[&str], images: &[(&str, &[u8])]) -> &'static Host {
    build(model, &BoardPlan::new(1, names), false, images)
}

/// What there may be of a board.
#[derive(Clone, Copy, Debug)]
pub struct BoardPlan<'n> {
    /// How many CPUs.
    pub n_cpus: usize,
    /// Its VMs, of two vCPUs each.
    pub names: &'n [&'n str],
    /// Whether they start at EL2.
    pub nested: bool,
    /// How many list registers a CPU has.
    pub lists: u8,
    /// Its interrupt controller.
    pub gic: Gic,
    /// How many times longer than on a fast board all that EL2 does takes.
    pub slow: u64,
    /// Whether its VMs share their pages.
    pub merges: bool,
    /// Whether the bundle lies in the board's RAM, at its end, so that its pages can be lent.
    pub lends: bool,
    /// How much memory they have together, if that is less than their sizes, of 8 MiB then; nobody looks for equal pages.
    pub pool: Option<&'n str>,
    /// Further keys of each VM in the manifest, with their values as the device tree has them.
    pub keys: &'n [(&'n str, &'n [u8])],
}

impl<'n> BoardPlan<'n> {
    /// A fast board whose VMs have nothing in common: what a test is not about.
    pub const fn new(n_cpus: usize, names: &'n [&'n str]) -> Self {
        Self {
            n_cpus,
            names,
            nested: false,
            lists: 4,
            gic: Gic::V3,
            slow: 1,
            merges: false,
            lends: false,
            pool: None,
            keys: &[],
        }
    }
}

/// Has all VMs run, as if their images were loaded.
pub fn run_all(host: &Host) {
    for vm in &host.fleet.vms {
        vm.life.load();
        vm.life.run(0);
    }
}

/// Both parts of a vCPU that has an EL2.
pub fn split(vcpu: &mut Vcpu) -> (&mut Common, &mut Nested) {
    let Vcpu { common, kind: VcpuKind::Nested(nested) } = vcpu else { panic!("it has no EL2") };
    (common, nested)
}

/// The same as `board` has it, and an empty kernel.
pub fn host_on(model: &Model, board: &BoardPlan<'_>) -> &'static Host {
    build(model, board, false, &[("kernel", &[0; 64])])
}

/// The bundle of a board's VMs, each of which has all `files`, by the keys that name them.
pub fn bundle(board: &BoardPlan<'_>, files: &[(&str, &[u8])]) -> Vec<u8> {
    let BoardPlan { names, nested, merges, pool, keys, .. } = *board;
    use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
    let property = |key: &str, value: &str| DeviceTreeProperty::new(key, value).unwrap();
    let mut vms = DeviceTreeNode::new("vms").unwrap();
    for name in names {
        let mut vm = DeviceTreeNode::new(*name).unwrap();
        vm.add_property(property("memory", if pool.is_some() { "8M" } else { "4M" }));
        if pool.is_some() {
            vm.add_property(property("min", "2M"));
        }
        vm.add_property(DeviceTreeProperty::new("vcpus", 2_u32.to_be_bytes()).unwrap());
        files.iter().for_each(|(key, _)| vm.add_property(property(key, key)));
        if merges {
            vm.add_property(property("domain", "lab"));
        }
        keys.iter().for_each(|(key, value)| vm.add_property(DeviceTreeProperty::new(*key, *value).unwrap()));
        if nested {
            vm.add_property(DeviceTreeProperty::new("nested", [0_u8; 0]).unwrap());
        }
        vms.add_child(vm);
    }
    let mut tree = DeviceTree::new();
    tree.root.add_property(property("compatible", manifest::COMPATIBLE));
    tree.root.add_child(vms);
    if let Some(pool) = pool {
        let mut policy = DeviceTreeNode::new("policy").unwrap();
        policy.add_property(property("pool", pool));
        policy.add_property(DeviceTreeProperty::new("scan-cpu", 0_u32.to_be_bytes()).unwrap());
        tree.root.add_child(policy);
    }
    let mut archive = Vec::new();
    cpio::append(&mut archive, MANIFEST, &tree.to_dtb()).unwrap();
    files.iter().for_each(|(key, file)| cpio::append(&mut archive, key, file).unwrap());
    cpio::finish(&mut archive);
    archive
}

/// Whether such a board can be; the first thing that is wrong.
pub fn try_host(model: &Model, board: &BoardPlan<'_>, files: &[(&str, &[u8])]) -> Result<&'static Host, String> {
    build_of(model, board, false, bundle(board, files).leak())
}

fn build(model: &Model, board: &BoardPlan<'_>, aarch32: bool, files: &[(&str, &[u8])]) -> &'static Host {
    build_of(model, board, aarch32, bundle(board, files).leak()).unwrap()
}

fn build_of(
    model: &Model,
    board: &BoardPlan<'_>,
    aarch32: bool,
    images: &'static [u8],
) -> Result<&'static Host, String> {
    let BoardPlan { n_cpus, lists, gic, lends, .. } = *board;
    let records = vec![Record::RESERVED; (BOARD_BYTES / 4096) as usize].leak();
    let ram = [(Addr::new(BOARD), BOARD_BYTES)];
    let mut pool = Pool::new(records, &ram).unwrap();
    let at = if lends { BOARD_BYTES - (images.len() as u64).next_multiple_of(4096) } else { BOARD_BYTES };
    pool.donate((Addr::new(BOARD), at));
    let start = if lends { BOARD + at } else { 0 };
    for (n, word) in (0..).zip(images.chunks(8)).filter(|_| lends) {
        let mut bytes = [0; 8];
        bytes[..word.len()].copy_from_slice(word);
        model.cached_store(Addr::new(start + n * 8), u64::from_le_bytes(bytes));
    }
    let raw = |crm, op2| match (crm, op2) {
        (4, 0) => {
            if aarch32 {
                0x12
            } else {
                0x11
            }
        }
        (7, 1) => 3 << 20,
        (7, 2) => 2 << 24,
        _ => 0,
    };
    let pa_range = PaRange::from_mmfr0(4);
    let ids = IdRegs::new(raw, Offer { gic_registers: true, pa_range: 4 });
    let mut entropy = Seed::default();
    entropy.add(&[7; 32], 256);
    let facts = Facts {
        n_cpus,
        gic,
        gicv: None,
        lists,
        pa_range,
        vmid_bits: VmidBits::Eight,
        el0_ids: ids.at_el0(),
        nested_ids: ids.nested(raw(7, 2)),
        ids,
        midr: 0x410f_d083,
        // A Cortex-A72 whose firmware has ARCH_WORKAROUND_1 and no other.
        speculation: Speculation::assess(0x410f_d083, raw, |function| if function == WORKAROUND_1 { 0 } else { -1 }),
        frequency: Frequency::new(62_500_000).unwrap(),
        own_bytes: 0,
        seed: 1,
        entropy,
        images: (images, Addr::new(start)),
    };
    let bundle = Bundle::open(images, &Limits::ANY_BOARD).unwrap();
    let host = Host::build(model, pool, facts, bundle).map_err(|errors| errors[0].to_string())?;
    Ok(Box::leak(Box::new(host)))
}

/// What there is on the console by now; it is gone then.
pub fn shown(host: &Host) -> String {
    let mut out = String::new();
    host.console.lock().drain(|byte| {
        out.push(char::from(byte));
        true
    });
    out
}

/// What an instruction wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// A load.
    Read,
    /// A store, DC ZVA among them.
    Write,
    /// A read-modify-write: for what a read would have had as well it reports a read.
    Atomic,
    /// A load or store as EL0 has it, though at EL1 (LDTR, STTR).
    ReadAsUser,
    /// See [`Op::ReadAsUser`].
    WriteAsUser,
    /// An instruction fetch.
    Fetch,
    /// DC CVAC, CVAU, CIVAC; IC IVAU: a read at EL0, no permission at all at EL1.
    Clean,
    /// DC IVAC, at EL1 alone: needs what a store does.
    Invalidate,
}

impl Op {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Read,
        Self::Write,
        Self::Atomic,
        Self::ReadAsUser,
        Self::WriteAsUser,
        Self::Fetch,
        Self::Clean,
        Self::Invalidate,
    ];

    const fn is_maintenance(self) -> bool {
        matches!(self, Self::Clean | Self::Invalidate)
    }

    /// What it takes.
    fn needs(self, user: bool) -> Rights {
        match self {
            Self::Read | Self::ReadAsUser => Rights::R,
            Self::Write | Self::WriteAsUser | Self::Invalidate => Rights::W,
            Self::Atomic => Rights::R | Rights::W,
            Self::Fetch => Rights::X,
            Self::Clean if user => Rights::R,
            Self::Clean => Rights::NONE,
        }
    }
}

/// How an access ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was done, there.
    Done(Addr<Pa>),
    /// It is the guest's own fault, by its stage 1.
    Own,
    /// It is an exit; the vCPU's registers say which.
    Exit,
}

/// Fault status codes at level 3.
const TRANSLATION: u64 = 0b00_0111;
const PERMISSION: u64 = 0b00_1111;
const SIZE_ALIGNED: u64 = 0x000f_ffff_ffff_f000;

/// The CPU.
pub struct Cpu<'m> {
    /// Its memory.
    pub model: &'m Model,
    geometry: Cell<Option<Geometry>>,
    el1: RefCell<Context>,
    el2: Cell<Option<El2Registers>>,
    /// A translation of stage 1 that is in the TLB: page and descriptor.
    stale: Cell<Option<(u64, u64)>>,
    /// PAN of the access, as the vCPU's PSTATE has it.
    pan: Cell<bool>,
    /// List registers and ICH_HCR_EL2. The guest on it plays on them; its interface lets everything through.
    pub lists: RefCell<([u64; 16], u32)>,
    time: Cell<u64>,
    /// ICH_VTR_EL2.
    pub vtr: Cell<u64>,
    /// Whether debug registers were loaded, and whether for EL2, since a test set this.
    pub armed: Cell<Option<bool>>,
    /// How many ticks go by from one look at the counter to the next: none unless a test wants it.
    pub pace: Cell<u64>,
    /// What happens on it under a run loop.
    pub script: Script,
}

/// What a walk of stage 1 found.
enum Walked {
    Page(u64, u64),
    Own,
    /// A table is not to be had at stage 2: its address, the status.
    Table(u64, u64),
}

impl<'m> Cpu<'m> {
    /// A CPU that nobody is loaded on.
    pub fn new(model: &'m Model) -> Self {
        Self {
            model,
            time: Cell::new(0),
            pace: Cell::new(0),
            script: Script::default(),
            vtr: Cell::new(0),
            armed: Cell::new(None),
            geometry: Cell::new(None),
            el1: RefCell::new(Context::reset()),
            el2: Cell::new(None),
            stale: Cell::new(None),
            pan: Cell::new(false),
            lists: RefCell::new(([0; 16], 0)),
        }
    }

    /// Lets so many ticks go by at once.
    pub fn pass(&self, ticks: u64) {
        self.time.set(self.time.get() + ticks);
    }

    /// Loads the vCPU that is `here`.
    pub fn load(&self, here: Here<'_>, vcpu: &Vcpu) {
        self.geometry.set(Some(here.vm.memory.lock().layout().geometry));
        here.slot.running.store(0, Ordering::Relaxed);
        self.be(&vcpu.saved, &registers::el2_registers(here, self, vcpu, CpuId(0)));
    }

    /// Has these registers.
    pub(crate) fn be(&self, context: &Context, el2: &El2Registers) {
        self.el1.replace(context.clone());
        self.assume(el2);
    }

    /// EL1's registers.
    pub(crate) fn context(&self) -> Context {
        self.el1.borrow().clone()
    }

    fn assume(&self, el2: &El2Registers) {
        self.el2.set(Some(*el2));
        if let Some(geometry) = self.geometry.get() {
            self.model.enter(CpuId(0), el2.vttbr, geometry);
        }
    }

    /// HCR_EL2, as far as it is about exception levels and translation.
    pub fn hcr(&self) -> u64 {
        let more = self.el2.get().and_then(|el2| el2.nested).map_or(0, |traps| traps.hcr);
        hcr::RW | hcr::VM | more
    }

    /// Has the TLB keep a descriptor of stage 1 for the page at `va`.
    pub fn keep_stale(&self, va: u64, word: u64) {
        self.stale.set(Some((va & !0xfff, word)));
    }

    /// Whether an ERET at EL2 to this PSTATE is legal and leads to EL1 or EL0 (Arm ARM D1.4.4, J1.1 ELFromSPSR,
    /// AArch64.IllegalExceptionReturn).
    pub fn may_enter(&self, pstate: u64, aarch32: bool) -> bool {
        match pstate & psr::MODE {
            psr::EL0T => true,
            psr::EL1T | psr::EL1H => self.hcr() & hcr::TGE == 0,
            psr::AARCH32 => aarch32,
            _ => false,
        }
    }

    /// The leaf of stage 2.
    fn stage2(&self, ipa: u64) -> Option<(Addr<Pa>, Rights)> {
        match self.model.translation(CpuId(0), Addr::new(ipa))? {
            (pa, Desc::Leaf(_, attr)) => Some((pa, attr.rights)),
            _ => None,
        }
    }

    fn walk(&self, va: u64) -> Walked {
        let regime = Regime {
            ttbr0: self.get(El1::Ttbr0),
            ttbr1: self.get(El1::Ttbr1),
            tcr: self.get(El1::Tcr),
            sctlr: if self.hcr() & (hcr::TGE | 1 << 12) != 0 { 0 } else { self.get(El1::Sctlr) },
        };
        let mut missed = None;
        let walk = stage1::walk(&regime, Addr::new(va), |table| match self.stage2(table.bits()) {
            Some((pa, rights)) if rights.allows(Rights::R) => Some(self.model.cached(pa)),
            found => {
                missed = Some((table.bits(), if found.is_some() { PERMISSION } else { TRANSLATION }));
                None
            }
        });
        if let Some((table, status)) = missed {
            return Walked::Table(table, status);
        }
        match walk.end {
            // EL1 and EL0 may do anything.
            End::Off => Walked::Page(va, 1 << 6),
            End::Output(ipa) => Walked::Page(ipa.bits(), walk.steps.last().and_then(|step| step.word).unwrap_or(0)),
            _ => Walked::Own,
        }
    }

    /// Whether a descriptor of stage 1 lets EL1, or EL0, have this.
    fn allows(&self, word: u64, needs: Rights, user: bool, is_data: bool) -> bool {
        let (for_user, read_only) = (word >> 6 & 1 != 0, word >> 7 & 1 != 0);
        let never = word >> if user { 54 } else { 53 } & 1 != 0 || !user && for_user && !read_only;
        // PAN is about data alone, and not about what is done as EL0 does.
        let barred = if user { !for_user } else { for_user && self.pan.get() && is_data };
        let denied = |right: Rights| match right {
            Rights::R => barred,
            Rights::W => barred || read_only,
            _ => never,
        };
        [Rights::R, Rights::W, Rights::X].into_iter().all(|right| !needs.allows(right) || !denied(right))
    }

    /// Does an access at `va` by `vcpu`; where it is an exit its registers say so as the hardware would.
    pub fn access(&self, vcpu: &mut Vcpu, op: Op, va: u64) -> Outcome {
        let pstate = vcpu.registers.pstate;
        let at_el0 = pstate & psr::MODE == psr::EL0T || pstate & psr::AARCH32 != 0;
        let user = at_el0 || matches!(op, Op::ReadAsUser | Op::WriteAsUser);
        self.pan.set(pstate & psr::PAN != 0);
        let needs = op.needs(at_el0);
        let leave = |vcpu: &mut Vcpu, status: u64, walk: Option<u64>, ipa: Option<u64>, writes: bool| {
            let class = if op == Op::Fetch { ec::IABT_LOWER } else { ec::DABT_LOWER };
            let maintenance = if op.is_maintenance() { 1 << 8 | 1 << 6 } else { 0 };
            let wnr = if writes && op != Op::Fetch { 1 << 6 } else { 0 };
            let s1ptw = if walk.is_some() { 1 << 7 } else { 0 };
            vcpu.registers.esr = class << 26 | 1 << 25 | maintenance | wnr | s1ptw | status;
            vcpu.registers.far = va;
            vcpu.registers.hpfar = ipa.or(walk).map_or(0x5555_5550, |ipa| ipa >> 12 << 4);
            Outcome::Exit
        };
        let kept = self.stale.get().filter(|(page, _)| *page == va & !0xfff);
        let walked = match kept {
            Some((_, word)) => Walked::Page(word & SIZE_ALIGNED & 0xffff_ffff_ffff | va & 0xfff, word),
            None => self.walk(va),
        };
        let (ipa, word) = match walked {
            Walked::Page(ipa, word) => (ipa, word),
            Walked::Own => return Outcome::Own,
            Walked::Table(table, status) => {
                return leave(vcpu, status, Some(table), None, matches!(op, Op::Write | Op::WriteAsUser));
            }
        };
        if !self.allows(word, needs, user, op != Op::Fetch && !op.is_maintenance()) {
            return Outcome::Own;
        }
        let Some((pa, rights)) = self.stage2(ipa) else {
            return leave(vcpu, TRANSLATION, None, Some(ipa), matches!(op, Op::Write | Op::WriteAsUser));
        };
        if rights.allows(needs) {
            return Outcome::Done(pa);
        }
        let writes = needs.allows(Rights::W) && (op != Op::Atomic || rights.allows(Rights::R));
        leave(vcpu, PERMISSION, None, None, writes)
    }

    /// Does an access until it is done or somebody gets to know. The number of exits it took, and what became of it:
    /// nothing where the guest would never get on.
    pub fn insist(&self, here: Here<'_>, vcpu: &mut Vcpu, op: Op, va: u64) -> (u32, Option<(Outcome, Next)>) {
        /// The most exits an access may take: tables at each level, the page, its rights.
        const MOST: u32 = 16;
        let at = vcpu.registers.pc;
        for exits in 0..MOST {
            match self.access(vcpu, op, va) {
                Outcome::Exit => {}
                end => return (exits, Some((end, Next::Resume))),
            }
            let next = exit::handle(here, self, vcpu);
            if next != Next::Resume || vcpu.registers.pc != at {
                return (exits + 1, Some((Outcome::Exit, next)));
            }
        }
        (MOST, None)
    }
}

// EL1's registers and AT are this CPU's, the rest is the model's.
impl Machine for Cpu<'_> {
    fn is_interrupt_pending(&self) -> bool {
        self.script.waits(self.time.get())
    }

    fn load(&self, at: Addr<Pa>) -> u64 {
        self.model.load(at)
    }

    fn store(&self, at: Addr<Pa>, value: u64) {
        self.model.store(at, value);
    }

    fn frame(&self, frame: Addr<Pa>) -> &Words {
        self.model.frame(frame)
    }

    fn zero(&self, start: Addr<Pa>, frames: u64) {
        self.model.zero(start, frames);
    }

    fn publish(&self) {
        self.model.publish();
    }

    fn invalidate_instructions(&self) {
        self.model.invalidate_instructions();
    }

    fn forget(&self, what: Forget) {
        self.stale.set(None);
        self.model.forget(what);
    }

    fn clean(&self, start: Addr<Pa>, bytes: u64, point: Point) {
        self.model.clean(start, bytes, point);
    }

    fn get(&self, register: El1) -> u64 {
        self.el1.borrow().get(register)
    }

    fn set(&self, register: El1, value: u64) {
        self.el1.borrow_mut().set(register, value);
    }

    fn exchange(&self, off: &mut Context, on: &Context, el2: &El2Registers) {
        *off = self.el1.replace(on.clone());
        self.assume(el2);
    }

    fn load_debug(&self, _debug: &flatland::arm::debug::Debug, at_el2: bool) {
        self.armed.set(Some(at_el2));
    }

    fn has_abort(&self) -> bool {
        false
    }

    fn forget_stage1(&self) {
        self.stale.set(None);
    }

    fn probe(&self, va: u64, access: Access, whose: Whose) -> u64 {
        let (needs, pan) = (access.rights(), self.pan.replace(whose == Whose::El1Pan));
        // It walks: that it finds what is in the TLB is not promised.
        let par = match self.walk(va) {
            Walked::Page(ipa, word) if self.allows(word, needs, whose == Whose::El0, true) => ipa & SIZE_ALIGNED,
            Walked::Page(..) => 1 | PERMISSION << 1,
            Walked::Own => 1 | TRANSLATION << 1,
            Walked::Table(_, status) => 1 | 1 << 8 | 1 << 9 | status << 1,
        };
        self.pan.set(pan);
        par
    }

    fn caches(&self) -> [u64; 2] {
        [0x0a20_0023, 0x1234_0000 | self.get(El1::Csselr)]
    }

    fn el0_vectors(&self) -> &[u32] {
        self.model.el0_vectors()
    }

    fn instruction(&self, va: u64) -> Option<u32> {
        let Walked::Page(ipa, _) = self.walk(va) else { return None };
        let (pa, _) = self.stage2(ipa & !7)?;
        // Half a word.
        Some((self.model.cached(pa) >> (va % 8 * 8)) as u32)
    }

    fn now(&self) -> u64 {
        self.time.set(self.time.get() + self.pace.get());
        self.time.get()
    }

    fn signal(&self, cpu: CpuId) {
        self.model.signal(cpu);
    }

    fn nudge(&self, cpu: CpuId) {
        self.model.nudge(cpu);
    }

    fn read_lists(&self, lr: &mut [u64]) -> u32 {
        let lists = self.lists.borrow();
        lr.copy_from_slice(&lists.0[..lr.len()]);
        lists.1
    }

    fn write_lists(&self, lr: &[u64], control: u32) {
        let mut lists = self.lists.borrow_mut();
        lists.0[..lr.len()].copy_from_slice(lr);
        lists.1 = control;
    }

    fn interface_type(&self) -> u64 {
        self.vtr.get()
    }

    fn load_interface(&self, interface: &Interface) {
        self.model.load_interface(interface);
    }

    fn save_interface(&self, interface: &mut Interface, lists: usize) {
        self.model.save_interface(interface, lists);
    }

    fn interface(&self) -> u64 {
        /// ICH_VMCR_EL2: all priorities, both groups.
        const OPEN: u64 = 0xf8 << 24 | 3;
        OPEN
    }

    fn release(&self, intid: IntId) {
        self.model.release(intid);
    }

    fn swap_blocks(&self) -> u32 {
        self.model.swap_blocks()
    }

    fn swap_out(&self, block: u32, frame: Addr<Pa>) -> bool {
        self.model.swap_out(block, frame)
    }

    fn swap_in(&self, block: u32, frame: Addr<Pa>) -> bool {
        self.model.swap_in(block, frame)
    }
}
