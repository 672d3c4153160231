//! Where a database is, read from its URL, and how sure we are of who answers there.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use super::tls::Trust;
use crate::StoreError;

/// A database's address. Shown, it lacks the password.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) config: Config,
    pub(super) trust: Trust,
    pub(super) place: Arc<str>,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.place)
    }
}

impl Address {
    /// Reads `postgresql://USER:PASSWORD@HOST:PORT/NAME?KEY=VALUE`. The keys are those of `libpq` that
    /// <https://docs.rs/tokio-postgres/0.7/tokio_postgres/config/struct.Config.html> lists, besides
    /// `sslmode` (`disable`, `require`, `verify-full`) and `sslrootcert`, a file of certificates in PEM.
    pub(super) fn read(url: &SecretString) -> Result<Self, StoreError> {
        let refuse = |problem| StoreError::Address { problem };
        let url = url.expose_secret();
        if !["postgresql://", "postgres://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(refuse("does not begin with postgresql://"));
        }
        let (mut rest, query) = url
            .split_once('?')
            .map_or((url.to_owned(), ""), |(rest, query)| (rest.to_owned(), query));
        let (mut mode, mut root, mut joint) = (None, None, '?');
        for part in query.split('&').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value),
                Some(("sslrootcert", value)) => {
                    let path = decoded(value);
                    root = Some(path.ok_or_else(|| refuse("has an sslrootcert that is no path"))?);
                }
                Some(_) => {
                    rest.extend([joint]);
                    rest.push_str(part);
                    joint = '&';
                }
                None => return Err(refuse("has a parameter without a value")),
            }
        }
        // The parser's own error may quote what it could not read: a password, for instance.
        let mut config: Config =
            rest.parse().map_err(|_| refuse("is not one that PostgreSQL understands"))?;
        if config.get_hosts().is_empty() {
            return Err(refuse("names no host"));
        }
        let trust = match mode {
            Some("disable") => Trust::NoTls,
            Some("require") if root.is_none() => Trust::Anybody,
            Some("require" | "verify-full") => Trust::Named(root.map(PathBuf::from)),
            Some(_) => return Err(refuse("has an sslmode that is none of ours")),
            None if root.is_none() && config.get_hosts().iter().all(is_here) => Trust::NoTls,
            None => Trust::Named(root.map(PathBuf::from)),
        };
        config.ssl_mode(match trust {
            Trust::NoTls => SslMode::Disable,
            Trust::Anybody | Trust::Named(_) => SslMode::Require,
        });
        let place = place(&config);
        Ok(Self { config, trust, place })
    }
}

/// What goes to this machine goes over no wire.
fn is_here(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        Host::Unix(_) => true,
    }
}

/// What the database is called in errors and logs.
fn place(config: &Config) -> Arc<str> {
    let mut text = String::from("postgresql://");
    if let Some(user) = config.get_user() {
        text.push_str(user);
        text.push('@');
    }
    for (index, host) in config.get_hosts().iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        match host {
            Host::Tcp(name) => text.push_str(name),
            Host::Unix(path) => text.push_str(&path.display().to_string()),
        }
        let ports = config.get_ports();
        if let Some(port) = ports.get(index).or_else(|| ports.first()) {
            text.push(':');
            text.push_str(&port.to_string());
        }
    }
    if let Some(name) = config.get_dbname() {
        text.push('/');
        text.push_str(name);
    }
    text.into()
}

/// Undoes percent-encoding.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        rest = more;
        if *first == b'%' {
            let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok())?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<Address, StoreError> {
        Address::read(&url.to_owned().into())
    }

    #[test]
    fn a_place_is_named_without_its_password() {
        let address = read("postgresql://me:s3cret@db.example:5433/books?connect_timeout=3");
        let address = address.unwrap();
        assert_eq!(&*address.place, "postgresql://me@db.example:5433/books");
        assert!(!format!("{address:?} {:?}", address.config).contains("s3cret"));
    }

    #[test]
    fn nothing_is_shown_of_a_url_that_cannot_be_read() {
        for url in [
            "s3cret",
            "mysql://me:s3cret@db/books",
            "postgresql://me:s3c?ret@db/books",
            "postgresql://me:s3cret&@db:port/books?x=s3cret",
            "postgresql:///books?password=s3cret",
            "postgresql://me:s3cret@db/books?sslmode=s3cret",
            "postgresql://me:s3cret@db/books?sslrootcert=%s3cret",
        ] {
            let error = read(url).unwrap_err();
            assert!(matches!(error, StoreError::Address { .. }), "{url}");
            assert!(!format!("{error} {error:?}").contains("s3c"), "{error}");
        }
    }

    #[test]
    fn who_answers_elsewhere_must_prove_it_unless_told_otherwise() {
        let trust = |url| read(url).unwrap().trust;
        assert_eq!(trust("postgresql://db/books"), Trust::Named(None));
        assert_eq!(trust("postgresql://127.0.0.1/books"), Trust::NoTls);
        assert_eq!(trust("postgresql:///books?host=/run/postgresql"), Trust::NoTls);
        assert_eq!(trust("postgresql://db/books?sslmode=disable"), Trust::NoTls);
        assert_eq!(trust("postgresql://localhost/books?sslmode=require"), Trust::Anybody);
        let file = trust("postgresql://localhost/books?sslrootcert=a%20b.pem");
        assert_eq!(file, Trust::Named(Some("a b.pem".into())));
        let both = trust("postgresql://db/books?sslmode=require&sslrootcert=ca.pem");
        assert_eq!(both, Trust::Named(Some("ca.pem".into())));
    }
}
