//! What is wrong with a fleet file, and where: problems as data, and as plain text.
//!
//! A problem never holds a secret: what a line must not show is replaced before it leaves here.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::ops::Range;

use super::value::secret_at;

/// Most problems that are kept; the rest are counted.
pub const PROBLEMS_MAX: usize = 100;
/// Most characters of a line that are shown; a longer one is cut around the place.
const LINE_CHARS_MAX: usize = 72;
/// Characters before the place that are kept when a line is cut.
const LEAD_CHARS: usize = 24;
/// Bytes of a line that are looked at on either side of the place: more than any token is long.
const WINDOW_BYTES: usize = 512;
/// What stands for a secret, however long it is.
const HIDDEN: &str = "[hidden]";

/// One text to read: a fleet file, or one of several that make a fleet together.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// What to call it in messages; its path as the user gave it.
    pub name: &'a str,
    /// What it holds.
    pub text: &'a str,
}

/// One thing that is wrong with a fleet file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The name of the source.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
    /// What is wrong; a fragment.
    pub message: String,
    /// What would be right, or what to do; a fragment.
    pub help: Option<String>,
    /// The line, cut to a readable length, with secrets hidden.
    pub line_text: String,
    /// How many characters of `line_text` stand before the place.
    pub caret: usize,
    /// How many characters of `line_text` the place covers; at least one.
    pub width: usize,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = format!("{}:{}:{}:", self.file, self.line, self.column);
        writeln!(f, "{place} {}", wrap(&self.message, place.chars().count() + 1, 4))?;
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        writeln!(f, " {number} | {}", self.line_text)?;
        let (before, under) = (" ".repeat(self.caret), "^".repeat(self.width));
        write!(f, " {margin} | {before}{under}")?;
        match &self.help {
            Some(help) => {
                let indent = margin.len() + 4;
                write!(f, "\n {margin} = {}", wrap(help, indent, indent))
            }
            None => Ok(()),
        }
    }
}

/// The text in lines of at most 80 characters where its words allow. `used` characters stand
/// before it; every line but the first begins with `indent` spaces.
fn wrap(text: &str, used: usize, indent: usize) -> String {
    let (mut wrapped, mut column) = (String::new(), used);
    for (index, word) in text.split(' ').enumerate() {
        let length = word.chars().count();
        if index > 0 && column + 1 + length > 80 {
            wrapped.push('\n');
            wrapped.push_str(&" ".repeat(indent));
            column = indent;
        } else if index > 0 {
            wrapped.push(' ');
            column += 1;
        }
        wrapped.push_str(word);
        column += length;
    }
    wrapped
}

/// Everything that is wrong with a fleet file: at least one problem, in the order of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    shown: Vec<Problem>,
    more: usize,
}

impl Problems {
    /// The first [`PROBLEMS_MAX`] problems in the order of the text.
    pub fn shown(&self) -> &[Problem] {
        &self.shown
    }

    /// How many problems there are beyond those shown.
    pub fn more(&self) -> usize {
        self.more
    }

    /// How many problems there are in all.
    pub fn total(&self) -> usize {
        self.shown.len() + self.more
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.shown {
            writeln!(f, "{problem}\n")?;
        }
        if self.more > 0 {
            writeln!(f, "and {} more\n", self.more)?;
        }
        let total = self.total();
        write!(f, "{total} problem{}", if total == 1 { "" } else { "s" })
    }
}

impl Error for Problems {}

/// A stretch of the sources, in bytes, as if they stood one behind the other: see [`bases`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Its first byte.
    pub start: usize,
    /// The byte after its last.
    pub end: usize,
}

impl Place {
    pub(super) fn new(span: Range<usize>) -> Self {
        Self { start: span.start, end: span.end }
    }
}

/// Where each source begins. Between two is a byte of neither, so that a place at the end of one is not
/// in the next.
pub(super) fn bases(sources: &[Source<'_>]) -> Vec<usize> {
    let mut next = 0;
    sources
        .iter()
        .map(|source| {
            let base = next;
            next += source.text.len() + 1;
            base
        })
        .collect()
}

/// The number of the source that a place is in.
pub(super) fn source_of(bases: &[usize], at: Place) -> usize {
    bases.partition_point(|base| *base <= at.start).saturating_sub(1)
}

/// What a problem rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Basis {
    /// What is written is wrong.
    Written,
    /// Something is not written, here or elsewhere. Not to be trusted where text was unreadable.
    Unwritten,
    /// The text is not TOML.
    Syntax,
}

/// A problem before its line is looked up.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub at: Place,
    pub basis: Basis,
    pub message: String,
    pub help: Option<String>,
    /// What was being read: `pool "rvv"`; empty for the file itself.
    pub here: String,
}

impl Found {
    /// Problems are shown in this order. What many pools take from one template is one problem.
    fn order(&self) -> (Place, Basis, &str, Option<&str>) {
        (self.at, self.basis, &self.message, self.help.as_deref())
    }
}

/// Looks the problems' lines up. `more` problems were counted but not kept; `secrets` are places
/// that no line may show; in `broken` files, secrets are looked for in the text itself as well.
pub(super) fn show(
    sources: &[Source<'_>],
    mut found: Vec<Found>,
    more: usize,
    secrets: &[Place],
    broken: &BTreeSet<usize>,
) -> Problems {
    found.sort_by(|one, other| one.order().cmp(&other.order()));
    found.dedup_by(|one, other| one.order() == other.order());
    let more = more + found.len().saturating_sub(PROBLEMS_MAX);
    found.truncate(PROBLEMS_MAX);
    let bases = bases(sources);
    let shown = found
        .into_iter()
        .map(|found| {
            let file = source_of(&bases, found.at);
            let source = sources.get(file).copied();
            let source = source.unwrap_or(Source { name: "fleet file", text: "" });
            let base = bases.get(file).copied().unwrap_or(0);
            problem(source, base, found, secrets, broken.contains(&file))
        })
        .collect();
    Problems { shown, more }
}

/// A stretch of all sources as one of the source that begins at `base`.
fn within(base: usize, at: Place) -> Range<usize> {
    at.start.saturating_sub(base)..at.end.saturating_sub(base)
}

fn problem(
    source: Source<'_>,
    base: usize,
    found: Found,
    secrets: &[Place],
    guard: bool,
) -> Problem {
    let text = source.text;
    let at = within(base, found.at);
    let start = floor(text, at.start);
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    let line_end = line_start + text[line_start..line_end].trim_end_matches('\r').len();
    // A place at a line's very end, such as a missing value, lies after its last character.
    let start = start.min(line_end);
    let end = floor(text, at.end).clamp(start, line_end);

    let window_start = floor(text, line_start.max(start.saturating_sub(WINDOW_BYTES)));
    let window_end = floor(text, line_end.min(start + WINDOW_BYTES));
    let mut hidden: Vec<Range<usize>> = secrets
        .iter()
        .map(|place| within(base, *place))
        .map(|place| place.start.max(window_start)..place.end.min(window_end))
        .filter(|range| range.start < range.end)
        .collect();
    hidden.extend(tokens(text, window_start..window_end));
    if guard {
        hidden.extend(guarded(text, line_start, window_start..window_end));
    }
    let hidden = merged(hidden);
    // A place within a hidden stretch is all of it.
    let shown = hidden.iter().find(|range| range.contains(&start)).map_or(start, |r| r.start);
    let line = Line::new(text, window_start..window_end, &hidden);
    let (line_text, caret, width) =
        line.cut(shown, end, window_start > line_start, window_end < line_end);
    Problem {
        file: source.name.into(),
        line: text[..line_start].bytes().filter(|b| *b == b'\n').count() + 1,
        column: text[line_start..start].chars().count() + 1,
        message: match found.here.as_str() {
            "" => found.message,
            here => format!("{here}: {}", found.message),
        },
        help: found.help,
        line_text,
        caret,
        width,
    }
}

/// The same stretches in order, those that touch as one.
fn merged(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            Some(_) | None => merged.push(range),
        }
    }
    merged
}

/// The last character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at.min(text.len()))
}

/// Stretches of a line that are secrets by their form.
fn tokens(text: &str, window: Range<usize>) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut from = window.start;
    while let Some((at, what)) = secret_at(&text[from..window.end]) {
        let start = from + at;
        let rest = &text[start..window.end];
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let length = match what {
            "a private key" => rest.len(),
            _ => rest.find(|c| !word(c)).unwrap_or(rest.len()),
        };
        found.push(start..start + length);
        from = start + length;
    }
    // A user and password in a URL.
    let line = &text[window.clone()];
    for (at, mark) in line.match_indices("://") {
        let rest = &line[at + mark.len()..];
        let word = rest.find(|c: char| c.is_whitespace() || "/\"'".contains(c));
        if let Some(end) = rest[..word.unwrap_or(rest.len())].rfind('@') {
            let start = window.start + at + mark.len();
            found.push(start..start + end);
        }
    }
    found
}

/// What may be a secret in a line that could not be read as TOML: everything after a word such as
/// `token`, from the key it belongs to on, which may stand lines before.
fn guarded(text: &str, line_start: usize, window: Range<usize>) -> Option<Range<usize>> {
    let words = ["token", "secret", "passw", "key", "credential", "pat"];
    let mut from = line_start;
    let first = text[line_start..].lines().next().unwrap_or("");
    if !opens(first) {
        // A secret of several lines has its key above, and nothing that reads as a key between.
        for _ in 0..400 {
            let Some(above) = from.checked_sub(1) else { break };
            from = text[..above].rfind('\n').map_or(0, |at| at + 1);
            if opens(&text[from..above]) {
                break;
            }
        }
    }
    let lower = text[from..window.end].to_ascii_lowercase();
    let word = words.iter().filter_map(|word| Some(lower.find(word)? + word.len())).min()?;
    // The rest of the key's name and its '=' may be shown; without an '=' all may be the secret.
    let rest = lower[word..].trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let shown = match rest.trim_start_matches(' ').strip_prefix('=') {
        Some(value) => lower.len() - value.trim_start_matches(' ').len(),
        None => word,
    };
    let start = (from + shown).max(window.start);
    (start < window.end).then_some(start..window.end)
}

/// True if a line plainly begins a table or gives a key a value. Doubt hides more, so it may doubt.
fn opens(line: &str) -> bool {
    let name = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || " ._-".contains(c))
    };
    let line = line.trim();
    match line.split_once('=') {
        Some((key, value)) => name(key) && !value.trim().is_empty() && !value.starts_with('='),
        None => line.starts_with('[') && name(line.trim_matches(['[', ']'])),
    }
}

/// A line's characters, each with the byte it stands for.
struct Line {
    chars: Vec<(usize, char)>,
}

impl Line {
    /// The characters of `window`, with `hidden` stretches and what could harm a terminal replaced.
    fn new(text: &str, window: Range<usize>, hidden: &[Range<usize>]) -> Self {
        let mut chars = Vec::new();
        let mut at = window.start;
        for range in hidden {
            plain(text, at..range.start, &mut chars);
            chars.extend(HIDDEN.chars().map(|c| (range.start, c)));
            at = range.end;
        }
        plain(text, at..window.end, &mut chars);
        Self { chars }
    }

    /// The part around `start..end`, how many characters stand before it, how many it covers.
    fn cut(&self, start: usize, end: usize, before: bool, after: bool) -> (String, usize, usize) {
        let caret = self.chars.iter().take_while(|(at, _)| *at < start).count();
        let covered = self.chars[caret..].iter().take_while(|(at, _)| *at < end).count().max(1);
        let fits = self.chars.len() <= LINE_CHARS_MAX && !before && !after;
        let from = if fits || caret < LINE_CHARS_MAX - LEAD_CHARS && !before {
            0
        } else {
            caret.saturating_sub(LEAD_CHARS)
        };
        let to = self.chars.len().min(from + LINE_CHARS_MAX);
        let mut shown = String::new();
        let cut_before = before || from > 0;
        if cut_before {
            shown.push('…');
        }
        shown.extend(self.chars[from..to].iter().map(|(_, c)| c));
        if after || to < self.chars.len() {
            shown.push('…');
        }
        let caret = caret - from + usize::from(cut_before);
        let room = (shown.chars().count() + 1).saturating_sub(caret).max(1);
        (shown, caret, covered.min(room))
    }
}

/// Copies characters, with tabs as spaces and what could harm a terminal as `�`.
fn plain(text: &str, range: Range<usize>, into: &mut Vec<(usize, char)>) {
    let direction = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    into.extend(text[range.clone()].char_indices().map(|(at, c)| {
        let c = match c {
            '\t' => ' ',
            c if c.is_control() || direction(c) => '\u{fffd}',
            c => c,
        };
        (range.start + at, c)
    }));
}
