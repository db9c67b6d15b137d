//! ELF files of our own making: flattening them, and naming addresses in them.

use crate::Failure;
use crate::arguments::Arguments;
use crate::demangle::demangle;
use elf::ElfBytes;
use elf::abi::{PT_LOAD, SHF_EXECINSTR, STT_FUNC, STT_NOTYPE};
use elf::endian::LittleEndian;
use std::fmt::Write as _;
use std::io::{BufRead, Write};
use std::ops::Range;
use std::path::Path;

/// The largest image: an address that is wrong would otherwise make a file of zeroes that fills the disk.
const MOST_BYTES: u64 = 256 << 20;

/// `tool image`.
pub(crate) fn image(arguments: Arguments) -> Result<(), Failure> {
    let [file, out] = arguments.places(["ELF", "OUT"])?;
    let bytes = read(&file)?;
    let flat = flatten(&bytes).map_err(|text| format!("{}: {text}", file.display()))?;
    std::fs::write(&out, flat).map_err(|error| Failure::Work(format!("{}: {error}", out.display())))
}

fn flatten(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let file = ElfBytes::<LittleEndian>::minimal_parse(bytes).map_err(|error| error.to_string())?;
    let table = file.segments().ok_or("it has no program headers")?;
    let load: Vec<_> = table.iter().filter(|program| program.p_type == PT_LOAD && program.p_filesz > 0).collect();
    let lowest = load.iter().map(|program| program.p_paddr).min().ok_or("it has nothing to load")?;
    let mut flat = Vec::new();
    for program in load {
        let data = file.segment_data(&program).map_err(|error| error.to_string())?;
        let end = (program.p_paddr - lowest).checked_add(program.p_filesz).filter(|&end| end <= MOST_BYTES);
        let end = end.ok_or_else(|| format!("its segments lie more than {} MiB apart", MOST_BYTES >> 20))?;
        // At most MOST_BYTES, so it fits.
        let (start, end) = ((program.p_paddr - lowest) as usize, end as usize);
        flat.resize(flat.len().max(end), 0);
        flat[start..end].copy_from_slice(data);
    }
    Ok(flat)
}

/// `tool symbols`.
pub(crate) fn symbols(arguments: Arguments) -> Result<(), Failure> {
    let [file] = arguments.places(["ELF"])?;
    let bytes = read(&file)?;
    let names = Names::new(&bytes).map_err(|text| format!("{}: {text}", file.display()))?;
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().split(b'\n') {
        let line = line.map_err(|error| Failure::Work(error.to_string()))?;
        let line = String::from_utf8_lossy(&line);
        let text = if line.contains("backtrace") { names.annotate(&line) } else { line.into_owned() };
        if writeln!(out, "{text}").is_err() {
            // Whoever reads has had enough.
            break;
        }
    }
    Ok(())
}

/// The functions of an ELF file, by address.
struct Names<'a> {
    /// Sorted; a function after a mere label at the same address.
    list: Vec<(u64, bool, &'a str)>,
    code: Vec<Range<u64>>,
}

impl<'a> Names<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, String> {
        let file = ElfBytes::<LittleEndian>::minimal_parse(bytes).map_err(|error| error.to_string())?;
        let sections = file.section_headers().ok_or("it has no sections")?;
        let executable = sections.iter().filter(|section| section.sh_flags & u64::from(SHF_EXECINSTR) != 0);
        let code = executable.map(|section| section.sh_addr..section.sh_addr.saturating_add(section.sh_size)).collect();
        let (table, strings) =
            file.symbol_table().map_err(|error| error.to_string())?.ok_or("it has no .symtab: it was stripped")?;
        let mut names = Self { list: Vec::new(), code };
        for symbol in table.iter() {
            let kind = symbol.st_symtype();
            let name = usize::try_from(symbol.st_name).ok().and_then(|at| strings.get(at).ok()).unwrap_or_default();
            // `$x` and `$d` mark code and data for disassemblers.
            if (kind == STT_FUNC || kind == STT_NOTYPE) && !name.is_empty() && !name.starts_with('$') {
                names.list.push((symbol.st_value, kind == STT_FUNC, name));
            }
        }
        names.list.retain(|&(at, ..)| names.code.iter().any(|code| code.contains(&at)));
        names.list.sort_unstable();
        Ok(names)
    }

    /// The function that `address` lies in, and how deep.
    fn find(&self, address: u64) -> Option<(&'a str, u64)> {
        let code = self.code.iter().find(|code| code.contains(&address))?;
        let after = self.list.partition_point(|&(at, ..)| at <= address);
        let &(at, _, name) = self.list.get(after.checked_sub(1)?)?;
        code.contains(&at).then_some((name, address - at))
    }

    /// The `line` with names behind its addresses.
    fn annotate(&self, line: &str) -> String {
        let mut out = String::new();
        let mut rest = line;
        while let Some(start) = rest.find("0x") {
            let digits = rest[start + 2..].find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len() - start - 2);
            let (number, next) = rest[start..].split_at(2 + digits);
            out.push_str(&rest[..start]);
            out.push_str(number);
            if let Some((name, offset)) = u64::from_str_radix(&number[2..], 16).ok().and_then(|at| self.find(at)) {
                let _ = write!(out, " <{}+{offset:#x}>", demangle(name));
            }
            rest = next;
        }
        out + rest
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::Work(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::{Names, flatten};

    fn names() -> Names<'static> {
        let list = vec![(0x1000, false, "start"), (0x1000, true, "_start"), (0x1040, true, "_RNvCs1_4main3run")];
        let code = 0x1000..0x1100;
        Names { list, code: vec![code] }
    }

    #[test]
    fn addresses_in_code_are_named_and_nothing_else() {
        let line = "backtrace: 0x1004 0x1044, 0x10ff 0x1100 0x 0xzz 0x99999999999999999";
        let expected = "backtrace: 0x1004 <_start+0x4> 0x1044 <main::run+0x4>, 0x10ff <main::run+0xbf> 0x1100 0x 0xzz \
                        0x99999999999999999";
        assert_eq!(names().annotate(line), expected);
    }

    #[test]
    fn what_is_no_elf_file_is_refused() {
        assert!(flatten(b"").is_err());
        assert!(flatten(&[0; 100]).is_err());
        assert!(Names::new(b"\x7fELF").is_err());
    }
}
