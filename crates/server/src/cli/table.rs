//! Rows for people: plain columns without borders, ages in words, colour only where it is wanted.
//!
//! On a terminal, cells are wrapped to its width. Elsewhere a row is one line, for `grep` and `awk`,
//! unless `COLUMNS` says how wide the output may be.

use std::time::Duration;

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Color, ContentArrangement, Row, Table};
use remuda_core::Timestamp;

use crate::env;

/// Most lines of one row of a list whose width is limited; what is cut is in `describe` and `explain`.
const LINES_MAX: usize = 3;

/// What a cell wants to say beside its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// Nothing.
    Plain,
    /// All is well.
    Good,
    /// Something is at work.
    Busy,
    /// Something is awaited.
    Waiting,
    /// A person should look.
    Bad,
}

impl Tone {
    /// The tone of a state or level, by its word.
    pub(super) fn of(word: &str) -> Self {
        match word {
            "success" | "ok" | "idle" => Self::Good,
            "in_progress" | "busy" => Self::Busy,
            "queued" | "waiting" | "pending" | "starting" | "draining" | "warning" => Self::Waiting,
            "failure" | "timed_out" | "expired" | "error" => Self::Bad,
            _ => Self::Plain,
        }
    }

    fn colour(self) -> Option<Color> {
        match self {
            Self::Plain => None,
            Self::Good => Some(Color::DarkGreen),
            Self::Busy => Some(Color::DarkCyan),
            Self::Waiting => Some(Color::DarkYellow),
            Self::Bad => Some(Color::DarkRed),
        }
    }
}

/// One cell.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

/// A cell with these words.
#[expect(clippy::needless_pass_by_value, reason = "callers hand over what they have just made")]
pub(super) fn cell(text: impl ToString) -> Cell {
    Cell { text: text.to_string(), tone: Tone::Plain }
}

/// A cell with the word of a state, in the tone that goes with it.
pub(super) fn state(word: &str) -> Cell {
    Cell { text: word.to_string(), tone: Tone::of(word) }
}

/// Where rows are written to, as far as it matters for their looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// Characters in a line; none means no limit.
    pub(super) width: Option<u16>,
    /// Whether colour is wanted.
    pub(super) colour: bool,
}

impl Page {
    /// Standard output.
    pub(super) fn stdout() -> Self {
        let choice = anstream::AutoStream::choice(&std::io::stdout());
        Self {
            width: env::columns().or_else(|| Table::new().width()),
            colour: choice != anstream::ColorChoice::Never,
        }
    }
}

/// Rows under headers, as text. Without headers the first line is the first row.
pub(super) fn render(headers: &[&str], rows: &[Vec<Cell>], page: Page) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).force_no_tty().set_truncation_indicator("…");
    match page.width {
        Some(width) => {
            // A line that fills the terminal to its last column wraps on some.
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width.max(20));
        }
        None => {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
    }
    if page.colour {
        table.enforce_styling();
    }
    if !headers.is_empty() {
        table.set_header(headers.iter().map(|header| {
            let cell = comfy_table::Cell::new(header);
            if page.colour { cell.add_attribute(Attribute::Bold) } else { cell }
        }));
    }
    for row in rows {
        let mut row = Row::from(row.iter().map(|cell| {
            let shown = comfy_table::Cell::new(&cell.text);
            match cell.tone.colour().filter(|_| page.colour) {
                Some(colour) => shown.fg(colour),
                None => shown,
            }
        }));
        if page.width.is_some() && !headers.is_empty() {
            row.max_height(LINES_MAX);
        }
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// How long something took or has lasted, in at most two units: `12s`, `3m12s`, `2h05m`, `3d04h`.
pub(super) fn age(span: Duration) -> String {
    let seconds = span.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    if days > 0 {
        format!("{days}d{:02}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h{:02}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m{:02}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

/// The instant that an RFC 3339 text names, if it names one.
pub(super) fn instant(text: &str) -> Option<Timestamp> {
    let at: jiff::Timestamp = text.parse().ok()?;
    Some(Timestamp::from_millis(at.as_millisecond()))
}

/// How long ago the instant of an RFC 3339 text was; `?` if it is not one.
pub(super) fn ago(text: &str, now: Timestamp) -> String {
    instant(text).map_or_else(|| "?".into(), |at| age(now.since(at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NARROW: Page = Page { width: Some(80), colour: false };

    fn rows() -> Vec<Vec<Cell>> {
        let reason = "no pool of this scope offers the labels self-hosted, riscv64; pool small \
                      comes nearest and lacks riscv64";
        vec![
            vec![cell("github/1"), state("queued"), cell("3m12s"), cell(reason)],
            vec![cell("github/22"), state("in_progress"), cell("4s"), cell("")],
        ]
    }

    #[test]
    fn ages_are_read_at_a_glance() {
        let of = |seconds| age(Duration::from_secs(seconds));
        assert_eq!(
            [0, 59, 60, 192, 3599, 3600, 7500, 86_400, 273_600].map(of),
            ["0s", "59s", "1m00s", "3m12s", "59m59s", "1h00m", "2h05m", "1d00h", "3d04h"]
        );
        assert_eq!(ago("1970-01-01T00:00:00.000Z", Timestamp::from_millis(61_000)), "1m01s");
        assert_eq!(ago("yesterday", Timestamp::from_millis(0)), "?");
    }

    #[test]
    fn a_long_cell_is_wrapped_within_the_width() {
        let text = render(&["JOB", "STATE", "AGE", "WHY"], &rows(), NARROW);
        assert_eq!(
            text,
            "JOB        STATE        AGE    WHY\n\
             github/1   queued       3m12s  no pool of this scope offers the labels\n\
             \x20                              self-hosted, riscv64; pool small comes nearest\n\
             \x20                              and lacks riscv64\n\
             github/22  in_progress  4s"
        );
    }

    #[test]
    fn a_row_of_a_list_is_cut_before_it_fills_the_screen() {
        let text =
            render(&["JOB", "STATE", "AGE", "WHY"], &rows(), Page { width: Some(55), ..NARROW });
        assert_eq!(text.lines().count(), 5, "{text}");
        assert!(text.lines().nth(3).is_some_and(|line| line.ends_with('…')), "{text}");
        let facts = render(&[], &rows(), Page { width: Some(55), ..NARROW });
        assert!(!facts.contains('…') && facts.lines().count() == 7, "{facts}");
    }

    #[test]
    fn without_a_width_a_row_is_one_line() {
        let text = render(&["JOB", "STATE", "AGE", "WHY"], &rows(), Page { width: None, ..NARROW });
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn colour_is_there_only_if_wanted() {
        let painted = render(&["JOB", "STATE"], &rows(), Page { colour: true, ..NARROW });
        assert!(painted.contains("\u{1b}["), "{painted:?}");
        let plain = render(&["JOB", "STATE"], &rows(), NARROW);
        assert!(!plain.contains('\u{1b}'), "{plain:?}");
    }
}
