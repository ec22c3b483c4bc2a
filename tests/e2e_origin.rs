//! Object stores as origins, with real nodes: what a publisher has put there is read when the publisher is gone, nothing
//! that is wrong is believed, and who is not let in is told why.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
mod servers;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::{Running, Site, assert_same_tree, noise, wait_until};
use serde_json::Value;
use servers::{ACCESS_KEY, SECRET_KEY};

fn make_source(site: &Site) -> PathBuf {
    let source = site.dir("source");
    fs::create_dir_all(source.join("deep/er")).unwrap();
    for i in 0..30 {
        fs::write(source.join(format!("deep/{i:04}")), noise(i, 30_000 + i as usize * 5_000)).unwrap();
    }
    fs::write(source.join("deep/er/large"), noise(77, 9 << 20)).unwrap();
    fs::write(source.join("text"), "what repeats is compressed ".repeat(20_000)).unwrap();
    fs::write(source.join("empty"), "").unwrap();
    source
}

fn publish(site: &Site, source: &Path, target: &str, origin: &str) -> Value {
    site.json([
        OsStr::new("publish"),
        source.as_os_str(),
        OsStr::new(target),
        "--origin".as_ref(),
        origin.as_ref(),
    ])
}

/// A node that follows the log of a URI, and the address where it can be asked for it.
fn follower(uri: &str, settings: &[(String, String)]) -> (Site, String) {
    let mut site = Site::new();
    site.settings.extend_from_slice(settings);
    site.ok(["init", "--join", uri]);
    let address = site.status()["addresses"][0].as_str().unwrap().to_owned();
    (site, address)
}

fn export(site: &Site, reference: &str) -> PathBuf {
    let out = site.dir("out").join("tree");
    site.ok([OsStr::new("export"), OsStr::new(reference), out.as_os_str()]);
    out
}

/// A version in the network of a URI, asked for at `peer` alone.
fn uri_at(uri: &str, peer: &str, origin: &str) -> String {
    let (name, _) = uri.split_once('?').unwrap();
    let origin = if origin.is_empty() { String::new() } else { format!("&origin={origin}") };
    format!("{name}?peer={peer}{origin}")
}

fn folder_of(site: &Site) -> (PathBuf, String) {
    let folder = site.dir("origin");
    let url = format!("file://{}", folder.display());
    (folder, url)
}

fn packs(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder.join("packs")).into_iter().flatten().map(|entry| entry.unwrap().path());
    // What is still being written has a number behind its name.
    files.filter(|path| path.extension() == Some(OsStr::new("pack"))).collect()
}

fn s3_settings(port: u16, secret: &str) -> Vec<(String, String)> {
    let settings = [
        ("AWS_ENDPOINT", format!("http://127.0.0.1:{port}")),
        ("AWS_ALLOW_HTTP", "true".into()),
        ("AWS_REGION", "us-east-1".into()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.into()),
        ("AWS_SECRET_ACCESS_KEY", secret.into()),
    ];
    settings.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

#[test]
fn a_folder_serves_when_the_publisher_is_gone() {
    let publisher = Site::initialised();
    let source = make_source(&publisher);
    let shared = Site::new();
    let (_, url) = folder_of(&shared);
    let done = publish(&publisher, &source, "data@v1", &url);
    let uri = done["uri"].as_str().unwrap();
    assert!(uri.ends_with(&format!("&origin={url}")), "{uri}");
    assert!(done["upload"]["objects"].as_u64().unwrap() > 100, "{done}");
    // The same again, of a version: all of it is there.
    let again = publisher.json(["publish", "data@v1", "data@v1", "--origin", &url]);
    assert_eq!((&again["already"], &again["upload"]["already"]), (&true.into(), &true.into()), "{again}");

    let (follower, peer) = follower(uri, &[]);
    publisher.kill();
    let reader = Site::new();
    assert_same_tree(&source, &export(&reader, &uri_at(uri, &peer, &url)));
    let origins = &reader.status()["origins"];
    assert_eq!(origins[0]["url"].as_str(), Some(&*url));
    assert!(origins[0]["bytes_in"].as_u64().unwrap() > 9 << 20, "{origins}");
    // What one node has fetched from there, its peers may have from it; what nobody has, the follower asks for itself,
    // though it is connected to nobody who could tell it about the log.
    drop(reader);
    assert_same_tree(&source, &export(&follower, "data@v1"));
    assert!(follower.status()["origins"][0]["requests"].as_u64().unwrap() > 0);
}

#[test]
#[cfg_attr(not(fuse_available), ignore = "no /dev/fuse here")]
fn a_mount_reads_from_a_bucket_and_survives_its_daemon() {
    let storage = tempfile::tempdir().unwrap();
    fs::create_dir(storage.path().join("bucket")).unwrap();
    let settings =
        s3_settings(servers::s3(storage.path(), Some((ACCESS_KEY, SECRET_KEY))).port(), SECRET_KEY);
    let mut publisher = Site::new();
    publisher.settings.extend_from_slice(&settings);
    publisher.ok(["init"]);
    let source = make_source(&publisher);
    let done = publish(&publisher, &source, "data@v1", "s3://bucket/some/prefix");
    let uri = done["uri"].as_str().unwrap();
    assert!(!uri.contains(SECRET_KEY) && !uri.contains(ACCESS_KEY), "{uri}");
    let (_follower, peer) = follower(uri, &settings);
    publisher.kill();

    let mut reader = Site::new();
    reader.settings.extend_from_slice(&settings);
    let mounted = reader.mount(&uri_at(uri, &peer, "s3://bucket/some/prefix"), "mnt");
    assert_eq!(fs::read(mounted.join("text")).unwrap(), fs::read(source.join("text")).unwrap());
    reader.kill();
    // The next daemon remembers where it was.
    reader.ok(["list"]);
    wait_until("the mount is back", || fs::metadata(mounted.join("deep")).is_ok());
    assert_same_tree(&source, &mounted);
    reader.ok([OsStr::new("unmount"), mounted.as_os_str()]);
}

#[test]
fn who_is_not_let_into_a_bucket_is_told_so() {
    let storage = tempfile::tempdir().unwrap();
    fs::create_dir(storage.path().join("bucket")).unwrap();
    let port = servers::s3(storage.path(), Some((ACCESS_KEY, SECRET_KEY))).port();
    let (good, bad) = (s3_settings(port, SECRET_KEY), s3_settings(port, "something else"));
    let mut stranger = Site::new();
    stranger.settings.extend_from_slice(&bad);
    stranger.ok(["init"]);
    let source = make_source(&stranger);
    let args = ["publish", source.to_str().unwrap(), "data@v1", "--origin", "s3://bucket/p"];
    let message = stranger.fails(12, args);
    for part in ["s3://bucket/p", "refuses access", "AWS_SECRET_ACCESS_KEY"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(!message.contains("something else"), "{message}");
    assert!(
        !stranger.ok(["list"]).contains("data"),
        "a version was announced that is not where it should be"
    );

    // With the right key it goes on from there; a reader with a wrong one gets nothing.
    stranger.ok(["stop"]);
    stranger.settings.retain(|(name, _)| !name.starts_with("AWS_"));
    stranger.settings.extend_from_slice(&good);
    let done = stranger.json(args);
    let uri = done["uri"].as_str().unwrap();
    let (_follower, peer) = follower(uri, &[]);
    stranger.kill();
    let mut reader = Site::new();
    reader.settings.extend_from_slice(&bad);
    let message = reader.fails(14, ["ls", &uri_at(uri, &peer, "s3://bucket/p")]);
    assert!(message.contains("refuses access") && message.contains("s3://bucket/p"), "{message}");
    let message = stranger.fails(2, ["publish", "data@v1", "data@v1", "--origin", "s3://key:hunter2@bucket"]);
    assert!(message.contains("AWS_ACCESS_KEY_ID") && !message.contains("hunter2"), "{message}");
}

#[test]
fn a_web_server_of_the_folder_will_do() {
    let publisher = Site::initialised();
    let source = make_source(&publisher);
    let shared = Site::new();
    let (folder, url) = folder_of(&shared);
    let done = publish(&publisher, &source, "data@v1", &url);
    let (_follower, peer) = follower(done["uri"].as_str().unwrap(), &[]);
    let uri = uri_at(done["uri"].as_str().unwrap(), &peer, "");
    publisher.kill();

    let reads_from = |address: std::net::SocketAddr| {
        let mut reader = Site::new();
        reader.settings.push(("BCAI_NET_ORIGINS".into(), format!("http://{address}")));
        reader
    };
    let reader = reads_from(servers::web(folder.clone(), true));
    assert_same_tree(&source, &export(&reader, &uri));
    // It would have everything from that one, whom the follower names to it.
    drop(reader);
    let reader = reads_from(servers::web(folder, false));
    let message = reader.fails(14, ["ls", &uri]);
    assert!(message.contains("HTTP ranges"), "{message}");
    let message = publisher.fails(1, ["publish", "data@v1", "data@v1", "--origin", "http://127.0.0.1:9/x"]);
    assert!(message.contains("upload to the folder or bucket"), "{message}");
}

#[test]
fn a_lying_folder_is_refused_and_mended() {
    let publisher = Site::initialised();
    let source = make_source(&publisher);
    let shared = Site::new();
    let (folder, url) = folder_of(&shared);
    let done = publish(&publisher, &source, "data@v1", &url);
    let (_follower, peer) = follower(done["uri"].as_str().unwrap(), &[]);
    let uri = uri_at(done["uri"].as_str().unwrap(), &peer, &url);
    publisher.ok(["stop"]);
    for pack in packs(&folder) {
        let file = fs::OpenOptions::new().read(true).write(true).open(&pack).unwrap();
        for at in (1000..file.metadata().unwrap().len() - 100_000).step_by(200_000) {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
        }
    }
    let reader = Site::new();
    let mut refused = 0;
    for i in 0..30 {
        let path = uri.replacen('?', &format!("/deep/{i:04}?"), 1);
        let file = reader.command(["cat", &path]).output().unwrap();
        // Less than the file, but never anything else.
        let right = noise(i, 30_000 + i as usize * 5_000);
        assert!(right.starts_with(&file.stdout), "wrong bytes were given out for {i}");
        let code = file.status.code();
        assert!(code == Some(0) && file.stdout == right || code == Some(13), "{i}: {code:?}");
        refused += u32::from(code == Some(13));
    }
    assert!(refused > 3, "{refused}");
    // What is damaged is removed; publishing again brings it back.
    packs(&folder).iter().for_each(|pack| fs::remove_file(pack).unwrap());
    let again = publisher.json(["publish", "data@v1", "data@v1", "--origin", &url]);
    assert_eq!(again["upload"]["already"], false, "{again}");
    publisher.ok(["stop"]);
    assert_same_tree(&source, &export(&Site::new(), &uri));
}

#[test]
fn killed_while_uploading_it_goes_on_where_it_was() {
    let publisher = Site::initialised();
    let source = publisher.dir("source");
    for i in 0..40 {
        fs::write(source.join(format!("{i:04}")), noise(i, 4 << 20)).unwrap();
    }
    let shared = Site::new();
    let (folder, url) = folder_of(&shared);
    let args = ["publish", source.to_str().unwrap(), "data@v1", "--origin", &url];
    let running =
        Running(publisher.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    wait_until("something has gone up", || !packs(&folder).is_empty());
    publisher.kill();
    drop(running);
    let done = publisher.json(args);
    let upload = &done["upload"];
    // It may have been done just before it was killed.
    let fewer = upload["sent_packs"].as_u64() < upload["packs"].as_u64();
    assert!(upload["already"] == true || fewer, "{done}");
    let (_follower, peer) = follower(done["uri"].as_str().unwrap(), &[]);
    publisher.kill();
    let reader = Site::new();
    assert_same_tree(&source, &export(&reader, &uri_at(done["uri"].as_str().unwrap(), &peer, &url)));
}
