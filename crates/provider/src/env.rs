//! The variables of the server's own environment that runners get: the one place that reads them.

use std::collections::BTreeMap;

/// Where programs are looked for if the server itself was not told.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `PATH`, `LANG` and `TZ`, as far as the server has them. Everything else stays with the server:
/// its environment may hold secrets.
pub(crate) fn plain() -> BTreeMap<String, String> {
    let mut plain = BTreeMap::from([("PATH".to_owned(), PATH_DEFAULT.to_owned())]);
    for name in ["PATH", "LANG", "TZ"] {
        if let Some(value) = std::env::var_os(name).and_then(|value| value.into_string().ok()) {
            plain.insert(name.to_owned(), value);
        }
    }
    plain
}
