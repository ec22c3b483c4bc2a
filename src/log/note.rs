//! Signed notes: text with signature lines, as C2SP `signed-note` and `tlog-cosignature` v1 have them.
//!
//! Owns: the text form, keys and their ids, both kinds of Ed25519 signatures. Must not know: what a text says.
//! Invariant: a note that parses prints as it was; a signature counts only with the name, the id and the key it claims.
//! Trust: a note is foreign until `verify` with a key that the user named. Threads: pure values.
//!
//! Written here and not taken from a crate: it is two hundred lines over what is linked anyway (`ed25519-dalek`, `sha2`,
//! `data-encoding`), and signatures are thus checked by the one strict rule of `crypto`.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64, HEXLOWER};
use sha2::{Digest as _, Sha256};

use crate::crypto::{CryptoError, KEY_LEN, PublicKey, SIGNATURE_LEN, SecretKey, Signature};

/// Longest note, in bytes.
pub const MAX_NOTE_LEN: usize = 256 << 10;
/// Most signatures under a note; the specification asks for 16 at least.
pub const MAX_SIGNATURES: usize = 100;
/// Begins a signature line: an em dash and a space.
const DASH: &str = "\u{2014} ";
/// Bytes of a key's id.
const ID_LEN: usize = 4;

/// Why a note or a key was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Junk: not worth a second look.
    #[error("this is not a signed note: {0}")]
    Malformed(&'static str),
    /// The user's mistake, or junk.
    #[error("`{0}` is not a note key: expected NAME+ID+KEY, as the log or witness publishes it")]
    Key(String),
    /// The user's mistake.
    #[error("`{0}` cannot name a key: it must not be empty, and have no blank, `+` or control character")]
    Name(String),
    /// Another key, or a note from elsewhere.
    #[error("the note is not signed by {0}")]
    NotSigned(String),
    /// A lie, or damage.
    #[error("the signature of {name} under the note is not valid: {cause}")]
    Signature { name: String, cause: CryptoError },
}

fn shown(text: &str) -> String {
    text.chars().take(120).filter(|c| !c.is_control()).collect()
}

/// What a key signs. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum KeyKind {
    /// The text itself.
    Text = 1,
    /// The text and the time, as a witness of a log does.
    Cosignature = 4,
}

/// A key that notes are checked with: `NAME+ID+KEY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteKey {
    name: String,
    kind: KeyKind,
    key: PublicKey,
}

impl NoteKey {
    /// Names a key. Two notes' keys are the same only if their names are.
    pub fn new(name: &str, kind: KeyKind, key: PublicKey) -> Result<Self, NoteError> {
        let allowed = |c: char| !c.is_whitespace() && !c.is_control() && c != '+';
        match !name.is_empty() && name.chars().all(allowed) {
            true => Ok(Self { name: name.to_owned(), kind, key }),
            false => Err(NoteError::Name(shown(name))),
        }
    }

    /// The first bytes of `SHA-256(name ‖ 0x0A ‖ kind ‖ key)`.
    fn id(&self) -> [u8; ID_LEN] {
        let hash = Sha256::new_with_prefix(self.name.as_bytes())
            .chain_update([b'\n', self.kind as u8])
            .chain_update(self.key.as_bytes())
            .finalize();
        [hash[0], hash[1], hash[2], hash[3]]
    }
}

impl fmt::Display for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[self.kind as u8][..], self.key.as_bytes()].concat();
        write!(f, "{}+{}+{}", self.name, HEXLOWER.encode(&self.id()), BASE64.encode(&key))
    }
}

impl FromStr for NoteKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let wrong = || NoteError::Key(shown(text));
        // The key is base64, which has a plus of its own.
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(_id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong());
        };
        let key = from_base64(key).ok_or_else(wrong)?;
        let (kind, key) = key.split_first().ok_or_else(wrong)?;
        let kind = match kind {
            1 => KeyKind::Text,
            4 => KeyKind::Cosignature,
            _ => return Err(wrong()),
        };
        let key: &[u8; KEY_LEN] = key.try_into().map_err(|_| wrong())?;
        let parsed = Self::new(name, kind, PublicKey::from_bytes(key).map_err(|_| wrong())?)?;
        // The id is a hash of the rest: checked by printing it.
        if parsed.to_string() == text { Ok(parsed) } else { Err(wrong()) }
    }
}

/// A signature line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    name: String,
    id: [u8; ID_LEN],
    signature: Vec<u8>,
}

/// Text with signatures under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    lines: Vec<Line>,
}

impl Note {
    /// A note that nobody has signed yet. The text ends in a newline and has no other control character.
    pub fn new(text: String) -> Result<Self, NoteError> {
        if text.len() > MAX_NOTE_LEN {
            return Err(NoteError::Malformed("it is too long"));
        }
        if !text.ends_with('\n') {
            return Err(NoteError::Malformed("its text does not end in a newline"));
        }
        if text.bytes().any(|b| b < b' ' && b != b'\n') {
            return Err(NoteError::Malformed("its text has control characters"));
        }
        Ok(Self { text, lines: Vec::new() })
    }

    /// What is signed. It means nothing before `verify`.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Signs the text as `name`; returns the key that it is checked with.
    pub fn sign(&mut self, name: &str, key: &SecretKey) -> Result<NoteKey, NoteError> {
        let public = NoteKey::new(name, KeyKind::Text, key.public())?;
        let signature = key.sign(self.text.as_bytes()).as_bytes().to_vec();
        self.put(&public, signature)?;
        Ok(public)
    }

    /// Signs the text and a time, in seconds since 1970, as witness `name`, who thereby says that up to then it has seen
    /// no other history than the one that the text is the newest head of.
    pub fn cosign(&mut self, name: &str, key: &SecretKey, time_s: u64) -> Result<NoteKey, NoteError> {
        let public = NoteKey::new(name, KeyKind::Cosignature, key.public())?;
        let signature = key.sign(&self.cosigned(time_s));
        self.put(&public, [&time_s.to_be_bytes()[..], signature.as_bytes()].concat())?;
        Ok(public)
    }

    /// Takes over from `other` the signature of `key`, which must be valid for this text.
    pub fn adopt(&mut self, other: &Self, key: &NoteKey) -> Result<Option<u64>, NoteError> {
        let Some(line) = other.line(key) else { return Err(NoteError::NotSigned(key.name.clone())) };
        let time_s = self.check(key, &line.signature)?;
        self.put(key, line.signature.clone())?;
        Ok(time_s)
    }

    /// Checks that `key` signed the text; says when, in seconds since 1970, if it is a witness's.
    pub fn verify(&self, key: &NoteKey) -> Result<Option<u64>, NoteError> {
        let line = self.line(key).ok_or_else(|| NoteError::NotSigned(key.name.clone()))?;
        self.check(key, &line.signature)
    }

    /// Reads a note from anywhere.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > MAX_NOTE_LEN {
            return Err(NoteError::Malformed("it is too long"));
        }
        let whole = std::str::from_utf8(bytes).map_err(|_| NoteError::Malformed("it is not UTF-8"))?;
        // The last empty line parts them, since the text may have some too.
        let at = whole.rfind("\n\n").ok_or(NoteError::Malformed("it has no signatures"))?;
        let (text, signatures) = (&whole[..=at], &whole[at + 2..]);
        let mut note = Self::new(text.to_owned())?;
        let signatures = signatures.strip_suffix('\n').ok_or(NoteError::Malformed("it has no signatures"))?;
        for line in signatures.split('\n') {
            if note.lines.len() >= MAX_SIGNATURES {
                return Err(NoteError::Malformed("it has too many signatures"));
            }
            note.lines.push(parse_line(line)?);
        }
        Ok(note)
    }

    fn line(&self, key: &NoteKey) -> Option<&Line> {
        let id = key.id();
        self.lines.iter().find(|line| line.name == key.name && line.id == id)
    }

    /// One signature of a key is enough: a new one takes the place of the old.
    fn put(&mut self, key: &NoteKey, signature: Vec<u8>) -> Result<(), NoteError> {
        let id = key.id();
        self.lines.retain(|line| line.name != key.name || line.id != id);
        if self.lines.len() >= MAX_SIGNATURES {
            return Err(NoteError::Malformed("it has too many signatures"));
        }
        self.lines.push(Line { name: key.name.clone(), id, signature });
        Ok(())
    }

    fn check(&self, key: &NoteKey, signature: &[u8]) -> Result<Option<u64>, NoteError> {
        let (time_s, signature) = match key.kind {
            KeyKind::Text => (None, signature),
            KeyKind::Cosignature => match signature.split_first_chunk() {
                Some((time, signature)) => (Some(u64::from_be_bytes(*time)), signature),
                None => return Err(NoteError::Malformed("a cosignature has no time")),
            },
        };
        let signature: [u8; SIGNATURE_LEN] =
            signature.try_into().map_err(|_| NoteError::Malformed("a signature has a wrong length"))?;
        let message = time_s.map_or_else(|| self.text.clone().into_bytes(), |time_s| self.cosigned(time_s));
        let verdict = key.key.verify(&message, &Signature::from_bytes(signature));
        verdict.map_err(|cause| NoteError::Signature { name: key.name.clone(), cause })?;
        Ok(time_s)
    }

    fn cosigned(&self, time_s: u64) -> Vec<u8> {
        format!("cosignature/v1\ntime {time_s}\n{}", self.text).into_bytes()
    }
}

/// Bytes in the one way in which they are written: the library also takes several such texts in a row, each with its padding.
pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.as_bytes()).ok().filter(|bytes| BASE64.encode(bytes) == text)
}

fn parse_line(line: &str) -> Result<Line, NoteError> {
    let wrong = NoteError::Malformed("a signature line is not `\u{2014} NAME BASE64`");
    let Some((name, signature)) = line.strip_prefix(DASH).and_then(|rest| rest.split_once(' ')) else {
        return Err(wrong);
    };
    let named = !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+');
    let Some(bytes) = from_base64(signature) else { return Err(wrong) };
    match bytes.split_first_chunk() {
        Some((id, signature)) if named && !signature.is_empty() => {
            Ok(Line { name: name.to_owned(), id: *id, signature: signature.to_vec() })
        }
        _ => Err(wrong),
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        for Line { name, id, signature } in &self.lines {
            writeln!(f, "{DASH}{name} {}", BASE64.encode(&[&id[..], signature].concat()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
