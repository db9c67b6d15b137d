//! The values of a manifest: numbers, texts and sizes out of a property's bytes, or what is wrong with them.
//!
//! Numbers are 32-bit big-endian cells and texts end with a NUL (Devicetree Specification 2.2.4).

use crate::addr::Mac;
use crate::bundle::{Amount, Granule, OnCrash, quote};
use alloc::format;
use alloc::string::String;
use dtoolkit::Property;
use dtoolkit::fdt::FdtProperty;

/// The largest `shares`.
pub(super) const MOST_SHARES: u32 = 100_000;
/// The longest `watchdog-seconds`: a day.
pub(super) const MOST_SECONDS: u32 = 86_400;
/// The most bytes of `bootargs`: Linux on arm64 takes 2048 with the NUL (`COMMAND_LINE_SIZE`).
const MOST_BOOTARGS: usize = 2047;
/// The most bytes of a file's name: what the archive can hold.
const MOST_FILE: usize = 255;
/// What memory is a multiple of: one 2 MiB block, so that stage 2 needs no pages for RAM.
const BLOCK: u64 = 2 << 20;

/// A property's value.
pub(super) type Value<'a> = &'a [u8];

/// What is wrong with a value.
pub(super) struct ValueError {
    /// What is wrong.
    pub(super) what: String,
    /// What mends it.
    pub(super) remedy: String,
}

fn error(what: impl Into<String>, remedy: impl Into<String>) -> ValueError {
    ValueError { what: what.into(), remedy: remedy.into() }
}

/// The bytes of a property, for as long as the tree lives.
pub(super) fn bytes<'a>(property: &FdtProperty<'a>) -> Value<'a> {
    // To bytes, the conversion cannot fail.
    property.value_as::<&'a [u8]>().unwrap_or_default()
}

/// A text.
pub(super) fn text(value: Value<'_>) -> Result<&str, ValueError> {
    let text = value.strip_suffix(b"\0").and_then(|text| core::str::from_utf8(text).ok());
    match text {
        Some(text) if !text.contains('\0') => Ok(text),
        _ => Err(error("it is not one text", "write it in quotes, like \"text\"")),
    }
}

/// A number of `least` to `most`.
pub(super) fn number(value: Value<'_>, least: u32, most: u32) -> Result<u32, ValueError> {
    let remedy = || format!("write a number of {least} to {most}, like <{least}>");
    let Ok(cell) = value.try_into() else {
        return Err(error("it is not one number", remedy()));
    };
    let number = u32::from_be_bytes(cell);
    if (least..=most).contains(&number) {
        return Ok(number);
    }
    // A short text is as long as a number.
    match text(value) {
        Ok(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err(error(format!("{} is a text, not a number", quote(text)), remedy()))
        }
        _ => Err(error(format!("{number} is not allowed"), remedy())),
    }
}

/// A size such as `"128M"`, a multiple of 2M and at most `most`.
pub(super) fn size(value: Value<'_>, most: u64) -> Result<u64, ValueError> {
    let remedy = || format!("write a multiple of 2M from \"2M\" to \"{}\"", Amount(most));
    let text = text(value).map_err(|ValueError { .. }| error("it is not a size", remedy()))?;
    let unit = match text.as_bytes().last() {
        Some(b'K') => 1 << 10,
        Some(b'M') => 1 << 20,
        Some(b'G') => 1 << 30,
        _ => return Err(error(format!("{} is not a size", quote(text)), remedy())),
    };
    let digits = text.get(..text.len() - 1).unwrap_or_default();
    // `parse` alone would take a sign.
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u64>().ok()).flatten();
    let Some(bytes) = number.and_then(|number| number.checked_mul(unit)) else {
        return Err(error(format!("{} is not a size", quote(text)), remedy()));
    };
    let what = if bytes > most {
        "more than a VM can have"
    } else if bytes < BLOCK {
        "too little"
    } else if bytes % BLOCK != 0 {
        "not a multiple of 2M"
    } else {
        return Ok(bytes);
    };
    Err(error(format!("{} is {what}", quote(text)), remedy()))
}

/// The name of a file in the archive.
pub(super) fn file(value: Value<'_>) -> Result<&str, ValueError> {
    let remedy = "write the file's name in quotes, like \"Image\"";
    let name = text(value).map_err(|ValueError { .. }| error("it is not a file's name", remedy))?;
    let name = name.strip_prefix("./").unwrap_or(name);
    if name.is_empty() || name.len() > MOST_FILE {
        return Err(error(format!("a name of {} bytes is not allowed", name.len()), remedy));
    }
    if name == crate::bundle::MANIFEST {
        return Err(error("this is the manifest itself", "name another file"));
    }
    Ok(name)
}

/// The name of a partition: what a GUID partition table can hold.
pub(super) fn partition(value: Value<'_>) -> Result<&str, ValueError> {
    let name = text(value)?;
    match name.encode_utf16().count() {
        1..=36 => Ok(name),
        n => Err(error(format!("a name of {n} letters is not allowed"), "write 1 to 36, like \"swap\"")),
    }
}

/// An Ethernet address: six bytes in hexadecimal, no group's.
pub(super) fn mac(value: Value<'_>) -> Result<Mac, ValueError> {
    const REMEDY: &str = "write six bytes of which the first is even, like \"52:54:00:12:34:56\"";
    let text = text(value)?;
    let mut mac = Mac::default();
    let mut bytes = text.split(':');
    for byte in &mut mac.0 {
        let digits = bytes.next().filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        *byte = digits
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .ok_or_else(|| error(format!("{} is no Ethernet address", quote(text)), REMEDY))?;
    }
    if bytes.next().is_some() || mac.is_group() || mac == Mac::default() {
        return Err(error(format!("{} is no address of one device", quote(text)), REMEDY));
    }
    Ok(mac)
}

/// The kernel's command line.
pub(super) fn bootargs(value: Value<'_>) -> Result<&str, ValueError> {
    let text = text(value)?;
    if text.len() > MOST_BOOTARGS {
        let what = format!("it has {} bytes", text.len());
        return Err(error(what, format!("Linux takes {MOST_BOOTARGS} at most")));
    }
    Ok(text)
}

/// What becomes of a VM that crashes.
pub(super) fn on_crash(value: Value<'_>) -> Result<OnCrash, ValueError> {
    let text = text(value)?;
    match text {
        "stop" => Ok(OnCrash::Stop),
        "restart" => Ok(OnCrash::Restart),
        "dump" => Ok(OnCrash::Dump),
        _ => Err(error(format!("{} is not known", quote(text)), "write \"stop\", \"restart\" or \"dump\"")),
    }
}

/// A key that says all by being there.
pub(super) fn flag(value: Value<'_>) -> Result<bool, ValueError> {
    if value.is_empty() { Ok(true) } else { Err(error("it takes no value", "write the key alone, and a semicolon")) }
}

/// What a first touch allocates.
pub(super) fn granule(value: Value<'_>) -> Result<Granule, ValueError> {
    let text = text(value)?;
    match text {
        "2M" => Ok(Granule::Block),
        "4K" => Ok(Granule::Page),
        _ => Err(error(format!("{} is not known", quote(text)), "write \"2M\" or \"4K\"")),
    }
}

/// How a VM's EL2 runs: whether without FEAT_NV2 where there is that.
pub(super) fn backend(value: Value<'_>) -> Result<bool, ValueError> {
    match text(value)? {
        "nv2" => Ok(false),
        "trap" => Ok(true),
        other => Err(error(format!("{} is not known", quote(other)), "write \"nv2\" or \"trap\"")),
    }
}

/// A list of CPUs, as a mask.
pub(super) fn affinity(value: Value<'_>, cpus: u16) -> Result<u64, ValueError> {
    let remedy = || format!("list CPUs of 0 to {}, like <0 1>", cpus.clamp(1, 64) - 1);
    let (cells, rest) = value.as_chunks::<4>();
    if cells.is_empty() || !rest.is_empty() {
        return Err(error("it is not a list of CPUs", remedy()));
    }
    let mut mask = 0;
    for &cell in cells {
        let cpu = u32::from_be_bytes(cell);
        if cpu >= u32::from(cpus.clamp(1, 64)) {
            return Err(error(format!("there is no CPU {cpu}"), remedy()));
        }
        if mask & 1 << cpu != 0 {
            return Err(error(format!("CPU {cpu} is listed twice"), "list each once"));
        }
        mask |= 1 << cpu;
    }
    Ok(mask)
}
