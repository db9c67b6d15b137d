//! Blocks of a disk that begins as an image, against a disk of plain bytes: parts of them are written, read and cleared, while pages are
//! merged, put away and brought back, and the guest writes over what it was lent.

use crate::memory::{BOARD, BOARD_BYTES, layout, records};
use flatland::addr::{Addr, Ipa, Size};
use flatland::frames::hints::Match;
use flatland::frames::{Pool, SharedPool};
use flatland::machine::Machine;
use flatland::memory::blocks::{Loaded, Part, Pristine};
use flatland::memory::pack::Put;
use flatland::memory::share::PageClass;
use flatland::memory::{Granule, Layout, Memory, Miss, RAM_BASE};
use harness::model::{Dice, Flaw, Model};
use std::sync::atomic::Ordering::Relaxed;

/// The image's blocks, at the end of the board; the last is half there.
const BLOCKS: u64 = 24;
const IMAGE: u64 = BOARD + BOARD_BYTES - (BLOCKS << 12);
const RAM: u64 = 2 << 20;
/// Pages of RAM that are used as buffers.
const BUFFERS: u64 = 16;

struct World<'w> {
    model: &'w Model,
    pool: SharedPool<'w>,
    memory: Memory,
    image: Vec<u8>,
    /// What the disk and the buffers should hold.
    disk: Vec<u8>,
    buffers: Vec<u8>,
    dice: Dice,
    lent: u32,
    packed: u32,
    merged: u32,
}

impl World<'_> {
    fn block(n: u64) -> Addr<Ipa> {
        RAM_BASE + RAM + (n << 12)
    }

    /// A block, and a part of it that lies in the disk.
    fn part(&mut self) -> (u64, Part, usize) {
        let n = self.dice.below(BLOCKS);
        let most = (self.disk.len() - (n << 12) as usize).min(4096);
        let (offset, bytes) = match self.dice.below(3) {
            0 => (0, most),
            _ => {
                let offset = self.dice.below(most as u64) as usize;
                (offset, 1 + self.dice.below((most - offset) as u64) as usize)
            }
        };
        (n, Part { page: Self::block(n), offset, bytes }, (n << 12) as usize + offset)
    }

    fn pristine(image: &[u8], n: u64) -> Pristine<'_> {
        let from = (n << 12) as usize;
        let bytes = &image[from..image.len().min(from + 4096)];
        let frame = (bytes.len() == 4096).then(|| Addr::new(IMAGE + (n << 12)));
        // What may not be lent is copied, from its frame or not.
        Pristine { bytes, frame: frame.filter(|_| n % 7 != 6), is_lent: n % 5 != 4 }
    }

    /// Where in the buffers: mostly at the start of a page.
    fn buffer(&mut self, bytes: usize) -> usize {
        let at = self.dice.below((BUFFERS << 12) - bytes as u64);
        let at = if self.dice.one_in(3) { at } else { at & !4095 };
        at as usize
    }

    fn step(&mut self) {
        let (n, part, at) = self.part();
        let Part { bytes, .. } = part;
        let buffer = self.buffer(bytes);
        let guest = RAM_BASE + buffer as u64;
        let pristine = Self::pristine(&self.image, n);
        let (m, pool) = (self.model, &self.pool);
        // Every other block stays as it is in the image.
        let changes = n % 2 == 1;
        match self.dice.below(8) {
            0 | 1 if changes => {
                self.memory.store_block(m, pool, part, pristine, guest).unwrap();
                self.disk[at..at + bytes].copy_from_slice(&self.buffers[buffer..buffer + bytes]);
            }
            0..=4 => {
                let how = self.memory.load_block(m, pool, part, pristine, guest).unwrap();
                self.lent += u32::from(how == Loaded::Lent);
                self.buffers[buffer..buffer + bytes].copy_from_slice(&self.disk[at..at + bytes]);
            }
            5 if changes => {
                self.memory.clear_block(m, pool, part, pristine).unwrap();
                self.disk[at..at + bytes].fill(0);
            }
            5 | 6 => {
                // The guest writes to its memory, over what it was lent.
                let from: Vec<u8> = (0..bytes).map(|_| self.dice.roll() as u8 & 3).collect();
                self.memory.write(m, pool, guest, &from).unwrap();
                self.buffers[buffer..buffer + bytes].copy_from_slice(&from);
            }
            _ => self.reclaim(n),
        }
    }

    /// Merges or puts away a page, of RAM or behind that.
    fn reclaim(&mut self, n: u64) {
        let at = if self.dice.one_in(2) { Self::block(n) } else { RAM_BASE + (self.dice.below(BUFFERS) << 12) };
        let (m, pool) = (self.model, &self.pool);
        match self.dice.below(3) {
            0 => loop {
                match self.memory.evict(m, pool, at) {
                    Put::Begun => {}
                    put => {
                        self.packed += u32::from(put == Put::Packed);
                        return;
                    }
                }
            },
            1 => {
                let _ = self.memory.drop_zeroes(m, pool, at);
            }
            _ => {
                let blocks = (0..BLOCKS).map(Self::block);
                let pages: Vec<_> = (0..BUFFERS).map(|n| RAM_BASE + (n << 12)).chain(blocks).collect();
                pages.into_iter().for_each(|at| self.scan(at));
            }
        }
    }

    fn scan(&mut self, at: Addr<Ipa>) {
        let (m, pool) = (self.model, &self.pool);
        let PageClass::Same(found, hash) = self.memory.classify(m, pool, at) else { return };
        let frame = match found {
            Match::Shared(frame) => Some(frame),
            Match::Hint(_, page) => self.memory.freeze(m, pool, page, hash),
        };
        self.merged += u32::from(frame.is_some_and(|frame| self.memory.merge(m, pool, at, frame)));
    }

    fn compare(&mut self, step: u32) {
        let mut there = vec![0; self.buffers.len()];
        self.memory.read(self.model, &self.pool, RAM_BASE, &mut there).unwrap();
        assert!(there == self.buffers, "step {step}: the guest's memory");
        for n in 0..BLOCKS {
            let from = (n << 12) as usize;
            let end = self.disk.len().min(from + 4096);
            let part = Part { page: Self::block(n), offset: 0, bytes: end - from };
            let scratch = RAM_BASE + (BUFFERS << 12);
            let pristine = Self::pristine(&self.image, n);
            self.memory.load_block(self.model, &self.pool, part, pristine, scratch).unwrap();
            let mut there = vec![0; end - from];
            self.memory.read(self.model, &self.pool, scratch, &mut there).unwrap();
            assert!(there == self.disk[from..end], "step {step}: block {n}");
        }
        for (n, bytes) in (0..).zip(self.image.chunks(4096)) {
            let frame = self.model.frame(Addr::new(IMAGE + (n << 12)));
            let words = bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
            assert!(
                frame.iter().map(|word| word.load(Relaxed)).zip(words).all(|(a, b)| a == b),
                "the image is nobody's"
            );
        }
    }
}

#[test]
fn a_disk_is_its_image_and_what_was_written_since_whatever_becomes_of_its_pages() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 41, Flaw::None);
    let mut records = records();
    let mut pool = Pool::new(&mut records, &[(Addr::new(BOARD), BOARD_BYTES)]).unwrap();
    pool.donate((Addr::new(BOARD), BOARD_BYTES - (BLOCKS << 12)));
    let mut dice = Dice::new(4);
    // Some blocks are alike, some zero.
    let image: Vec<u8> = (0..(BLOCKS << 12) as usize - 2048)
        .map(|n| match n >> 12 {
            3 | 9 => 0,
            block => (block % 5 * 17 + n % 4096 / 16) as u8,
        })
        .collect();
    for (n, word) in (0..).zip(image.chunks_exact(8)) {
        let frame = model.frame(Addr::new(IMAGE + ((n * 8) & !4095)));
        frame[(n * 8 % 4096 / 8) as usize].store(u64::from_le_bytes(word.try_into().unwrap()), Relaxed);
    }
    assert_eq!(pool.adopt((Addr::new(IMAGE), BLOCKS << 12)), BLOCKS);
    let pool = SharedPool::new(pool, 7);
    let free = pool.lock().counts().free;
    let memory =
        Memory::new(&model, &pool, Layout { bytes: RAM, blocks: 2 << 20, ..layout(0, 32, Granule::Block) }).unwrap();
    let (disk, buffers) = (image.clone(), vec![0; (BUFFERS << 12) as usize]);
    let seed = dice.roll();
    let dice = Dice::new(seed);
    let mut world = World { model: &model, pool, memory, image, disk, buffers, dice, lent: 0, packed: 0, merged: 0 };
    for step in 0..6000 {
        world.step();
        if step % 200 == 0 {
            world.compare(step);
        }
    }
    let World { lent, packed, merged, .. } = world;
    assert!(lent > 100 && packed > 20 && merged > 5, "{lent} {packed} {merged}");
    outside(&mut world);
    let World { model, pool, mut memory, .. } = world;
    while !memory.is_released() {
        memory.release_some(model, &pool, &mut || true);
    }
    memory.start_anew();
    // As after power-on: the image, and nothing else.
    let part = Part { page: World::block(0), offset: 0, bytes: 4096 };
    let mut there = [0; 8];
    memory.load_block(model, &pool, part, World::pristine(&world.image, 0), RAM_BASE).unwrap();
    memory.read(model, &pool, RAM_BASE, &mut there).unwrap();
    assert_eq!(there, world.image[..8]);
    memory.retire(model, &pool);
    assert_eq!(pool.lock().counts().free, free, "all of it is given back");
    pool.lock().check().unwrap();
    assert_eq!(model.errors(), Vec::<String>::new());
}

/// What is no block, and what is no RAM, is refused.
fn outside(world: &mut World<'_>) {
    let (m, pool) = (world.model, &world.pool);
    let pristine = Pristine { bytes: &[], frame: None, is_lent: true };
    let end = RAM_BASE + RAM + (2 << 20);
    for (page, guest) in [
        (RAM_BASE, RAM_BASE),
        (end, RAM_BASE),
        (Addr::new(0), RAM_BASE),
        (World::block(0), World::block(1)),
        (World::block(0), World::block(0)),
        (World::block(0), end),
        (World::block(0), RAM_BASE + (RAM - 100)),
    ] {
        let part = Part { page, offset: 0, bytes: Size::Page.bytes() as usize };
        assert_eq!(world.memory.load_block(m, pool, part, pristine, guest), Err(Miss::NotRam), "{page} {guest}");
        assert_eq!(world.memory.store_block(m, pool, part, pristine, guest), Err(Miss::NotRam), "{page} {guest}");
    }
    let part = Part { page: RAM_BASE, offset: 0, bytes: 4096 };
    assert_eq!(world.memory.clear_block(m, pool, part, pristine), Err(Miss::NotRam));
}
