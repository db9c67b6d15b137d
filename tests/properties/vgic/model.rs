//! The reference: one struct per interrupt, and what the books say in plain words.

use flatland::arm::gic::Version;

/// One interrupt.
#[derive(Clone, Default, Debug)]
pub(super) struct Int {
    pub(super) latch: bool,
    pub(super) line: bool,
    pub(super) enabled: bool,
    pub(super) active: bool,
    pub(super) group1: bool,
    pub(super) edge: bool,
    pub(super) priority: u8,
    /// SPIs: to which vCPU.
    pub(super) target: Option<usize>,
    /// GICv2 SGIs: pending from whom.
    pub(super) sources: u8,
    /// Taken by this vCPU while its lists were known to be out of date: it may be seen as pending once more.
    pub(super) fuzzy: Option<usize>,
}

impl Int {
    pub(super) fn pending(&self) -> bool {
        self.latch || self.sources != 0 || self.line && !self.edge
    }
}

/// All interrupts of one VM.
pub(super) struct Model {
    pub(super) private: Vec<Vec<Int>>,
    pub(super) spis: Vec<Int>,
    pub(super) groups: u32,
}

impl Model {
    pub(super) fn new(version: Version, cpus: usize, spis: usize) -> Self {
        let sgi = Int { edge: true, enabled: version == Version::V2, ..Int::default() };
        let mut private = vec![sgi; 16];
        private.resize(32, Int::default());
        let target = (version == Version::V3 || cpus == 1).then_some(0);
        let spi = Int { target, ..Int::default() };
        Self { private: vec![private; cpus], spis: vec![spi; spis], groups: 0 }
    }

    pub(super) fn int(&mut self, cpu: usize, intid: usize) -> &mut Int {
        if intid < 32 { &mut self.private[cpu][intid] } else { &mut self.spis[intid - 32] }
    }

    /// Whether `cpu` may take it now, as far as the distributor goes.
    pub(super) fn takes(&self, cpu: usize, intid: usize) -> bool {
        let (int, mine) = match intid.checked_sub(32) {
            None => (&self.private[cpu][intid], true),
            Some(spi) => (&self.spis[spi], self.spis[spi].target == Some(cpu)),
        };
        let forwarded = self.groups >> u32::from(int.group1) & 1 != 0;
        mine && forwarded && int.pending() && int.enabled && !int.active
    }

    /// The most urgent priority of those groups that `cpu` may take now.
    pub(super) fn best(&self, cpu: usize, groups: u8) -> Option<u8> {
        let all = (0..32 + self.spis.len()).filter(|intid| self.takes(cpu, *intid));
        let ints = all.map(|id| if id < 32 { &self.private[cpu][id] } else { &self.spis[id - 32] });
        ints.filter(|int| groups >> u8::from(int.group1) & 1 != 0).map(|int| int.priority).min()
    }
}
