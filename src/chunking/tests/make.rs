//! Small files of the formats, made by hand.

/// Bytes that look random and never change: the BLAKE3 output stream of `seed`.
pub(crate) fn noise(seed: &[u8], len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(seed).finalize_xof().fill(&mut bytes);
    bytes
}

/// One function for all tests that have the file in memory.
pub(crate) fn read_slice(data: &[u8]) -> impl Fn(u64, &mut [u8]) -> std::io::Result<usize> {
    move |at, buffer| {
        let rest = data.get(at as usize..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

/// Corrects the checksum of a tar header.
pub(crate) fn sign(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A ustar header.
pub(crate) fn tar_header(name: &str, kind: u8, size: u64) -> [u8; 512] {
    let mut header = [0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..124].copy_from_slice(b"0000644\x000001750\x000001750\x00");
    if size < 1 << 33 {
        header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    } else {
        header[124] = 0x80;
        header[128..136].copy_from_slice(&size.to_be_bytes());
    }
    header[136..148].copy_from_slice(b"14500000000\0");
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    sign(&mut header);
    header
}

/// A header, data and padding.
pub(crate) fn tar_member(tar: &mut Vec<u8>, name: &str, kind: u8, data: &[u8]) {
    tar.extend(tar_header(name, kind, data.len() as u64));
    tar.extend(data);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

/// A ustar archive of regular files.
pub(crate) fn tar(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, data) in members {
        tar_member(&mut tar, name, b'0', data);
    }
    tar.resize((tar.len() + 1024).next_multiple_of(10240), 0);
    tar
}

pub(super) struct ZipEntry {
    pub data: Vec<u8>,
    pub method: u16,
    /// Sizes stand behind the data and not in the local header.
    pub streamed: bool,
    /// Sizes and offset stand in the extra field of the directory.
    pub large: bool,
}

pub(super) fn stored(data: Vec<u8>) -> ZipEntry {
    ZipEntry { data, method: 0, streamed: false, large: false }
}

pub(super) fn zip(entries: &[ZipEntry], large_end: bool) -> Vec<u8> {
    let u16 = |zip: &mut Vec<u8>, value: u16| zip.extend(value.to_le_bytes());
    let u32 = |zip: &mut Vec<u8>, value: u32| zip.extend(value.to_le_bytes());
    let u64 = |zip: &mut Vec<u8>, value: u64| zip.extend(value.to_le_bytes());
    let (mut zip, mut directory) = (Vec::new(), Vec::new());
    for (number, entry) in entries.iter().enumerate() {
        let name = format!("entry {number}");
        let (start, len) = (zip.len() as u64, entry.data.len() as u32);
        let local_len = if entry.streamed { 0 } else { len };
        zip.extend(b"PK\x03\x04\x14\0");
        u16(&mut zip, if entry.streamed { 8 } else { 0 });
        u16(&mut zip, entry.method);
        zip.extend([0; 8]);
        u32(&mut zip, local_len);
        u32(&mut zip, local_len);
        u16(&mut zip, name.len() as u16);
        // Longer than in the directory, as it often is.
        u16(&mut zip, 6);
        zip.extend(name.as_bytes());
        zip.extend(b"\x99\x99\x02\0ab");
        zip.extend(&entry.data);
        if entry.streamed {
            zip.extend(b"PK\x07\x08\0\0\0\0");
            u32(&mut zip, len);
            u32(&mut zip, len);
        }
        directory.extend(b"PK\x01\x02\x14\0\x14\0\0\0");
        u16(&mut directory, entry.method);
        directory.extend([0; 8]);
        let mut extra = b"\x77\x77\x01\0x".to_vec();
        if entry.large {
            extra.extend(b"\x01\0\x18\0");
            [len.into(), len.into(), start].into_iter().for_each(|value| u64(&mut extra, value));
        }
        u32(&mut directory, if entry.large { u32::MAX } else { len });
        u32(&mut directory, if entry.large { u32::MAX } else { len });
        u16(&mut directory, name.len() as u16);
        u16(&mut directory, extra.len() as u16);
        u16(&mut directory, 3);
        directory.extend([0; 8]);
        u32(&mut directory, if entry.large { u32::MAX } else { start as u32 });
        directory.extend(name.as_bytes());
        directory.extend(extra);
        directory.extend(b"why");
    }
    let (start, len) = (zip.len() as u64, directory.len() as u64);
    zip.extend(&directory);
    if large_end {
        let end = zip.len() as u64;
        zip.extend(b"PK\x06\x06");
        u64(&mut zip, 44);
        zip.extend([0; 12]);
        [entries.len() as u64, entries.len() as u64, len, start]
            .into_iter()
            .for_each(|value| u64(&mut zip, value));
        zip.extend(b"PK\x06\x07\0\0\0\0");
        u64(&mut zip, end);
        u32(&mut zip, 1);
    }
    zip.extend(b"PK\x05\x06\0\0\0\0");
    let entries = entries.len().min(0xffff) as u16;
    u16(&mut zip, entries);
    u16(&mut zip, entries);
    u32(&mut zip, if large_end { u32::MAX } else { len as u32 });
    u32(&mut zip, if large_end { u32::MAX } else { start as u32 });
    // A comment that looks like what comes before it.
    u16(&mut zip, 29);
    zip.extend(b"PK\x05\x06 comment of thirty bytes.");
    zip
}

/// Tensors in the order of the data; the header names them in the order of their names.
pub(crate) fn safetensors(tensors: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let (mut described, mut data) = (Vec::new(), Vec::new());
    for (name, bytes) in tensors {
        let (start, end) = (data.len(), data.len() + bytes.len());
        described.push(format!(
            r#""{name}":{{"dtype":"U8","shape":[{}],"data_offsets":[{start},{end}]}}"#,
            bytes.len()
        ));
        data.extend(bytes);
    }
    described.sort();
    let header =
        format!(r#"{{"__metadata__":{{"format":"pt","data_offsets":"no"}},{}}}   "#, described.join(","));
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
}

/// A Thrift value, as much as a Parquet file needs.
pub(super) enum Value {
    I32(i32),
    I64(i64),
    Text(&'static str),
    Structs(Vec<Vec<(u8, Value)>>),
    Struct(Vec<(u8, Value)>),
    True,
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn thrift(fields: &[(u8, Value)]) -> Vec<u8> {
    let (mut out, mut last) = (Vec::new(), 0);
    for (id, value) in fields {
        let kind = match value {
            Value::True => 1,
            Value::I32(_) => 5,
            Value::I64(_) => 6,
            Value::Text(_) => 8,
            Value::Structs(_) => 9,
            Value::Struct(_) => 12,
        };
        // Both forms of a field's header.
        if id - last == 1 {
            out.push(1 << 4 | kind);
        } else {
            out.push(kind);
            varint(&mut out, u64::from(*id) << 1);
        }
        last = *id;
        match value {
            Value::True => {}
            Value::I32(value) => varint(&mut out, (*value as u64) << 1),
            Value::I64(value) => varint(&mut out, (*value as u64) << 1),
            Value::Text(text) => {
                varint(&mut out, text.len() as u64);
                out.extend(text.as_bytes());
            }
            Value::Structs(items) => {
                if items.len() < 15 {
                    out.push((items.len() as u8) << 4 | 12);
                } else {
                    out.push(0xfc);
                    varint(&mut out, items.len() as u64);
                }
                items.iter().for_each(|item| out.extend(thrift(item)));
            }
            Value::Struct(inner) => out.extend(thrift(inner)),
        }
    }
    out.push(0);
    out
}

/// A page: its header, and `data`.
pub(super) fn page(data: &[u8]) -> Vec<u8> {
    let inner =
        vec![(1, Value::I32(7)), (5, Value::Struct(vec![(1, Value::I64(3)), (6, Value::Text("max"))]))];
    let mut page = thrift(&[
        (1, Value::I32(0)),
        (2, Value::I32(data.len() as i32 * 2)),
        (3, Value::I32(data.len() as i32)),
        (5, Value::Struct(inner)),
        (7, Value::True),
    ]);
    page.extend(data);
    page
}

/// The footer of a Parquet file whose row groups have column chunks at these places: offset and length.
pub(super) fn parquet_footer(groups: &[Vec<(u64, u64)>]) -> Vec<u8> {
    let column = |(start, len): &(u64, u64)| {
        let metadata = vec![
            (1, Value::I32(1)),
            (7, Value::I64(*len as i64)),
            (9, Value::I64(*start as i64 + 40)),
            (11, Value::I64(*start as i64)),
        ];
        vec![(2, Value::I64(4)), (3, Value::Struct(metadata)), (4, Value::I64(9))]
    };
    let group = |columns: &Vec<(u64, u64)>| {
        vec![(1, Value::Structs(columns.iter().map(column).collect())), (2, Value::I64(5))]
    };
    let mut footer = thrift(&[
        (1, Value::I32(2)),
        (2, Value::Structs(vec![vec![(4, Value::Text("root"))], vec![(4, Value::Text("a"))]])),
        (3, Value::I64(1000)),
        (4, Value::Structs(groups.iter().map(group).collect())),
        (6, Value::Text("made by hand")),
    ]);
    let len = footer.len() as u32;
    footer.extend(len.to_le_bytes());
    footer.extend(b"PAR1");
    footer
}
