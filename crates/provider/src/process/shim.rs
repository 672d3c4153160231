//! The shim: a small process between the server and one runner, which outlives the server.
//!
//! It writes itself down, sets limits, starts the runner, keeps its output, and when the runner ends
//! it kills whatever the runner left, notes the exit code and ends. Every orphan below it comes back
//! to it (it is a subreaper), so that nothing of an instance escapes while it lives; it kills nobody
//! before the runner's end. Ending an instance early is the provider's part.
//!
//! Its second stage, `enter`, is what a `pre_exec` hook would be: the same program once more, which
//! sets up itself and then becomes the runner. So no code runs between fork and exec.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::mpsc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Signal, WaitOptions, WaitStatus};

use super::enter;
use super::family::{self, Process};
use super::home::{Found, Home, Record, ShimRecord};
use super::limits::{self, Limits, Places};
use super::output::Output;
use super::wire::{Enter, Line, OWN_DESCRIPTORS, Order, Reply};

/// How long output may keep coming when nobody of the instance is left to write it.
const OUTPUT_LINGERS_MAX: Duration = Duration::from_secs(2);

/// What the arguments after the hidden subcommand begin with.
pub(super) const WATCH: &str = "watch";
pub(super) const ENTER: &str = "enter";

/// Runs the shim. `args` are the arguments after those of [`Shim`](super::Shim).
///
/// Its standard input must be the socket the provider gave it; for people there is nothing here.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    let args: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).collect();
    let done = match *args.as_slice() {
        [WATCH, home] => watch(&Home::at(PathBuf::from(home))),
        [ENTER] => return enter::main(),
        _ => Err(io::Error::other("the process shim is started by the server only")),
    };
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Takes the conversation from standard input, where it came, and leaves nothing there.
pub(super) fn conversation() -> io::Result<Line> {
    let socket = rustix::io::fcntl_dupfd_cloexec(io::stdin(), OWN_DESCRIPTORS)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(Line::new(UnixStream::from(socket)))
}

fn watch(home: &Home) -> io::Result<()> {
    let mut server = conversation()?;
    let begun = match begin(home, &mut server) {
        Ok(Some(begun)) => begun,
        Ok(None) => return Ok(()),
        Err(failure) => {
            // The server may be gone; then there is nobody to tell.
            let _ = server.tell(&failure.reply);
            failure.clean_up(home);
            return Err(io::Error::other("the runner was not started"));
        }
    };
    let told = server.tell(&Reply::Started);
    drop((server, told));
    let code = await_runner(begun.runner)?;
    end_orphans()?;
    // Somebody outside may have been handed the pipe: do not wait for them for ever.
    let _ = begun.output_done.recv_timeout(OUTPUT_LINGERS_MAX);
    home.write_exit(code)?;
    limits::remove(&begun.record.cgroups, &begun.record.tag.cgroup())
}

/// A runner that was started.
struct Begun {
    record: Record,
    runner: rustix::process::Pid,
    output_done: mpsc::Receiver<()>,
}

/// Why none was.
struct Failure {
    reply: Reply,
    cgroups: Vec<PathBuf>,
}

impl Failure {
    fn clean_up(&self, home: &Home) {
        if let Ok(Found::Instance(record)) = home.find() {
            // What cannot be removed is in the record; destruction tries again.
            let _ = limits::remove(&self.cgroups, &record.tag.cgroup());
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self { reply: Reply::Failed(error.to_string()), cgroups: Vec::new() }
    }
}

/// Starts the runner; none if the instance is being ended already.
fn begin(home: &Home, server: &mut Line) -> Result<Option<Begun>, Failure> {
    let Some(order) = server.hear::<Order>()? else { return Ok(None) };
    rustix::process::setsid().map_err(io::Error::from)?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(io::Error::from)?;
    let Found::Instance(mut record) = home.find()? else { return Ok(None) };
    let places = Places::find(&record.tag.cgroup());
    record.cgroups = places.all();
    record.shim = Some(ShimRecord { process: Process::own()?, boot: family::boot()? });
    home.write_record(&record)?;
    // Whoever ends the instance marks it first and reads the record then; we write the record first
    // and look for the mark then. So one of us always sees the other.
    if home.is_ending() {
        return Ok(None);
    }
    let limits = places.make(&order.needs);
    let cgroups = record.cgroups.clone();
    record.limits.clone_from(&limits.notes);
    let start = || -> io::Result<Result<Begun, String>> {
        home.write_record(&record)?;
        server.tell(&Reply::Ready)?;
        start_runner(home, server, order, limits, record)
    };
    match start() {
        Ok(Ok(begun)) => Ok(Some(begun)),
        Ok(Err(text)) => Err(Failure { reply: Reply::Refused(text), cgroups }),
        Err(error) => Err(Failure { cgroups, ..Failure::from(error) }),
    }
}

/// Waits for the secret, which is the word to start, and starts the second stage. The inner error
/// is what the second stage says if it cannot become the runner.
fn start_runner(
    home: &Home,
    server: &mut Line,
    order: Order,
    limits: Limits,
    record: Record,
) -> io::Result<Result<Begun, String>> {
    let secret = server.hear_secret(order.jit_bytes)?;
    let (ours, theirs) = UnixStream::pair()?;
    let (from, to) = io::pipe()?;
    let mut stage = Command::new("/proc/self/exe");
    stage.args(&order.again).arg(ENTER).current_dir(&order.start.work);
    // Marked from its first instant, so that it is found even if we are killed meanwhile.
    stage.env_clear().envs(&order.start.env);
    stage.stdin(OwnedFd::from(theirs));
    stage.stdout(to.try_clone()?).stderr(to);
    let mut output = Output::open(home.path())?;
    let child = stage.spawn()?;
    drop(stage);
    let (done, output_done) = mpsc::channel();
    std::thread::Builder::new().name("output".into()).spawn(move || {
        output.drain(from);
        // Nobody waits any more if the end of the output took too long.
        let _ = done.send(());
    })?;
    let runner = rustix::process::Pid::from_child(&child);
    let told = instruct(ours, order, limits, &secret);
    match told {
        Ok(None) => Ok(Ok(Begun { record, runner, output_done })),
        Ok(Some(text)) => {
            end_orphans()?;
            Ok(Err(text))
        }
        Err(error) => {
            end_orphans()?;
            Err(error)
        }
    }
}

/// Tells the second stage all it needs; gives its complaint, if it has one. It is silent when it
/// has become the runner: its end of the conversation is closed by that.
fn instruct(
    stage: UnixStream,
    order: Order,
    limits: Limits,
    secret: &[u8],
) -> io::Result<Option<String>> {
    let mut stage = Line::new(stage);
    stage.tell(&Enter {
        parent: rustix::process::getpid().as_raw_nonzero().get(),
        start: order.start,
        cgroups: limits.cgroups,
        data_bytes: limits.data_bytes,
        jit_bytes: secret.len(),
    })?;
    stage.tell_secret(secret)?;
    match stage.hear::<Reply>()? {
        None => Ok(None),
        Some(Reply::Refused(text)) => Ok(Some(text)),
        Some(Reply::Failed(text)) => Err(io::Error::other(text)),
        Some(Reply::Ready | Reply::Started) => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Waits for the runner's end and reaps the orphans that end before it.
fn await_runner(runner: rustix::process::Pid) -> io::Result<i32> {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == runner => return Ok(code(status)),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// As shells tell it: 128 and the signal's number for a runner that was killed.
fn code(status: WaitStatus) -> i32 {
    status.exit_status().or_else(|| status.terminating_signal().map(|n| 128 + n)).unwrap_or(-1)
}

/// Kills and reaps until no child is left. Whoever loses its parent meanwhile becomes our child.
fn end_orphans() -> io::Result<()> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Err(Errno::CHILD) => return Ok(()),
            Err(error) => return Err(error.into()),
            Ok(None) => {
                family::signal(&family::descendants(own)?, Signal::KILL);
                match rustix::process::wait(WaitOptions::empty()) {
                    Ok(_) | Err(Errno::INTR | Errno::CHILD) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}
