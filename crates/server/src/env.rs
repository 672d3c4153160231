//! Every environment variable the program reads, besides those that secrets are declared to be in.

use std::path::PathBuf;

fn read(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "this is the file that declares them")]
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// `REMUDA_LOG`: what is logged, in the syntax of tracing's `EnvFilter`, such as `debug` or
/// `remuda=debug,info`.
pub(crate) fn log_filter() -> Option<String> {
    read("REMUDA_LOG")
}

/// `REMUDA_STATE`, else `$XDG_STATE_HOME/remuda`, else `~/.local/state/remuda`: where the state directory
/// is if no flag says.
pub(crate) fn state_directory() -> PathBuf {
    if let Some(state) = read("REMUDA_STATE") {
        return state.into();
    }
    if let Some(base) = read("XDG_STATE_HOME") {
        return PathBuf::from(base).join("remuda");
    }
    let home = read("HOME").unwrap_or_else(|| ".".into());
    PathBuf::from(home).join(".local/state/remuda")
}

/// `ACTIONS_RUNNER_INPUT_JITCONFIG`: how the sandbox's runner is told its JIT configuration.
pub(crate) fn jit_configuration() -> Option<secrecy::SecretString> {
    read(remuda_core::fleet::JitBy::OFFICIAL).map(Into::into)
}

/// What holds glibc's allocator to two arenas (mallopt(3)).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) const TWO_ARENAS: (&str, &str) = ("MALLOC_ARENA_MAX", "2");

/// `MALLOC_ARENA_MAX`, `GLIBC_TUNABLES`: whether somebody has settled how glibc's allocator works.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn allocator_is_set() -> bool {
    [TWO_ARENAS.0, "GLIBC_TUNABLES"].into_iter().any(|name| read(name).is_some())
}

/// `USER`: who gives an order, for the record.
pub(crate) fn user() -> String {
    read("USER").unwrap_or_else(|| "someone".into())
}

/// `COLUMNS`: how wide tables may be, instead of the terminal's own width or no limit.
pub(crate) fn columns() -> Option<u16> {
    read("COLUMNS")?.parse().ok()
}

/// `RUSTUP_HOME`, else `~/.rustup` if it is there: where jobs of the demo find the user's tool chains,
/// as their own home is another.
pub(crate) fn rustup_home() -> Option<PathBuf> {
    let home = || read("HOME").map(|home| PathBuf::from(home).join(".rustup"));
    read("RUSTUP_HOME").map(PathBuf::from).or_else(home).filter(|place| place.is_dir())
}
