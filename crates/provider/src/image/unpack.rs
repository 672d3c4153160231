//! Unpacks an archive into a directory and nowhere else.
//!
//! Refused: absolute paths, `..` in paths, entries below a link, links that lead out, devices, and
//! more than a bound. By induction every link leads to a place inside: it starts at a real directory,
//! goes up a counted number of real directories, then only down.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use remuda_core::fleet::Archive;
use tar::EntryType;

use super::{Hashing, ImageError};

/// What one archive may unpack to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        // GitHub's runner is about 0.7 GB in 15,000 files; leave room for a tool chain beside it.
        Self { bytes: 32 * 1024 * 1024 * 1024, entries: 2_000_000 }
    }
}

/// Unpacks the archive in `file` into `to`, which must be empty and ours, and checks its hash over
/// what was read. After an error, what lies in `to` must not be used.
pub(crate) fn unpack(
    file: File,
    archive: &Archive,
    to: &Path,
    bounds: Bounds,
) -> Result<(), ImageError> {
    let mut hashing = Hashing::new(BufReader::with_capacity(256 * 1024, file));
    let unpacked = unpack_stream(&mut hashing, archive, to, bounds);
    // A wrong hash explains whatever else went wrong, so it is told first.
    hashing.verify(archive)?;
    unpacked
}

fn unpack_stream(
    from: &mut impl Read,
    archive: &Archive,
    to: &Path,
    bounds: Bounds,
) -> Result<(), ImageError> {
    let mut magic = [0; 2];
    let got = read_up_to(from, &mut magic)?;
    let from = magic[..got].chain(from);
    let bad = |text: String| ImageError::Bad(format!("{}: {text}", archive.source));
    let unpacked = if magic == [0x1f, 0x8b] {
        unpack_tar(MultiGzDecoder::new(from), to, bounds)
    } else {
        unpack_tar(from, to, bounds)
    };
    unpacked.map_err(|problem| match problem {
        Problem::Entry(text) => bad(text),
        Problem::Read(error) => bad(format!("is not a whole tar or tar.gz archive: {error}")),
        Problem::Write(error) => ImageError::Io(error),
    })
}

fn read_up_to(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match from.read(&mut buffer[got..])? {
            0 => break,
            bytes => got += bytes,
        }
    }
    Ok(got)
}

enum Problem {
    /// An entry is not allowed.
    Entry(String),
    /// The archive cannot be read.
    Read(io::Error),
    /// The directory cannot be written.
    Write(io::Error),
}

fn unpack_tar(from: impl Read, to: &Path, bounds: Bounds) -> Result<(), Problem> {
    let mut tar = tar::Archive::new(from);
    let mut tree = Tree { top: to, parent: None };
    let (mut bytes, mut entries) = (0_u64, 0_u64);
    for entry in tar.entries().map_err(Problem::Read)? {
        let mut entry = entry.map_err(Problem::Read)?;
        entries += 1;
        bytes = bytes.saturating_add(entry.size());
        if entries > bounds.entries || bytes > bounds.bytes {
            let Bounds { bytes, entries } = bounds;
            let text = format!("unpacks to more than {bytes} bytes or {entries} entries");
            return Err(Problem::Entry(text));
        }
        let name = entry.path().map_err(Problem::Read)?.into_owned();
        let refuse = |why: &str| Problem::Entry(format!("entry {} {why}", name.display()));
        let path = inside(&name).ok_or_else(|| refuse("leads out of the archive"))?;
        let target = entry.link_name().map_err(Problem::Read)?.map(std::borrow::Cow::into_owned);
        let mode = entry.header().mode().map_err(Problem::Read)? & 0o777;
        let placed = match entry.header().entry_type() {
            EntryType::Directory => tree.directory(&path, mode),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                tree.file(&path, mode, &mut entry)
            }
            EntryType::Symlink => tree.symlink(&path, target.as_deref()),
            EntryType::Link => tree.hard_link(&path, target.as_deref()),
            EntryType::XGlobalHeader => Ok(()),
            _ => Err(Fault::Refused("is neither a file, a directory nor a link")),
        };
        placed.map_err(|fault| match fault {
            Fault::Refused(why) => refuse(why),
            Fault::Read(error) => Problem::Read(error),
            Fault::Write(error) => Problem::Write(error),
        })?;
    }
    Ok(())
}

/// A path of normal parts only; none if it leads out.
fn inside(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

/// True if a link at `path` to `target` stays inside: up only at its beginning, and not too far.
fn stays_inside(path: &Path, target: &Path) -> bool {
    let mut above = path.components().count().saturating_sub(1);
    let mut going_up = true;
    for part in target.components() {
        match part {
            Component::ParentDir if going_up && above > 0 => above -= 1,
            Component::CurDir => {}
            Component::Normal(_) => going_up = false,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

/// Why an entry could not be placed.
enum Fault {
    Refused(&'static str),
    Read(io::Error),
    Write(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

struct Tree<'a> {
    top: &'a Path,
    /// The directory that was looked at last, which holds most of what comes next.
    parent: Option<PathBuf>,
}

impl Tree<'_> {
    /// The place of `path`, below real directories only, which are made if missing; what was there
    /// before, unless it is a directory, makes room.
    fn place(&mut self, path: &Path) -> Result<PathBuf, Fault> {
        let parent = path.parent().ok_or(Fault::Refused("has no name"))?;
        if self.parent.as_deref() != Some(parent) {
            let mut at = self.top.to_owned();
            for part in parent.components() {
                at.push(part);
                real_dir(&at, 0o755)?;
            }
            self.parent = Some(parent.to_owned());
        }
        let place = self.top.join(path);
        match fs::symlink_metadata(&place) {
            Ok(there) if there.is_dir() => Err(Fault::Refused("replaces a directory")),
            Ok(_) => Ok(fs::remove_file(&place).map(|()| place)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(place),
            Err(error) => Err(error.into()),
        }
    }

    fn directory(&mut self, path: &Path, mode: u32) -> Result<(), Fault> {
        let mut at = self.top.to_owned();
        for part in path.components() {
            at.push(part);
            real_dir(&at, 0o755)?;
        }
        if at != self.top {
            // We must be able to fill it and to remove it.
            fs::set_permissions(&at, fs::Permissions::from_mode(mode | 0o700))?;
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, mode: u32, from: &mut impl Read) -> Result<(), Fault> {
        let place = self.place(path)?;
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&place)?;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match from.read(&mut buffer).map_err(Fault::Read)? {
                0 => break,
                bytes => file.write_all(&buffer[..bytes])?,
            }
        }
        file.set_permissions(fs::Permissions::from_mode(mode | 0o600))?;
        Ok(())
    }

    fn symlink(&mut self, path: &Path, target: Option<&Path>) -> Result<(), Fault> {
        let target = target.ok_or(Fault::Refused("is a link to nothing"))?;
        if !stays_inside(path, target) {
            return Err(Fault::Refused("is a link that leads out of the archive"));
        }
        Ok(symlink(target, self.place(path)?)?)
    }

    fn hard_link(&mut self, path: &Path, target: Option<&Path>) -> Result<(), Fault> {
        let out = Fault::Refused("is a link that leads out of the archive");
        let target = target.and_then(inside).ok_or(out)?;
        let mut at = self.top.to_owned();
        for part in target.components() {
            if at != self.top && !fs::symlink_metadata(&at).is_ok_and(|there| there.is_dir()) {
                return Err(Fault::Refused("is a link by way of another"));
            }
            at.push(part);
        }
        if !fs::symlink_metadata(&at).is_ok_and(|there| there.is_file()) {
            return Err(Fault::Refused("is a hard link to no file before it"));
        }
        if target == path {
            return Ok(());
        }
        Ok(fs::hard_link(at, self.place(path)?)?)
    }
}

/// Makes a directory, or takes the one that is there; a link is not one.
fn real_dir(path: &Path, mode: u32) -> Result<(), Fault> {
    use std::os::unix::fs::DirBuilderExt;
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => Ok(()),
        Ok(_) => Err(Fault::Refused("lies below something that is not a directory")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(fs::DirBuilder::new().mode(mode).create(path)?)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
