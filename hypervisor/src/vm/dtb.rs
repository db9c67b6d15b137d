//! Writing a flattened device tree (Devicetree Specification 0.4, chapter 5): nodes in memory, then bytes.
//!
//! By hand, though dtoolkit can: its model hashes and sorts, which costs 16 KiB of the hypervisor's 256.

use alloc::string::String;
use alloc::vec::Vec;

const MAGIC: u32 = 0xd00d_feed;
const VERSION: u32 = 17;
const COMPATIBLE: u32 = 16;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const END: u32 = 9;
/// The header's ten words, and the empty list of reservations behind it.
const HEADER: usize = 40;
const RESERVATIONS: usize = 16;

/// A node: its properties in the order in which they were set, then its children.
#[derive(Clone, Debug, Default)]
pub struct Node {
    name: String,
    properties: Vec<(&'static str, Vec<u8>)>,
    children: Vec<Node>,
}

/// What a property may be set to.
pub trait Value {
    /// Its bytes in a tree, behind `out`.
    fn append(&self, out: &mut Vec<u8>);
}

impl Value for u32 {
    fn append(&self, out: &mut Vec<u8>) {
        out.extend(self.to_be_bytes());
    }
}

impl Value for u64 {
    fn append(&self, out: &mut Vec<u8>) {
        out.extend(self.to_be_bytes());
    }
}

impl Value for &str {
    fn append(&self, out: &mut Vec<u8>) {
        out.extend(self.as_bytes());
        out.push(0);
    }
}

impl Value for u8 {
    fn append(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }
}

/// An address and a size, two cells each.
impl Value for (u64, u64) {
    fn append(&self, out: &mut Vec<u8>) {
        self.0.append(out);
        self.1.append(out);
    }
}

/// One after another.
impl<T: Value> Value for &[T] {
    fn append(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|value| value.append(out));
    }
}

impl Node {
    /// A node without anything.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Sets property `name`, which the node must not have yet.
    pub fn set(&mut self, name: &'static str, value: impl Value) {
        let mut bytes = Vec::new();
        value.append(&mut bytes);
        self.properties.push((name, bytes));
    }

    /// Adds a child.
    pub fn add(&mut self, child: Self) {
        self.children.push(child);
    }

    /// The tree whose root this is, flattened.
    pub fn flatten(&self) -> Vec<u8> {
        let mut structure = Vec::new();
        let mut strings = Strings(Vec::new());
        self.write(&mut structure, &mut strings);
        word(&mut structure, END);
        let at_structure = HEADER + RESERVATIONS;
        let at_strings = at_structure + structure.len();
        let total = at_strings + strings.0.len();
        let mut out = Vec::with_capacity(total);
        let header = [
            MAGIC as usize,
            total,
            at_structure,
            at_strings,
            HEADER,
            VERSION as usize,
            COMPATIBLE as usize,
            0,
            strings.0.len(),
            structure.len(),
        ];
        // A tree of ours is far below 4 GiB.
        header.iter().for_each(|&value| word(&mut out, value as u32));
        out.extend([0; RESERVATIONS]);
        out.extend(structure);
        out.extend(strings.0);
        out
    }

    fn write(&self, out: &mut Vec<u8>, strings: &mut Strings) {
        word(out, BEGIN_NODE);
        self.name.as_str().append(out);
        pad(out);
        for (name, value) in &self.properties {
            word(out, PROP);
            word(out, value.len() as u32);
            word(out, strings.offset(name));
            out.extend(value);
            pad(out);
        }
        for child in &self.children {
            child.write(out, strings);
        }
        word(out, END_NODE);
    }
}

/// The names of properties, each once.
struct Strings(Vec<u8>);

impl Strings {
    fn offset(&mut self, name: &str) -> u32 {
        let mut at = 0;
        for known in self.0.split(|&byte| byte == 0) {
            if known == name.as_bytes() {
                return at as u32;
            }
            at += known.len() + 1;
        }
        let at = self.0.len();
        name.append(&mut self.0);
        at as u32
    }
}

fn word(out: &mut Vec<u8>, value: u32) {
    out.extend(value.to_be_bytes());
}

/// To the next multiple of four.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}
