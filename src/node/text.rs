//! Names are bytes; JSON and terminals want text.
//!
//! Owns: the lossless text form of a path, and sizes for people. Must not know: what the path names.
//! Invariant: `unescape(escape(p)) == p` for all bytes; escaped text holds no control characters.
//! Trust: both directions take anything. Threads: pure functions.

use std::fmt::Write;

/// UTF-8 as it is; a backslash doubled; control characters and bytes that are not UTF-8 as `\xNN`.
pub fn escape(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for part in path.utf8_chunks() {
        for c in part.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c if c.is_control() => {
                    let mut utf8 = [0; 4];
                    c.encode_utf8(&mut utf8).bytes().for_each(|byte| push_hex(&mut text, byte));
                }
                c => text.push(c),
            }
        }
        part.invalid().iter().for_each(|byte| push_hex(&mut text, *byte));
    }
    text
}

fn push_hex(text: &mut String, byte: u8) {
    // Writing to a string cannot fail.
    let _ = write!(text, "\\x{byte:02x}");
}

/// The bytes that `escape` was given. A backslash that begins no escape stands for itself.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let escape = (byte == b'\\').then(|| decode(after)).flatten();
        match escape {
            Some((byte, used)) => {
                bytes.push(byte);
                rest = &after[used..];
            }
            None => bytes.push(byte),
        }
    }
    bytes
}

/// The byte that the text after a backslash stands for, and how much of the text it takes.
fn decode(after: &[u8]) -> Option<(u8, usize)> {
    match after {
        [b'\\', ..] => Some((b'\\', 1)),
        [b'x', high, low, ..] => {
            let digit = |byte: &u8| char::from(*byte).to_digit(16);
            Some(((digit(high)? * 16 + digit(low)?) as u8, 3))
        }
        _ => None,
    }
}

/// A number of bytes for people, in binary units.
pub fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_path_survives(path in proptest::collection::vec(any::<u8>(), 0..64)) {
            let text = escape(&path);
            prop_assert!(!text.contains(char::is_control));
            prop_assert_eq!(unescape(&text), path);
        }
    }

    #[test]
    fn ordinary_names_stay_as_they_are() {
        assert_eq!(escape("dir/ünï 1.txt".as_bytes()), "dir/ünï 1.txt");
        assert_eq!(escape(b"a\nb\xff\\"), "a\\x0ab\\xff\\\\");
        assert_eq!(unescape("C:\\temp"), b"C:\\temp");
    }
}
