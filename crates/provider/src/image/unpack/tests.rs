use std::io::Seek;

use ring::digest::{SHA256, digest};
use tar::{Builder, Header};

use super::*;

/// An entry: type, path, link's target, content.
type Spec<'a> = (EntryType, &'a str, &'a str, &'a [u8]);

fn header(kind: EntryType, content: &[u8]) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o4755 });
    header.set_size(content.len() as u64);
    header
}

/// Writes names as they are: `Builder` refuses the bad ones we need.
fn tar_of(entries: &[Spec<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, path, target, content) in entries {
        let mut header = header(*kind, content);
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path.as_bytes());
        old.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn archive_of(bytes: &[u8]) -> Archive {
    let sha256 = digest(&SHA256, bytes).as_ref().try_into().unwrap();
    Archive { source: "runner.tar".into(), sha256 }
}

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

fn unpack_bytes(bytes: &[u8]) -> (tempfile::TempDir, Result<(), String>) {
    let outer = tempfile::tempdir().unwrap();
    fs::create_dir(outer.path().join("work")).unwrap();
    let done = unpack(
        file_of(bytes),
        &archive_of(bytes),
        &outer.path().join("work"),
        Bounds { bytes: 1_000_000, entries: 100 },
    );
    (outer, done.map_err(|error| error.to_string()))
}

#[test]
fn a_plain_and_a_gzipped_archive_unpack_alike_without_set_id_bits() {
    let tar = tar_of(&[
        (EntryType::Directory, "bin/", "", b""),
        (EntryType::Regular, "./bin/run", "", b"content"),
        (EntryType::Symlink, "run", "bin/run", b""),
        (EntryType::Symlink, "bin/up", "../run", b""),
        (EntryType::Link, "bin/same", "bin/run", b""),
        (EntryType::Regular, "deep/er/file", "", b"x"),
    ]);
    for bytes in [tar.clone(), gz(&tar)] {
        let (outer, done) = unpack_bytes(&bytes);
        assert_eq!(done, Ok(()));
        let work = outer.path().join("work");
        for path in ["bin/run", "run", "bin/up", "bin/same"] {
            assert_eq!(fs::read_to_string(work.join(path)).unwrap(), "content", "{path}");
        }
        let mode = fs::metadata(work.join("bin/run")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
    }
}

#[test]
fn nothing_is_written_outside() {
    let file = EntryType::Regular;
    let link = EntryType::Symlink;
    let cases: &[&[Spec<'_>]] = &[
        &[(file, "../evil", "", b"x")],
        &[(file, "a/../../evil", "", b"x")],
        &[(file, "/evil", "", b"x")],
        &[(link, "l", "/", b"")],
        &[(link, "l", "..", b"")],
        &[(link, "a/l", "../..", b"")],
        &[(link, "l", "a/../..", b"")],
        &[(link, "d", ".", b""), (file, "d/evil", "", b"x")],
        &[(link, "d", "x", b""), (EntryType::Directory, "d/", "", b"")],
        &[(link, "a/up", "..", b""), (link, "evil", "a/up/../evil", b"")],
        &[(EntryType::Link, "h", "../evil", b"")],
        &[(EntryType::Link, "h", "/etc/passwd", b"")],
        &[(link, "a/b/s", "../..", b""), (EntryType::Link, "s", "a/b/s", b"")],
        &[(EntryType::Fifo, "f", "", b"")],
        &[(EntryType::Block, "f", "", b"")],
        &[(EntryType::Directory, "d/", "", b""), (file, "d", "", b"x")],
    ];
    for case in cases {
        let (outer, done) = unpack_bytes(&tar_of(case));
        let text = done.unwrap_err();
        assert!(text.starts_with("runner.tar: entry "), "{case:?}: {text}");
        let names: Vec<_> = fs::read_dir(outer.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "{case:?}");
    }
}

#[test]
fn a_wrong_hash_is_told_before_anything_else() {
    let bytes = tar_of(&[(EntryType::Regular, "../evil", "", b"x")]);
    let outer = tempfile::tempdir().unwrap();
    let archive = Archive { source: "runner.tar".into(), sha256: [7; 32] };
    let done = unpack(file_of(&bytes), &archive, outer.path(), Bounds::default());
    let text = done.unwrap_err().to_string();
    assert!(text.starts_with("runner.tar has sha256 "), "{text}");
    assert!(text.ends_with(
        "but 0707070707070707070707070707070707070707070707070707070707070707 is declared"
    ));
}

#[test]
fn what_is_too_much_or_broken_is_refused() {
    let big = tar_of(&[(EntryType::Regular, "big", "", &vec![0; 1_000_001])]);
    assert!(unpack_bytes(&gz(&big)).1.unwrap_err().contains("more than 1000000 bytes"));
    let many = vec![(EntryType::Directory, "d/", "", &b""[..]); 101];
    assert!(unpack_bytes(&tar_of(&many)).1.unwrap_err().contains("100 entries"));
    let whole = gz(&tar_of(&[(EntryType::Regular, "f", "", b"content")]));
    for bytes in [&whole[..whole.len() / 2], b"this is no archive at all", b"\x1f\x8b"] {
        let text = unpack_bytes(bytes).1.unwrap_err();
        assert!(text.contains("is not a whole tar or tar.gz archive"), "{text}");
    }
}

#[test]
fn a_later_entry_replaces_an_earlier_file_and_never_writes_through_a_link() {
    let (outer, done) = unpack_bytes(&tar_of(&[
        (EntryType::Regular, "target", "", b"old"),
        (EntryType::Symlink, "l", "target", b""),
        (EntryType::Regular, "l", "", b"new"),
    ]));
    assert_eq!(done, Ok(()));
    let read = |name: &str| fs::read_to_string(outer.path().join("work").join(name)).unwrap();
    assert_eq!((read("target").as_str(), read("l").as_str()), ("old", "new"));
}
