//! Notes against the vectors of Go's `golang.org/x/mod/sumdb/note` and the example of C2SP's specification.

use proptest::prelude::*;

use super::*;

/// The key, secret key and note of `note_test.go`.
const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const PETER_SECRET: &str = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const ENOCH: &str = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop";
const TEXT: &str = "If you think cryptography is the answer to your problem,\n\
                    then you don't know what your problem is.\n";
const PETER_LINE: &str = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
const ENOCH_LINE: &str = "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n";

fn note(lines: &str) -> Result<Note, NoteError> {
    Note::parse(format!("{TEXT}\n{lines}").as_bytes())
}

#[test]
fn agrees_with_gos_vectors() {
    let [peter, enoch] = [PETER, ENOCH].map(|key| key.parse::<NoteKey>().unwrap());
    let both = note(&format!("{PETER_LINE}{ENOCH_LINE}")).unwrap();
    assert_eq!((both.text(), both.verify(&peter), both.verify(&enoch)), (TEXT, Ok(None), Ok(None)));
    assert_eq!((peter.to_string().as_str(), enoch.to_string().as_str()), (PETER, ENOCH));
    assert_eq!(both.to_string(), format!("{TEXT}\n{PETER_LINE}{ENOCH_LINE}"));
    let seed = BASE64.decode(PETER_SECRET.as_bytes()).unwrap()[1..].try_into().unwrap();
    let mut signed = Note::new(TEXT.to_owned()).unwrap();
    assert_eq!(signed.sign("PeterNeumann", &SecretKey::from_bytes(seed)), Ok(peter.clone()));
    assert_eq!(signed.to_string(), format!("{TEXT}\n{PETER_LINE}"));
    // Signing once more replaces the line.
    signed.sign("PeterNeumann", &SecretKey::from_bytes(seed)).unwrap();
    assert_eq!(signed.to_string(), format!("{TEXT}\n{PETER_LINE}"));
    assert_eq!(signed.verify(&enoch), Err(NoteError::NotSigned("EnochRoot".into())));
}

#[test]
fn what_gos_tests_refuse_is_refused() {
    let peter: NoteKey = PETER.parse().unwrap();
    let unended = format!("{TEXT}\n{}", PETER_LINE.trim_end());
    let bad_name = PETER_LINE.replace("PeterNeumann", "Bad Name");
    for whole in [
        TEXT.to_owned(),
        format!("{TEXT}\n"),
        unended,
        format!("\u{1}{TEXT}\n{PETER_LINE}"),
        format!("{TEXT}\n{bad_name}"),
        format!("{TEXT}\n{PETER_LINE}Unexpected line.\n"),
        format!("{TEXT}\n{}", PETER_LINE.repeat(MAX_SIGNATURES + 1)),
    ] {
        assert!(matches!(Note::parse(whole.as_bytes()), Err(NoteError::Malformed(_))), "{whole}");
    }
    assert!(Note::parse(&[b"\xff", TEXT.as_bytes(), b"\n", PETER_LINE.as_bytes()].concat()).is_err());
    let longer = PETER_LINE.replace("SffcvIAQ", "SffcvIAQABCD");
    assert!(note(&longer).unwrap().verify(&peter).is_err());
    for key in [
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ] {
        assert!(matches!(key.parse::<NoteKey>(), Err(NoteError::Key(_))), "{key}");
    }
    for end in 0..PETER.len() {
        assert!(PETER[..end].parse::<NoteKey>().is_err());
        let mut bytes = PETER.as_bytes().to_vec();
        bytes[end] += 1;
        assert!(std::str::from_utf8(&bytes).unwrap().parse::<NoteKey>().is_err(), "byte {end}");
    }
    for name in ["", "a b", "a+b", "a\u{3000}b", "a\n"] {
        assert!(NoteKey::new(name, KeyKind::Text, peter.key).is_err(), "{name:?}");
    }
}

/// The lines of the specification's example: the time in the witness's line is that of its signed message.
#[test]
fn a_cosignature_is_laid_out_as_in_the_specification() {
    let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    let line = "— witness.example.com/w1 \
                jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";
    let note = Note::parse(format!("{text}\n{line}").as_bytes()).unwrap();
    let (time, _) = note.lines[0].signature.split_first_chunk().unwrap();
    assert_eq!((u64::from_be_bytes(*time), note.lines[0].signature.len()), (1_679_315_147, 72));
    let message = String::from_utf8(note.cosigned(1_679_315_147)).unwrap();
    assert_eq!(message, format!("cosignature/v1\ntime 1679315147\n{text}"));
}

/// Made from the words of the specification with Python's `hashlib` and OpenSSL's Ed25519: the secret key is 32 bytes of 9.
#[test]
fn a_cosignature_of_another_implementation_verifies_and_ours_is_the_same() {
    let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    let key = "witness.example.com/w1+4bdc7eaa+BP0XJDhaoMdbZPt4zWAvodmR/ev3axPFjtcC6sg16fYY";
    let line = "— witness.example.com/w1 \
                S9x+qgAAAABkGFDLSEwbtADY9t5XeSzDTVuiqYN5nZfoc9NQOUgkPYm4wwjIUL68Nczz1tpzCjnpmnRXttgqVVwOg3WfE7AXqa+DAg==\n";
    let note = Note::parse(format!("{text}\n{line}").as_bytes()).unwrap();
    let key: NoteKey = key.parse().unwrap();
    assert_eq!(note.verify(&key), Ok(Some(1_679_315_147)));
    let mut ours = Note::new(text.to_owned()).unwrap();
    let secret = SecretKey::from_bytes([9; 32]);
    assert_eq!(ours.cosign("witness.example.com/w1", &secret, 1_679_315_147), Ok(key));
    assert_eq!(ours.to_string(), note.to_string());
}

#[test]
fn a_cosignature_is_for_one_text_and_time_and_can_be_taken_over() {
    let (log, witness) = (SecretKey::from_bytes([1; 32]), SecretKey::from_bytes([2; 32]));
    let mut mine = Note::new("log\n1\nroot\n".to_owned()).unwrap();
    let log = mine.sign("log", &log).unwrap();
    let mut theirs = Note::parse(mine.to_string().as_bytes()).unwrap();
    let key = theirs.cosign("w.example/1", &witness, 7).unwrap();
    assert_eq!(key.to_string().parse(), Ok(key.clone()));
    assert_eq!((theirs.verify(&key), theirs.verify(&log)), (Ok(Some(7)), Ok(None)));
    assert_eq!(mine.adopt(&theirs, &key), Ok(Some(7)));
    assert_eq!((mine.verify(&key), &mine), (Ok(Some(7)), &theirs));
    // Another text, another time, the same key in the other kind, another name.
    let mut other = Note::new("log\n2\nroot\n".to_owned()).unwrap();
    assert!(matches!(other.adopt(&theirs, &key), Err(NoteError::Signature { .. })));
    assert_eq!(other.lines, vec![]);
    let mut later = theirs.clone();
    later.lines[1].signature[7] += 1;
    assert!(matches!(later.verify(&key), Err(NoteError::Signature { .. })));
    for wrong in [
        NoteKey::new("w.example/1", KeyKind::Text, witness.public()).unwrap(),
        NoteKey::new("w.example/2", KeyKind::Cosignature, witness.public()).unwrap(),
    ] {
        assert!(matches!(theirs.verify(&wrong), Err(NoteError::NotSigned(_))));
    }
    let mut short = theirs.clone();
    short.lines[1].signature.truncate(7);
    assert!(matches!(short.verify(&key), Err(NoteError::Malformed(_))));
}

/// Found by fuzzing: two paddings in a row made a second spelling of one signature.
#[test]
fn a_signature_has_one_spelling() {
    let [first, second] = ["— log AAECAwQFBgc=\n", "— log AAECAw==BAUGBw==\n"];
    assert_eq!(note(first).unwrap().to_string(), format!("{TEXT}\n{first}"));
    assert!(matches!(note(second), Err(NoteError::Malformed(_))));
}

proptest! {
    #[test]
    fn junk_never_panics_and_what_parses_prints_the_same(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        line in "— [a-z./ +]{0,9} [A-Za-z0-9+/=]{0,100}\n", text in "[ -~\n]{0,40}",
    ) {
        let _ = Note::parse(&bytes);
        let whole = format!("{text}\n\n{line}");
        if let Ok(note) = Note::parse(whole.as_bytes()) {
            prop_assert_eq!(note.to_string(), whole);
        }
    }
}
