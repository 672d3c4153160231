//! Values written as text: durations, amounts, addresses, references to secrets.
//!
//! Every reader here takes the text and gives the value, or what is wrong with the text as a
//! fragment that follows the key's name. None repeats a text that may be a secret.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::SecretRef;

/// The longest duration a fleet file may ask for: ten years.
pub(super) const DURATION_MAX: Duration = Duration::from_hours(24 * 3650);

/// Units of a duration in milliseconds, the largest first.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Most characters of a foreign text that a message repeats.
const QUOTED_MAX: usize = 48;

/// The text as a message may repeat it: short, on one line, and never a secret.
pub(super) fn quote(text: &str) -> String {
    if secret_at(text).is_some() {
        return "\"[hidden]\"".into();
    }
    let mut short: String = text.chars().take(QUOTED_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

/// Reads `"90s"`, `"5m"`, `"1h30m"`: whole numbers with units `d h m s ms`, the largest first.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let bad = |why: &str| Err(format!("{} is not a duration: {why}", quote(text)));
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, tail) = tail.split_at(letters);
        if number.is_empty() {
            return bad("it needs a number and a unit");
        }
        if unit.is_empty() {
            return bad("a number needs a unit: d, h, m, s or ms");
        }
        if !UNITS.iter().any(|(name, _)| *name == unit) {
            return bad("the units are d, h, m, s and ms");
        }
        let Some((_, millis)) = units.find(|(name, _)| *name == unit) else {
            return bad("each unit may come once, the largest first");
        };
        let sum = number.parse::<u64>().ok().and_then(|n| n.checked_mul(*millis));
        let Some(sum) = sum.and_then(|n| n.checked_add(total)) else {
            return bad("it is longer than 3650d");
        };
        total = sum;
        rest = tail;
    }
    let span = Duration::from_millis(total);
    if text.is_empty() {
        bad("it is empty")
    } else if span.is_zero() {
        Err("must be longer than nothing".into())
    } else if span > DURATION_MAX {
        bad("it is longer than 3650d")
    } else {
        Ok(span)
    }
}

/// The text that [`duration`] reads as this.
pub(super) fn written(span: Duration) -> String {
    let mut rest = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, millis) in UNITS {
        if rest >= millis {
            text += &[&(rest / millis).to_string(), unit].concat();
            rest %= millis;
        }
    }
    text
}

/// Reads cores, `"2"`, `"1.5"` or `"500m"`, as thousandths of a core.
pub(super) fn cpu(text: &str) -> Result<u64, String> {
    let amount = match text.strip_suffix('m') {
        Some(thousandths) => thousandths.parse().ok().filter(|_| plain(thousandths)),
        None => decimal(text, 1000),
    };
    nonzero(amount, text, "a number of cores, such as \"2\", \"1.5\" or \"500m\"")
}

/// Reads `"4GiB"`, `"512MiB"` or `"1TiB"` as MiB.
pub(super) fn memory(text: &str) -> Result<u64, String> {
    let scales = [("MiB", 1), ("GiB", 1 << 10), ("TiB", 1 << 20)];
    let amount = scales.iter().find_map(|(unit, scale)| {
        text.strip_suffix(unit).and_then(|number| decimal(number.trim_end(), *scale))
    });
    nonzero(amount, text, "an amount of memory in MiB, GiB or TiB, such as \"4GiB\"")
}

fn nonzero(amount: Option<u64>, text: &str, expected: &str) -> Result<u64, String> {
    match amount {
        None => Err(format!("{} is not {expected}", quote(text))),
        Some(0) => Err("must be more than nothing; leave it out instead".into()),
        Some(amount) => Ok(amount),
    }
}

fn plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// `text` times `scale`, where that is a whole number.
fn decimal(text: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if !plain(whole) || !plain(fraction) || fraction.len() > 9 {
        return None;
    }
    let parts = 10_u64.pow(u32::try_from(fraction.len()).ok()?);
    let small = fraction.parse::<u64>().ok()?.checked_mul(scale)?;
    if !small.is_multiple_of(parts) {
        return None;
    }
    whole.parse::<u64>().ok()?.checked_mul(scale)?.checked_add(small / parts)
}

/// Reads the base of an API: `https:`, or `http:` on this machine; no trailing slash is kept.
pub(super) fn base_url(text: &str) -> Result<String, String> {
    url(text)?;
    if text.contains('?') {
        return Err("must be a plain address, without a query".into());
    }
    Ok(text.trim_end_matches('/').into())
}

/// Reads where an archive comes from: a path, or a URL under the rules of [`base_url`].
pub(super) fn source(text: &str) -> Result<String, String> {
    if text.contains("://") {
        url(text)?;
    } else if text.is_empty() || text.chars().any(char::is_control) {
        return Err("must be a path or an https URL".into());
    }
    Ok(text.into())
}

/// Checks a URL. Its text is never repeated: it may hold a password.
fn url(text: &str) -> Result<(), String> {
    let (scheme, rest) = text.split_once("://").ok_or("must be a URL that begins with https://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let authority = &rest[..end];
    if authority.contains('@') {
        return Err("must not carry a user name or password".into());
    }
    if text.contains('#') || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("must hold neither '#' nor white space".into());
    }
    let bracketed = authority.find(']').map_or(0, |at| at + 1);
    let (host, port) = match authority[bracketed..].find(':') {
        Some(at) => (&authority[..bracketed + at], Some(&authority[bracketed + at + 1..])),
        None => (authority, None),
    };
    if port.is_some_and(|port| !plain(port) || !matches!(port.parse::<u16>(), Ok(1..))) {
        return Err("has a port that is not a number from 1 to 65535".into());
    }
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let six = inner.map(str::parse::<Ipv6Addr>);
    let named = !host.is_empty()
        && host.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.')
        && !host.starts_with(['-', '.']);
    if !named && !matches!(six, Some(Ok(_))) {
        return Err("has no valid host name".into());
    }
    let loopback = host.eq_ignore_ascii_case("localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|host| host.is_loopback())
        || matches!(six, Some(Ok(six)) if six.is_loopback());
    match scheme {
        "https" => Ok(()),
        "http" if loopback => Ok(()),
        "http" => Err("must use https; plain http is for this machine only".into()),
        _ => Err("must begin with https://".into()),
    }
}

/// Reads 64 hexadecimal digits.
pub(super) fn sha256(text: &str) -> Result<[u8; 32], String> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        let count = text.chars().count();
        return Err(format!("must be 64 hexadecimal digits; these are {count} characters"));
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        let digits = &text[2 * at..2 * at + 2];
        *byte = u8::from_str_radix(digits, 16).expect("every byte was seen to be a hex digit");
    }
    Ok(bytes)
}

/// The text that [`sha256`] reads as this.
pub(super) fn hex(bytes: &[u8; 32]) -> String {
    let digits = |byte: &u8| [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16));
    bytes.iter().flat_map(digits).flatten().collect()
}

/// Reads `env:NAME`, `file:PATH` or `cmd:COMMAND`. What is wrong is said without the text.
pub(super) fn secret(text: &str) -> Result<SecretRef, String> {
    if let Some(name) = text.strip_prefix("env:") {
        return if variable(name) {
            Ok(SecretRef::Env(name.into()))
        } else {
            Err("names no environment variable after \"env:\"".into())
        };
    }
    if let Some(command) = text.strip_prefix("cmd:") {
        return if command.trim().is_empty() || command.chars().any(char::is_control) {
            Err("names no command on one line after \"cmd:\"".into())
        } else {
            Ok(SecretRef::Command(command.into()))
        };
    }
    match text.strip_prefix("file:") {
        Some(path) if !path.is_empty() && !path.contains('\0') => Ok(SecretRef::File(path.into())),
        Some(_) => Err("names no file after \"file:\"".into()),
        None => Err("must be a reference to a secret, not the secret itself".into()),
    }
}

/// True of a name every shell could set: letters, digits and `_`, no digit first.
pub(super) fn variable(name: &str) -> bool {
    let first = name.bytes().next();
    first.is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.len() <= 255
}

/// True if a variable of this name is likely to carry a secret itself, not its place.
pub(super) fn names_secret(variable: &str) -> bool {
    let name = variable.to_ascii_uppercase();
    let words = ["TOKEN", "TOKENS", "PASSWD", "CREDENTIAL", "CREDENTIALS", "APIKEY"];
    let keys = ["API_KEY", "PRIVATE_KEY", "ACCESS_KEY", "SIGNING_KEY"];
    let place = name.ends_with("_FILE") || name.ends_with("_PATH") || name.ends_with("_DIR");
    let secret = name.split('_').any(|word| words.contains(&word))
        || name.contains("SECRET")
        || name.contains("PASSWORD")
        || keys.iter().any(|key| name.ends_with(key));
    secret && !place
}

/// Where in `text` something begins that is a secret by its form: a GitHub or GitLab token, or a
/// private key; and what it is.
pub(super) fn secret_at(text: &str) -> Option<(usize, &'static str)> {
    const FORMS: [(&str, &str); 8] = [
        ("-----BEGIN", "a private key"),
        ("github_pat_", "a GitHub token"),
        ("ghp_", "a GitHub token"),
        ("gho_", "a GitHub token"),
        ("ghu_", "a GitHub token"),
        ("ghs_", "a GitHub token"),
        ("ghr_", "a GitHub token"),
        ("glpat-", "a GitLab token"),
    ];
    let long = |rest: &str| {
        rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_' || *b == b'-').count()
    };
    let mut first = None;
    for (form, what) in FORMS {
        let found = text
            .match_indices(form)
            .map(|(at, _)| at)
            .find(|at| form.starts_with('-') || long(&text[at + form.len()..]) >= 16);
        if let Some(at) = found.filter(|at| first.is_none_or(|(first, _)| *at < first)) {
            first = Some((at, what));
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, millis) in
            [("90s", 90_000), ("5m", 300_000), ("1h30m", 5_400_000), ("1d", 86_400_000), ("5ms", 5)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in [
            "",
            "5",
            "m",
            "5 m",
            "5x",
            "-5s",
            "1.5h",
            "30m1h",
            "1m1m",
            "0s",
            "3651d",
            "99999999999999999999s",
            "18446744073709551615h",
            "5min",
            "٣s",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn amounts_are_exact_or_refused() {
        for (text, milli) in [("2", 2000), ("1.5", 1500), ("500m", 500), ("0.001", 1)] {
            assert_eq!(cpu(text), Ok(milli), "{text}");
        }
        for bad in ["", "0", "-1", "1e3", "1.2345", "m", "+1m", "two", "1.", ".5", "0m"] {
            assert!(cpu(bad).is_err(), "{bad}");
        }
        for (text, mib) in [("4GiB", 4096), ("512MiB", 512), ("1TiB", 1 << 20), ("1.5GiB", 1536)] {
            assert_eq!(memory(text), Ok(mib), "{text}");
        }
        for bad in ["4", "4GB", "4Gi", "4gib", "0MiB", "0.3MiB", "-1GiB", "99999999999999999TiB"] {
            assert!(memory(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_https_or_this_machine_may_be_asked() {
        for good in [
            "https://api.github.com",
            "https://ghe.example/api/v3",
            "http://127.0.0.1:3000",
            "http://localhost/api/v3",
            "http://[::1]:80",
        ] {
            assert!(base_url(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "api.github.com",
            "http://example.com",
            "http://localhost.example.com",
            "ftp://x",
            "https://",
            "https://:80",
            "https://u:p@x",
            "https://x:0",
            "https://x:99999",
            "https://x:",
            "https://a b",
            "https://x#y",
            "https://x?y",
            "http://[::2]",
            "https://[::1",
            "http://127.0.0.1@example.com",
            "https://[x]",
            "HTTPS://x",
        ] {
            assert!(base_url(bad).is_err(), "{bad}");
        }
        assert_eq!(base_url("https://x/api/v3/"), Ok("https://x/api/v3".into()));
    }

    #[test]
    fn a_reference_to_a_secret_names_its_place() {
        assert_eq!(secret("env:A_B"), Ok(SecretRef::Env("A_B".into())));
        assert_eq!(secret("file:keys/a.pem"), Ok(SecretRef::File("keys/a.pem".into())));
        assert_eq!(
            secret("cmd:pass a | head -1"),
            Ok(SecretRef::Command("pass a | head -1".into()))
        );
        for bad in [
            "",
            "env:",
            "env:A-B",
            "env:1",
            "file:",
            "hunter2",
            "ENV:A",
            "file:a\0b",
            "cmd: ",
            "cmd:a\nb",
        ] {
            assert!(!secret(bad).unwrap_err().contains("hunter2"), "{bad}");
        }
    }

    #[test]
    fn variables_that_carry_secrets_are_known_by_name() {
        for name in ["NPM_TOKEN", "AWS_SECRET_ACCESS_KEY", "db_password", "MY_API_KEY"] {
            assert!(names_secret(name), "{name}");
        }
        for name in ["PATH", "TOKENIZERS_PARALLELISM", "TOKEN_FILE", "PWD", "KEYBOARD"] {
            assert!(!names_secret(name), "{name}");
        }
    }

    #[test]
    fn secrets_are_known_by_form_and_not_repeated() {
        let token = format!("x ghp_{}", "a1".repeat(18));
        assert_eq!(secret_at(&token), Some((2, "a GitHub token")));
        assert_eq!(quote(&token), "\"[hidden]\"");
        assert_eq!(secret_at("ghp_runner"), None);
        assert!(secret_at("-----BEGIN RSA PRIVATE KEY-----").is_some());
    }
}
