//! A reader for the flattened device tree, as much as a test guest needs: one walk over all properties.
//!
//! Follows the Devicetree Specification 0.4, chapter 5. A broken tree ends the walk early; nothing panics.

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
const MAGIC: u32 = 0xd00d_feed;

/// A device tree in memory.
#[derive(Clone, Copy)]
pub struct Fdt<'a>(pub &'a [u8]);

/// A property and where it is: the names of the nodes at depth 1 and 2 (empty where the node is less deep).
pub struct Property<'a> {
    /// Name of the node below the root.
    pub node: &'a str,
    /// Name of the node below that.
    pub child: &'a str,
    /// Depth of the property's node: 0 is the root.
    pub depth: usize,
    /// Name of the property.
    pub name: &'a str,
    /// Its bytes.
    pub value: &'a [u8],
}

/// Reads a big-endian word.
pub fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    let four = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_be_bytes(four.try_into().ok()?))
}

/// Reads the text up to the first NUL.
pub fn text(bytes: &[u8]) -> &str {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    bytes.get(..end).and_then(|b| core::str::from_utf8(b).ok()).unwrap_or("")
}

/// Reads a number of one or two cells.
pub fn number(bytes: &[u8]) -> Option<u64> {
    match bytes.len() {
        4 => word(bytes, 0).map(u64::from),
        8 => Some(u64::from(word(bytes, 0)?) << 32 | u64::from(word(bytes, 4)?)),
        _ => None,
    }
}

/// Returns the size of the tree whose header `bytes` starts with.
pub fn total_size(header: &[u8]) -> Option<usize> {
    (word(header, 0)? == MAGIC).then_some(())?;
    usize::try_from(word(header, 4)?).ok()
}

impl<'a> Fdt<'a> {
    /// Calls `each` for every property, in order.
    pub fn walk(&self, mut each: impl FnMut(Property<'a>)) {
        let _ = self.try_walk(&mut each); // a broken tree ends the walk
    }

    fn try_walk(&self, each: &mut impl FnMut(Property<'a>)) -> Option<()> {
        let bytes = self.0;
        let mut at = usize::try_from(word(bytes, 8)?).ok()?;
        let strings = bytes.get(usize::try_from(word(bytes, 12)?).ok()?..)?;
        let mut path = [""; 3];
        let mut depth = 0usize; // nodes open, the root included
        loop {
            let token = word(bytes, at)?;
            at += 4;
            match token {
                BEGIN_NODE => {
                    let name = text(bytes.get(at..)?);
                    if let Some(slot) = path.get_mut(depth) {
                        *slot = name;
                    }
                    depth += 1;
                    at = (at + name.len() + 1).next_multiple_of(4);
                }
                END_NODE => depth = depth.checked_sub(1)?,
                PROP => {
                    let size = usize::try_from(word(bytes, at)?).ok()?;
                    let name = text(strings.get(usize::try_from(word(bytes, at + 4)?).ok()?..)?);
                    let value = bytes.get(at + 8..(at + 8).checked_add(size)?)?;
                    let part = |level: usize| if depth > level { path[level] } else { "" };
                    each(Property { node: part(1), child: part(2), depth: depth.checked_sub(1)?, name, value });
                    at = (at + 8 + size).next_multiple_of(4);
                }
                NOP => {}
                _ => return Some(()),
            }
        }
    }
}
