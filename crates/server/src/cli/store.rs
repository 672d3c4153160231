//! `remuda store`: the books themselves, whether a server runs or not.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use remuda_core::Snapshot;
use remuda_core::fleet::{Fleet, Server};
use remuda_store::{PostgresStore, SqliteStore, postgres};

use super::{State, note, runtime, say, validate};
use crate::books::Place;
use crate::exit::Exit;
use crate::serve::{Settings, lock, private_directory};

/// In the place of a file: standard input or output.
const STANDARD: &str = "-";

/// Bring the books forward, check them, or carry them to another database
///
/// The books are in the state directory, unless the fleet file declares a database.
#[derive(Debug, Args)]
pub(super) struct Store {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Bring the database to this version's schema
    ///
    /// A server does so itself when it starts. Of several that are replaced one by one, this brings the
    /// database forward beforehand; those of the version before work on.
    #[command(after_help = "Example:\n  remuda store migrate --state ./state")]
    Migrate(Where),
    /// Check that the books can be read and written, and that they contradict themselves nowhere
    #[command(after_help = "Example:\n  remuda store check --state ./state")]
    Check(Where),
    /// Write everything that the books hold to a new file
    ///
    /// One JSON value a line. Bodies of deliveries are among them, with what the forge says in private,
    /// so only its owner may read the file. No server may be at work.
    #[command(after_help = "Example:\n  remuda store export books.jsonl --state ./state")]
    Export {
        /// The file; - is standard output
        file: PathBuf,
        #[command(flatten)]
        at: Where,
    },
    /// Fill an empty database with what `export` wrote
    ///
    /// All of it or nothing. No server may be at work.
    #[command(after_help = "Example:\n  remuda store import books.jsonl --state ./other")]
    Import {
        /// The file; - is standard input
        file: PathBuf,
        #[command(flatten)]
        at: Where,
    },
}

/// Which books.
#[derive(Debug, Args)]
struct Where {
    /// The fleet file that may declare a database [default: none, so the state directory]
    #[arg(long, value_name = "FILE")]
    fleet: Option<PathBuf>,
    #[command(flatten)]
    state: State,
}

impl Where {
    /// None if the fleet file is not in order, which was said.
    fn place(&self) -> anyhow::Result<Option<Place>> {
        let server = match &self.fleet {
            None => Server::default(),
            Some(file) => match validate::read(file)? {
                Some((Fleet { server, .. }, _)) => server,
                None => return Ok(None),
            },
        };
        Place::of(&server, &self.state.directory()).map(Some)
    }

    /// Keeps servers out of the state directory as long as it is held, if the books are there.
    async fn alone(&self, place: &Place) -> anyhow::Result<Option<File>> {
        match place {
            Place::Postgres(..) => Ok(None),
            Place::Sqlite(_) => {
                let state = self.state.directory();
                private_directory(&state)?;
                lock(&state).await.map(Some)
            }
        }
    }
}

impl Store {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let (Verb::Migrate(at)
        | Verb::Check(at)
        | Verb::Export { at, .. }
        | Verb::Import { at, .. }) = &self.verb;
        let Some(place) = at.place()? else { return Ok(Exit::Failed) };
        runtime()?.block_on(async {
            let _alone = match self.verb {
                Verb::Check(_) => None,
                Verb::Migrate(_) | Verb::Export { .. } | Verb::Import { .. } => {
                    at.alone(&place).await?
                }
            };
            match &self.verb {
                Verb::Migrate(_) => {
                    drop(place.open(Settings::default()).await?);
                    say(&format!("schema {}", remuda_store::SCHEMA))?;
                    Ok(Exit::Done)
                }
                Verb::Check(_) => check(&place).await,
                Verb::Export { file, .. } => export(&place, file).await,
                Verb::Import { file, .. } => import(&place, file).await,
            }
        })
    }
}

async fn check(place: &Place) -> anyhow::Result<Exit> {
    place.exists()?;
    let store = place.open(Settings { migrate: false, ..Settings::default() }).await?;
    store.check().await?;
    let books = store.load().await?;
    let mut world = Snapshot::new(books.installation.clone(), Arc::default());
    world.apply(&books.changes);
    let wrong = remuda_core::check(&world);
    for contradiction in &wrong {
        say(&format!("{contradiction:?}"))?;
    }
    let rows = books.changes.len();
    let schema = remuda_store::SCHEMA;
    say(&format!(
        "books {}: schema {schema}, {rows} rows, {} wrong",
        books.installation,
        wrong.len()
    ))?;
    Ok(if wrong.is_empty() { Exit::Done } else { Exit::Failed })
}

async fn export(place: &Place, file: &Path) -> anyhow::Result<Exit> {
    place.exists()?;
    if file == Path::new(STANDARD) {
        let rows = write(place, &mut std::io::stdout().lock()).await?;
        note(&format!("{rows} rows"));
        return Ok(Exit::Done);
    }
    let mut new = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .with_context(|| format!("cannot make {}", file.display()))?;
    let written = async {
        let rows = write(place, &mut new).await?;
        new.sync_all().with_context(|| format!("cannot write {}", file.display()))?;
        anyhow::Ok(rows)
    };
    match written.await {
        Ok(rows) => say(&format!("{rows} rows"))?,
        Err(error) => {
            // A part of an export is of no use, and the next try wants the name.
            drop(std::fs::remove_file(file));
            return Err(error);
        }
    }
    Ok(Exit::Done)
}

async fn write(place: &Place, out: &mut dyn Write) -> anyhow::Result<u64> {
    let mut out = BufWriter::new(out);
    Ok(match place {
        Place::Sqlite(path) => SqliteStore::export(path, &mut out)?,
        Place::Postgres(url, _) => {
            PostgresStore::export(url, postgres::Settings::default(), &mut out).await?
        }
    })
}

async fn import(place: &Place, file: &Path) -> anyhow::Result<Exit> {
    let mut input: Box<dyn BufRead + Send> = if file == Path::new(STANDARD) {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        let opened = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
        Box::new(BufReader::new(opened))
    };
    let rows = match place {
        Place::Sqlite(path) => SqliteStore::import(path, &mut input)?,
        Place::Postgres(url, _) => {
            PostgresStore::import(url, postgres::Settings::default(), &mut input).await?
        }
    };
    say(&format!("{rows} rows"))?;
    Ok(Exit::Done)
}
