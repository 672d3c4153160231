//! How many arenas the allocator keeps for a server's threads.

/// Starts this program anew in the same process, with glibc's allocator held to two arenas, if whoever started
/// it has said nothing about them.
///
/// glibc reads their number from the environment alone, before `main`. Left to itself it makes up to eight for
/// each processor, and what the server's threads have freed stays in all of them: see BENCHMARKS.md, "Reconcile".
/// Where a second start is refused the first goes on, and only memory is lost.
pub(super) fn hold_to_two() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if !crate::env::allocator_is_set() {
        use std::os::unix::process::CommandExt;
        let Ok(program) = std::env::current_exe() else { return };
        let mut args = std::env::args_os();
        let mut again = std::process::Command::new(&program);
        again.arg0(args.next().unwrap_or_else(|| program.into_os_string()));
        let (name, number) = crate::env::TWO_ARENAS;
        let _refused = again.args(args).env(name, number).exec();
    }
}
