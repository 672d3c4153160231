//! A runner's output on disk: the last of it, never more than a bound.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const CURRENT: &str = "output.log";
const OLD: &str = "output.log.old";

/// Most bytes in each of the two files: the last 4 MiB are always there, 8 MiB at most.
pub(super) const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Writes output, the oldest of which makes room for the newest.
pub(super) struct Output {
    dir: PathBuf,
    file: File,
    bytes: u64,
}

impl Output {
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        Ok(Self { dir: dir.to_owned(), file: fresh(dir)?, bytes: 0 })
    }

    /// Takes all that comes until its end. Output that cannot be written is dropped: a full disk
    /// must not stop the job.
    pub(super) fn drain(&mut self, mut from: impl Read) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(bytes) => drop(self.write(&buffer[..bytes])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        if self.bytes + length > FILE_BYTES_MAX {
            fs::rename(self.dir.join(CURRENT), self.dir.join(OLD))?;
            self.file = fresh(&self.dir)?;
            self.bytes = 0;
        }
        self.bytes += length;
        self.file.write_all(bytes)
    }
}

fn fresh(dir: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).open(dir.join(CURRENT))
}

/// The last bytes of an instance's output, at most `bytes_max`.
pub(super) fn tail(dir: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let newest = tail_of(&dir.join(CURRENT), bytes_max)?;
    let mut all = tail_of(&dir.join(OLD), bytes_max - newest.len())?;
    all.extend(newest);
    Ok(all)
}

fn tail_of(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let Some(mut file) = super::home::present(File::open(path))? else { return Ok(Vec::new()) };
    let wanted = (bytes_max as u64).min(FILE_BYTES_MAX);
    let from = file.metadata()?.len().saturating_sub(wanted);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(wanted).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_and_the_whole_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut output = Output::open(dir.path()).unwrap();
        let lines: Vec<String> = (0..2_000_000).map(|n| format!("{n:08}")).collect();
        let text = lines.join("\n");
        output.drain(text.as_bytes());
        let bytes = |name| fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(bytes(CURRENT) <= FILE_BYTES_MAX && bytes(OLD) <= FILE_BYTES_MAX);
        // Reaches back over the seam between the files.
        let wanted = usize::try_from(bytes(CURRENT)).unwrap() + 1000;
        let tail = tail(dir.path(), wanted).unwrap();
        assert_eq!(tail, &text.as_bytes()[text.len() - wanted..]);
    }

    #[test]
    fn no_output_is_an_empty_tail() {
        let dir = tempfile::tempdir().unwrap();
        assert!(tail(dir.path(), 10).unwrap().is_empty());
        Output::open(dir.path()).unwrap().drain(&b"0123456789ab"[..]);
        assert_eq!(tail(dir.path(), 3).unwrap(), b"9ab");
        assert!(tail(dir.path(), 0).unwrap().is_empty());
    }
}
