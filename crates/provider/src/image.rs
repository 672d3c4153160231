//! Images: where the archive of one comes from, and that it is the one that was declared.
//!
//! A hash is checked over the very bytes that are unpacked, each time: a cached file may have been
//! changed by a job that runs as the same user.

pub(crate) mod fetch;
pub(crate) mod unpack;

use std::fmt::Write as _;
use std::io::{self, Read};

use remuda_core::fleet::Archive;
use ring::digest::{Context, SHA256};

/// A hash as people write it.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Why an archive could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    /// A person must act.
    #[error("{0}")]
    Bad(String),
    /// It is not the archive that was declared.
    #[error("{0}")]
    Mismatch(String),
    /// It may work later.
    #[error("{0}")]
    Later(String),
    /// Reading or writing failed here.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Hashes what is read through it.
pub(crate) struct Hashing<R> {
    from: R,
    digest: Context,
}

impl<R: Read> Hashing<R> {
    pub(crate) fn new(from: R) -> Self {
        Self { from, digest: Context::new(&SHA256) }
    }

    /// Reads to the end, and says whether all of it was `archive`.
    pub(crate) fn verify(mut self, archive: &Archive) -> Result<(), ImageError> {
        io::copy(&mut self, &mut io::sink())?;
        verify(self.digest, archive)
    }
}

/// Says whether what was hashed is `archive`.
pub(crate) fn verify(digest: Context, archive: &Archive) -> Result<(), ImageError> {
    let found = digest.finish();
    if found.as_ref() == archive.sha256 {
        return Ok(());
    }
    Err(ImageError::Mismatch(format!(
        "{} has sha256 {}, but {} is declared",
        archive.source,
        hex(found.as_ref()),
        hex(&archive.sha256)
    )))
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.from.read(buffer)?;
        self.digest.update(&buffer[..bytes]);
        Ok(bytes)
    }
}
