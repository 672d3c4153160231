//! What a runner of the `process` provider is started with, and what becomes of launches that fail.
#![expect(clippy::unwrap_used, reason = "only tests call these")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use common::{JIT, World, conditions, exited, jit, launch, program, start};
use remuda_core::Timestamp;
use remuda_core::action::Launch;
use remuda_core::fleet::JitBy;
use remuda_core::observation::Cause;
use remuda_core::runner::InstanceId;
use remuda_provider::process::{ProcessProvider, Shim};
use remuda_provider::{Provider, ProviderError};

/// The environment of a process, the secret not hidden.
fn environment(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap();
    String::from_utf8(bytes).unwrap().replace('\0', "\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_gets_a_clean_environment_and_its_own_directory() {
    let mut world = World::new();
    let image = world.image("env", &[&program("env")]);
    image.env = BTreeMap::from([("COLOUR".into(), "blue".into()), ("HOME".into(), "mine".into())]);
    world.image("pwd", &[&program("pwd")]);
    let provider = world.provider();
    for (image, instance) in [("env", 1), ("pwd", 2)] {
        start(&provider, image, instance).await.unwrap();
        assert_eq!(exited(&provider, instance).await, Some(0));
    }
    let out = provider.tail(InstanceId(1), 100_000).await.unwrap();
    let out = String::from_utf8(out).unwrap();
    let env: BTreeMap<&str, &str> = out.lines().map(|line| line.split_once('=').unwrap()).collect();
    let plain = ["LANG", "PATH", "TZ"]
        .into_iter()
        .filter(|name| *name == "PATH" || std::env::var_os(name).is_some());
    let mut names: Vec<&str> = plain.collect();
    names.extend([JitBy::OFFICIAL, "COLOUR", "HOME", "REMUDA_INSTANCE"]);
    names.sort_unstable();
    assert_eq!(env.keys().copied().collect::<Vec<_>>(), names);
    assert_eq!((env["COLOUR"], env["HOME"], env[JitBy::OFFICIAL]), ("blue", "mine", JIT));
    let work = world.home(2).join("work").canonicalize().unwrap();
    let out = provider.tail(InstanceId(2), 1000).await.unwrap();
    assert_eq!(PathBuf::from(String::from_utf8(out).unwrap().trim_end()), work);
}

/// Every file below a directory, links not followed.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .flat_map(|entry| {
            if entry.file_type().unwrap().is_dir() {
                files(&entry.path())
            } else {
                vec![entry.path()]
            }
        })
        .collect()
}

/// Neither the command lines of shim and runner nor any file of the instance hold the secret.
fn assert_secret(world: &World, instance: u64, runner: i32) {
    for pid in [world.shim_pid(instance), runner] {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(!String::from_utf8_lossy(&line).contains(JIT), "command line of {pid}");
    }
    assert!(!environment(world.shim_pid(instance)).contains(JIT), "the shim's environment");
    let files = files(&world.home(instance));
    assert!(files.iter().any(|file| file.ends_with("instance.json")));
    for file in files {
        let content = fs::read(&file).unwrap();
        assert!(!String::from_utf8_lossy(&content).contains(JIT), "{}", file.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_comes_by_environment_and_lies_nowhere_else() {
    let mut world = World::new();
    world.script(
        "env",
        r#"echo $$ > "$WORDS"; echo "$ACTIONS_RUNNER_INPUT_JITCONFIG" > "$WORDS"; exec sleep 1000"#,
    );
    let provider = world.provider();
    start(&provider, "env", 1).await.unwrap();
    let runner = world.pid().await;
    assert_eq!(world.word().await, JIT);
    assert_secret(&world, 1, runner);
    provider.destroy(InstanceId(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_comes_by_any_descriptor_whole_and_then_ends() {
    let mut world = World::new();
    let descriptors = [0, 3, 4, 5, 9, 63];
    for number in descriptors {
        let name = format!("by-{number}");
        let script = format!(
            r#"echo $$ > "$WORDS"; cat <&{number} > "$WORDS"; echo > "$WORDS"; exec sleep 1000"#
        );
        world.script(&name, &script);
        world.images.get_mut(&name.parse().unwrap()).unwrap().jit = JitBy::Descriptor(number);
    }
    let provider = world.provider();
    for number in descriptors {
        let instance = u64::from(number);
        start(&provider, &format!("by-{number}"), instance).await.unwrap();
        let runner = world.pid().await;
        assert_eq!(world.word().await, JIT, "descriptor {number}");
        assert_secret(&world, instance, runner);
        assert!(!environment(runner).contains(JIT), "descriptor {number}");
        provider.destroy(InstanceId(instance)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_descriptor_that_carries_output_is_refused_and_so_is_a_secret_too_long() {
    let mut world = World::new();
    for number in [1, 2, 64] {
        world.image(&format!("by-{number}"), &[&program("true")]).jit = JitBy::Descriptor(number);
    }
    world.image("by-env", &[&program("true")]);
    let provider = world.provider();
    for number in [1, 2, 64] {
        let error = start(&provider, &format!("by-{number}"), 1).await.unwrap_err();
        assert_eq!(error.cause(), Cause::Invalid);
        assert!(error.to_string().contains("is neither 0 nor one of 3 to 63"), "{error}");
    }
    let long = "x".repeat(48 * 1024 + 1).into();
    let error = provider.launch(&launch("by-env", 1), &long).await.unwrap_err();
    assert!(error.to_string().contains("49153 bytes"), "{error}");
    assert!(!world.root().exists());
}

fn with_needs(image: &str, instance: u64, needs: &[(&str, u64)]) -> Launch {
    let needs = needs.iter().map(|(name, units)| (name.parse().unwrap(), *units)).collect();
    Launch { needs: Arc::new(needs), ..launch(image, instance) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_takes_more_memory_than_its_instance_may_does_not_get_it() {
    let mut world = World::new();
    // `tail` keeps all it was told to print.
    world.script(
        "hungry",
        "head -c 200000000 /dev/zero | tail -c 200000000 > /dev/null; exit ${PIPESTATUS[1]}",
    );
    let provider = world.provider();
    start(&provider, "hungry", 1).await.unwrap();
    assert_eq!(exited(&provider, 1).await, Some(0), "without a limit it fits");
    let limited = with_needs("hungry", 2, &[("memory", 64)]);
    provider.launch(&limited, &jit()).await.unwrap();
    let code = exited(&provider, 2).await;
    assert!(code.is_some_and(|code| code != 0), "{code:?}");
    let note = world.record(2)["limits"][0].as_str().unwrap().to_owned();
    assert!(note.starts_with("memory: 64 MiB by "), "{note}");
    for instance in [1, 2] {
        provider.destroy(InstanceId(instance)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processor_time_is_limited_by_a_cgroup_that_goes_with_the_instance() {
    let mut world = World::new();
    world.script(
        "lasting",
        r#"cat /proc/self/cgroup | tr '\n' ' ' > "$WORDS"; echo > "$WORDS"; exec sleep 1000"#,
    );
    let provider = world.provider();
    provider.launch(&with_needs("lasting", 1, &[("cpu", 500)]), &jit()).await.unwrap();
    let joined = world.word().await;
    let record = world.record(1);
    let made: Vec<PathBuf> = record["cgroups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|path| PathBuf::from(path.as_str().unwrap()))
        .filter(|path| path.exists())
        .collect();
    let note = record["limits"][0].as_str().unwrap();
    let read = |file: &str| made.iter().find_map(|at| fs::read_to_string(at.join(file)).ok());
    match note {
        "cpu: 500 millicores by cgroup v1" => {
            assert_eq!(read("cpu.cfs_quota_us").unwrap().trim(), "50000");
        }
        "cpu: 500 millicores by cgroup v2" => {
            assert_eq!(read("cpu.max").unwrap().trim(), "50000 100000");
        }
        other => {
            assert_eq!(other, "cpu: not limited, for lack of a cgroup we may make");
            println!("skipped: no cgroup can be made here");
        }
    }
    let name = format!("remuda-test-1-{}", record["tag"]["token"].as_str().unwrap());
    assert_eq!(joined.contains(&name), !made.is_empty(), "{joined}");
    provider.destroy(InstanceId(1)).await.unwrap();
    assert!(!made.iter().any(|path| path.exists()), "{made:?}");
}

/// The launch fails for this cause, and nothing is left of it.
async fn fails(
    world: &World,
    provider: &ProcessProvider,
    image: &str,
    cause: Cause,
) -> ProviderError {
    let error = start(provider, image, 1).await.unwrap_err();
    assert_eq!(error.cause(), cause, "{error}");
    assert_eq!(conditions(provider).await, BTreeMap::new(), "{error}");
    assert!(!world.home(1).exists(), "{error}");
    assert!(!error.to_string().contains(JIT) && !format!("{error:?}").contains(JIT));
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_that_cannot_succeed_says_why_and_leaves_nothing() {
    let mut world = World::new();
    world.image("no-command", &[]);
    world.image("no-program", &["bin/run"]);
    world.image("bare-name", &["bash"]);
    let script = world.dir.path().join("script");
    fs::write(&script, "#!nowhere/interpreter").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&script, mode).unwrap();
    world.image("script", &[script.to_str().unwrap()]);
    world.image("fine", &[&program("true")]);
    let provider = world.provider();
    for (image, why) in [
        ("undeclared", "image undeclared is not declared"),
        ("no-command", "it has no command"),
        ("no-program", "there is no executable file bin/run in its archive"),
        ("bare-name", "there is no executable file bash in its archive"),
        ("script", "No such file or directory"),
    ] {
        let error = fails(&world, &provider, image, Cause::Invalid).await.to_string();
        assert!(error.contains(why), "{error}");
    }
    let provider = world.provider_with(Shim { program: "nowhere/shim".into(), args: vec![] });
    let error = fails(&world, &provider, "fine", Cause::Invalid).await.to_string();
    assert!(error.starts_with("cannot execute the shim nowhere/shim: "), "{error}");
    let provider = world.provider_with(Shim { program: program("true").into(), args: vec![] });
    fails(&world, &provider, "fine", Cause::Transient).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_after_its_deadline_starts_nothing() {
    let mut world = World::new();
    let witness = world.dir.path().join("witness");
    world.script("tell", &format!("touch {}", witness.display()));
    // At each look the clock is later: the deadline passes before the first, or between two.
    for looks_in_time in 0..=1 {
        let looks = AtomicI64::new(0);
        world.clock = Arc::new(move || {
            let late = looks.fetch_add(1, Ordering::SeqCst) >= looks_in_time;
            Timestamp::from_millis(if late { 60_001 } else { 60_000 })
        });
        let provider = world.provider();
        let error = fails(&world, &provider, "tell", Cause::Transient).await.to_string();
        assert!(error.ends_with("its deadline passed 1 ms ago"), "{error}");
        // Joins all that might still do something.
        provider.close().await;
        assert!(!witness.exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_instances_are_made_than_declared() {
    let mut world = World::new();
    world.max = Some(2);
    world.image("lasting", &[&program("sleep"), "1000"]);
    let provider = world.provider();
    let (one, two, three) = tokio::join!(
        start(&provider, "lasting", 1),
        start(&provider, "lasting", 2),
        start(&provider, "lasting", 3)
    );
    let errors: Vec<_> = [one, two, three].into_iter().filter_map(Result::err).collect();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].cause(), Cause::Full);
    let there: Vec<u64> = conditions(&provider).await.into_keys().collect();
    assert_eq!(there.len(), 2);
    for instance in there {
        provider.destroy(InstanceId(instance)).await.unwrap();
    }
    start(&provider, "lasting", 4).await.unwrap();
    provider.destroy(InstanceId(4)).await.unwrap();
}

#[tokio::test]
async fn capacity_is_what_is_declared_or_unknown() {
    let mut world = World::new();
    assert_eq!(world.provider().capacity().await.unwrap(), None);
    world.capacity = BTreeMap::from([("cpu".parse().unwrap(), 4000)]);
    let capacity = world.provider().capacity().await.unwrap().unwrap();
    let nodes: Vec<_> = capacity.nodes.into_iter().collect();
    let units = BTreeMap::from([
        ("cpu".parse().unwrap(), 4000),
        // Shared by all processes and not declared: not limited.
        ("memory".parse().unwrap(), u64::MAX),
    ]);
    assert_eq!(nodes, [("local".parse().unwrap(), units)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_is_killed_exits_as_shells_tell_it() {
    let mut world = World::new();
    world.script("killed", "kill -SEGV $$");
    let provider = world.provider();
    start(&provider, "killed", 1).await.unwrap();
    assert_eq!(exited(&provider, 1).await, Some(128 + 11));
    provider.destroy(InstanceId(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_endless_output_the_end_is_kept() {
    let mut world = World::new();
    world.script("verbose", "head -c 20000000 /dev/zero | tr '\\0' x; echo; echo the end >&2");
    let provider = world.provider();
    start(&provider, "verbose", 1).await.unwrap();
    assert_eq!(exited(&provider, 1).await, Some(0));
    let bytes: u64 = files(&world.home(1)).iter().map(|f| fs::metadata(f).unwrap().len()).sum();
    assert!(bytes < 9 * 1024 * 1024, "{bytes} bytes are kept");
    assert_eq!(provider.tail(InstanceId(1), 10).await.unwrap(), b"x\nthe end\n");
    assert!(provider.tail(InstanceId(1), usize::MAX).await.unwrap().len() > 4_000_000);
    provider.destroy(InstanceId(1)).await.unwrap();
}
