//! What cuts at the borders of formats save. Bytes are those that the store has grown by, metadata included.

use super::*;
use crate::chunking::tests::make::{safetensors, tar};

/// A member of a tar.
type Member = (String, Vec<u8>);

/// A number that looks random, below `below`.
fn draw(seed: u64, below: u64) -> u64 {
    let hash = blake3::hash(&seed.to_le_bytes());
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap()) % below
}

/// Images that do not compress, of 30 to 300 KB.
fn images(numbers: std::ops::Range<u64>) -> Vec<Member> {
    let image = |number| {
        let len = 30_000 + draw(number, 270_000);
        (format!("image-{number:05}.jpg"), noise(number, len as usize))
    };
    numbers.map(image).collect()
}

/// The samples of one shard, some 110 KB each, with a label of a few bytes.
fn shard(numbers: std::ops::Range<u64>) -> Vec<Member> {
    numbers.flat_map(record).collect()
}

fn record(number: u64) -> [Member; 2] {
    let len = 60_000 + draw(number, 100_000);
    let label = (draw(number + 1, 1000)).to_string().into_bytes();
    [(format!("{number:06}.jpg"), noise(number, len as usize)), (format!("{number:06}.cls"), label)]
}

fn len_of(members: &[Member]) -> u64 {
    members.iter().map(|(_, data)| data.len() as u64).sum()
}

#[test]
fn a_tar_of_a_published_folder_adds_little() {
    let bench = Bench::new();
    let images = images(0..200);
    for (name, data) in &images {
        bench.write(name, data);
    }
    let folder = bench.snapshot().unwrap();
    assert!(folder.new_bytes > len_of(&images));
    let tarred = Bench::new();
    tarred.write("images.tar", &tar(&images));
    let done = snapshot(tarred.dir(), &bench.store, &Options::default(), &Progress::default()).unwrap();
    let percent = done.new_bytes as f64 * 100.0 / done.totals.bytes as f64;
    println!("a tar of 200 images adds {} of {} bytes, {percent:.2}%", done.new_bytes, done.totals.bytes);
    assert!(percent <= 3.0, "{percent}%: {done:?}");
}

#[test]
fn records_inserted_into_shards_add_little_more_than_themselves() {
    let bench = Bench::new();
    let mut shards: Vec<Vec<Member>> = (0..4).map(|number| shard(number * 100..(number + 1) * 100)).collect();
    let write = |shards: &[Vec<Member>]| {
        for (number, shard) in shards.iter().enumerate() {
            bench.write(&format!("shard-{number:03}.tar"), &tar(shard));
        }
    };
    write(&shards);
    bench.snapshot().unwrap();
    // One in a hundred, anywhere but where it would be easy.
    let mut new = 0;
    for number in 1000..1004 {
        let record = record(number);
        new += len_of(&record);
        let shard = &mut shards[number as usize % 4];
        let at = 2 * draw(number, shard.len() as u64 / 2) as usize;
        shard.splice(at..at, record);
    }
    write(&shards);
    let done = bench.snapshot_equals_disk();
    let ratio = done.new_bytes as f64 / new as f64;
    println!("{new} bytes of new records add {} bytes, {ratio:.2} times", done.new_bytes);
    assert!(ratio <= 1.3, "{ratio} times: {done:?}");
}

#[test]
fn a_model_with_another_tensor_and_another_header_adds_the_tensor() {
    let bench = Bench::new();
    let tensor = |number: u64| noise(number, 100_000 + draw(number, 400_000) as usize);
    let names: Vec<String> = (0..20).map(|layer| format!("layers.{layer:02}.weight")).collect();
    let mut tensors: Vec<(&str, Vec<u8>)> = names.iter().map(String::as_str).zip((0..).map(tensor)).collect();
    bench.write("model.safetensors", &safetensors(&tensors));
    bench.snapshot().unwrap();
    let added = tensor(100);
    let len = added.len() as u64;
    tensors.insert(7, ("adapter.weight", added));
    bench.write("model.safetensors", &safetensors(&tensors));
    let done = bench.snapshot_equals_disk();
    println!("a tensor of {len} bytes adds {}", done.new_bytes);
    assert!(done.new_bytes < len + 20_000, "{done:?}");
}

/// The same content makes the same hash, in however many chunks it is stored.
#[test]
fn the_hash_of_a_file_does_not_depend_on_its_cuts() {
    let bench = Bench::new();
    let images = images(0..8);
    bench.write("images.tar", &tar(&images));
    bench.write("between", &noise(1, 200_000));
    // A tar whose third member is a hole, with its header in the middle of data.
    let sparse = File::create(bench.dir().join("sparse.tar")).unwrap();
    sparse.set_len(10 << 20).unwrap();
    let mut emptied = images.clone();
    emptied[2].1 = vec![0; 4 << 20];
    let emptied = tar(&emptied);
    let hole = emptied.chunks(4096).position(|block| block.iter().all(|byte| *byte == 0)).unwrap() * 4096;
    sparse.write_all_at(&emptied[..hole], 0).unwrap();
    let after = hole + (4 << 20) - 8192;
    sparse.write_all_at(&emptied[after..], after as u64).unwrap();
    bench.write("zeros", &vec![0; 250_000]);
    for chunking in ["auto", "auto:16K", "auto:1M", "cdc:64K", "cdc:256K", "fixed:64K"] {
        let options = Options { chunking: chunking.parse().unwrap(), ..Options::default() };
        let done = snapshot(bench.dir(), &bench.store, &options, &Progress::default()).unwrap();
        // Reading back compares the hash that is recorded.
        assert_eq!(in_store(&bench.store, done.snapshot), on_disk(bench.dir()), "{chunking}");
    }
}
