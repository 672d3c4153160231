//! What the server, the shim and the shim's second stage tell each other over a socket pair.
//!
//! Each message is one line of JSON. The JIT configuration follows as bare bytes, counted
//! beforehand: a teller that dies half-way is noticed, and nothing is started with half a secret.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use remuda_core::fleet::JitBy;
use secrecy::zeroize::Zeroizing;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Most bytes of a message: a command with its environment.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

/// Most bytes of a JIT configuration. GitHub's are about 4 KiB; a pipe must hold one whole.
pub(super) const JIT_BYTES_MAX: usize = 48 * 1024;

/// The second stage keeps descriptors of its own from here on; below, a runner's is free.
pub(super) const OWN_DESCRIPTORS: i32 = 64;

/// What the server tells the shim.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// How to execute ourselves once more, after the program.
    pub(super) again: Vec<String>,
    /// What the instance takes.
    pub(super) needs: BTreeMap<String, u64>,
    pub(super) start: Start,
    pub(super) jit_bytes: usize,
}

/// What the runner is started with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) program: PathBuf,
    pub(super) args: Vec<String>,
    pub(super) work: PathBuf,
    /// All of its environment but the JIT configuration.
    pub(super) env: BTreeMap<String, String>,
    pub(super) jit: Hand,
}

/// How the runner is handed its JIT configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Hand {
    Env(String),
    Descriptor(u32),
}

impl From<&JitBy> for Hand {
    fn from(by: &JitBy) -> Self {
        match by {
            JitBy::Env(name) => Self::Env(name.clone()),
            JitBy::Descriptor(number) => Self::Descriptor(*number),
        }
    }
}

/// What the shim tells its second stage, which becomes the runner.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Enter {
    /// The shim; if that is not the parent any more, there is nobody to look after the runner.
    pub(super) parent: i32,
    pub(super) start: Start,
    /// Cgroups to join.
    pub(super) cgroups: Vec<PathBuf>,
    /// Limit of each process's private memory, in bytes.
    pub(super) data_bytes: Option<u64>,
    pub(super) jit_bytes: usize,
}

/// What the shim answers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reply {
    /// It has written itself down and waits for the JIT configuration, which is the word to start.
    Ready,
    /// The runner was started.
    Started,
    /// The runner's program cannot be executed.
    Refused(String),
    /// It could not get so far.
    Failed(String),
}

/// One end of a conversation. Holds a single descriptor.
pub(super) struct Line(BufReader<UnixStream>);

impl Line {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self(BufReader::new(stream))
    }

    /// Bounds how long each telling and hearing may take.
    pub(super) fn patience(&self, time: Duration) -> io::Result<()> {
        self.0.get_ref().set_read_timeout(Some(time))?;
        self.0.get_ref().set_write_timeout(Some(time))
    }

    pub(super) fn tell<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.0.get_mut().write_all(&line)
    }

    /// The next message; none if the other end is gone.
    pub(super) fn hear<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let mut line = Vec::new();
        (&mut self.0).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        match line.pop() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(serde_json::from_slice(&line)?)),
            Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Tells the secret, and that there is nothing to follow.
    pub(super) fn tell_secret(&mut self, secret: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(secret)?;
        self.0.get_mut().shutdown(std::net::Shutdown::Write)
    }

    pub(super) fn hear_secret(&mut self, bytes: usize) -> io::Result<Zeroizing<Vec<u8>>> {
        if bytes > JIT_BYTES_MAX {
            return Err(io::Error::other("the announced JIT configuration is too long"));
        }
        let mut secret = Zeroizing::new(vec![0; bytes]);
        self.0.read_exact(&mut secret)?;
        Ok(secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Line, Line) {
        let (one, other) = UnixStream::pair().unwrap();
        (Line::new(one), Line::new(other))
    }

    #[test]
    fn a_secret_cut_short_is_an_error() {
        let (mut teller, mut hearer) = pair();
        teller.tell(&Reply::Ready).unwrap();
        teller.tell_secret(b"half").unwrap();
        assert_eq!(hearer.hear().unwrap(), Some(Reply::Ready));
        assert!(hearer.hear_secret(8).is_err());
    }

    #[test]
    fn a_message_cut_short_is_an_error_and_none_is_the_end() {
        let (teller, mut hearer) = pair();
        teller.0.get_ref().write_all(b"\"Ready\"").unwrap();
        drop(teller);
        assert!(hearer.hear::<Reply>().is_err());
        let (teller, mut hearer) = pair();
        drop(teller);
        assert_eq!(hearer.hear::<Reply>().unwrap(), None);
    }
}
