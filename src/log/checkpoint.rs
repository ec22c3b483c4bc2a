//! Checkpoints: a head as other transparency logs and their witnesses read it (C2SP `tlog-checkpoint`).
//!
//! Owns: the three lines and how a head becomes them. Must not know: who signs, or where it is sent.
//! Invariant: one checkpoint has one text. Trust: a parsed one is foreign until its note was verified. Threads: pure values.
//!
//! The log of a network has the origin `bcai/GENESIS`, and its nodes sign under that name with their own keys. Size and root
//! are those of the RFC 6962 tree over all entries, so that a witness can demand consistency proofs. A checkpoint does
//! not replace the certificate: it says what one node vouches for.

use std::fmt::Write;

use data_encoding::BASE64;

use super::block::Header;
use super::note::{Note, NoteError, NoteKey, from_base64};
use crate::crypto::SecretKey;
use crate::id::{Genesis, ID_LEN, LogRoot};

/// The head of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// Entries.
    pub size: u64,
    pub root: LogRoot,
    /// Further lines, of which this program writes none and understands none.
    pub extensions: Vec<String>,
}

/// What the log of network `genesis` calls itself.
pub fn origin(genesis: Genesis) -> String {
    format!("bcai/{genesis}")
}

impl Checkpoint {
    /// The head that `header` is.
    pub fn of(header: &Header) -> Self {
        let (size, root) = (header.log_size, header.log_root);
        Self { origin: origin(header.genesis), size, root, extensions: Vec::new() }
    }

    /// As a note that `key` signed under the log's name, with the key to check it with.
    pub fn signed(&self, key: &SecretKey) -> Result<(Note, NoteKey), NoteError> {
        let mut note = Note::new(self.text())?;
        let public = note.sign(&self.origin, key)?;
        Ok((note, public))
    }

    /// The text of the note.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(self.root.as_bytes()));
        for line in &self.extensions {
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, "{line}");
        }
        text
    }

    /// Reads the text of a note.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let wrong = NoteError::Malformed("it is not a checkpoint");
        let mut lines = text.strip_suffix('\n').ok_or(wrong.clone())?.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(wrong);
        };
        let size = size.parse().map_err(|_| wrong.clone())?;
        let root = from_base64(root).ok_or_else(|| wrong.clone())?;
        let root: [u8; ID_LEN] = root.try_into().map_err(|_| wrong.clone())?;
        let extensions: Vec<String> = lines.map(str::to_owned).collect();
        let has_empty = origin.is_empty() || extensions.iter().any(String::is_empty);
        let parsed = Self { origin: origin.to_owned(), size, root: LogRoot::from_bytes(root), extensions };
        // No sign and no leading zero in the size: caught by writing it again.
        if !has_empty && parsed.text() == text { Ok(parsed) } else { Err(wrong) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    const EXAMPLE: &str =
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    #[test]
    fn reads_and_writes_the_specifications_example() {
        let checkpoint = Checkpoint::parse(EXAMPLE).unwrap();
        assert_eq!(
            (checkpoint.origin.as_str(), checkpoint.size),
            ("example.com/behind-the-sofa", 20_852_163)
        );
        assert_eq!(checkpoint.text(), EXAMPLE);
        let extended = format!("{EXAMPLE}more\n");
        assert_eq!(Checkpoint::parse(&extended).unwrap().extensions, ["more"]);
        let line = "— example.com/behind-the-sofa \
                    Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";
        let whole = format!("{EXAMPLE}\n{line}");
        assert_eq!(Note::parse(whole.as_bytes()).unwrap().to_string(), whole);
    }

    #[test]
    fn every_other_spelling_is_refused() {
        let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
        for text in [
            "",
            "\n",
            "a\n1\n",
            &format!("a\n1\n{root}"),
            &format!("\n1\n{root}\n"),
            &format!("a\n01\n{root}\n"),
            &format!("a\n+1\n{root}\n"),
            &format!("a\n-1\n{root}\n"),
            &format!("a\n\n{root}\n"),
            &format!("a\n18446744073709551616\n{root}\n"),
            &format!("a\n1\n{}\n", &root[4..]),
            &format!("a\n1\n{root}\n\n"),
            &format!("a\n1\n{root}\n\nb\n"),
        ] {
            assert!(Checkpoint::parse(text).is_err(), "{text:?}");
        }
    }
}
