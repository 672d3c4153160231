//! Gets the archives of images: a local file as it is, one behind a URL once, into a cache.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use remuda_core::fleet::Archive;
use reqwest::{Client, Url, redirect};
use ring::digest::{Context, SHA256};
use tokio::io::AsyncWriteExt;

use super::{ImageError, hex, verify};

const CONNECT_MAX: Duration = Duration::from_secs(15);
/// Longest silence in the middle of a download.
const READ_MAX: Duration = Duration::from_mins(1);
/// Longest download as a whole.
const DOWNLOAD_MAX: Duration = Duration::from_mins(30);
const ARCHIVE_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;
const REDIRECTS_MAX: usize = 10;

/// A cache of archives, a directory for each hash.
pub(crate) struct Archives {
    dir: PathBuf,
    /// Hashes that images name; what else lies in the cache is of former images.
    wanted: BTreeSet<String>,
    client: OnceLock<Client>,
    /// One download of each archive at a time; the others wait for it.
    gates: Mutex<BTreeMap<[u8; 32], Arc<tokio::sync::Mutex<()>>>>,
}

impl Archives {
    pub(crate) fn new<'a>(dir: PathBuf, wanted: impl Iterator<Item = &'a Archive>) -> Self {
        Self {
            dir,
            wanted: wanted.map(|archive| hex(&archive.sha256)).collect(),
            client: OnceLock::new(),
            gates: Mutex::default(),
        }
    }

    /// The file that holds `archive`; whoever unpacks it checks the hash.
    pub(crate) async fn obtain(&self, archive: &Archive) -> Result<PathBuf, ImageError> {
        let Some(url) = url_of(&archive.source)? else { return Ok(PathBuf::from(&archive.source)) };
        let gate = {
            let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(gates.entry(archive.sha256).or_default())
        };
        let _one_at_a_time = gate.lock().await;
        let file = self.cached(archive);
        if tokio::fs::try_exists(&file).await? {
            return Ok(file);
        }
        self.download(url, archive, &file).await?;
        Ok(file)
    }

    fn cached(&self, archive: &Archive) -> PathBuf {
        self.dir.join(hex(&archive.sha256)).join("archive")
    }

    /// Drops a cached archive that was found damaged; true if there was one to fetch anew.
    pub(crate) fn discard(&self, archive: &Archive) -> bool {
        matches!(url_of(&archive.source), Ok(Some(_)))
            && fs::remove_file(self.cached(archive)).is_ok()
    }

    async fn download(&self, url: Url, archive: &Archive, file: &Path) -> Result<(), ImageError> {
        let (dir, wanted) = (self.dir.clone(), self.wanted.clone());
        let home = file.parent().unwrap_or(&self.dir).to_owned();
        tokio::task::spawn_blocking(move || {
            prune(&dir, &wanted)?;
            fs::create_dir_all(home)
        })
        .await
        .map_err(io::Error::other)??;
        let part = file.with_extension("part");
        let fetched = tokio::time::timeout(DOWNLOAD_MAX, self.fetch(url, archive, &part)).await;
        let took_too_long = || {
            let minutes = DOWNLOAD_MAX.as_secs() / 60;
            Err(ImageError::Later(format!("{} took over {minutes} minutes", archive.source)))
        };
        if let Err(error) = fetched.unwrap_or_else(|_| took_too_long()) {
            // The next download overwrites it in any case.
            let _ = tokio::fs::remove_file(&part).await;
            return Err(error);
        }
        Ok(tokio::fs::rename(&part, file).await?)
    }

    async fn fetch(&self, url: Url, archive: &Archive, part: &Path) -> Result<(), ImageError> {
        let source = &archive.source;
        let later = |error: reqwest::Error| {
            let error = error.without_url();
            ImageError::Later(format!("cannot fetch {source}: {}", whole(&error)))
        };
        let too_long =
            || ImageError::Bad(format!("{source} is longer than {ARCHIVE_BYTES_MAX} bytes"));
        let mut answer = self.client()?.get(url).send().await.map_err(later)?;
        let status = answer.status();
        if status.is_client_error() && status.as_u16() != 429 && status.as_u16() != 408 {
            return Err(ImageError::Bad(format!("{source} was answered with {status}")));
        }
        if !status.is_success() {
            return Err(ImageError::Later(format!("{source} was answered with {status}")));
        }
        if answer.content_length().is_some_and(|bytes| bytes > ARCHIVE_BYTES_MAX) {
            return Err(too_long());
        }
        let mut file = tokio::fs::File::create(part).await?;
        let mut digest = Context::new(&SHA256);
        let mut bytes = 0_u64;
        while let Some(chunk) = answer.chunk().await.map_err(later)? {
            bytes += chunk.len() as u64;
            if bytes > ARCHIVE_BYTES_MAX {
                return Err(too_long());
            }
            digest.update(&chunk);
            file.write_all(&chunk).await?;
        }
        file.flush().await?;
        verify(digest, archive)
    }

    fn client(&self) -> Result<&Client, ImageError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        // The whole program uses ring; an error only says that it was installed before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .connect_timeout(CONNECT_MAX)
            .read_timeout(READ_MAX)
            .no_gzip()
            .redirect(redirect::Policy::custom(|attempt| {
                if attempt.previous().len() > REDIRECTS_MAX || !is_fit(attempt.url()) {
                    attempt.error("a redirect that is one too many or not to https")
                } else {
                    attempt.follow()
                }
            }))
            .build()
            .map_err(|error| ImageError::Later(format!("cannot make an HTTP client: {error}")))?;
        Ok(self.client.get_or_init(|| client))
    }
}

/// The URL a source is, none if it is a path.
fn url_of(source: &str) -> Result<Option<Url>, ImageError> {
    if !source.contains("://") {
        return Ok(None);
    }
    let url = Url::parse(source).map_err(|error| ImageError::Bad(format!("{source}: {error}")))?;
    if is_fit(&url) {
        return Ok(Some(url));
    }
    Err(ImageError::Bad(format!("{source} is neither https nor http to this very machine")))
}

fn is_fit(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let ip: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    let is_loopback = host == "localhost" || ip.is_some_and(|ip| ip.is_loopback());
    url.scheme() == "https" || url.scheme() == "http" && is_loopback
}

/// An error with all that is behind it: reqwest's own text rarely says what happened.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Removes the archives of former images.
fn prune(dir: &Path, wanted: &BTreeSet<String>) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(|name| wanted.contains(name)) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_loopback_http_are_fetched() {
        for source in ["https://example.org/r.tar", "http://127.0.0.1:8/r", "http://[::1]/r"] {
            assert!(url_of(source).unwrap().is_some(), "{source}");
        }
        assert!(url_of("runners/r.tar").unwrap().is_none());
        for source in ["http://example.org/r", "ftp://localhost/r", "file:///r", "https://"] {
            assert!(url_of(source).is_err(), "{source}");
        }
    }

    #[test]
    fn archives_of_former_images_leave_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["aa", "bb"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        prune(dir.path(), &BTreeSet::from(["aa".to_owned()])).unwrap();
        assert!(dir.path().join("aa").exists() && !dir.path().join("bb").exists());
    }
}
