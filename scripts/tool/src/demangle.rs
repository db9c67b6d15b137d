//! Names of Rust functions as a person would write them, near enough to find the place: the path without hashes, type
//! arguments or lifetimes.
//!
//! Two manglings are in use: the older looks like C++'s (`_ZN4core3ptr4read17h0123456789abcdefE`), the newer is RFC
//! 2603's (`_RNvNtC4core3ptr4read`). Of the newer only the identifiers are collected, in their order.

/// The readable form of `symbol`, or `symbol` itself.
pub(crate) fn demangle(symbol: &str) -> String {
    // Whatever the compiler appends, such as `.llvm.1234`.
    let bare = symbol.split('.').next().unwrap_or(symbol);
    let parts = if let Some(path) = symbol.strip_prefix("_ZN") {
        older(path)
    } else if let Some(path) = bare.strip_prefix("_R") {
        newer(path)
    } else {
        None
    };
    match parts {
        Some(parts) if !parts.is_empty() => parts.join("::"),
        _ => symbol.to_owned(),
    }
}

/// Lengths and identifiers up to an `E`; the last is a hash.
fn older(mut path: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    while !path.starts_with('E') {
        let (part, rest) = identifier(path)?;
        let is_hash = part.len() == 17 && part.starts_with('h') && part[1..].bytes().all(|b| b.is_ascii_hexdigit());
        if !is_hash {
            parts.push(unescape(part));
        }
        path = rest;
    }
    Some(parts)
}

/// A decimal length and as many bytes.
fn identifier(text: &str) -> Option<(&str, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let len: usize = text.get(..digits)?.parse().ok()?;
    text.get(digits..)?.split_at_checked(len)
}

/// The older mangling's way to write what is not a letter, a digit or an underscore.
fn unescape(part: &str) -> String {
    const ESCAPES: [(&str, &str); 13] = [
        ("$LT$", "<"),
        ("$GT$", ">"),
        ("$LP$", "("),
        ("$RP$", ")"),
        ("$RF$", "&"),
        ("$BP$", "*"),
        ("$SP$", "@"),
        ("$C$", ","),
        ("$u20$", " "),
        ("$u27$", "'"),
        ("$u7b$", "{"),
        ("$u7d$", "}"),
        ("..", "::"),
    ];
    // A leading escape is kept apart from the length by an underscore.
    let part = part.strip_prefix('_').filter(|rest| rest.starts_with('$')).unwrap_or(part);
    ESCAPES.iter().fold(part.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// The identifiers in the order of the path. Numbers in base 62 (disambiguators after `s`, back references after `B`)
/// end with `_` and are passed over, so that their digits are not taken for lengths.
fn newer(mut path: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    while let Some(first) = path.bytes().next() {
        if first.is_ascii_digit() && first != b'0' {
            let digits = path.bytes().take_while(u8::is_ascii_digit).count();
            let len: usize = path.get(..digits)?.parse().ok()?;
            let rest = path.get(digits..)?;
            // An underscore keeps an identifier that begins with a digit or an underscore apart from its length.
            let rest = rest.strip_prefix('_').unwrap_or(rest);
            let (part, rest) = rest.split_at_checked(len)?;
            parts.push(part.to_owned());
            path = rest;
        } else {
            let skipped = if matches!(first, b's' | b'B') { base_62(path.get(1..)?) } else { None };
            path = path.get(1 + skipped.unwrap_or(0)..)?;
        }
    }
    Some(parts)
}

/// The length of a number in base 62 with its `_`.
fn base_62(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_alphanumeric).count();
    (text.as_bytes().get(digits) == Some(&b'_')).then_some(digits + 1)
}

#[cfg(test)]
mod tests {
    use super::demangle;

    #[test]
    fn the_newer_names_become_paths() {
        assert_eq!(demangle("_RNvNtCs9ltgdHTiPiY_4core3ptr4read"), "core::ptr::read");
        assert_eq!(demangle("_RNvMs_NtCs4fqI2P2rA04_8flatland6stage2NtB5_3Map4open"), "flatland::stage2::Map::open");
        assert_eq!(demangle("_RNvCs1_4main3run.llvm.123"), "main::run");
    }

    #[test]
    fn the_older_names_lose_their_hash() {
        assert_eq!(demangle("_ZN4core3ptr4read17h0123456789abcdefE"), "core::ptr::read");
        assert_eq!(
            demangle("_ZN37_$LT$a..B$u20$as$u20$core..fmt..C$GT$3fmt17h0123456789abcdefE"),
            "<a::B as core::fmt::C>::fmt"
        );
    }

    #[test]
    fn other_names_stay_and_broken_ones_too() {
        for name in ["vectors", "_R", "_RNv9999a", "_ZN", "_ZN5ab", "", "_RNvCs1_2mä", "_ZN99999999999999999999aE"] {
            assert_eq!(demangle(name), name);
        }
    }
}
