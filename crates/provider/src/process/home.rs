//! An instance's directory: what is written there, by whom, and what it says.
//!
//! The directory comes to its place with `instance.json` in it, before anything is started, so
//! whatever a crash leaves can be listed and destroyed. Whoever makes the instance holds a lock on the
//! directory meanwhile, which everybody who shares the root can see and which the system releases when
//! the maker dies. No secret is ever written here.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use remuda_core::observation::Condition;
use remuda_core::runner::InstanceId;
use serde::{Deserialize, Serialize};

use super::family::{self, Process};

const RECORD: &str = "instance.json";
const EXIT: &str = "exit";
const ENDING: &str = "ending";
/// What the name of a directory begins with that has no place yet.
const PART: &str = ".making-";
const RECORD_BYTES_MAX: u64 = 64 * 1024;

/// What tells an instance's processes and cgroups from all others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tag {
    pub(crate) installation: String,
    pub(crate) instance: u64,
    /// Random: two sets of books may number alike.
    pub(crate) token: String,
}

impl Tag {
    /// The value of the variable every process of the instance bears.
    pub(crate) fn mark(&self) -> String {
        format!("{}/{}/{}", self.installation, self.instance, self.token)
    }

    /// The name of the instance's cgroups.
    pub(crate) fn cgroup(&self) -> String {
        format!("remuda-{}-{}-{}", self.installation, self.instance, self.token)
    }
}

/// The shim of an instance, once it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShimRecord {
    pub(crate) process: Process,
    pub(crate) boot: String,
}

/// What `instance.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) tag: Tag,
    pub(crate) epoch: u64,
    pub(crate) runner: String,
    /// Nobody yet, until the shim has written itself down.
    pub(crate) shim: Option<ShimRecord>,
    /// Every cgroup that may have been made for it.
    pub(crate) cgroups: Vec<PathBuf>,
    /// How each need is limited, for people.
    pub(crate) limits: Vec<String>,
}

impl Record {
    /// The shim, if it is certainly ours and has not ended.
    pub(crate) fn living_shim(&self) -> Option<Process> {
        let shim = self.shim.as_ref()?;
        let same_boot = family::boot().is_ok_and(|boot| boot == shim.boot);
        (same_boot && shim.process.is_alive()).then_some(shim.process)
    }
}

/// What is at an instance's place.
pub(crate) enum Found {
    /// Nothing.
    Nothing,
    /// A directory without a readable record. A crash leaves one before anything is started.
    Bare,
    /// An instance, of whichever installation.
    Instance(Record),
}

/// An instance's directory.
#[derive(Clone, Debug)]
pub(crate) struct Home(PathBuf);

/// An instance that is being made. Until this is dropped, what has no shim yet is not taken for dead.
#[derive(Debug)]
pub(crate) struct Making(#[expect(dead_code, reason = "its descriptor is the lock")] File);

impl Home {
    pub(crate) fn of(root: &Path, instance: InstanceId) -> Self {
        Self(root.join(instance.to_string()))
    }

    pub(crate) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where the runner works.
    pub(crate) fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    /// Makes the directory with its record, whole and locked or not at all. An error leaves what is
    /// there.
    pub(crate) fn create(&self, record: &Record) -> io::Result<Making> {
        let part = Self(self.0.with_file_name(format!("{PART}{}", record.tag.token)));
        let make = || {
            private_dir(&part.0)?;
            let lock = File::open(&part.0)?;
            lock.lock()?;
            part.write_record(record)?;
            private_dir(&part.work())?;
            fs::rename(&part.0, &self.0)?;
            Ok(Making(lock))
        };
        make().inspect_err(|_| {
            // What is left is found by whoever lists next.
            let _ = remove_tree(&part.0);
        })
    }

    /// True while whoever makes it lives and is not done. Asked before the record is read, or one that
    /// is done in between would look dead. Also true for as long as a child of a maker that was killed has
    /// not executed another program yet, which is over when the next listing asks.
    pub(crate) fn is_in_the_making(&self) -> io::Result<bool> {
        let Some(directory) = present(File::open(&self.0))? else { return Ok(false) };
        match directory.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    pub(crate) fn write_record(&self, record: &Record) -> io::Result<()> {
        self.write_whole(RECORD, &serde_json::to_vec_pretty(record)?)
    }

    pub(crate) fn find(&self) -> io::Result<Found> {
        let text = match read_bounded(&self.0.join(RECORD)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(Found::Bare),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(if self.0.is_dir() { Found::Bare } else { Found::Nothing });
            }
            Err(error) => return Err(error),
        };
        // A loss of power may leave a record empty; what it was about is gone with the boot.
        Ok(serde_json::from_str(&text).map_or(Found::Bare, Found::Instance))
    }

    /// Notes how the runner ended.
    pub(crate) fn write_exit(&self, code: i32) -> io::Result<()> {
        self.write_whole(EXIT, format!("{code}\n").as_bytes())
    }

    fn exit(&self) -> Option<i32> {
        read_bounded(&self.0.join(EXIT)).ok()?.trim().parse().ok()
    }

    /// The condition of the instance `record` is about.
    pub(crate) fn condition(&self, record: &Record) -> Condition {
        if let Some(code) = self.exit() {
            return Condition::Exited(Some(code));
        }
        if record.living_shim().is_some() {
            return Condition::Running;
        }
        // The shim may have written the code and gone between the two looks.
        Condition::Exited(self.exit())
    }

    /// Forbids the shim to start the runner, if it has not yet.
    pub(crate) fn mark_ending(&self) -> io::Result<()> {
        self.write_whole(ENDING, b"")
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.0.join(ENDING).exists()
    }

    /// Removes the directory, its record last: what is left half-way is still listed.
    pub(crate) fn remove(&self) -> io::Result<()> {
        for entry in present(fs::read_dir(&self.0))?.into_iter().flatten() {
            let entry = entry?;
            if entry.file_name() == RECORD {
                continue;
            }
            if entry.file_type()?.is_dir() {
                remove_tree(&entry.path())?;
            } else {
                present(fs::remove_file(entry.path()))?;
            }
        }
        present(fs::remove_file(self.0.join(RECORD)))?;
        present(fs::remove_dir(&self.0))?;
        Ok(())
    }

    /// Writes a file so that it is there whole or not at all.
    fn write_whole(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let part = self.0.join(format!(".{name}.part"));
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        file.write_all(bytes)?;
        fs::rename(&part, self.0.join(name))
    }
}

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.display(), f)
    }
}

/// Every directory of an instance below `root`, whosever it is.
pub(crate) fn homes(root: &Path) -> io::Result<Vec<(InstanceId, Home)>> {
    let mut homes = Vec::new();
    for entry in present(fs::read_dir(root))?.into_iter().flatten() {
        let entry = entry?;
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| Some((name, name.parse::<u64>().ok()?)));
        // Only the one spelling we write: "007" is not ours.
        if let Some((name, id)) = id
            && id.to_string() == name
            && entry.file_type()?.is_dir()
        {
            homes.push((InstanceId(id), Home(entry.path())));
        }
    }
    homes.sort_by_key(|(id, _)| *id);
    Ok(homes)
}

/// Removes what makers left that were killed before it had a place. To be called by a process that
/// makes nothing meanwhile; another one's launch may fail by it, at worst.
pub(crate) fn sweep(root: &Path) -> io::Result<()> {
    for entry in present(fs::read_dir(root))?.into_iter().flatten() {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(PART.as_bytes()) {
            continue;
        }
        let Some(part) = present(File::open(entry.path()))? else { continue };
        match part.try_lock() {
            Ok(()) => remove_tree(&entry.path())?,
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(())
}

/// Makes a directory that only we may enter.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Nothing there is an answer, not a failure.
pub(crate) fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    File::open(path)?.take(RECORD_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Removes a tree, also where a job took away its own permission to (a module cache of Go does).
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match present(fs::remove_dir_all(path)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            present(fs::remove_dir_all(path)).map(|_| ())
        }
        other => other.map(|_| ()),
    }
}

/// Lets us enter and change every directory of a tree. Follows no links.
fn open_up(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let tag = Tag { installation: "i".into(), instance: 7, token: "t".into() };
        let runner = "r".into();
        Record { tag, epoch: 1, runner, shim: None, cgroups: vec![], limits: vec![] }
    }

    #[test]
    fn a_directory_is_private_and_made_once() {
        let root = tempfile::tempdir().unwrap();
        let home = Home::of(root.path(), InstanceId(7));
        let making = home.create(&record()).unwrap();
        let mode = fs::metadata(home.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        home.create(&record()).unwrap_err();
        assert!(home.is_in_the_making().unwrap());
        drop(making);
        assert!(!home.is_in_the_making().unwrap());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_maker_left_without_a_place_goes_once_the_maker_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let part = root.path().join(format!("{PART}t"));
        fs::create_dir_all(part.join("work")).unwrap();
        let maker = File::open(&part).unwrap();
        maker.lock().unwrap();
        sweep(root.path()).unwrap();
        assert!(part.exists());
        drop(maker);
        sweep(root.path()).unwrap();
        assert!(!part.exists());
    }

    #[test]
    fn only_directories_that_spell_a_number_as_we_do_are_instances() {
        let root = tempfile::tempdir().unwrap();
        for name in ["7", "07", "+7", "x", ".cache"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        fs::write(root.path().join("8"), "").unwrap();
        let ids: Vec<u64> = homes(root.path()).unwrap().iter().map(|(id, _)| id.0).collect();
        assert_eq!(ids, [7]);
        assert!(homes(&root.path().join("nowhere")).unwrap().is_empty());
    }

    #[test]
    fn a_tree_its_owner_may_not_enter_is_opened_up() {
        let root = tempfile::tempdir().unwrap();
        let locked = root.path().join("a/b");
        fs::create_dir_all(&locked).unwrap();
        fs::write(locked.join("f"), "").unwrap();
        for path in [&locked, &root.path().join("a")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
        }
        open_up(&root.path().join("a")).unwrap();
        assert_eq!(fs::metadata(&locked).unwrap().permissions().mode() & 0o777, 0o700);
        remove_tree(&root.path().join("a")).unwrap();
        assert!(!root.path().join("a").exists());
    }

    #[test]
    fn a_record_of_an_earlier_boot_names_no_living_shim() {
        let process = Process::own().unwrap();
        let now = ShimRecord { process, boot: family::boot().unwrap() };
        let before = ShimRecord { process, boot: "another".into() };
        assert_eq!(Record { shim: Some(now), ..record() }.living_shim(), Some(process));
        assert_eq!(Record { shim: Some(before), ..record() }.living_shim(), None);
    }
}
