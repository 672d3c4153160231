//! Limits: an instance gets what its pool's needs say, by cgroup where we may make one, else by
//! rlimit. A cgroup also holds together what tries to run away.
//!
//! Cgroup v2 is preferred, below our own cgroup or beside it (a delegated systemd unit with the server
//! in a sub-group of it); where its controllers are bound to v1, as on hybrid machines, v1 is used for
//! them. Interface files: the kernel's `admin-guide/cgroup-v2` and `cgroup-v1`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Access, access};

use super::home::present;

/// The period over which a share of processor time is counted, in microseconds: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;
/// The shortest quota the kernel takes.
const CPU_QUOTA_US_MIN: u64 = 1_000;
const MIB: u64 = 1024 * 1024;
/// How long cgroups may seem busy after the end of all in them.
const EMPTY_MAX: Duration = Duration::from_secs(2);
const EMPTY_STEP: Duration = Duration::from_millis(1);

/// Where cgroups can be made for one instance: directories that need not exist yet.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    v2: Vec<PathBuf>,
    v1_memory: Option<PathBuf>,
    v1_cpu: Option<PathBuf>,
}

/// The limits in force.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    /// Cgroups that were made, to be joined.
    pub(super) cgroups: Vec<PathBuf>,
    /// To be set as `RLIMIT_DATA`.
    pub(super) data_bytes: Option<u64>,
    /// For people.
    pub(super) notes: Vec<String>,
}

/// What to limit; zero and absent mean no limit.
#[derive(Clone, Copy, Debug)]
struct Wants {
    memory_bytes: Option<u64>,
    cpu_quota_us: Option<u64>,
}

impl Wants {
    fn of(needs: &BTreeMap<String, u64>) -> Self {
        let need = |name| needs.get(name).copied().filter(|units| *units > 0);
        Self {
            memory_bytes: need("memory").map(|mib| mib.saturating_mul(MIB)),
            cpu_quota_us: need("cpu").map(|millicores| {
                (millicores.saturating_mul(CPU_PERIOD_US) / 1000).max(CPU_QUOTA_US_MIN)
            }),
        }
    }
}

impl Places {
    /// Finds where cgroups named `name` can be made, from where this process is.
    pub(super) fn find(name: &str) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let mut places = Self::read(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
        let may_use = |base: &PathBuf| access(base.join("cgroup.procs"), Access::WRITE_OK).is_ok();
        places.v2.retain(may_use);
        // Above our own cgroup, only where systemd has left it to us (`Delegate=`).
        places.v2 = places
            .v2
            .into_iter()
            .enumerate()
            .filter(|(n, at)| *n == 0 || is_delegated(at))
            .map(|(_, at)| at)
            .collect();
        places.v1_memory = places.v1_memory.filter(may_use);
        places.v1_cpu = places.v1_cpu.filter(may_use);
        for base in places.all_mut() {
            base.push(name);
        }
        places
    }

    /// The cgroups this process is in, by hierarchy, as directories; for v2 also the one above.
    fn read(mounts: &str, own: &str) -> Self {
        let mut places = Self::default();
        for (root, mount, kind, options) in mounts.lines().filter_map(parse_mount) {
            let base = |controller: &str| own_path(own, controller, root).map(|at| mount.join(at));
            let has = |controller| options.split(',').any(|option| option == controller);
            match kind {
                "cgroup2" => {
                    let Some(base) = base("") else { continue };
                    let above = base.parent().filter(|above| above.starts_with(&mount));
                    places.v2 = above.map(Path::to_owned).into_iter().collect();
                    places.v2.insert(0, base);
                }
                "cgroup" if has("memory") => places.v1_memory = base("memory"),
                "cgroup" if has("cpu") => places.v1_cpu = base("cpu"),
                _ => {}
            }
        }
        places
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.v2.iter_mut().chain(&mut self.v1_memory).chain(&mut self.v1_cpu)
    }

    /// Every directory that [`Places::make`] may make.
    pub(super) fn all(&self) -> Vec<PathBuf> {
        self.v2.iter().chain(&self.v1_memory).chain(&self.v1_cpu).cloned().collect()
    }

    /// Makes the cgroups that can be made and sets their limits; what no cgroup limits, an rlimit
    /// does if there is one for it.
    pub(super) fn make(&self, needs: &BTreeMap<String, u64>) -> Limits {
        let wants = Wants::of(needs);
        let mut limits = Limits::default();
        let (mut memory_by, mut cpu_by) = (None, None);
        if let Some(made) = make_best_v2(&self.v2, wants) {
            limits.cgroups.push(made.dir);
            memory_by = made.memory.then_some("cgroup v2");
            cpu_by = made.cpu.then_some("cgroup v2");
        }
        if memory_by.is_none()
            && let (Some(dir), Some(bytes)) = (&self.v1_memory, wants.memory_bytes)
            && make_v1(dir, &[("memory.limit_in_bytes", bytes)])
        {
            // With swap accounted, swapping must not stretch the limit; without, there is no such file.
            let _ = set(dir, "memory.memsw.limit_in_bytes", &bytes.to_string());
            limits.cgroups.push(dir.clone());
            memory_by = Some("cgroup v1");
        }
        if cpu_by.is_none()
            && let (Some(dir), Some(quota)) = (&self.v1_cpu, wants.cpu_quota_us)
            && make_v1(dir, &[("cpu.cfs_period_us", CPU_PERIOD_US), ("cpu.cfs_quota_us", quota)])
        {
            limits.cgroups.push(dir.clone());
            cpu_by = Some("cgroup v1");
        }
        if let Some(bytes) = wants.memory_bytes {
            // RLIMIT_DATA rather than RLIMIT_AS: managed runtimes reserve far more than they use.
            limits.data_bytes = memory_by.is_none().then_some(bytes);
            let by = memory_by.unwrap_or("rlimit, for each process");
            limits.notes.push(format!("memory: {} MiB by {by}", bytes / MIB));
        }
        if let Some(quota) = wants.cpu_quota_us {
            let millicores = quota * 1000 / CPU_PERIOD_US;
            limits.notes.push(match cpu_by {
                Some(by) => format!("cpu: {millicores} millicores by {by}"),
                None => "cpu: not limited, for lack of a cgroup we may make".to_owned(),
            });
        }
        limits
    }
}

/// Root within the hierarchy, mount point, type and super options of a line of `mountinfo`.
fn parse_mount(line: &str) -> Option<(&str, PathBuf, &str, &str)> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let mut after = after.split(' ');
    let (root, mount) = (before.next()?, before.next()?);
    // White space is escaped there; nobody mounts cgroups at such a place.
    let plain = !mount.contains('\\') && !root.contains('\\');
    plain.then_some((root, PathBuf::from(mount), after.next()?, after.nth(1)?))
}

/// The path of `controller`'s cgroup in `/proc/self/cgroup`, relative to what is mounted.
fn own_path<'a>(own: &'a str, controller: &str, root: &str) -> Option<&'a Path> {
    own.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let fits = controllers.split(',').any(|one| one == controller);
        fits.then(|| Path::new(path).strip_prefix(root).ok()).flatten()
    })
}

/// A v2 cgroup and what it limits.
struct MadeV2 {
    dir: PathBuf,
    memory: bool,
    cpu: bool,
}

/// Makes the v2 cgroup that limits most of what is wanted. One that limits nothing still holds the
/// instance's processes together.
fn make_best_v2(dirs: &[PathBuf], wants: Wants) -> Option<MadeV2> {
    let mut best: Option<MadeV2> = None;
    for dir in dirs {
        let Some(made) = make_v2(dir, wants) else { continue };
        let limited = |made: &MadeV2| u8::from(made.memory) + u8::from(made.cpu);
        let loser = match &best {
            Some(so_far) if limited(so_far) >= limited(&made) => Some(made),
            Some(_) | None => best.replace(made),
        };
        if let Some(loser) = loser {
            // It is empty; if it cannot be removed it goes with the instance.
            let _ = fs::remove_dir(loser.dir);
        }
    }
    best
}

fn make_v2(dir: &Path, wants: Wants) -> Option<MadeV2> {
    let base = dir.parent()?;
    for (controller, wanted) in
        [("memory", wants.memory_bytes.is_some()), ("cpu", wants.cpu_quota_us.is_some())]
    {
        if wanted {
            // Refused where the controller belongs to v1 or the cgroup has processes of its own;
            // whether it worked shows in the files below.
            let _ = set(base, "cgroup.subtree_control", &format!("+{controller}"));
        }
    }
    fs::create_dir(dir).ok()?;
    let limit = |file, value: Option<String>| value.is_some_and(|v| set(dir, file, &v).is_ok());
    let memory = limit("memory.max", wants.memory_bytes.map(|bytes| bytes.to_string()));
    if memory {
        // Swapping must not stretch the limit; without swap there is no such file.
        let _ = set(dir, "memory.swap.max", "0");
    }
    let quota = wants.cpu_quota_us.map(|quota| format!("{quota} {CPU_PERIOD_US}"));
    Some(MadeV2 { dir: dir.to_owned(), memory, cpu: limit("cpu.max", quota) })
}

/// True if systemd has left a cgroup to us (systemd's `CGROUP_DELEGATION`: an extended attribute).
fn is_delegated(dir: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].iter().any(|name| {
        let mut value = [0; 8];
        rustix::fs::getxattr(dir, *name, &mut value).is_ok_and(|bytes| &value[..bytes] == b"1")
    })
}

/// Makes a v1 cgroup with all of these settings, or none.
fn make_v1(dir: &Path, settings: &[(&str, u64)]) -> bool {
    if fs::create_dir(dir).is_err() {
        return false;
    }
    let done = settings.iter().all(|(file, value)| set(dir, file, &value.to_string()).is_ok());
    if !done {
        let _ = fs::remove_dir(dir);
    }
    done
}

/// Writes to an interface file; never makes one.
fn set(dir: &Path, file: &str, value: &str) -> io::Result<()> {
    use std::io::Write;
    fs::OpenOptions::new().write(true).open(dir.join(file))?.write_all(value.as_bytes())
}

/// Puts this process, and all it will start, into a cgroup.
pub(super) fn join(cgroup: &Path) -> io::Result<()> {
    set(cgroup, "cgroup.procs", "0")
}

/// Kills all in a cgroup at once where the kernel can (v2 since 5.14). Only ever ours, by its name.
pub(super) fn kill(cgroups: &[PathBuf], name: &str) {
    for cgroup in cgroups.iter().filter(|cgroup| cgroup.ends_with(name)) {
        // Where there is no such file, processes are killed one by one.
        let _ = set(cgroup, "cgroup.kill", "1");
    }
}

/// Removes cgroups whose processes have ended. Only ever ours, by their name.
pub(super) fn remove(cgroups: &[PathBuf], name: &str) -> io::Result<()> {
    let until = Instant::now() + EMPTY_MAX;
    for cgroup in cgroups.iter().filter(|cgroup| cgroup.ends_with(name)) {
        // The kernel takes a process out of its cgroup a moment after it was reaped, and v1 has no
        // way to be told of that.
        while let Err(error) = present(remove_cgroup(cgroup)) {
            if error.kind() != io::ErrorKind::ResourceBusy || Instant::now() >= until {
                return Err(error);
            }
            std::thread::sleep(EMPTY_STEP);
        }
    }
    Ok(())
}

/// A job may have made cgroups of its own below; a cgroup's files go with it.
fn remove_cgroup(cgroup: &Path) -> io::Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            present(remove_cgroup(&entry.path()))?;
        }
    }
    fs::remove_dir(cgroup)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
32 31 0:29 / /cg/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / /cg/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
35 31 0:32 / /cg/memory rw,relatime shared:5 - cgroup cgroup rw,memory
41 31 0:38 / /cg/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn on_a_hybrid_machine_each_controller_is_found_where_it_is() {
        let places = Places::read(HYBRID, "4:memory:/a/b\n1:cpu:/\n0::/\n");
        assert_eq!(places.v2, [PathBuf::from("/cg/unified")]);
        assert_eq!(places.v1_memory, Some("/cg/memory/a/b".into()));
        assert_eq!(places.v1_cpu, Some("/cg/cpu".into()));
    }

    #[test]
    fn on_a_unified_machine_the_own_cgroup_comes_before_the_one_above() {
        let mount = "26 20 0:22 / /cg rw shared:9 - cgroup2 cgroup2 rw,nsdelegate";
        let places = Places::read(mount, "0::/system.slice/remuda.service/server\n");
        assert_eq!(
            places.v2,
            [
                PathBuf::from("/cg/system.slice/remuda.service/server"),
                PathBuf::from("/cg/system.slice/remuda.service")
            ]
        );
        assert_eq!(places.v1_memory, None);
    }

    #[test]
    fn a_container_that_sees_only_a_part_of_the_hierarchy_looks_below_that_part() {
        let mount = "26 20 0:22 /docker/x /cg rw - cgroup2 cgroup2 rw";
        let inside = Places::read(mount, "0::/docker/x/y\n");
        assert_eq!(inside.v2[0], PathBuf::from("/cg/y"));
        assert_eq!(Places::read(mount, "0::/elsewhere\n"), Places::default());
    }

    #[test]
    fn without_cgroups_memory_is_limited_by_rlimit_and_it_says_that_cpu_is_not() {
        let needs = BTreeMap::from([("memory".into(), 64), ("cpu".into(), 500)]);
        let limits = Places::default().make(&needs);
        assert_eq!(limits.data_bytes, Some(64 * MIB));
        assert_eq!(
            limits.notes,
            [
                "memory: 64 MiB by rlimit, for each process",
                "cpu: not limited, for lack of a cgroup we may make"
            ]
        );
        assert_eq!(Places::default().make(&BTreeMap::new()), Limits::default());
    }

    #[test]
    fn limits_are_written_in_the_kernels_units() {
        let wants = Wants::of(&BTreeMap::from([("memory".into(), 3), ("cpu".into(), 1500)]));
        assert_eq!(wants.memory_bytes, Some(3 * 1024 * 1024));
        assert_eq!(wants.cpu_quota_us, Some(150_000));
        let tiny = Wants::of(&BTreeMap::from([("memory".into(), 0), ("cpu".into(), 1)]));
        assert_eq!((tiny.memory_bytes, tiny.cpu_quota_us), (None, Some(CPU_QUOTA_US_MIN)));
    }
}
