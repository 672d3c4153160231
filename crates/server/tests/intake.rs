//! The webhook door, with real HTTP and a real database: what is let in, what is refused, and that
//! nothing is acknowledged that is not kept.

#![expect(clippy::unwrap_used, reason = "a helper that cannot go on stops the test")]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Estate, SECRET};
use remuda::serve::{Options, Server, Settings, listen};
use remuda_core::fleet::{Source, parse};
use remuda_provider::process::Shim;
use remuda_sandbox::Config;
use ring::hmac;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

struct Door {
    estate: Estate,
    server: Server,
}

struct Said {
    status: u16,
    text: String,
}

impl Door {
    async fn open() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self::over(Estate::new(Config::default()).await, Settings::default()).await
    }

    async fn over(estate: Estate, books: Settings) -> Self {
        let text = std::fs::read_to_string(estate.fleet()).unwrap();
        let fleet = parse(&[Source { name: "fleet.toml", text: &text }]).unwrap();
        let options = Options {
            fleet,
            files: vec![("fleet.toml".into(), text)],
            listener: listen(estate.listen).await.unwrap(),
            state: estate.state(),
            shim: Shim { program: common::REMUDA.into(), args: vec!["process-shim".into()] },
            books,
        };
        let server = Server::start(options).await.unwrap();
        Self { estate, server }
    }

    async fn shut(self) -> Estate {
        self.server.stop().cancel();
        self.server.join().await.unwrap();
        self.estate
    }

    async fn close(self) {
        self.shut().await.sandbox.close().await;
    }

    /// Sends bytes as they are and reads the answer, if one comes.
    async fn raw(&self, bytes: &[u8]) -> Option<Said> {
        let mut stream = TcpStream::connect(self.server.addr()).await.unwrap();
        // A server that has refused already may have closed its side.
        let _ = stream.write_all(bytes).await;
        Self::answer(stream).await
    }

    /// Sends bytes and then hangs up, as a client does that dies in the middle.
    async fn cut_off(&self, bytes: &[u8]) -> Option<Said> {
        let mut stream = TcpStream::connect(self.server.addr()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        Self::answer(stream).await
    }

    async fn answer(mut stream: TcpStream) -> Option<Said> {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        let status = answer.split(' ').nth(1)?.parse().unwrap();
        let text = answer.split_once("\r\n\r\n")?.1.to_owned();
        Some(Said { status, text })
    }

    async fn post(&self, headers: &[(&str, &str)], body: &[u8]) -> Said {
        let mut request =
            b"POST /webhooks/github HTTP/1.1\r\nHost: x\r\nConnection: close\r\n".to_vec();
        for (name, value) in headers {
            request.extend(format!("{name}: {value}\r\n").bytes());
        }
        request.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
        request.extend(body);
        self.raw(&request).await.expect("an answer")
    }

    async fn deliver(&self, event: &str, id: &str, body: &[u8]) -> Said {
        let signature = sign(body);
        let headers = [
            ("X-GitHub-Event", event),
            ("X-GitHub-Delivery", id),
            ("X-Hub-Signature-256", &*signature),
        ];
        self.post(&headers, body).await
    }

    fn kept(&self) -> u64 {
        let database = rusqlite::Connection::open(self.estate.state().join("remuda.db")).unwrap();
        let count: i64 =
            database.query_row("SELECT count(*) FROM delivery", [], |row| row.get(0)).unwrap();
        u64::try_from(count).unwrap()
    }

    async fn findings(&self) -> String {
        let found =
            self.server.handle().ask(|c| remuda::view::doctor(c, &BTreeMap::new())).await.unwrap();
        serde_json::to_string(&found).unwrap()
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn sign(body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    format!("sha256={}", hex(hmac::sign(&key, body).as_ref()))
}

fn queued(id: u64, labels: &str) -> Vec<u8> {
    format!(
        r#"{{"action":"queued","workflow_job":{{"id":{id},"run_id":1,"status":"queued","name":"job",
        "labels":{labels},"created_at":"2026-01-01T00:00:00Z"}},
        "repository":{{"id":5,"name":"app","full_name":"acme/app",
        "owner":{{"id":7,"login":"acme","type":"Organization"}}}},"installation":{{"id":1}}}}"#
    )
    .into_bytes()
}

// A01, A04
#[tokio::test]
async fn a_signed_delivery_is_kept_and_acknowledged() {
    let door = Door::open().await;
    let said = door.deliver("workflow_job", "one", &queued(1, r#"["none-has-this"]"#)).await;
    assert_eq!((said.status, said.text.as_str()), (202, "stored\n"));
    assert_eq!(door.kept(), 1);
    door.close().await;
}

// A02, W1
#[tokio::test]
async fn a_wrong_signature_is_refused_and_the_right_one_is_told_nowhere() {
    let door = Door::open().await;
    let body = queued(1, "[]");
    let right = sign(&body);
    let digest = right.trim_start_matches("sha256=");
    for wrong in ["sha256=00", "sha256=", "sha1=abc", &"f".repeat(71), &sign(b"other"), "s\u{e9}"] {
        let headers = [
            ("X-GitHub-Event", "workflow_job"),
            ("X-GitHub-Delivery", "one"),
            ("X-Hub-Signature-256", wrong),
        ];
        let said = door.post(&headers, &body).await;
        assert!([400, 401].contains(&said.status), "{wrong}: {}", said.status);
        assert!(!said.text.contains(&digest[..8]), "{wrong}: {}", said.text);
    }
    assert_eq!(door.kept(), 0);
    door.close().await;
}

// A03
#[tokio::test]
async fn missing_headers_are_named() {
    let door = Door::open().await;
    let body = queued(1, "[]");
    let signature = sign(&body);
    let all = [
        ("X-GitHub-Event", "workflow_job"),
        ("X-GitHub-Delivery", "one"),
        ("X-Hub-Signature-256", &*signature),
    ];
    for missing in 0..all.len() {
        let mut headers = all.to_vec();
        let (name, _) = headers.remove(missing);
        let said = door.post(&headers, &body).await;
        assert_eq!(said.status, 400, "{name}");
        assert!(said.text.to_lowercase().contains(&name.to_lowercase()), "{name}: {}", said.text);
    }
    assert_eq!(door.kept(), 0);
    door.close().await;
}

// A05, A06, A09, A10, A11: every action is taken, of organizations and persons, known or not.
#[tokio::test]
async fn jobs_of_any_owner_are_followed_through_their_states() {
    let door = Door::open().await;
    let told = |id: u64, status: &str, owner: &str, kind: &str| {
        String::from_utf8(queued(id, r#"["none-has-this"]"#))
            .unwrap()
            .replace(r#""action":"queued""#, &format!(r#""action":"{status}""#))
            .replace(r#""status":"queued""#, &format!(r#""status":"{status}""#))
            .replace(
                r#""login":"acme","type":"Organization""#,
                &format!(r#""login":"{owner}","type":"{kind}""#),
            )
            .replace("acme/app", &format!("{owner}/app"))
            .into_bytes()
    };
    let cases = [
        (1, "queued", "never-met", "Organization"),
        (2, "in_progress", "acme", "Organization"),
        (3, "completed", "acme", "Organization"),
        (4, "queued", "somebody", "User"),
    ];
    for (id, status, owner, kind) in cases {
        let body = told(id, status, owner, kind);
        let said = door.deliver("workflow_job", &format!("delivery-{id}"), &body).await;
        assert_eq!(said.status, 202, "{id}");
    }
    let known = async {
        loop {
            let jobs = door.server.handle().ask(|c| remuda::view::jobs(c, true)).await.unwrap();
            if jobs.len() == cases.len() {
                return jobs;
            }
            tokio::task::yield_now().await;
        }
    };
    let mut jobs = tokio::time::timeout(Duration::from_secs(20), known).await.unwrap();
    jobs.sort_by(|a, b| a.id.cmp(&b.id));
    for (job, (id, status, owner, _)) in jobs.iter().zip(cases) {
        assert_eq!(job.id, format!("github/{id}"));
        assert_eq!((&*job.state, job.repository.as_str()), (status, &*format!("{owner}/app")));
    }
    door.close().await;
}

// A20
#[tokio::test]
async fn a_redelivery_is_acknowledged_and_kept_once() {
    let door = Door::open().await;
    let body = queued(1, r#"["none"]"#);
    assert_eq!(door.deliver("workflow_job", "one", &body).await.text, "stored\n");
    let again = door.deliver("workflow_job", "one", &body).await;
    assert_eq!((again.status, again.text.as_str()), (202, "stored before\n"));
    assert_eq!(door.kept(), 1);
    door.close().await;
}

// A07: unknown events and actions are none of our business, and no error.
#[tokio::test]
async fn pings_and_events_that_do_not_concern_us_are_answered_well_and_not_kept() {
    let door = Door::open().await;
    assert_eq!(door.deliver("ping", "one", b"{}").await.text, "pong\n");
    assert_eq!(door.deliver("push", "two", b"{}").await.status, 200);
    assert_eq!(door.deliver("no_such_event", "three", b"not even json").await.status, 200);
    assert_eq!(door.kept(), 0);
    let body = br#"{"action":"brand_new","workflow_job":{"id":1}}"#;
    assert_eq!(door.deliver("workflow_job", "four", body).await.status, 202);
    door.close().await;
}

// A08: what cannot be decoded is kept, listed with its reason and not tried again and again.
#[tokio::test]
async fn a_signed_delivery_that_cannot_be_decoded_is_kept_and_listed() {
    let door = Door::open().await;
    let bad: [&[u8]; 4] = [
        b"not json",
        b"[]",
        &queued(1, r#"["a\u0007b"]"#),
        &queued(2, &format!("[{}]", vec![r#""x""#; 5000].join(","))),
    ];
    for (index, body) in bad.iter().enumerate() {
        let said = door.deliver("workflow_job", &format!("bad-{index}"), body).await;
        assert_eq!(said.status, 202, "{index}");
    }
    let listed = async {
        loop {
            let client = reqwest::Client::builder()
                .unix_socket(remuda::serve::socket_path(&door.estate.state()))
                .build()
                .unwrap();
            let answer = client.get("http://remuda/v1/doctor").send().await.unwrap();
            let text = answer.text().await.unwrap();
            if text.matches("cannot be decoded").count() == bad.len() {
                return text;
            }
            tokio::task::yield_now().await;
        }
    };
    let text = tokio::time::timeout(Duration::from_secs(20), listed).await.unwrap();
    assert!(text.contains("control character"), "{text}");
    assert!(text.contains("at most 100"), "{text}");
    door.close().await;
}

#[tokio::test]
async fn bodies_over_the_limit_and_bodies_that_break_off_are_refused() {
    let door = Door::open().await;
    let head = "POST /webhooks/github HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let large = format!("{head}Content-Length: {}\r\n\r\n", 25 * 1024 * 1024 + 1);
    assert_eq!(door.raw(large.as_bytes()).await.unwrap().status, 413);
    let mut chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..26 {
        chunked.extend(format!("{:x}\r\n", chunk.len()).bytes());
        chunked.extend(&chunk);
        chunked.extend(b"\r\n");
    }
    // The refusal may arrive as an answer or, while we still write, as a closed connection.
    if let Some(said) = door.raw(&chunked).await {
        assert_eq!(said.status, 413);
    }
    let cut = format!("{head}Content-Length: 1000\r\n\r\n{{\"action\"");
    if let Some(said) = door.cut_off(cut.as_bytes()).await {
        assert_eq!(said.status, 400);
    }
    assert_eq!(door.kept(), 0);
    door.close().await;
}

#[tokio::test]
async fn a_locked_database_costs_a_503_and_never_an_acknowledged_loss() {
    let door = Door::open().await;
    let database = rusqlite::Connection::open(door.estate.state().join("remuda.db")).unwrap();
    database.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let body = queued(1, r#"["none"]"#);
    let said = door.deliver("workflow_job", "one", &body).await;
    assert_eq!(said.status, 503, "{}", said.text);
    assert!(!said.text.contains("remuda.db"), "{}", said.text);
    database.execute_batch("ROLLBACK").unwrap();
    let said = door.deliver("workflow_job", "one", &body).await;
    assert_eq!((said.status, said.text.as_str()), (202, "stored\n"));
    assert_eq!(door.kept(), 1);
    assert!(!door.findings().await.contains("bug"));
    door.close().await;
}

#[tokio::test]
async fn a_full_disk_costs_a_503_and_never_an_acknowledged_loss() {
    let full = Settings { pages_max: Some(120), ..Settings::default() };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let door = Door::over(Estate::new(Config::default()).await, full).await;
    let mut body = queued(1, r#"["none"]"#);
    body.extend(vec![b' '; 20_000]);
    let mut acknowledged = 0;
    let refused = loop {
        let said = door.deliver("workflow_job", &acknowledged.to_string(), &body).await;
        if said.status != 202 {
            break said;
        }
        acknowledged += 1;
        assert!(acknowledged < 120, "120 pages do not hold 120 bodies of three pages each");
    };
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert!(refused.text.contains("again"), "{}", refused.text);
    assert!(!refused.text.contains("remuda.db"), "{}", refused.text);
    assert!(acknowledged > 0);
    assert_eq!(door.kept(), acknowledged);
    // It still answers, and stops when it is told to.
    assert_eq!(door.deliver("ping", "ping", b"{}").await.status, 200);
    let door = Door::over(door.shut().await, Settings::default()).await;
    let said = door.deliver("workflow_job", &acknowledged.to_string(), &body).await;
    assert_eq!((said.status, said.text.as_str()), (202, "stored\n"));
    assert_eq!(door.kept(), acknowledged + 1);
    assert!(!door.findings().await.contains("bug"));
    door.close().await;
}

#[tokio::test]
async fn health_readiness_and_metrics_answer() {
    let door = Door::open().await;
    door.server.handle().leads().await.unwrap();
    for (path, part) in [
        ("healthz", "ok"),
        ("readyz", "ok"),
        ("metrics", "remuda_jobs"),
        ("metrics", "remuda_leader 1"),
    ] {
        let url = format!("http://{}/{path}", door.server.addr());
        let answer = reqwest::get(url).await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        assert!(answer.text().await.unwrap().contains(part), "{path}");
    }
    door.close().await;
}
