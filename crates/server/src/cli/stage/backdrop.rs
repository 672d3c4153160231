//! The fleet of a stage, written as the file that a user would write, and what it refers to.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use ring::rand::SecureRandom;

use crate::env;

/// Where instances live, within the stage's directory.
pub(super) const INSTANCES: &str = "instances";
/// The forge's name in the fleet file.
pub(crate) const FORGE: &str = "sandbox";
/// The file with the webhooks' secret, within the stage's directory.
pub(crate) const SECRET: &str = "webhook-secret";
/// Temporary files of the jobs' programs, which would stay in /tmp if a job is killed.
const TMP: &str = "tmp";

/// What the fleet declares, but for addresses and paths.
#[derive(Clone, Debug)]
pub(crate) struct Backdrop {
    /// Where jobs come from, such as `org:acme`.
    pub(crate) scopes: Vec<String>,
    /// The label sets to make a pool for.
    pub(crate) pools: Vec<Vec<String>>,
    /// Most runners of one pool, and of all.
    pub(crate) pool_max: u32,
    pub(crate) provider_max: u32,
    /// Most runners of one account.
    pub(crate) tenant_cap: u32,
    /// Idle runners kept in each pool and scope.
    pub(crate) min_idle: u32,
    /// How often the sandbox is asked, in seconds.
    pub(crate) poll_seconds: u32,
    /// How long a runner may wait for a job, in seconds.
    pub(crate) idle_seconds: u32,
    /// Where the URL of an empty database is, such as `env:NAME`; without one the books are in `SQLite`.
    pub(crate) database: Option<String>,
}

/// What is known once the stage is being put up.
pub(crate) struct Place<'a> {
    pub(crate) directory: &'a Path,
    pub(crate) sandbox: String,
    pub(crate) addr: SocketAddr,
}

/// 128 random bits as text.
pub(crate) fn draw_secret() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 16];
    let drawn = ring::rand::SystemRandom::new().fill(&mut bytes);
    drawn.map_err(|_| anyhow!("the system has no randomness to give"))?;
    Ok(bytes.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}")))
}

impl Backdrop {
    /// Writes the fleet file and the secrets it refers to; gives the file's path.
    pub(crate) fn write(
        &self,
        place: &Place<'_>,
        app: u64,
        secret: &str,
    ) -> anyhow::Result<PathBuf> {
        let key = remuda_sandbox::SANDBOX_APP_KEY_PEM;
        let directory = place.directory;
        write_private(&directory.join("app.pem"), key)?;
        write_private(&directory.join(SECRET), secret)?;
        std::fs::create_dir(directory.join(TMP)).context("cannot make a temporary directory")?;
        let file = directory.join("fleet.toml");
        write_private(&file, &self.text(place, app)?)?;
        Ok(file)
    }

    fn text(&self, place: &Place<'_>, app: u64) -> anyhow::Result<String> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let path = |name: &str| text_of(&place.directory.join(name));
        let (key, secret) = (path("app.pem")?, path(SECRET)?);
        // With a database that several servers may share, instances are on a machine that is named.
        let (database, node) = match &self.database {
            Some(reference) => (format!("database = {}\n", quoted(reference)), "node = \"here\"\n"),
            None => (String::new(), ""),
        };
        let mut text = format!(
            "[server]\nlisten = {listen}\n{database}\n\
             [forge.{FORGE}]\napi = {api}\nscopes = {scopes}\n\
             polls = {{ starting = \"{poll}s\", runners = \"{poll}s\", job = \"{poll}s\" }}\n\
             demand = {{ sweep = \"{poll}s\", budget = 1000000 }}\n\n\
             [[forge.{FORGE}.app]]\nid = {app}\nprivate_key = {key}\nwebhook_secret = {secret}\n\n\
             [provider.local]\nkind = \"process\"\n{node}directory = {instances}\nmax = {max}\nlaunches = 4\n\
             poll = \"{poll}s\"\nabsent = \"{poll}s\"\n\n\
             [image.runner]\ncommand = {command}\nenv = {env}\n\n\
             [tenant.default]\ncap = {cap}\n",
            listen = quoted(&place.addr.to_string()),
            api = quoted(&format!("{}/api/v3", place.sandbox)),
            scopes = list(&self.scopes),
            poll = self.poll_seconds,
            key = quoted(&format!("file:{key}")),
            secret = quoted(&format!("file:{secret}")),
            instances = quoted(&path(INSTANCES)?),
            max = self.provider_max,
            command = list(&[text_of(&program)?, "sandbox".into(), "runner".into()]),
            env = environment(place)?,
            cap = self.tenant_cap,
        );
        // Idle runners are kept in the scopes that a pool names.
        let idle_kept = match self.min_idle {
            0 => String::new(),
            kept => format!("scopes = {}\nmin_idle = {kept}\n", list(&self.scopes)),
        };
        for (name, labels) in self.named_pools() {
            let _ = write!(
                text,
                "\n[pool.{name}]\nlabels = {labels}\nprovider = \"local\"\nimage = \"runner\"\n\
                 {idle_kept}max = {max}\n\
                 limits = {{ boot = \"1m\", idle = \"{idle}s\", finish = \"5s\" }}\n",
                labels = list(labels),
                max = self.pool_max,
                idle = self.idle_seconds,
            );
        }
        Ok(text)
    }

    /// A name for each pool: its labels where they make one, and where that is not taken.
    fn named_pools(&self) -> BTreeMap<String, &[String]> {
        let mut named = BTreeMap::new();
        for (index, labels) in self.pools.iter().enumerate() {
            let plain =
                |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
            let name: String = labels.join("-").chars().map(plain).take(40).collect();
            let name = name.trim_matches('-');
            let free = !name.is_empty() && !named.contains_key(name);
            named.insert(if free { name.into() } else { format!("pool-{index}") }, &labels[..]);
        }
        named
    }
}

pub(crate) fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn text_of(path: &Path) -> anyhow::Result<String> {
    let text =
        path.to_str().with_context(|| format!("the path {} is not UTF-8", path.display()))?;
    Ok(text.into())
}

/// A basic string of TOML, which takes every escape that JSON writes.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn list(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", quoted.join(", "))
}

/// What jobs need to find a Rust tool chain that was installed for the user.
fn environment(place: &Place<'_>) -> anyhow::Result<String> {
    let mut pairs = vec![format!("TMPDIR = {}", quoted(&text_of(&place.directory.join(TMP))?))];
    if let Some(home) = env::rustup_home() {
        pairs.push(format!("RUSTUP_HOME = {}", quoted(&text_of(&home)?)));
    }
    Ok(format!("{{ {} }}", pairs.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use remuda_core::fleet::{Source, parse};

    fn backdrop(pools: &[&[&str]]) -> Backdrop {
        Backdrop {
            scopes: vec!["org:acme".into(), "repo:mona/kernel".into()],
            pools: pools.iter().map(|set| set.iter().map(ToString::to_string).collect()).collect(),
            pool_max: 4,
            provider_max: 8,
            tenant_cap: 6,
            min_idle: 0,
            poll_seconds: 2,
            idle_seconds: 3,
            database: None,
        }
    }

    fn text(backdrop: &Backdrop) -> String {
        let place = Place {
            directory: Path::new("/tmp/with \"quotes\" and \\"),
            sandbox: "http://127.0.0.1:4000".into(),
            addr: SocketAddr::from(([127, 0, 0, 1], 4001)),
        };
        backdrop.text(&place, 1).unwrap()
    }

    #[test]
    fn the_fleet_is_in_order_whatever_the_labels_and_paths() {
        let odd: &[&[&str]] = &[&["linux", "small"], &["Linux-Small"], &["\"ü\""], &["☃"]];
        let text = text(&backdrop(odd));
        let fleet = parse(&[Source { name: "fleet.toml", text: &text }]).unwrap();
        assert_eq!(fleet.pools.len(), 4);
        assert_eq!(fleet.forges.values().map(|forge| forge.apps.len()).sum::<usize>(), 1);
    }

    #[test]
    fn a_fleet_with_a_database_is_in_order() {
        let shared = Backdrop { database: Some("env:URL".into()), ..backdrop(&[&["linux"]]) };
        let fleet = parse(&[Source { name: "fleet.toml", text: &text(&shared) }]).unwrap();
        assert!(fleet.server.database.is_some());
    }

    #[test]
    fn two_secrets_differ() {
        assert_ne!(draw_secret().unwrap(), draw_secret().unwrap());
    }
}
