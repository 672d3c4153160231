//! The page of codes says what the source says.

use std::fmt::Write;

use remuda_core::explain::{About, CODES};

const PAGE: &str = include_str!("../../../docs/codes.md");

#[test]
fn the_page_of_codes_is_the_table_in_the_source() {
    let mut tables = String::new();
    let parts = [
        (About::Job, "## Why a job is not running"),
        (About::Runner, "## What a runner does or waits for"),
        (About::Pool, "## How a pool stands"),
        (About::Provider, "## How a provider stands"),
    ];
    for (about, title) in parts {
        let _ = write!(tables, "\n{title}\n\n| code | cause | what ends it | who acts |\n");
        tables.push_str("| --- | --- | --- | --- |\n");
        for code in CODES.iter().filter(|code| code.about == about) {
            let who = code.actor.as_str();
            let _ =
                writeln!(tables, "| `{}` | {} | {} | {who} |", code.name, code.cause, code.cure);
        }
    }
    assert!(PAGE.ends_with(&tables), "docs/codes.md should end with:\n{tables}");
}
