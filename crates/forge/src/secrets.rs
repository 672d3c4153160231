//! Secrets, loaded from where the fleet file says they are. The only place of this crate that reads
//! the environment. An error names the reference, never the value.

use std::fs::File;
use std::io::Read;

use remuda_core::fleet::SecretRef;
use secrecy::SecretString;

/// Most bytes of a secret: an RSA key of 16384 bits has about 13 kB.
pub const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Why a secret could not be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("secret {reference}: {problem}")]
pub struct SecretError {
    reference: SecretRef,
    problem: String,
}

/// Loads a secret, without the white space around it. An empty one is an error: it would make every
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
}
