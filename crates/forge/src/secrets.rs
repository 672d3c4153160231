//! Secrets, loaded from where the fleet file says they are. The only place of this crate that reads
//! the environment. An error names the reference, never the value.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use remuda_core::fleet::SecretRef;
use rustix::process::{Pid, Signal, kill_process_group};
use secrecy::SecretString;

/// Most bytes of a secret: an RSA key of 16384 bits has about 13 kB.
pub const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Longest time that a command may take.
pub const COMMAND_MAX: Duration = Duration::from_secs(10);
/// How often to look whether it has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Why a secret could not be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("secret {reference}: {problem}")]
pub struct SecretError {
    reference: SecretRef,
    problem: String,
}

/// Loads a secret, without the white space around it. Blocks, for a command up to [`COMMAND_MAX`]. An empty one is an error: it would make every
/// signature forgeable.
pub fn load(reference: &SecretRef) -> Result<SecretString, SecretError> {
    let refuse = |problem: String| SecretError { reference: reference.clone(), problem };
    let text = match reference {
        SecretRef::Env(name) => variable(name).map_err(|problem| refuse(problem.into()))?,
        SecretRef::File(path) => {
            let file = File::open(path).map_err(|error| refuse(error.to_string()))?;
            let mut bytes = Vec::new();
            file.take(SECRET_BYTES_MAX + 1)
                .read_to_end(&mut bytes)
                .map_err(|error| refuse(error.to_string()))?;
            String::from_utf8(bytes).map_err(|_| refuse("is not UTF-8".into()))?
        }
        SecretRef::Command(command) => {
            let bytes = printed(command, COMMAND_MAX).map_err(refuse)?;
            String::from_utf8(bytes).map_err(|_| refuse("prints what is not UTF-8".into()))?
        }
    };
    if text.len() as u64 > SECRET_BYTES_MAX {
        return Err(refuse(format!("is longer than {SECRET_BYTES_MAX} bytes")));
    }
    let text = text.trim();
    if text.is_empty() {
        return Err(refuse("is empty".into()));
    }
    Ok(text.into())
}

/// What a command prints, read up to one byte more than a secret may have. Its standard error is not
/// ours to show: it may hold the secret.
fn printed(command: &str, longest: Duration) -> Result<Vec<u8>, String> {
    let begun = Instant::now();
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot run /bin/sh: {error}"))?;
    let out = child.stdout.take();
    let (sender, read) = mpsc::channel();
    let reading = thread::spawn(move || {
        let mut bytes = Vec::new();
        let outcome =
            out.map_or(Ok(0), |out| out.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes));
        // Nobody waits for it any more if the command was ended.
        let _ = sender.send(outcome.map(|_| bytes));
    });
    let left = || longest.saturating_sub(begun.elapsed());
    let bytes = read.recv_timeout(longest);
    let status = loop {
        match child.try_wait() {
            Ok(None) if bytes.is_ok() && !left().is_zero() => thread::sleep(LOOK_AGAIN.min(left())),
            ended => break ended,
        }
    };
    if bytes.is_err() || !matches!(status, Ok(Some(_))) {
        // With whatever it has started, which may keep its output open.
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
        let _ = child.wait();
    }
    // Its output is closed by now, or more than enough of it was read.
    let _ = reading.join();
    let late = || format!("did not end within {} s", longest.as_secs_f64());
    let bytes = bytes.map_err(|_| late())?.map_err(|error| error.to_string())?;
    match status.map_err(|error| error.to_string())? {
        _ if bytes.len() as u64 > SECRET_BYTES_MAX => Ok(bytes),
        Some(status) if status.success() => Ok(bytes),
        Some(status) => Err(format!("ended with {status}; run it by hand to see why")),
        None => Err(late()),
    }
}

/// The standard library's error would quote a value that is not UTF-8, so only its kind is passed on.
#[expect(clippy::disallowed_methods, reason = "this is where secrets are read")]
fn variable(name: &str) -> Result<String, &'static str> {
    // `var` panics on such names on some systems.
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err("is not the name of an environment variable");
    }
    std::env::var(name).map_err(|error| match error {
        std::env::VarError::NotPresent => "the environment variable is not set",
        std::env::VarError::NotUnicode(_) => "the environment variable is not UTF-8",
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use secrecy::ExposeSecret;

    use super::*;

    fn file(content: &[u8]) -> (tempfile::NamedTempFile, SecretRef) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        let reference = SecretRef::File(file.path().into());
        (file, reference)
    }

    #[test]
    fn a_file_is_read_and_trimmed() {
        let (_file, reference) = file(b"  s3cret\n");
        assert_eq!(load(&reference).unwrap().expose_secret(), "s3cret");
    }

    #[test]
    fn an_error_names_the_reference_and_not_the_value() {
        let (_file, reference) = file(b"s3cret\xff");
        let error = load(&reference).unwrap_err();
        assert_eq!(error.to_string(), format!("secret {reference}: is not UTF-8"));
        assert!(!format!("{error:?}").contains("s3cret"));
    }

    #[test]
    fn an_empty_or_endless_secret_is_refused() {
        let (_file, empty) = file(b" \n ");
        assert!(load(&empty).unwrap_err().to_string().ends_with("is empty"));
        let endless = vec![b'x'; 70_000];
        let (_file, endless) = file(&endless);
        assert!(load(&endless).unwrap_err().to_string().contains("longer than 65536 bytes"));
    }

    #[test]
    fn a_variable_is_read_by_its_name() {
        // Cargo sets this one for every test.
        let version = load(&SecretRef::Env("CARGO_PKG_NAME".into())).unwrap();
        assert_eq!(version.expose_secret(), "remuda-forge");
        for bad in ["REMUDA_TEST_NO_SUCH_VARIABLE", "", "A=B"] {
            assert!(load(&SecretRef::Env(bad.into())).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_command_is_run_for_what_it_prints() {
        let load = |command: &str| load(&SecretRef::Command(command.into()));
        assert_eq!(load("printf ' s3c'; echo ret").unwrap().expose_secret(), "s3cret");
        for (command, problem) in [
            ("true", "is empty"),
            ("echo s3cret; echo s3cret >&2; exit 3", "ended with exit status: 3"),
            ("kill -9 $$", "ended with signal: 9"),
            ("no-such-program-anywhere", "ended with exit status: 127"),
            ("printf '\\377'", "prints what is not UTF-8"),
            ("yes", "is longer than 65536 bytes"),
        ] {
            let said = load(command).unwrap_err().to_string();
            assert!(said.contains(problem), "{command}: {said}");
            assert!(!said.replace(command, "").contains("s3cret"), "{said}");
        }
    }

    #[test]
    fn a_command_that_hangs_is_ended_with_all_it_has_started() {
        let brief = Duration::from_millis(300);
        for command in ["sleep 1000", "sleep 1000 & wait", "echo s3cret; exec >&-; sleep 1000"] {
            let marked = format!("{command} # {}", std::process::id());
            assert_eq!(
                printed(&marked, brief),
                Err("did not end within 0.3 s".into()),
                "{command}"
            );
        }
        // It has ended, and left something behind that keeps its output open.
        assert!(printed("sleep 1000 & echo s3cret", brief).is_err());
    }
}
