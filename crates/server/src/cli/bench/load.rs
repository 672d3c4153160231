//! The load of `remuda bench intake`, in a process of its own: signed deliveries over connections that
//! are kept, each connection waiting for one answer before it sends the next.
//!
//! It speaks just enough HTTP/1.1 to be cheap, so that the machine's time goes to what is measured.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use ring::hmac;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::say;
use crate::exit::Exit;

/// The hidden verb.
pub(super) const VERB: &str = "load";
/// The job's number in a template: replaced by one of its own, of as many digits, in each delivery.
pub(super) const NUMBER: &str = "70000000000";
const NUMBER_FIRST: u64 = 80_000_000_000;
/// How far behind its `queued` a job's `in_progress` is sent; its `completed` is twice as far.
pub(super) const BEHIND: u64 = 100;
/// How long one answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Most bytes of one answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Send deliveries as fast as they are accepted
#[derive(Debug, Args)]
pub(super) struct Load {
    #[arg(long)]
    address: std::net::SocketAddr,
    #[arg(long)]
    secret_file: PathBuf,
    /// Bodies of a job's `queued`, `in_progress` and `completed`.
    #[arg(long, num_args = 3)]
    template: Vec<PathBuf>,
    #[arg(long)]
    connections: u32,
    #[arg(long)]
    warm_up: f64,
    #[arg(long)]
    seconds: f64,
}

/// What came of it, on one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Outcome {
    /// Answered 202 within the time that was measured.
    pub(super) accepted: u64,
    /// Answered otherwise.
    pub(super) refused: u64,
    pub(super) seconds: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
    /// Deliveries sent in all, the warm-up included.
    pub(super) sent: u64,
}

/// A body with the places where the job's number stands.
#[derive(Debug)]
struct Template {
    bytes: Vec<u8>,
    places: Vec<usize>,
}

impl Template {
    fn new(bytes: Vec<u8>) -> anyhow::Result<Self> {
        let number = NUMBER.as_bytes();
        let places: Vec<usize> = (0..bytes.len().saturating_sub(number.len()))
            .filter(|at| bytes[*at..].starts_with(number))
            .collect();
        if places.is_empty() {
            bail!("the template does not hold the number {NUMBER}");
        }
        Ok(Self { bytes, places })
    }

    /// The body about job `number`.
    fn about(&mut self, number: u64) -> &[u8] {
        let digits = number.to_string();
        for place in &self.places {
            self.bytes[*place..*place + NUMBER.len()].copy_from_slice(digits.as_bytes());
        }
        &self.bytes
    }
}

struct Shared {
    address: std::net::SocketAddr,
    key: hmac::Key,
    next: AtomicU64,
    from: Instant,
    until: Instant,
}

#[derive(Default)]
struct Answers {
    took: Vec<Duration>,
    refused: u64,
}

impl Load {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let outcome = runtime.block_on(self.send_all())?;
        say(&serde_json::to_string(&outcome)?)?;
        Ok(Exit::Done)
    }

    async fn send_all(self) -> anyhow::Result<Outcome> {
        let secret = std::fs::read(&self.secret_file).context("cannot read the secret")?;
        let from = Instant::now() + Duration::from_secs_f64(self.warm_up);
        let shared = Arc::new(Shared {
            address: self.address,
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            next: AtomicU64::new(0),
            from,
            until: from + Duration::from_secs_f64(self.seconds),
        });
        let mut bodies = Vec::new();
        for file in &self.template {
            bodies.push(std::fs::read(file).context("cannot read a template")?);
        }
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..self.connections {
            let templates = bodies.iter().cloned().map(Template::new);
            let templates = templates.collect::<anyhow::Result<Vec<_>>>()?;
            callers.spawn(caller(Arc::clone(&shared), templates));
        }
        let mut all = Answers::default();
        while let Some(ended) = callers.join_next().await {
            let answers = ended.context("a connection's task broke off")??;
            all.took.extend(answers.took);
            all.refused += answers.refused;
        }
        all.took.sort_unstable();
        let at = |part: usize| {
            let place = all.took.len().saturating_sub(1) * part / 100;
            all.took.get(place).map_or(0.0, |took| took.as_secs_f64() * 1e3)
        };
        Ok(Outcome {
            accepted: all.took.len() as u64,
            refused: all.refused,
            seconds: self.seconds,
            p50_ms: at(50),
            p99_ms: at(99),
            max_ms: at(100),
            sent: shared.next.load(Ordering::Relaxed),
        })
    }
}

async fn caller(shared: Arc<Shared>, mut templates: Vec<Template>) -> anyhow::Result<Answers> {
    let mut stream = TcpStream::connect(shared.address).await.context("cannot connect")?;
    stream.set_nodelay(true)?;
    let mut answers = Answers::default();
    let mut request = Vec::new();
    let mut answer = Vec::new();
    while Instant::now() < shared.until {
        let turn = shared.next.fetch_add(1, Ordering::Relaxed);
        let (kind, job) = (turn % 3, turn / 3);
        let number = NUMBER_FIRST + 2 * BEHIND + job - kind * BEHIND;
        let body = templates[usize::try_from(kind)?].about(number);
        write_request(&mut request, &shared, turn, body);
        let begun = Instant::now();
        let exchange = async {
            stream.write_all(&request).await.context("cannot send")?;
            read_answer(&mut stream, &mut answer).await
        };
        let status = tokio::time::timeout(ANSWER_MAX, exchange)
            .await
            .context("no answer came in time")??;
        let ended = Instant::now();
        if status != 202 {
            answers.refused += 1;
        } else if ended >= shared.from && ended < shared.until {
            answers.took.push(ended - begun);
        }
    }
    Ok(answers)
}

fn write_request(request: &mut Vec<u8>, shared: &Shared, turn: u64, body: &[u8]) {
    use std::fmt::Write;
    let tag = hmac::sign(&shared.key, body);
    let hex = tag.as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let head = format!(
        "POST /webhooks/github HTTP/1.1\r\nHost: {}\r\nAccept: */*\r\n\
         Content-Type: application/json\r\nUser-Agent: GitHub-Hookshot/remuda\r\n\
         X-GitHub-Delivery: 00000000-0000-4000-8000-{turn:012x}\r\nX-GitHub-Event: workflow_job\r\n\
         X-GitHub-Hook-ID: 1\r\nX-GitHub-Hook-Installation-Target-ID: 1\r\n\
         X-GitHub-Hook-Installation-Target-Type: integration\r\n\
         X-Hub-Signature-256: sha256={hex}\r\nContent-Length: {}\r\n\r\n",
        shared.address,
        body.len()
    );
    request.clear();
    request.extend_from_slice(head.as_bytes());
    request.extend_from_slice(body);
}

/// Reads one answer, whole, and gives its status.
async fn read_answer(stream: &mut TcpStream, answer: &mut Vec<u8>) -> anyhow::Result<u16> {
    answer.clear();
    loop {
        if let Some((status, bytes)) = head(answer)?
            && answer.len() >= bytes
        {
            return Ok(status);
        }
        if answer.len() > ANSWER_BYTES_MAX {
            bail!("an answer of more than {ANSWER_BYTES_MAX} bytes");
        }
        if stream.read_buf(answer).await.context("cannot read")? == 0 {
            bail!("the server closed the connection");
        }
    }
}

/// The status of an answer and how many bytes it has in all, once its head is there.
fn head(answer: &[u8]) -> anyhow::Result<Option<(u16, usize)>> {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&answer[..end]).context("an answer's head is not text")?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let status = status.context("an answer without a status")?.parse()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    Ok(Some((status, end + 4 + length.context("an answer without a length")??)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_body_is_about_its_own_job() {
        let text = format!("{{\"id\":{NUMBER},\"url\":\"/jobs/{NUMBER}\"}}");
        let mut template = Template::new(text.into_bytes()).unwrap();
        for number in [80_000_000_001, 80_000_000_002] {
            let wanted = format!("{{\"id\":{number},\"url\":\"/jobs/{number}\"}}");
            assert_eq!(template.about(number), wanted.as_bytes());
        }
        assert!(Template::new(b"{}".to_vec()).is_err());
    }

    #[test]
    fn an_answer_is_read_to_its_end_and_not_further() {
        let whole = b"HTTP/1.1 202 Accepted\r\nContent-Length: 7\r\n\r\nstored\n";
        assert_eq!(head(whole).unwrap(), Some((202, whole.len())));
        assert_eq!(head(&whole[..20]).unwrap(), None);
        assert!(head(b"HTTP/1.1 202 Accepted\r\n\r\n").is_err());
    }
}
