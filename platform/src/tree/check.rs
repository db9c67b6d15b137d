//! Checking a flattened device tree before crate `fdt` reads it.
//!
//! `fdt` 0.1.5 panics on most damaged trees: it slices by offsets it has not looked at, expects every name to end and to
//! be UTF-8, keeps 64 parents at most, asserts the order of tokens, and expects four bytes in every `#address-cells` and
//! `#size-cells`. [`check`] accepts exactly the trees on which none of that can happen. It is one bounded pass without
//! recursion: each token is looked at once, names are at most [`NAME_LIMIT`] bytes long.
//!
//! FDT_NOP is valid in a tree, and QEMU's `raspi4b` blanks out nodes with it, but `fdt` stumbles over it. [`tidy`] closes
//! the gaps in place; [`check`] then refuses what is left.
//!
//! Follows the Devicetree Specification v0.4, chapter 5 (flattened format, versions 16 and 17) and section 2.2.1 (names).

use core::fmt;

/// How deep nodes may nest, the root counted. Board trees use six levels; `fdt` recurses once per level.
pub const DEPTH_LIMIT: usize = 16;
/// How long the name of a node or a property may be, in bytes.
pub const NAME_LIMIT: usize = 255;
/// How large a tree may be, in bytes: the arm64 boot protocol allows 2 MiB.
pub const SIZE_LIMIT: usize = 2 << 20;

const HEADER: usize = 40;
const MAGIC: u32 = 0xd00d_feed;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// Says what is wrong with a flattened device tree, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TreeError {
    /// How many bytes into the tree the fault lies.
    pub offset: usize,
    /// What is wrong there.
    pub what: &'static str,
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device tree, byte {:#x}: {}", self.offset, self.what)
    }
}

const fn fault<T>(offset: usize, what: &'static str) -> Result<T, TreeError> {
    Err(TreeError { offset, what })
}

fn word(blob: &[u8], at: usize) -> Option<u32> {
    let bytes = blob.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

fn field(blob: &[u8], at: usize) -> Result<usize, TreeError> {
    match word(blob, at).map(usize::try_from) {
        Some(Ok(value)) => Ok(value),
        _ => fault(at, "the header is cut short"),
    }
}

/// Reads how many bytes the tree takes that starts with these (at least 8) bytes, so that its owner can make a slice.
///
/// Fails where no tree starts here or its size is beyond [`SIZE_LIMIT`]: the boot loader's fault.
pub fn blob_size(start: &[u8]) -> Result<usize, TreeError> {
    if word(start, 0) != Some(MAGIC) {
        return fault(0, "no device tree starts here (the magic number is missing)");
    }
    match field(start, 4)? {
        HEADER..=SIZE_LIMIT => field(start, 4),
        _ => fault(4, "the tree claims to be smaller than its header or larger than 2 MiB"),
    }
}

/// Where the parts of a tree lie; every part is known to be inside the blob.
struct Parts<'a> {
    blob: &'a [u8],
    structure: core::ops::Range<usize>,
    strings: &'a [u8],
}

fn parts(blob: &[u8]) -> Result<Parts<'_>, TreeError> {
    let size = blob_size(blob)?;
    let Some(blob) = blob.get(..size) else {
        return fault(4, "the tree is larger than the memory it was found in");
    };
    if field(blob, 20)? < 17 || field(blob, 24)? > 17 {
        return fault(20, "the tree is not of version 17");
    }
    let (start, strings, reservations) = (field(blob, 8)?, field(blob, 12)?, field(blob, 16)?);
    let structure = match start.checked_add(field(blob, 36)?) {
        Some(end) if start >= HEADER && start % 4 == 0 && end <= size => start..end,
        _ => return fault(8, "the structure block does not fit into the tree"),
    };
    let strings = match strings.checked_add(field(blob, 32)?).and_then(|end| blob.get(strings..end)) {
        Some(block) if strings >= HEADER => block,
        _ => return fault(12, "the strings block does not fit into the tree"),
    };
    check_reservations(blob, reservations)?;
    Ok(Parts { blob, structure, strings })
}

fn check_reservations(blob: &[u8], start: usize) -> Result<(), TreeError> {
    let Some(block) = blob.get(start..).filter(|_| start >= HEADER && start.is_multiple_of(8)) else {
        return fault(16, "the memory reservation block does not fit into the tree");
    };
    if block.chunks_exact(16).any(|entry| entry.iter().all(|&byte| byte == 0)) {
        Ok(())
    } else {
        fault(start, "the memory reservation block has no end")
    }
}

/// One token of the structure block.
enum Token<'a> {
    Begin(&'a [u8]),
    Prop { name: usize, length: usize },
    EndNode,
    Nop,
    End,
}

/// Reads the token at `at`, and where the next one starts. `blob` reaches up to the end of the structure block.
fn token(blob: &[u8], at: usize) -> Result<(Token<'_>, usize), TreeError> {
    let padded = |length: usize| match at.checked_add(length).and_then(|end| end.checked_next_multiple_of(4)) {
        Some(next) if next <= blob.len() => Ok(next),
        _ => fault(at, "a node's name or a property's value reaches past the structure block"),
    };
    let Some(kind) = word(blob, at) else {
        return fault(at, "the structure block ends without FDT_END");
    };
    match kind {
        BEGIN_NODE => {
            let name = terminated(blob.get(at + 4..).unwrap_or_default());
            let Some(name) = name else {
                return fault(at, "a node's name has no end or is too long");
            };
            Ok((Token::Begin(name), padded(4 + name.len() + 1)?))
        }
        PROP => {
            let (Some(length), Some(name)) = (word(blob, at + 4), word(blob, at + 8)) else {
                return fault(at, "a property is cut short");
            };
            let (Ok(length), Ok(name)) = (usize::try_from(length), usize::try_from(name)) else {
                return fault(at, "a property is too large");
            };
            let next = length.checked_add(12).map_or_else(|| fault(at, "a property is too large"), padded)?;
            Ok((Token::Prop { name, length }, next))
        }
        END_NODE => Ok((Token::EndNode, at + 4)),
        NOP => Ok((Token::Nop, at + 4)),
        END => Ok((Token::End, at + 4)),
        _ => fault(at, "unknown token in the structure block"),
    }
}

impl<'a> Parts<'a> {
    fn property_name(&self, at: usize, offset: usize) -> Result<&'a [u8], TreeError> {
        match self.strings.get(offset..).and_then(terminated) {
            Some(name) if !name.is_empty() && name.iter().all(u8::is_ascii_graphic) => Ok(name),
            _ => fault(at, "a property's name is not a printable string of the strings block"),
        }
    }
}

/// The bytes before the first zero byte, if that comes soon enough.
fn terminated(bytes: &[u8]) -> Option<&[u8]> {
    let length = bytes.iter().take(NAME_LIMIT + 1).position(|&byte| byte == 0)?;
    bytes.get(..length)
}

/// Whether FDT_NOP is let pass.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nops {
    Refuse,
    Pass,
}

/// Checks that crate `fdt` can read the tree without panicking, and returns the tree cut to its own size.
///
/// Fails at the first fault, which is the boot loader's. A tree that fails only for its FDT_NOPs wants [`tidy`].
pub fn check(blob: &[u8]) -> Result<&[u8], TreeError> {
    let parts = parts(blob)?;
    check_structure(&parts, Nops::Refuse)?;
    Ok(parts.blob)
}

fn check_structure(parts: &Parts<'_>, nops: Nops) -> Result<(), TreeError> {
    let blob = parts.blob.get(..parts.structure.end).unwrap_or_default();
    let mut at = parts.structure.start;
    let mut depth = 0;
    let mut root_seen = false;
    // Properties come before child nodes (section 5.4.2); `fdt` asserts it.
    let mut properties_may_come = false;
    loop {
        let (token, next) = token(blob, at)?;
        match token {
            Token::Begin(name) => {
                let root = depth == 0;
                if root && root_seen {
                    return fault(at, "a second root node");
                }
                root_seen = true;
                let printable = name.iter().all(|&byte| byte.is_ascii_graphic() && byte != b'/');
                if root != name.is_empty() || !printable {
                    return fault(at, "a node's name is not printable, or missing");
                }
                depth += 1;
                if depth > DEPTH_LIMIT {
                    return fault(at, "nodes nest too deep");
                }
                properties_may_come = true;
            }
            Token::Prop { name, length } => {
                if !properties_may_come {
                    return fault(at, "a property outside a node, or after a child node");
                }
                let name = parts.property_name(at, name)?;
                if matches!(name, b"#address-cells" | b"#size-cells") && length != 4 {
                    return fault(at, "#address-cells or #size-cells is not one cell");
                }
            }
            Token::EndNode => {
                if depth == 0 {
                    return fault(at, "a node ends that has not begun");
                }
                depth -= 1;
                properties_may_come = false;
            }
            Token::Nop if nops == Nops::Pass => {}
            Token::Nop => return fault(at, "FDT_NOP: the tree has to be tidied first"),
            Token::End if depth == 0 && root_seen => return Ok(()),
            Token::End => return fault(at, "FDT_END inside a node, or no node at all"),
        }
        at = next;
    }
}

/// Closes the gaps that FDT_NOP leaves in the structure block, in place, so that [`check`] and `fdt` accept the tree.
///
/// Takes time linear in the tree. Fails where the tree is damaged, and has not touched it then.
pub fn tidy(blob: &mut [u8]) -> Result<(), TreeError> {
    let parts = parts(blob)?;
    check_structure(&parts, Nops::Pass)?;
    let core::ops::Range { start, end } = parts.structure;
    let (mut from, mut to) = (start, start);
    loop {
        // Moving tokens down never changes the bytes from `from` on, so the tree still reads as it was checked.
        let (token, next) = token(blob.get(..end).unwrap_or_default(), from)?;
        let (keep, last) = (!matches!(token, Token::Nop), matches!(token, Token::End));
        if keep {
            blob.copy_within(from..next, to);
            to += next - from;
        }
        from = next;
        if last {
            break;
        }
    }
    let length = u32::try_from(to - start).unwrap_or(u32::MAX);
    if let Some(field) = blob.get_mut(36..HEADER) {
        field.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}
