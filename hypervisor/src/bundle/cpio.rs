//! The archive: cpio in its "new ASCII" format (newc), read within its bounds, and written.
//!
//! Key types: [`Member`]. A newc archive is a row of members, each a header of 110 characters (a magic number and 13
//! fields of 8 hexadecimal digits), the name with its NUL, and the data, name and data both padded to 4 bytes. A member
//! called `TRAILER!!!` ends it; firmware that loads an archive may leave anything behind that.
//!
//! Files of a page and more begin on a page of the archive, so that guests can be lent their pages where a loader puts the
//! archive on a page of RAM: their names are followed by as many NULs as that takes, which other readers take for the end
//! of the name, too.
//!
//! [`read`] borrows: it allocates one list of at most [`MOST_MEMBERS`]. [`append`] and [`finish`] write archives that
//! are the same bytes whenever and by whomever they are written.

use super::{Amount, Findings, quote};
use alloc::format;
use alloc::vec::Vec;

/// The most members an archive may have.
pub const MOST_MEMBERS: usize = 64;

/// The length of a member's header.
const HEADER: usize = 110;
/// Where a field lies in the header, counted in fields after the magic number.
const MODE: usize = 1;
const FILE_SIZE: usize = 6;
const NAME_SIZE: usize = 11;
/// The longest name, its NUL included.
const MOST_NAME: usize = 256;
/// What large files are aligned to.
const PAGE: usize = 4096;
const TRAILER: &str = "TRAILER!!!";
/// The bits of the mode that say what kind of file it is, and those of a regular file and none at all.
const KIND: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;

/// One file of an archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member<'a> {
    /// Its name, without a leading `./`.
    pub name: &'a str,
    /// Its bytes.
    pub data: &'a [u8],
}

/// Reads the members of the archive at the start of `bytes`, in order. Directories and other files without data are
/// left out. What is corrupt, cut off, or there twice is added to `findings`; the members before it are returned.
pub fn read<'a>(bytes: &'a [u8], findings: &mut Findings) -> Vec<Member<'a>> {
    let mut members: Vec<Member<'a>> = Vec::new();
    let mut at = 0;
    loop {
        match next(bytes, at) {
            Ok(Found::End) => break,
            Ok(Found::Skip { next }) => at = next,
            Ok(Found::Member { member, next }) => {
                if members.len() == MOST_MEMBERS {
                    let what = format!("it has more than {MOST_MEMBERS} members");
                    findings.add("archive", what, "put less in one bundle");
                    break;
                }
                if members.iter().any(|other| other.name == member.name) {
                    let what = format!("it has two members called {}", quote(member.name));
                    findings.add(place(at), what, "give each file a name of its own");
                }
                members.push(member);
                at = next;
            }
            Err(error) => {
                findings.add(place(at), error.what, error.remedy);
                break;
            }
        }
    }
    members
}

fn place(at: usize) -> alloc::string::String {
    format!("archive, byte {at:#x}")
}

/// What was found at one place of the archive.
enum Found<'a> {
    /// The trailer.
    End,
    /// A member without data, such as a directory.
    Skip { next: usize },
    /// A file.
    Member { member: Member<'a>, next: usize },
}

struct ArchiveError {
    what: alloc::string::String,
    remedy: &'static str,
}

const DAMAGED: &str = "the archive is damaged: make or copy it again";

fn error(what: impl Into<alloc::string::String>) -> ArchiveError {
    ArchiveError { what: what.into(), remedy: DAMAGED }
}

/// Reads the member at byte `at`. What is called next lies behind `at`, so that who follows it comes to an end.
fn next(bytes: &[u8], at: usize) -> Result<Found<'_>, ArchiveError> {
    let header = take(bytes, at, HEADER, "the header of a member")?;
    let magic = header.get(..6).unwrap_or_default();
    // 070702 is the same with checksums, which nobody fills in any more.
    if magic != b"070701" && magic != b"070702" {
        let what = "there is no cpio header (newc) here";
        return Err(ArchiveError { what: what.into(), remedy: "the bundle must be one uncompressed newc archive" });
    }
    let [mode, file_size, name_size] = [MODE, FILE_SIZE, NAME_SIZE].map(|field| number(header, field));
    let (Some(mode), Some(file_size), Some(name_size)) = (mode, file_size, name_size) else {
        return Err(error("a field of the header is not a hexadecimal number"));
    };
    // u32 to usize: this crate's targets have 64 bits.
    let (file_size, name_size) = (file_size as usize, name_size as usize);
    if !(2..=MOST_NAME + PAGE).contains(&name_size) {
        return Err(error(format!("the name has {name_size} bytes where 2 to {MOST_NAME} are allowed")));
    }
    let name_at = at + HEADER;
    let name = take(bytes, name_at, name_size, "the name of a member")?;
    let text = |name| core::str::from_utf8(name).ok();
    let Some(name) = name.strip_suffix(b"\0").and_then(text).map(|name| name.trim_end_matches('\0')) else {
        return Err(error("the name is not UTF-8 text that ends with a NUL"));
    };
    if !(1..MOST_NAME).contains(&name.len()) {
        return Err(error(format!("the name has {} bytes where 1 to {} are allowed", name.len(), MOST_NAME - 1)));
    }
    if name.contains('\0') {
        return Err(error("the name has a NUL inside"));
    }
    if name == TRAILER {
        return Ok(Found::End);
    }
    let data_at = (name_at + name_size).next_multiple_of(4);
    let data = take(bytes, data_at, file_size, &format!("member {}", quote(name)))?;
    let next = (data_at + file_size).next_multiple_of(4);
    if mode & KIND != REGULAR && mode & KIND != 0 {
        return Ok(Found::Skip { next });
    }
    Ok(Found::Member { member: Member { name: name.strip_prefix("./").unwrap_or(name), data }, next })
}

/// The `len` bytes from `at`, or how many of them are missing.
fn take<'a>(bytes: &'a [u8], at: usize, len: usize, what: &str) -> Result<&'a [u8], ArchiveError> {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.get(..len).ok_or_else(|| {
        let missing = Amount((len - rest.len()) as u64);
        error(format!("the archive ends inside {what}: {missing} missing"))
    })
}

/// Field `n` of a header.
fn number(header: &[u8], n: usize) -> Option<u32> {
    let digits = header.get(6 + 8 * n..)?.get(..8)?;
    let mut value = 0;
    for &digit in digits {
        value = value << 4 | char::from(digit).to_digit(16)?;
    }
    Some(value)
}

/// Appends a file to the archive `out`. Nothing where it has more bytes, or a longer name, than the format can say.
#[must_use]
pub fn append(out: &mut Vec<u8>, name: &str, data: &[u8]) -> Option<()> {
    let size = u32::try_from(data.len()).ok()?;
    if name.len() >= MOST_NAME {
        return None;
    }
    header(out, REGULAR | 0o644, size, name, if data.len() < PAGE { 4 } else { PAGE });
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(4), 0);
    Some(())
}

/// Ends the archive `out`.
pub fn finish(out: &mut Vec<u8>) {
    header(out, 0, 0, TRAILER, 4);
}

/// Appends a header and its name, so that what follows is aligned to `align`. Owner, times and devices are 0, so that the same files make the same archive. The
/// inode number, which tells hard links apart, is the member's place.
fn header(out: &mut Vec<u8>, mode: u32, size: u32, name: &str, align: usize) {
    let inode = (out.len() / 4) & 0xffff_ffff;
    let name_at = out.len() + HEADER;
    let name_size = match align {
        4 => name.len() + 1,
        _ => (name_at + name.len() + 1).next_multiple_of(align) - name_at,
    };
    out.extend_from_slice(
        format!("070701{inode:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{size:08x}", 0, 1).as_bytes(),
    );
    out.extend_from_slice(format!("{0:08x}{0:08x}{0:08x}{0:08x}{name_size:08x}{0:08x}", 0).as_bytes());
    out.extend_from_slice(name.as_bytes());
    out.resize((name_at + name_size).next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::{MOST_MEMBERS, Member, append, finish, read};
    use crate::bundle::{Diagnostic, Findings};
    use alloc::format;
    use alloc::string::ToString;
    use alloc::vec;
    use alloc::vec::Vec;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, data) in files {
            append(&mut out, name, data).unwrap();
        }
        finish(&mut out);
        out
    }

    fn open(bytes: &[u8]) -> Result<Vec<Member<'_>>, Vec<Diagnostic>> {
        let mut findings = Findings::default();
        let members = read(bytes, &mut findings);
        findings.unless(members)
    }

    #[test]
    fn a_member_is_a_file_by_its_mode_or_for_want_of_a_kind() {
        for (mode, is_file) in [("000081A4", true), ("000001A4", true), ("000041ED", false), ("0000A1FF", false)] {
            let mut bytes = archive(&[("one", b"first"), ("two", b"second")]);
            // `c_mode` stands behind the magic and the inode.
            bytes[14..22].copy_from_slice(mode.as_bytes());
            let names: Vec<_> = open(&bytes).unwrap().iter().map(|member| member.name).collect();
            let expected = if is_file { vec!["one", "two"] } else { vec!["two"] };
            assert_eq!(names, expected, "mode {mode}");
        }
    }

    #[test]
    fn what_is_written_is_read_back_whatever_the_padding() {
        let files: [(&str, &[u8]); 4] = [("a", b""), ("bc", b"1"), ("./d", b"12345"), ("image", &[7; 4096])];
        let bytes = archive(&files);
        let members = open(&bytes).unwrap();
        assert_eq!(members.len(), 4);
        assert_eq!(members[2], Member { name: "d", data: b"12345" });
        assert_eq!(members[3].data, [7; 4096]);
    }

    #[test]
    fn whatever_follows_the_trailer_is_ignored() {
        let mut bytes = archive(&[("a", b"1")]);
        bytes.extend_from_slice(&[0xff; 1000]);
        assert_eq!(open(&bytes).unwrap().len(), 1);
    }

    #[test]
    fn an_archive_cut_off_anywhere_is_an_error_that_says_so() {
        let bytes = archive(&[("a", b"123456789")]);
        // The last three bytes are padding behind the trailer.
        for end in 0..bytes.len() - 3 {
            let list = open(&bytes[..end]).unwrap_err();
            assert!(list[0].what.contains("missing"), "{}: {}", end, list[0]);
        }
    }

    #[test]
    fn an_archive_that_is_cut_off_says_how_much_is_missing() {
        let whole = archive(&[("Image", &[7; 100])]);
        let end = whole.windows(100).position(|window| window == [7; 100]).unwrap() + 100;
        for missing in [1_usize, 2, 99, 100] {
            let text = open(&whole[..end - missing]).unwrap_err()[0].to_string();
            let unit = if missing == 1 { "byte" } else { "bytes" };
            assert!(text.contains(&format!("ends inside member \"Image\": {missing} {unit} missing")), "{text}");
        }
        assert!(open(&whole[..50]).unwrap_err()[0].to_string().contains(": 60 bytes missing"), "of a header");
    }

    #[test]
    fn sizes_that_wrap_are_only_too_large() {
        let mut bytes = archive(&[("a", b"123456789")]);
        bytes[6 + 8 * 6..][..8].copy_from_slice(b"ffffffff");
        let list = open(&bytes).unwrap_err();
        assert!(list[0].to_string().contains("ends inside member \"a\""), "{}", list[0]);
        bytes[6 + 8 * 11..][..8].copy_from_slice(b"ffffffff");
        assert!(open(&bytes).unwrap_err()[0].what.contains("the name has 4294967295 bytes"));
    }

    #[test]
    fn a_name_given_twice_and_a_crowd_of_members_are_refused() {
        assert!(open(&archive(&[("a", b""), ("a", b"")])).unwrap_err()[0].what.contains("two members"));
        let names: Vec<_> = (0..=MOST_MEMBERS).map(|n| format!("{n}")).collect();
        let files: Vec<_> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
        assert_eq!(open(&archive(&files)).unwrap_err().len(), 1);
    }

    #[test]
    fn directories_are_passed_over() {
        let mut bytes = vec![];
        super::header(&mut bytes, 0o040_755, 0, ".", 4);
        append(&mut bytes, "a", b"1").unwrap();
        finish(&mut bytes);
        assert_eq!(open(&bytes).unwrap(), [Member { name: "a", data: b"1" }]);
    }

    #[test]
    fn names_of_any_length_end_with_a_nul_and_large_files_begin_with_a_page() {
        for (length, between) in
            (1..5).flat_map(|length| (0..1024).map(move |n| (length, n * 4))).chain([(254, 1), (255, 2), (300, 3)])
        {
            let [name, other] = ["n", "o"].map(|letter| letter.repeat(length));
            if length >= super::MOST_NAME {
                assert!(append(&mut Vec::new(), &name, b"").is_none());
                continue;
            }
            let large = vec![7; super::PAGE];
            // What lies between them moves the second along, to where its name ends with a page, too.
            let between = vec![1; between];
            let bytes = archive(&[(&name, &large), ("of less than a page", &between), (&other, &large)]);
            let members = open(&bytes).unwrap();
            assert_eq!(
                members.iter().map(|member| member.name).collect::<Vec<_>>(),
                [name.as_str(), "of less than a page", other.as_str()]
            );
            for member in members.iter().filter(|member| member.data.len() == super::PAGE) {
                let at = member.data.as_ptr().addr() - bytes.as_ptr().addr();
                assert_eq!((at % super::PAGE, bytes[at - 1]), (0, 0), "{length}");
            }
            // Inode numbers tell links apart: no two have the same.
            let mut inodes: Vec<_> = bytes
                .windows(6)
                .enumerate()
                .filter(|(_, magic)| *magic == b"070701")
                .map(|(at, _)| &bytes[at + 6..at + 14])
                .collect();
            let n = inodes.len();
            inodes.sort();
            inodes.dedup();
            assert_eq!((n, inodes.len()), (4, 4), "{length}");
        }
    }

    #[test]
    fn the_magic_is_one_of_two() {
        for (magic, is_known) in
            [(b"070701", true), (b"070702", true), (b"070703", false), (b"070707", false), (b"170701", false)]
        {
            let mut bytes = archive(&[("one", b"first")]);
            bytes[..6].copy_from_slice(magic);
            assert_eq!(open(&bytes).is_ok_and(|members| members.len() == 1), is_known, "{magic:?}");
        }
    }
}
