//! Instances of the `process` provider: killed whole, adopted, and never mistaken for others.
#![expect(clippy::unwrap_used, reason = "only tests call these")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};

use common::{
    INSTALLATION, PATIENCE, World, conditions, ended_within, exited, handle, has_ended, program,
    start,
};
use remuda_core::observation::Condition::{Exited, Running};
use remuda_core::runner::InstanceId;
use remuda_provider::Provider;
use rustix::process::Pid;

/// Tells the pids of four processes: the runner, a child, a daemon that forked twice into a session
/// of its own, and one that also gave up its environment.
const FAMILY: &str = r#"
    echo 1 $$ > "$WORDS"
    sleep 1001 & echo 2 $! > "$WORDS"
    (setsid bash -c 'echo 3 $$ > "$WORDS"; trap "" TERM HUP; while :; do sleep 1002; done' &)
    (env -i setsid bash -c 'echo 4 $$ > "$0"; trap "" TERM HUP; while :; do sleep 1003; done' "$WORDS" &)
"#;

async fn family(world: &mut World) -> (Vec<Pid>, Vec<OwnedFd>) {
    let mut words = Vec::new();
    for _ in 0..4 {
        words.push(world.word().await);
    }
    words.sort();
    let pids: Vec<i32> = words.iter().map(|word| word[2..].parse().unwrap()).collect();
    let handles = pids.iter().map(|pid| handle(*pid)).collect();
    (pids.into_iter().filter_map(Pid::from_raw).collect(), handles)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_killed_whole_with_those_that_tried_to_escape() {
    let mut world = World::new();
    world.script("family", &format!("{FAMILY} while :; do sleep 1000; done"));
    let provider = world.provider();
    start(&provider, "family", 1).await.unwrap();
    let (_, mut all) = family(&mut world).await;
    all.push(handle(world.shim_pid(1)));
    assert!(!all.iter().any(has_ended));
    provider.destroy(InstanceId(1)).await.unwrap();
    assert!(all.iter().all(has_ended));
    assert!(!world.home(1).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_runner_leaves_behind_ends_with_it() {
    let mut world = World::new();
    world.script("family", &format!("{FAMILY} exit 3"));
    let provider = world.provider();
    start(&provider, "family", 1).await.unwrap();
    assert_eq!(exited(&provider, 1).await, Some(3));
    let mark = format!("REMUDA_INSTANCE={INSTALLATION}/1/{}", token(&world, 1));
    assert_eq!(bearers(&mark), Vec::<String>::new());
    provider.destroy(InstanceId(1)).await.unwrap();
}

/// A token no other run of these tests has.
fn fresh_token(world: &World) -> String {
    let name = world.dir.path().file_name().unwrap().to_str().unwrap();
    name.trim_start_matches('.').to_owned()
}

fn token(world: &World, instance: u64) -> String {
    world.record(instance)["tag"]["token"].as_str().unwrap().to_owned()
}

/// Processes with a variable in their environment.
fn bearers(variable: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let bear = all.filter(|at| {
        fs::read(at.join("environ"))
            .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|v| v == variable.as_bytes()))
    });
    bear.map(|at| at.display().to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_ends_with_its_shim_and_its_orphans_are_still_found() {
    let mut world = World::new();
    world.script("family", &format!("{FAMILY} while :; do sleep 1000; done"));
    let provider = world.provider();
    start(&provider, "family", 1).await.unwrap();
    let (pids, all) = family(&mut world).await;
    let shim = Pid::from_raw(world.shim_pid(1)).unwrap();
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    assert_eq!(exited(&provider, 1).await, None);
    assert!(ended_within(&all[0], PATIENCE), "the runner itself");
    assert!(!has_ended(&all[2]), "a daemon outlives both");
    provider.destroy(InstanceId(1)).await.unwrap();
    assert!(has_ended(&all[1]) && has_ended(&all[2]));
    if has_cgroup() {
        assert!(has_ended(&all[3]));
    } else {
        println!("skipped: without cgroups a daemon without environment outlives its shim");
        // The session it made is its group as well.
        rustix::process::kill_process_group(pids[3], rustix::process::Signal::KILL).unwrap();
    }
}

/// Whether instances are held together by a cgroup here.
fn has_cgroup() -> bool {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let unified = mounts.lines().find(|line| line.contains(" - cgroup2 "));
    let at = own.lines().find_map(|line| line.strip_prefix("0::/"));
    unified.zip(at).is_some_and(|(line, at)| {
        let base = Path::new(line.split(' ').nth(4).unwrap()).join(at);
        let probe = base.join(format!("remuda-test-probe-{}", std::process::id()));
        let made = fs::create_dir(&probe).is_ok();
        made && fs::remove_dir(&probe).is_ok()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_server_adopts_what_runs() {
    let mut world = World::new();
    world.script("obedient", r#"echo $$ > "$WORDS"; exec sleep 1000"#);
    world.script(
        "passing",
        r#"trap "exit 5" USR1; echo $$ > "$WORDS"; while :; do sleep 1000 & wait; done"#,
    );
    let before = world.provider();
    start(&before, "obedient", 1).await.unwrap();
    let one = handle(world.pid().await);
    start(&before, "passing", 2).await.unwrap();
    let two = handle(world.pid().await);
    before.close().await;
    drop(before);

    let after = world.provider();
    assert_eq!(conditions(&after).await, BTreeMap::from([(1, Running), (2, Running)]));
    start(&after, "obedient", 1).await.unwrap();
    assert!(!has_ended(&one), "a launch of what is there leaves it alone");
    rustix::process::pidfd_send_signal(&two, rustix::process::Signal::USR1).unwrap();
    assert_eq!(exited(&after, 2).await, Some(5));
    after.destroy(InstanceId(1)).await.unwrap();
    after.destroy(InstanceId(2)).await.unwrap();
    assert!(has_ended(&one) && has_ended(&two));
    assert_eq!(conditions(&after).await, BTreeMap::new());
}

/// A process that is not ours, and the directory of an instance that claims it.
struct Forged {
    victim: Child,
    world: World,
}

impl Forged {
    fn new(change: impl FnOnce(&mut serde_json::Value)) -> Self {
        let world = World::new();
        let victim = Command::new("sleep").arg("1000").spawn().unwrap();
        let stat = fs::read_to_string(format!("/proc/{}/stat", victim.id())).unwrap();
        let began: u64 =
            stat.rsplit(')').next().unwrap().split(' ').nth(20).unwrap().parse().unwrap();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let mut record = serde_json::json!({
            "tag": { "installation": INSTALLATION, "instance": 9, "token": fresh_token(&world) },
            "epoch": 1, "runner": "r", "cgroups": [], "limits": [],
            "shim": { "process": { "pid": victim.id(), "start": began }, "boot": boot.trim() },
        });
        change(&mut record);
        fs::create_dir_all(world.home(9).join("work")).unwrap();
        fs::write(world.home(9).join("instance.json"), record.to_string()).unwrap();
        Self { victim, world }
    }

    fn is_alive(&mut self) -> bool {
        self.victim.try_wait().unwrap().is_none()
    }
}

impl Drop for Forged {
    fn drop(&mut self) {
        self.victim.kill().unwrap();
        self.victim.wait().unwrap();
    }
}

#[tokio::test]
async fn the_forgery_is_good_enough_to_be_believed_when_all_of_it_is_true() {
    let mut forged = Forged::new(|_| ());
    let provider = forged.world.provider();
    assert_eq!(conditions(&provider).await, BTreeMap::from([(9, Running)]));
    provider.destroy(InstanceId(9)).await.unwrap();
    assert!(!forged.is_alive());
}

#[tokio::test]
async fn a_pid_that_passed_on_to_another_process_is_not_signalled() {
    let mut forged = Forged::new(|record| {
        let start = &mut record["shim"]["process"]["start"];
        *start = (start.as_u64().unwrap() - 1).into();
    });
    let provider = forged.world.provider();
    assert_eq!(conditions(&provider).await, BTreeMap::from([(9, Exited(None))]));
    provider.destroy(InstanceId(9)).await.unwrap();
    assert!(forged.is_alive());
    assert!(!forged.world.home(9).exists());
}

#[tokio::test]
async fn a_pid_of_an_earlier_boot_is_not_signalled() {
    let mut forged = Forged::new(|record| record["shim"]["boot"] = "another".into());
    let provider = forged.world.provider();
    assert_eq!(conditions(&provider).await, BTreeMap::from([(9, Exited(None))]));
    provider.destroy(InstanceId(9)).await.unwrap();
    assert!(forged.is_alive());
}

#[tokio::test]
async fn another_installations_instance_is_neither_listed_nor_touched() {
    let mut forged = Forged::new(|record| record["tag"]["installation"] = "other".into());
    forged.world.script("any", "exit 0");
    let provider = forged.world.provider();
    assert_eq!(conditions(&provider).await, BTreeMap::new());
    provider.destroy(InstanceId(9)).await.unwrap();
    assert!(forged.is_alive() && forged.world.home(9).exists());
    let refused = start(&provider, "any", 9).await.unwrap_err().to_string();
    assert!(refused.ends_with("it belongs to installation other"), "{refused}");
}

#[tokio::test]
async fn what_a_crash_leaves_is_listed_and_can_be_destroyed() {
    let world = World::new();
    fs::create_dir_all(world.home(1)).unwrap();
    fs::create_dir_all(world.home(2)).unwrap();
    fs::write(world.home(2).join("instance.json"), "").unwrap();
    let intent = Forged::new(|record| record["shim"] = serde_json::Value::Null);
    fs::rename(intent.world.home(9), world.home(3)).unwrap();
    let provider = world.provider();
    let all = BTreeMap::from([(1, Exited(None)), (2, Exited(None)), (3, Exited(None))]);
    assert_eq!(conditions(&provider).await, all);
    for instance in 1..=3 {
        provider.destroy(InstanceId(instance)).await.unwrap();
    }
    assert_eq!(conditions(&provider).await, BTreeMap::new());
    assert_eq!(fs::read_dir(world.root()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shim_is_apart_from_the_server_and_keeps_nothing_of_it() {
    let mut world = World::new();
    world.script("lasting", r#"echo $$ > "$WORDS"; exec sleep 1000"#);
    let kept_by_us = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let provider = world.provider();
    start(&provider, "lasting", 1).await.unwrap();
    let runner = world.pid().await;
    let shim = world.shim_pid(1);
    for pid in [shim, runner] {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let session: i32 =
            stat.rsplit(')').next().unwrap().split(' ').nth(4).unwrap().parse().unwrap();
        assert_eq!(session, pid, "a session of its own");
    }
    let home = world.home(1).display().to_string();
    for entry in fs::read_dir(format!("/proc/{shim}/fd")).unwrap() {
        // A descriptor may be closed between the listing and the look.
        let Ok(target) = fs::read_link(entry.unwrap().path()) else { continue };
        let target = target.display().to_string();
        let own = target.starts_with(&home) || target.starts_with("pipe:") || target == "/dev/null";
        assert!(own, "the shim keeps {target}");
    }
    drop(kept_by_us);
    let mode = fs::metadata(world.home(1)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    provider.destroy(InstanceId(1)).await.unwrap();
}

/// Starts the shim by hand for instance 9, whose intent alone is written, up to the point where it
/// waits for the secret; gives it with what it said by then.
fn shim_by_hand(world: &World, witness: &Path) -> (Child, UnixStream, String) {
    let record = serde_json::json!({
        "tag": { "installation": INSTALLATION, "instance": 9, "token": fresh_token(world) },
        "epoch": 1, "runner": "r", "cgroups": [], "limits": [], "shim": null,
    });
    fs::write(world.home(9).join("instance.json"), record.to_string()).unwrap();
    let order = serde_json::json!({
        "again": [], "needs": {}, "jit_bytes": 8,
        "start": {
            "program": program("touch"), "args": [witness], "work": world.home(9).join("work"),
            "env": {}, "jit": { "Env": "JIT" },
        },
    });
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let shim = Command::new(env!("CARGO_BIN_EXE_remuda-process-shim"))
        .args([Path::new("watch"), &world.home(9)])
        .stdin(OwnedFd::from(theirs))
        .spawn()
        .unwrap();
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    ours.write_all(format!("{order}\n").as_bytes()).unwrap();
    let mut said = String::new();
    BufReader::new(&ours).read_line(&mut said).unwrap();
    (shim, ours, said.trim_end().to_owned())
}

#[tokio::test]
async fn a_shim_starts_the_runner_on_the_whole_secret_only() {
    for (secret, starts) in [("12345678", true), ("1234", false), ("", false)] {
        let world = World::new();
        fs::create_dir_all(world.home(9).join("work")).unwrap();
        let witness = world.dir.path().join("witness");
        let (mut shim, mut server, said) = shim_by_hand(&world, &witness);
        assert_eq!(said, "\"Ready\"");
        server.write_all(secret.as_bytes()).unwrap();
        // As when the server is killed.
        drop(server);
        assert_eq!(shim.wait().unwrap().success(), starts);
        assert_eq!(witness.exists(), starts, "{secret:?}");
        let provider = world.provider();
        let code = starts.then_some(0);
        assert_eq!(conditions(&provider).await, BTreeMap::from([(9, Exited(code))]));
    }
}

#[tokio::test]
async fn a_shim_that_finds_its_instance_being_ended_starts_nothing() {
    let world = World::new();
    fs::create_dir_all(world.home(9).join("work")).unwrap();
    fs::write(world.home(9).join("ending"), "").unwrap();
    let witness = world.dir.path().join("witness");
    let (mut shim, _server, said) = shim_by_hand(&world, &witness);
    assert_eq!(said, "");
    shim.wait().unwrap();
    assert!(!witness.exists());
}
