//! What the log proves to those who have none of it: proofs of versions, checkpoints and cosignatures, as files.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Done, Site, done, wait_until};
use serde_json::Value;

/// A node with versions v1 and v2 of `data`.
fn published() -> (Site, String) {
    let site = Site::initialised();
    let source = site.dir("source");
    fs::write(source.join("file"), "content").unwrap();
    let uri = site.publish(&source, "data@v1");
    fs::write(source.join("file"), "second").unwrap();
    site.publish(&source, "data@v2");
    (site, uri)
}

fn genesis(uri: &str) -> &str {
    uri.split('/').nth(2).unwrap()
}

fn prove(site: &Site, reference: &str, name: &str) -> PathBuf {
    let file = site.dir("proofs").join(name);
    site.ok([
        OsStr::new("log"),
        OsStr::new("--proof"),
        OsStr::new(reference),
        OsStr::new("-o"),
        file.as_os_str(),
    ]);
    file
}

/// Runs the command where there is nothing of a node: no home, no folder of a user's, no daemon.
fn elsewhere(args: &[&OsStr]) -> Done {
    let empty = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bcai"));
    let found = done(command.env_clear().current_dir(empty.path()).args(args).output().unwrap());
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
    found
}

fn check(file: &Path, expected: &str) -> Done {
    let [verify, offline, genesis, json] = ["verify", "--offline", "--genesis", "--json"].map(OsStr::new);
    elsewhere(&[verify, offline, file.as_os_str(), genesis, OsStr::new(expected), json])
}

fn checked(file: &Path, expected: &str) -> Value {
    let found = check(file, expected);
    assert_eq!(found.code, 0, "{}{}", found.stdout, found.stderr);
    serde_json::from_str(&found.stdout).unwrap()
}

#[test]
fn a_proof_is_checked_with_nothing_but_the_file_and_the_networks_id() {
    let (site, uri) = published();
    let (file, listed) = (prove(&site, "data@v1", "v1"), site.json(["list"]));
    let proven = checked(&file, genesis(&uri));
    assert_eq!(proven["snapshot"], listed[0]["versions"][0]["snapshot"]);
    assert_eq!(
        (&proven["name"], &proven["version"], &proven["latest"]),
        (&"data".into(), &"v1".into(), &"v2".into())
    );
    assert_eq!(
        (&proven["withdrawn"], &proven["height"], &proven["head"]["height"]),
        (&Value::Null, &1.into(), &2.into())
    );
    assert_eq!((&proven["head"]["signers"], &proven["head"]["validators"]), (&1.into(), &1.into()));
    assert_eq!(
        checked(&file, &uri),
        proven,
        "a URI of the version says which network, and which version is meant"
    );
    let [verify, offline, flag] = ["verify", "--offline", "--genesis"].map(OsStr::new);
    let text = elsewhere(&[verify, offline, file.as_os_str(), flag, OsStr::new(genesis(&uri))]).stdout;
    for part in ["version    data@v1", "withdrawn  no", "latest     v2", "signed by  1 of 1", "not proven"] {
        assert!(text.contains(part), "{text}");
    }

    // What happened later is in later proofs only, and a tag or a URI names a version as well.
    site.ok(["yank", "data@v2", "--reason", "wrong labels"]);
    site.ok(["tag", "data", "stable", "v1"]);
    let later = checked(&prove(&site, "data@v2", "v2"), genesis(&uri));
    assert_eq!((&later["withdrawn"]["reason"], &later["latest"]), (&"wrong labels".into(), &"v1".into()));
    assert_eq!(checked(&prove(&site, "data@stable", "tag"), &uri)["version"], "v1");
    assert_eq!(checked(&file, genesis(&uri)), proven);
    let reader = Site::new();
    assert_eq!(reader.json(["log", &uri]), site.json(["log", "data"]), "a URI names the network as well");
    let theirs = checked(&prove(&reader, &uri, "theirs"), &uri);
    assert_eq!((&theirs["head"]["height"], &theirs["latest"]), (&4.into(), &"v1".into()));

    // On stdout it is the same file, and for scripts it is in the report.
    let piped = site.command(["log", "--proof", "data@v1"]).output().unwrap();
    assert_eq!(piped.stdout, fs::read(prove(&site, "data@v1", "again")).unwrap());
    let report = site.json(["log", "--proof", "data@v1"]);
    assert_eq!(report["proven"]["version"], "v1");
    assert_eq!(
        data_encoding::BASE64.decode(report["proof"].as_str().unwrap().as_bytes()).unwrap(),
        piped.stdout
    );
}

#[test]
fn a_proof_that_is_bent_or_of_something_else_proves_nothing() {
    let (site, uri) = published();
    let file = prove(&site, "data@v1", "v1");
    let whole = fs::read(&file).unwrap();
    let bent = site.dir("bent").join("file");
    // Every byte, wherever it is, is bound to the network's id.
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&bent, &bytes).unwrap();
        let found = check(&bent, genesis(&uri));
        assert_eq!(found.code, 13, "byte {at}: {}", found.stdout);
        assert!(found.stderr.contains("bent/file"), "{}", found.stderr);
    }
    fs::write(&bent, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(check(&bent, genesis(&uri)).code, 13);
    fs::write(&bent, "").unwrap();
    assert_eq!(check(&bent, genesis(&uri)).code, 13);

    let other = check(&file, &"ab".repeat(32));
    assert!(other.code == 13 && other.stderr.contains("abab"), "{}", other.stderr);
    for (wrong, named) in
        [("data@v2", "not of data@v2"), ("data", "not of data"), ("other@v1", "not of other@v1")]
    {
        let found = check(&file, &format!("bcai://{}/{wrong}", genesis(&uri)));
        assert!(found.code == 13 && found.stderr.contains(named), "{}", found.stderr);
    }
    assert_eq!(check(Path::new("/does/not/exist"), genesis(&uri)).code, 10);
    assert_eq!(check(&file, "data@v1").code, 2);

    assert!(site.fails(10, ["log", "--proof", "data@v9"]).contains("v9"));
    assert!(site.fails(10, ["log", "--proof", "nothing"]).contains("nothing"));
    let id = site.json(["list"])[0]["versions"][0]["snapshot"].as_str().unwrap().to_owned();
    assert!(site.fails(2, ["log", "--proof", &id]).contains("name a version"));
    assert!(
        site.fails(10, ["log", "--proof", "data@v1", "-o", "/does/not/exist"]).contains("/does/not/exist")
    );
    assert_eq!(site.run(["log", "-o", "file"]).code, 2);
}

fn checkpoint(site: &Site, name: &str) -> (PathBuf, String) {
    let file = site.dir("heads").join(name);
    let done = site.json([OsStr::new("log"), OsStr::new("--checkpoint"), OsStr::new("-o"), file.as_os_str()]);
    (file, done["key"].as_str().unwrap().to_owned())
}

fn cosign(site: &Site, head: &Path) -> Done {
    site.run([OsStr::new("--json"), OsStr::new("log"), OsStr::new("--cosign"), head.as_os_str()])
}

fn refused(site: &Site, code: i32, head: &Path, why: &str) {
    let found = cosign(site, head);
    assert!(found.code == code && found.stderr.contains(why), "{} {}", found.code, found.stderr);
}

fn check_key(file: &Path, keys: &[&str]) -> Done {
    let mut args = ["verify", "--json", "--checkpoint"].map(OsStr::new).to_vec();
    args.push(file.as_os_str());
    args.extend(keys.iter().flat_map(|key| ["--key", key]).map(OsStr::new));
    elsewhere(&args)
}

/// Checks a signature by the words of C2SP `signed-note` and `tlog-cosignature`, with none of our code.
fn signed_by_the_specification(note: &str, key: &str) -> Option<u64> {
    use sha2::Digest;
    let base64 = |text: &str| data_encoding::BASE64.decode(text.as_bytes()).unwrap();
    let (text, lines) = note.split_once("\n\n").unwrap();
    let text = format!("{text}\n");
    let (name, rest) = key.split_once('+').unwrap();
    let (id, key) = rest.split_once('+').unwrap();
    let key = base64(key);
    let hash = sha2::Sha256::digest([name.as_bytes(), b"\n", &key].concat());
    assert_eq!(data_encoding::HEXLOWER.encode(&hash[..4]), id);
    let ours = |line: &&str| line.starts_with(&format!("\u{2014} {name} "));
    let signature = base64(lines.lines().find(ours).unwrap().rsplit_once(' ').unwrap().1);
    assert_eq!(signature[..4], hash[..4]);
    let (time, signature) = match key[0] {
        1 => (None, &signature[4..]),
        4 => (Some(u64::from_be_bytes(signature[4..12].try_into().unwrap())), &signature[12..]),
        kind => panic!("a key of kind {kind}"),
    };
    let message = match time {
        Some(time) => format!("cosignature/v1\ntime {time}\n{text}"),
        None => text,
    };
    let public = ed25519_dalek::VerifyingKey::from_bytes(key[1..].try_into().unwrap()).unwrap();
    let signature = ed25519_dalek::Signature::from_slice(signature).unwrap();
    public.verify_strict(message.as_bytes(), &signature).unwrap();
    time
}

#[test]
fn a_checkpoint_is_cosigned_by_a_witness_that_holds_the_same_head() {
    let (site, uri) = published();
    let (head, key) = checkpoint(&site, "two");
    let note = fs::read_to_string(&head).unwrap();
    assert!(note.starts_with(&format!("bcai/{}\n2\n", genesis(&uri))), "{note}");
    assert_eq!(signed_by_the_specification(&note, &key), None);
    assert_eq!(site.ok(["log", "--checkpoint"]), note, "the same head has the same checkpoint");
    assert_eq!(site.ok(["log", &uri, "--checkpoint"]), note);
    assert_eq!(site.ok(["log", genesis(&uri), "--checkpoint"]), note);

    let witness = Site::new();
    refused(&witness, 10, &head, "is not followed here");
    witness.ok(["init", "--join", &uri]);
    let cosigned = witness.dir("heads").join("cosigned");
    let args =
        [OsStr::new("log"), OsStr::new("--cosign"), head.as_os_str(), OsStr::new("-o"), cosigned.as_os_str()];
    let theirs = witness.json(args)["key"].as_str().unwrap().to_owned();
    let both = fs::read_to_string(&cosigned).unwrap();
    assert!(both.starts_with(&note) && both.lines().count() == note.lines().count() + 1, "{both}");
    assert_eq!(signed_by_the_specification(&both, &key), None);
    assert!(signed_by_the_specification(&both, &theirs).unwrap() > 1_700_000_000);

    let found = check_key(&cosigned, &[&key, &theirs]);
    assert_eq!(found.code, 0, "{}", found.stderr);
    let found: Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!((&found["entries"], &found["signatures"][0]["time_ms"]), (&2.into(), &Value::Null));
    assert!(found["signatures"][1]["time_ms"].as_u64().is_some());
    assert_eq!(check_key(&head, &[&theirs]).code, 13, "it is not cosigned yet");
    fs::write(&cosigned, both.replace("\n2\n", "\n3\n")).unwrap();
    assert_eq!(check_key(&cosigned, &[&key]).code, 13, "it says something else now");
    assert_eq!(check_key(&cosigned, &["nonsense"]).code, 2);
}

#[test]
fn a_witness_refuses_what_is_older_newer_or_another_history() {
    let (site, uri) = published();
    let witness = Site::new();
    witness.ok(["init", "--join", &uri]);
    let (head, _) = checkpoint(&site, "two");
    assert_eq!(cosign(&witness, &head).code, 0);
    assert_eq!(cosign(&witness, &head).code, 0, "the same one once more");

    // Another root under the same size.
    let note = fs::read_to_string(&head).unwrap();
    let root = note.lines().nth(2).unwrap();
    let bent = site.dir("heads").join("bent");
    fs::write(&bent, note.replace(root, &data_encoding::BASE64.encode(&[7; 32]))).unwrap();
    refused(&witness, 13, &bent, "others than those that validators have signed");
    fs::write(&bent, note.replace("bcai/", "example.com/")).unwrap();
    refused(&witness, 2, &bent, "no network of bcai");
    fs::write(&bent, note.replace(&format!("{root}\n"), &format!("{root}\nmore\n"))).unwrap();
    refused(&witness, 12, &bent, "`more`");
    fs::write(&bent, "junk").unwrap();
    refused(&witness, 13, &bent, "not a signed note");

    // One that has not come to the witness, and cannot.
    site.ok(["tag", "data", "stable", "v1"]);
    let (newer, _) = checkpoint(&site, "three");
    assert_eq!(cosign(&witness, &newer).code, 0, "it is fetched first");
    refused(&witness, 1, &head, "3 are known here");
    fs::write(&bent, note.replace("\n2\n", "\n4\n")).unwrap();
    refused(&witness, 14, &bent, "has 3 here");

    // The witness loses its copy of the log while the network is put back and goes on in another way.
    let (log, aside) = (site.home.join("networks"), site.dir("aside"));
    site.ok(["stop"]);
    copy(&log, &aside);
    site.ok(["tag", "data", "last", "v1"]);
    let (four, _) = checkpoint(&site, "four");
    wait_until("the witness has found the node again", || cosign(&witness, &four).code == 0);
    site.ok(["stop"]);
    witness.ok(["stop"]);
    fs::remove_dir_all(&log).unwrap();
    copy(&aside.join("networks"), &log);
    fs::remove_dir_all(witness.home.join("networks")).unwrap();
    site.ok(["daemon"]);
    witness.ok(["init", "--join", &uri]);
    refused(&witness, 1, &newer, "4 were cosigned here before");
    site.ok(["tag", "data", "last", "v2"]);
    refused(&witness, 13, &checkpoint(&site, "other").0, "another one than that of 4 entries");
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}
