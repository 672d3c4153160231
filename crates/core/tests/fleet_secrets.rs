//! No message about a fleet file shows a secret that was written into it.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use remuda_core::fleet::{Problems, SecretRef, Source, parse};

const SECRET: &str = "hunter2";
const FILE: &str = r#"
[forge.hub]
token = "hunter2"
[[forge.hub.app]]
id = 5
private_key = "hunter2"
webhook_secret = ["env:A", "hunter2"]
[[forge.hub.hook]]
secret = "hunter2"
[provider.local]
kind = "process"
[image.run]
command = ["./run.sh"]
env = { API_TOKEN = "hunter2" }
[pool.small]
labels = ["a"]
provider = "local"
image = "run"
max = 4
"#;

fn problems(text: &str) -> Option<Problems> {
    parse(&[Source { name: "fleet.toml", text }]).err()
}

#[track_caller]
fn hidden(text: &str) {
    let problems = problems(text).expect("the text has problems");
    let shown = format!("{problems}\n{problems:?}");
    assert!(!shown.contains("hunter"), "{shown}");
}

#[test]
fn the_url_of_a_database_is_a_secret() {
    let literal = "postgresql://me:hunter2@db/books";
    let server = |database: &str| format!("[server]\ndatabase = \"{database}\"\n");
    hidden(&server(literal));
    let problems = problems(&server(literal)).unwrap();
    assert!(problems.shown().iter().any(|p| (p.line, p.column) == (2, 12)), "{problems}");
    let token = FILE.find("[[forge.hub.app]]").unwrap()..FILE.find("[provider").unwrap();
    let declared = FILE.replace(&FILE[token], "").replace("env = { API_TOKEN = \"hunter2\" }", "");
    let declared = declared.replace("hunter2", "env:A");
    let of_one = "kind = \"process\"\nnode = \"a\"\ndirectory = \"/srv/runners\"";
    let declared = declared.replace("kind = \"process\"", of_one);
    let text = server("env:REMUDA_DATABASE_URL") + &declared;
    let fleet = parse(&[Source { name: "fleet.toml", text: &text }]).unwrap();
    let reference = SecretRef::Env("REMUDA_DATABASE_URL".into());
    assert_eq!(fleet.server.database, Some(reference));
}

#[test]
fn a_literal_secret_is_refused_where_it_stands() {
    let problems = problems(FILE).unwrap();
    let lines: Vec<_> = problems.shown().iter().map(|p| (p.line, p.column)).collect();
    assert_eq!(lines, [(3, 9), (6, 15), (7, 28), (9, 10), (14, 21)], "{problems}");
    assert_eq!(problems.shown()[0].line_text, "token = [hidden]");
    let help = "a secret must be a reference: \"env:NAME\", \"file:PATH\" or \"cmd:COMMAND\"";
    assert_eq!(problems.shown()[0].help.as_deref(), Some(help));
    hidden(FILE);
}

#[test]
fn what_stands_between_two_secrets_of_a_line_is_shown() {
    let line = "app = [{ id = 5, private_key = \"hunter2\", webhook_secret = \"hunter2\" }]";
    let problems = problems(&format!("[forge.hub]\n{line}\n")).unwrap();
    let shown = "app = [{ id = 5, private_key = [hidden], webhook_secret = [hidden] }]";
    assert!(problems.shown().iter().any(|problem| problem.line_text == shown), "{problems}");
}

#[test]
fn whatever_is_wrong_beside_it_a_secret_stays_hidden() {
    let token = "ghp_hunterhunterhunterhunterhunter123456";
    for line in [
        "tokn = \"hunter2\"",
        "token = hunter2",
        "token = \"hunter2",
        "token \"hunter2=x\"",
        "token hunter2=x",
        "token\nhunter2=x y",
        "token = 'hunter2'\ntoken = 'hunter2'",
        "token = { value = \"hunter2\" }",
        "token = [[\"hunter2\"]]",
        "token = \"env:hunter-2\"",
        "token = \"\"\"\nhunter2\nhunter2\"\"\"",
        "token = \"hunter2\nhunter2\"",
        "token = \"\nhunter2==\n\"",
        "api_key = \"hunter2\"",
        "password = [{ a = \"hunter2\" }]",
        "api = \"https://hunter2@example.com\"",
        "api = \"https://me:hunter2@example.com/\", x = 5",
        "polls = { job = 5, token = \"hunter2\" }",
        "app = [{ id = 1, private_key = \"hunter2\", ownrs = [] }]",
        "app = [{ id = 1, private_key = \"hunter2, ownrs = [] }]",
        "app = [{ id = 1, private_key = hunter2, ownrs = [] }]",
        "app = [{ idd = 1, webhook_secret = { a = \"hunter2\" } }]",
        &format!("group = \"{token}\""),
        &format!("{token} = 5"),
        &format!("scopes = [\"{token}\"] # {token}"),
        &format!("kind = 5 # {token}"),
        "token = 5 # -----BEGIN RSA PRIVATE KEY----- hunter2",
        "group = \"-----BEGIN PRIVATE KEY-----\\nhunter2\"",
    ] {
        hidden(&format!("[forge.hub]\n{line}\n[pool.x]\nmax = 0\n"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(11),
        ..ProptestConfig::default()
    })]

    /// Characters lost, doubled and put in, anywhere but within the secret and its key's name.
    #[test]
    fn no_break_of_the_file_shows_a_secret(
        edits in prop::collection::vec(
            (any::<prop::sample::Index>(), 0..3, "[\"'=\\[\\]{}, \n#x5]"), 1..4,
        ),
    ) {
        let mut text = FILE.to_string();
        for (at, edit, insert) in edits {
            let at = at.index(text.len());
            let c = text[at..].chars().next().unwrap();
            let line = text[..at].rfind('\n').map_or(0, |at| at + 1);
            let end = text[at..].find('\n').map_or(text.len(), |end| at + end);
            // Without the name of its key, nothing tells a secret from other text.
            let named = ["_", "-"].contains(&c.to_string().as_str()) || c.is_alphanumeric();
            if text[line..end].contains(SECRET) && named {
                continue;
            }
            match edit {
                0 => drop(text.remove(at)),
                1 => text.insert(at, c),
                _ => text.insert_str(at, &insert),
            }
        }
        if let Some(problems) = problems(&text) {
            let shown = format!("{problems}\n{problems:?}");
            prop_assert!(!shown.contains(SECRET), "{}\n\n{}", text, shown);
        }
    }
}
