//! The start of an instance: its directory and record first, then its image, then its shim, and the
//! JIT configuration last, as the word to start.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use remuda_core::action::Launch;
use remuda_core::fleet::{Archive, Image, JitBy};
use ring::rand::SecureRandom;
use rustix::fs::{Access, access};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use secrecy::{ExposeSecret, SecretString};
use tokio::task::{JoinError, spawn_blocking};

use super::family::MARK;
use super::home::{Found, Home, Making, Record, Tag, homes};
use super::shim::WATCH;
use super::wire::{JIT_BYTES_MAX, Line, OWN_DESCRIPTORS, Order, Reply, Start};
use super::{Inner, end};
use crate::image::{ImageError, hex, unpack};
use crate::{ProviderError, env};

/// How long the shim may take over each answer, if the deadline lies so far ahead.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How long it may take in any case.
const ANSWER_MIN: Duration = Duration::from_secs(1);

/// A shim that has started its runner.
struct Started {
    child: Child,
    handle: OwnedFd,
}

impl Inner {
    /// Launches, unless the instance is there already.
    pub(super) async fn launch(
        self: Arc<Self>,
        launch: Launch,
        jit: SecretString,
    ) -> Result<(), ProviderError> {
        let image = self.images.get(&launch.image).cloned().ok_or_else(|| {
            let why = format!("image {} is not declared", launch.image);
            ProviderError::invalid(format!("cannot launch instance {}", launch.instance), why)
        })?;
        check(&image, &jit).map_err(|why| cannot_use(&image, why))?;
        let instance = launch.instance;
        let _gate = self.gates.enter(instance).await;
        let inner = Arc::clone(&self);
        let home = Home::of(&self.root, instance);
        if join(instance, spawn_blocking(move || inner.is_there(&home)).await)? {
            return Ok(());
        }
        let archive = self.obtain(&image, &launch).await?;
        let inner = Arc::clone(&self);
        let made =
            spawn_blocking(move || inner.make(&launch, &image, archive.as_deref(), &jit)).await;
        let Started { child, handle } = join(instance, made)?;
        Self::watch(&self, instance, handle, Some(child));
        Ok(())
    }

    fn is_there(&self, home: &Home) -> Result<bool, ProviderError> {
        let found = home.find();
        match found.map_err(|error| ProviderError::io(format!("cannot read {home}"), error))? {
            Found::Nothing => Ok(false),
            Found::Instance(record) if record.tag.installation != self.installation.as_str() => {
                let whose = format!("it belongs to installation {}", record.tag.installation);
                Err(ProviderError::invalid(format!("cannot use {home}"), whose))
            }
            Found::Instance(_) | Found::Bare => Ok(true),
        }
    }

    /// The image's archive, if it has one. A download that outlasts the call goes on, for the next.
    async fn obtain(
        self: &Arc<Self>,
        image: &Image,
        launch: &Launch,
    ) -> Result<Option<PathBuf>, ProviderError> {
        let Some(archive) = image.archive.clone() else { return Ok(None) };
        let inner = Arc::clone(self);
        let fetch = self.tasks.spawn(async move {
            tokio::select! {
                () = inner.stop.cancelled() => {
                    Err(ImageError::Later("the server is stopping".to_owned()))
                }
                got = inner.archives.obtain(&archive) => got,
            }
        });
        let left = launch.deadline.since((self.clock)());
        let got = match tokio::time::timeout(left, fetch).await {
            Ok(got) => got.map_err(|error| ImageError::Later(error.to_string())).flatten(),
            Err(_) => Err(ImageError::Later(
                "its archive is still being fetched; a later launch will find it".to_owned(),
            )),
        };
        got.map(Some).map_err(|error| self.image_error(image, error))
    }

    fn image_error(&self, image: &Image, error: ImageError) -> ProviderError {
        match error {
            ImageError::Bad(why) => cannot_use(image, why),
            ImageError::Later(why) => {
                ProviderError::transient(format!("cannot use image {} yet", image.name), why)
            }
            ImageError::Mismatch(why) => {
                if image.archive.as_ref().is_some_and(|archive| self.archives.discard(archive)) {
                    let why = format!("its copy in the cache was damaged and is removed: {why}");
                    ProviderError::transient(format!("cannot use image {} yet", image.name), why)
                } else {
                    cannot_use(image, why)
                }
            }
            ImageError::Io(error) => {
                ProviderError::io(format!("cannot unpack image {}", image.name), error)
            }
        }
    }

    /// Makes the instance, or leaves nothing of it.
    fn make(
        &self,
        launch: &Launch,
        image: &Image,
        archive: Option<&Path>,
        jit: &SecretString,
    ) -> Result<Started, ProviderError> {
        let home = Home::of(&self.root, launch.instance);
        let tag = Tag {
            installation: self.installation.as_str().to_owned(),
            instance: launch.instance.0,
            token: token()?,
        };
        let _making = self.settle(&home, launch, &tag)?;
        self.fill(&home, image, archive)
            .and_then(|()| self.start(&home, launch, image, &tag, jit))
            .map_err(|error| match end::end(&home, &tag.installation) {
                Ok(()) => error,
                Err(left) => {
                    let what = format!("cannot clean up {home} after a failed launch ({error})");
                    ProviderError::unknown(what, left)
                }
            })
    }

    /// Takes the instance's place, with its record, if there is room.
    fn settle(&self, home: &Home, launch: &Launch, tag: &Tag) -> Result<Making, ProviderError> {
        let record = Record {
            tag: tag.clone(),
            epoch: launch.epoch,
            runner: launch.name.as_str().to_owned(),
            shim: None,
            cgroups: Vec::new(),
            limits: Vec::new(),
        };
        let failed = |error| ProviderError::io(format!("cannot make {home}"), error);
        // Counted and taken in one go, or two launches would both find the last place free.
        let _settling = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.root).map_err(failed)?;
        if let Some(max) = self.instances_max
            && homes(&self.root).map_err(failed)?.len() >= max
        {
            let provider = &self.name;
            return Err(ProviderError::Full(format!(
                "provider {provider} has {max} instances, as many as it may"
            )));
        }
        home.create(&record).map_err(failed)
    }

    /// Unpacks the image.
    fn fill(
        &self,
        home: &Home,
        image: &Image,
        archive: Option<&Path>,
    ) -> Result<(), ProviderError> {
        if let (Some(path), Some(declared)) = (archive, &image.archive) {
            unpack_file(path, declared, &home.work())
                .map_err(|error| self.image_error(image, error))?;
        }
        Ok(())
    }

    fn start(
        &self,
        home: &Home,
        launch: &Launch,
        image: &Image,
        tag: &Tag,
        jit: &SecretString,
    ) -> Result<Started, ProviderError> {
        let order = self.order(home, launch, image, tag, jit)?;
        let patience = self.time_left(launch)?;
        let unmade = |error| ProviderError::io("cannot make a way to talk to the shim", error);
        let (ours, theirs) = UnixStream::pair().map_err(unmade)?;
        let mut shim = Line::new(ours);
        shim.patience(patience).map_err(unmade)?;
        let mut child = self.spawn(home, tag, theirs)?;
        let started = self.instruct(&mut shim, launch, image, &order, jit).and_then(|()| {
            pidfd_open(Pid::from_child(&child), PidfdFlags::empty())
                .map_err(|error| ProviderError::io("cannot watch the shim", error.into()))
        });
        match started {
            Ok(handle) => Ok(Started { child, handle }),
            Err(error) => {
                // Not reaped yet, so the pid is still its own; what it has started is found by mark.
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    fn order(
        &self,
        home: &Home,
        launch: &Launch,
        image: &Image,
        tag: &Tag,
        jit: &SecretString,
    ) -> Result<Order, ProviderError> {
        let work = home.work();
        let (program, args) = image
            .command
            .split_first()
            .ok_or_else(|| cannot_use(image, "it has no command".to_owned()))?;
        let program = work.join(program);
        if !program.is_file() || access(&program, Access::EXEC_OK).is_err() {
            let place = match program.strip_prefix(&work) {
                Ok(relative) => format!("{} in its archive", relative.display()),
                Err(_) => program.display().to_string(),
            };
            return Err(cannot_use(image, format!("there is no executable file {place}")));
        }
        let mut env = env::plain();
        env.insert("HOME".to_owned(), work.display().to_string());
        env.extend(image.env.clone());
        env.insert(MARK.to_owned(), tag.mark());
        let needs = launch.needs.iter().map(|(name, units)| (name.as_str().to_owned(), *units));
        Ok(Order {
            again: self.shim.args.clone(),
            needs: needs.collect(),
            start: Start { program, args: args.to_vec(), work, env, jit: (&image.jit).into() },
            jit_bytes: jit.expose_secret().len(),
        })
    }

    fn spawn(&self, home: &Home, tag: &Tag, socket: UnixStream) -> Result<Child, ProviderError> {
        let mut command = Command::new(&self.shim.program);
        command.args(&self.shim.args).arg(WATCH).arg(home.path()).current_dir(&self.root);
        command.env_clear().envs(env::plain()).env(MARK, tag.mark());
        command.stdin(OwnedFd::from(socket)).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map_err(|error| {
            let what = format!("cannot execute the shim {}", self.shim.program.display());
            match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                    ProviderError::invalid(what, error)
                }
                _ => ProviderError::io(what, error),
            }
        })
    }

    /// Tells the shim what to start and, in time only, that it may.
    fn instruct(
        &self,
        shim: &mut Line,
        launch: &Launch,
        image: &Image,
        order: &Order,
        jit: &SecretString,
    ) -> Result<(), ProviderError> {
        let failed = |error: io::Error| {
            ProviderError::transient("the shim did not answer as it should", error)
        };
        let expect = |line: &mut Line, wanted: &Reply| match line.hear::<Reply>().map_err(failed)? {
            Some(reply) if reply == *wanted => Ok(()),
            Some(Reply::Refused(why)) => Err(cannot_use(image, why)),
            Some(Reply::Failed(why)) => {
                Err(ProviderError::transient("the shim could not start the runner", why))
            }
            Some(Reply::Ready | Reply::Started) => Err(failed(io::ErrorKind::InvalidData.into())),
            None => Err(failed(io::ErrorKind::UnexpectedEof.into())),
        };
        shim.tell(order).map_err(failed)?;
        expect(shim, &Reply::Ready)?;
        // A shim that dawdles over the start is killed soon after the deadline, its runner with it.
        shim.patience(self.time_left(launch)?).map_err(failed)?;
        shim.tell_secret(jit.expose_secret().as_bytes()).map_err(failed)?;
        expect(shim, &Reply::Started)?;
        // Its side is closed when it has let go of all that was the server's.
        match shim.hear::<Reply>().map_err(failed)? {
            None => Ok(()),
            Some(_) => Err(failed(io::ErrorKind::InvalidData.into())),
        }
    }

    /// How long to wait for the shim; an error once the launch is too late.
    fn time_left(&self, launch: &Launch) -> Result<Duration, ProviderError> {
        let now = (self.clock)();
        if now <= launch.deadline {
            return Ok(launch.deadline.since(now).clamp(ANSWER_MIN, ANSWER_MAX));
        }
        let late = now.since(launch.deadline).as_millis();
        Err(ProviderError::transient(
            format!("cannot launch instance {} in time", launch.instance),
            format!("its deadline passed {late} ms ago"),
        ))
    }
}

/// What of an image and a JIT configuration could not be handed to a runner.
fn check(image: &Image, jit: &SecretString) -> Result<(), String> {
    let bytes = jit.expose_secret().len();
    if bytes > JIT_BYTES_MAX {
        return Err(format!("the JIT configuration has {bytes} bytes, more than {JIT_BYTES_MAX}"));
    }
    match &image.jit {
        JitBy::Env(name) if name.is_empty() || name.contains(['=', '\0']) => {
            Err(format!("{name:?} is no name of a variable"))
        }
        JitBy::Env(_) if jit.expose_secret().contains('\0') => {
            Err("the JIT configuration holds a NUL, which no variable can".to_owned())
        }
        JitBy::Env(_) | JitBy::Descriptor(0) => Ok(()),
        JitBy::Descriptor(number)
            if (3..OWN_DESCRIPTORS).contains(&i32::try_from(*number).unwrap_or(i32::MAX)) =>
        {
            Ok(())
        }
        JitBy::Descriptor(number) => {
            Err(format!("descriptor {number} is neither 0 nor one of 3 to {}", OWN_DESCRIPTORS - 1))
        }
    }
}

fn cannot_use(image: &Image, why: String) -> ProviderError {
    ProviderError::invalid(format!("cannot use image {}", image.name), why)
}

fn unpack_file(path: &Path, declared: &Archive, to: &Path) -> Result<(), ImageError> {
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
            ImageError::Bad(format!("cannot open {}: {error}", path.display()))
        }
        _ => ImageError::Io(error),
    })?;
    unpack::unpack(file, declared, to, unpack::Bounds::default())
}

fn token() -> Result<String, ProviderError> {
    let mut bytes = [0; 8];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| ProviderError::transient("cannot name an instance", "no random numbers"))?;
    Ok(hex(&bytes))
}

fn join<T>(
    instance: remuda_core::runner::InstanceId,
    joined: Result<Result<T, ProviderError>, JoinError>,
) -> Result<T, ProviderError> {
    let broke_off = |error| {
        ProviderError::unknown(format!("the launch of instance {instance} broke off"), error)
    };
    joined.map_err(broke_off).flatten()
}
