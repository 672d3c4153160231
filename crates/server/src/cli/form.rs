//! The one form of a fleet file: where its tables, blank lines and line breaks are. What it says, its
//! comments among it, is as it was.

use std::collections::BTreeMap;

use toml_edit::{DocumentMut, InlineTable, Item, Key, RawString, Table, TomlError, Value};

/// Widest line that a list may be on.
const COLUMNS: usize = 100;
/// How far entries of a broken list stand in.
const STEP: usize = 4;

/// The text in its one form, its tables in the order of the names of their first keys.
pub(super) fn formed(text: &str, order: &[&str]) -> Result<String, TomlError> {
    let document: DocumentMut = text.parse()?;
    let mut sheet = Sheet::read(&document);
    let rank = |key: &str| order.iter().position(|name| *name == key).unwrap_or(order.len());
    sheet.entries.sort_by_key(|(key, _)| rank(key));
    // What is below one name stays together, in the order in which it was written.
    let mut first = BTreeMap::new();
    for (index, part) in sheet.parts.iter().enumerate() {
        first.entry(part.group.clone()).or_insert(index);
    }
    sheet.parts.sort_by_key(|part| (rank(&part.group[0]), first.get(&part.group).copied()));
    Ok(sheet.written())
}

/// Comment lines without a blank one between them.
type Paragraph = Vec<String>;

/// A file, taken apart.
#[derive(Default)]
struct Sheet {
    /// What is said of the file as a whole.
    head: Vec<Paragraph>,
    /// Keys of the root with their lines.
    entries: Vec<(String, String)>,
    /// What follows them without a blank line.
    tail: Paragraph,
    parts: Vec<Part>,
    end: Vec<Paragraph>,
}

/// A table with its header.
struct Part {
    /// What it is part of: the first key and, unless that is a list of tables, the second.
    group: Vec<String>,
    before: Vec<Paragraph>,
    /// The last paragraph stands right above the header.
    touches: bool,
    lines: String,
    tail: Paragraph,
}

impl Sheet {
    fn read(document: &DocumentMut) -> Self {
        let mut sheet = Self::default();
        let mut comments = None;
        for (keys, value) in document.as_table().get_values() {
            let mut lines = String::new();
            let (mut paragraphs, _, touches) = paragraphs(prefix(&keys), true);
            if comments.is_none() {
                let own = paragraphs.split_off(paragraphs.len() - usize::from(touches));
                sheet.head = std::mem::replace(&mut paragraphs, own);
            }
            comments = Some(());
            entry(&mut lines, paragraphs.into_iter().flatten(), &keys, value);
            sheet.entries.push((keys[0].get().into(), lines));
        }
        let mut tables = Vec::new();
        gather(document.as_table(), &mut Vec::new(), false, &mut tables);
        tables.sort_by_key(|found| found.position);
        for found in &tables {
            sheet.part(document, found);
        }
        let (mut end, above, _) = paragraphs(document.trailing().as_str(), false);
        if above && sheet.something() {
            *sheet.last_tail() = end.remove(0);
        }
        sheet.end = end;
        sheet
    }

    fn something(&self) -> bool {
        !self.entries.is_empty() || !self.parts.is_empty()
    }

    fn last_tail(&mut self) -> &mut Paragraph {
        self.parts.last_mut().map_or(&mut self.tail, |part| &mut part.tail)
    }

    fn part(&mut self, document: &DocumentMut, found: &Found<'_>) {
        let decor = found.table.decor();
        let (mut before, above, touches) =
            paragraphs(decor.prefix().and_then(RawString::as_str), true);
        if !self.something() {
            let own = before.split_off(before.len() - usize::from(touches));
            self.head = std::mem::replace(&mut before, own);
        } else if above && (before.len() > 1 || !touches) {
            *self.last_tail() = before.remove(0);
        }
        let is_list = document.get(found.path[0].get()).is_some_and(Item::is_array_of_tables);
        let group = found.path.iter().take(if is_list { 1 } else { 2 });
        let (open, close) = if found.is_entry { ("[[", "]]") } else { ("[", "]") };
        let mut lines = [open, &dotted(&found.path), close].concat();
        note(&mut lines, decor.suffix().and_then(RawString::as_str));
        lines.push('\n');
        for (keys, value) in found.table.get_values() {
            let above = paragraphs(prefix(&keys), true).0;
            entry(&mut lines, above.into_iter().flatten(), &keys, value);
        }
        let group = group.map(|key| key.get().to_owned()).collect();
        self.parts.push(Part { group, before, touches, lines, tail: Paragraph::new() });
    }

    fn written(self) -> String {
        // Blocks with a blank line between them.
        let mut blocks: Vec<String> = self.head.iter().map(|lines| joined(lines)).collect();
        if !self.entries.is_empty() {
            let lines = self.entries.into_iter().map(|(_, lines)| lines).collect::<String>();
            blocks.push(lines + &joined(&self.tail));
        }
        for part in self.parts {
            let above = part.before.len() - usize::from(part.touches);
            blocks.extend(part.before[..above].iter().map(|lines| joined(lines)));
            let touching =
                part.before[above..].iter().map(|lines| joined(lines)).collect::<String>();
            blocks.push(touching + &part.lines + &joined(&part.tail));
        }
        blocks.extend(self.end.iter().map(|lines| joined(lines)));
        blocks.join("\n")
    }
}

/// A table that has a header.
struct Found<'a> {
    position: isize,
    path: Vec<&'a Key>,
    table: &'a Table,
    /// It is one of a list of tables.
    is_entry: bool,
}

/// Every table below that has a header.
fn gather<'a>(
    table: &'a Table,
    path: &mut Vec<&'a Key>,
    is_entry: bool,
    found: &mut Vec<Found<'a>>,
) {
    let written = !table.is_implicit() || !table.get_values().is_empty();
    if !path.is_empty() && !table.is_dotted() && (is_entry || written) {
        let position = table.position().unwrap_or_default();
        found.push(Found { position, path: path.clone(), table, is_entry });
    }
    for (name, item) in table {
        let Some((key, _)) = table.get_key_value(name) else { continue };
        path.push(key);
        if let Item::Table(table) = item {
            gather(table, path, false, found);
        } else if let Item::ArrayOfTables(list) = item {
            list.iter().for_each(|table| gather(table, path, true, found));
        }
        path.pop();
    }
}

fn joined(lines: &[String]) -> String {
    lines.iter().flat_map(|line| [line, "\n"]).collect()
}

fn dotted(keys: &[&Key]) -> String {
    keys.iter().map(|key| key.display_repr()).collect::<Vec<_>>().join(".")
}

/// What stands before a key.
fn prefix<'a>(keys: &[&'a Key]) -> Option<&'a str> {
    keys.last().and_then(|key| key.leaf_decor().prefix()).and_then(RawString::as_str)
}

/// What stands behind a value.
fn suffix(value: &Value) -> Option<&str> {
    value.decor().suffix().and_then(RawString::as_str)
}

/// The comments of a text by paragraph; whether the first begins and the last ends without a blank
/// line. `before`: something follows on the last line.
fn paragraphs(text: Option<&str>, before: bool) -> (Vec<Paragraph>, bool, bool) {
    let mut lines: Vec<&str> = text.unwrap_or_default().split('\n').map(str::trim).collect();
    if before {
        lines.pop();
    }
    let is_comment = |line: Option<&&str>| line.is_some_and(|line| !line.is_empty());
    let (above, below) = (is_comment(lines.first()), is_comment(lines.last()));
    let paragraphs = lines.split(|line| line.is_empty()).filter(|lines| !lines.is_empty());
    let owned = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
    (paragraphs.map(owned).collect(), above, below)
}

/// Adds the comment that stands behind something on its line.
fn note(line: &mut String, behind: Option<&str>) {
    if let Some(comment) = behind.map(str::trim).filter(|comment| !comment.is_empty()) {
        line.push(' ');
        line.push_str(comment);
    }
}

fn entry(lines: &mut String, above: impl Iterator<Item = String>, keys: &[&Key], value: &Value) {
    above.for_each(|comment| lines.extend([comment.as_str(), "\n"]));
    let mut line = dotted(keys) + " = ";
    put(&mut line, value, 0);
    note(&mut line, suffix(value));
    lines.extend([line.as_str(), "\n"]);
}

/// The parts of a list or an inline table: what stands before each, it, and what stands behind it.
struct Row<'a> {
    before: Option<&'a str>,
    keys: Vec<&'a Key>,
    value: &'a Value,
}

fn rows(value: &Value) -> Option<(Vec<Row<'_>>, Option<&str>)> {
    if let Value::Array(array) = value {
        let row = |value| Row {
            before: Value::decor(value).prefix().and_then(RawString::as_str),
            keys: Vec::new(),
            value,
        };
        Some((array.iter().map(row).collect(), array.trailing().as_str()))
    } else {
        let table: &InlineTable = value.as_inline_table()?;
        let row = |(keys, value): (Vec<_>, _)| Row { before: prefix(&keys), keys, value };
        Some((table.get_values().into_iter().map(row).collect(), table.trailing().as_str()))
    }
}

/// True if there is a comment within.
fn has_comment(value: &Value) -> bool {
    let comment = |text: Option<&str>| text.is_some_and(|text| text.contains('#'));
    rows(value).is_some_and(|(rows, trailing)| {
        let within = |row: &Row<'_>| {
            comment(row.before) || comment(suffix(row.value)) || has_comment(row.value)
        };
        comment(trailing) || rows.iter().any(within)
    })
}

/// The value on one line.
fn flat(value: &Value) -> String {
    let Some((rows, _)) = rows(value) else { return scalar(value) };
    let row = |row: &Row<'_>| match &*row.keys {
        [] => flat(row.value),
        keys => [&dotted(keys), " = ", &flat(row.value)].concat(),
    };
    let inner = rows.iter().map(row).collect::<Vec<_>>().join(", ");
    match (value.is_array(), inner.is_empty()) {
        (true, _) => format!("[{inner}]"),
        (false, true) => "{}".into(),
        (false, false) => format!("{{ {inner} }}"),
    }
}

fn scalar(value: &Value) -> String {
    let repr = match value {
        Value::String(value) => value.display_repr(),
        Value::Integer(value) => value.display_repr(),
        Value::Float(value) => value.display_repr(),
        Value::Boolean(value) => value.display_repr(),
        Value::Datetime(value) => value.display_repr(),
        Value::Array(_) | Value::InlineTable(_) => "".into(),
    };
    repr.into_owned()
}

/// Adds a value to text whose last line stands in by `indent`.
fn put(out: &mut String, value: &Value, indent: usize) {
    let column = out.chars().rev().take_while(|c| *c != '\n').count();
    let one_line = flat(value);
    let fits = column + one_line.chars().count() <= COLUMNS && !one_line.contains('\n');
    match rows(value) {
        Some((rows, trailing))
            if has_comment(value) || (!fits && value.is_array() && !rows.is_empty()) =>
        {
            broken(out, value.is_array(), &rows, trailing, indent);
        }
        // A table stays on one line, which older readers of TOML need; lists in it may be broken.
        Some((rows, _)) if !fits && !rows.is_empty() => {
            for (index, row) in rows.iter().enumerate() {
                out.extend([if index == 0 { "{ " } else { ", " }, &dotted(&row.keys), " = "]);
                put(out, row.value, indent);
            }
            out.push_str(" }");
        }
        Some(_) | None => out.push_str(&one_line),
    }
}

/// One row a line, with its comments.
fn broken(
    out: &mut String,
    is_list: bool,
    rows: &[Row<'_>],
    trailing: Option<&str>,
    indent: usize,
) {
    let (deep, shallow) = (" ".repeat(indent + STEP), " ".repeat(indent));
    out.push(if is_list { '[' } else { '{' });
    out.push('\n');
    let mut behind: Vec<&str> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        above(out, &mut behind, row.before, index > 0, &deep);
        out.push_str(&deep);
        if !row.keys.is_empty() {
            out.extend([&dotted(&row.keys), " = "]);
        }
        put(out, row.value, indent + STEP);
        out.push(',');
        behind.extend(comments(suffix(row.value)));
    }
    above(out, &mut behind, trailing, !rows.is_empty(), &deep);
    out.push_str(&shallow);
    out.push(if is_list { ']' } else { '}' });
}

fn comments(text: Option<&str>) -> impl Iterator<Item = &str> {
    text.unwrap_or_default().split('\n').map(str::trim).filter(|line| !line.is_empty())
}

/// Ends the line before, if there is one, with what stands behind it there; then the other comments.
fn above<'a>(
    out: &mut String,
    behind: &mut Vec<&'a str>,
    text: Option<&'a str>,
    ends: bool,
    deep: &str,
) {
    let (same, rest) =
        text.unwrap_or_default().split_once('\n').unwrap_or((text.unwrap_or_default(), ""));
    behind.extend(comments(Some(same)));
    let mut behind = behind.drain(..);
    if ends {
        out.extend(behind.next().into_iter().flat_map(|comment| [" ", comment]));
        out.push('\n');
    }
    for comment in behind.chain(comments(Some(rest))) {
        out.extend([deep, comment, "\n"]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    const ORDER: [&str; 4] = ["server", "forge", "provider", "pool"];

    /// Checks what holds of every text that is TOML: it says the same, keeps its comments, and is then in
    /// its form. Gives the form.
    fn check(text: &str) -> Option<String> {
        let said = |text: &str| toml::from_str::<toml::Table>(text);
        let before = said(text).ok()?;
        let form = formed(text, &ORDER).unwrap();
        assert_eq!(said(&form).as_ref(), Ok(&before), "{text}\n=>\n{form}");
        assert_eq!(formed(&form, &ORDER).unwrap(), form, "{text}");
        let comments = |text: &str| {
            let mut found: Vec<_> =
                text.split("#c").skip(1).map(|rest| rest[..1].to_owned()).collect();
            found.sort();
            found
        };
        assert_eq!(comments(&form), comments(text), "{text}\n=>\n{form}");
        assert!(form.is_empty() || form.ends_with('\n') && !form.ends_with("\n\n"), "{form:?}");
        assert!(!form.contains(" \n") && !form.contains("\n\n\n"), "{form:?}");
        Some(form)
    }

    #[test]
    fn a_file_gets_its_form_and_every_comment_stays_with_what_it_is_about() {
        let text = "# The file.\n\n# small ones\n[ pool . small ]   # eight\nlabels=['a','b'  ]\n\n\
                    # about max\n max = 8# yes\n# tail\n\n\n[forge.github]\ntoken = \"env:T\"\n# a farm\n\
                    [provider.local]\nkind = \"process\"\n\n# the end\n[pool.small.limits]";
        let form = "# The file.\n\n[forge.github]\ntoken = \"env:T\"\n\n# a farm\n[provider.local]\n\
                    kind = \"process\"\n\n# small ones\n[pool.small] # eight\nlabels = ['a', 'b']\n\
                    # about max\nmax = 8 # yes\n# tail\n\n# the end\n[pool.small.limits]\n";
        assert_eq!(check(text).unwrap(), form);
    }

    #[test]
    fn only_lists_that_are_too_wide_or_have_comments_are_broken() {
        let word = "x".repeat(42);
        let text =
            format!("a = [\n1,\n2]\nb = ['{word}','{word}']\nc = ['{word}', '{word}', 'y']\n");
        let form = format!(
            "a = [1, 2]\nb = ['{word}', '{word}']\nc = [\n    '{word}',\n    '{word}',\n    'y',\n]\n"
        );
        assert_eq!(check(&text).unwrap(), form);
        let text = "a = [ #c1\n1, #c2\n#c3\n2 #c4\n, #c5\n]\n";
        let form = "a = [\n    #c1\n    1, #c2\n    #c3\n    2, #c4\n    #c5\n]\n";
        assert_eq!(check(text).unwrap(), form);
        let word = "x".repeat(40);
        let text = format!("a = {{ b = ['{word}', '{word}'], c = ['{word}'] }}\n");
        let form = format!("a = {{ b = ['{word}', '{word}'], c = [\n    '{word}',\n] }}\n");
        assert_eq!(check(&text).unwrap(), form);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 4000,
            failure_persistence: None,
            rng_seed: RngSeed::Fixed(12),
            max_global_rejects: 100_000,
            ..ProptestConfig::default()
        })]

        #[test]
        fn any_toml_says_the_same_in_its_form_keeps_its_comments_and_then_stays(
            parts in prop::collection::vec(prop::sample::select(vec![
                "[a]\n", "[[b]]\n", "[b.sub]\n", "[pool.x]\n", "[ pool . x . y ] #c1\n", "[forge]\n",
                "[forge.y]\n", "[[forge.y.app]]\n", "[forge.y.app.z]\n", "[server]\n", "[m.z]\n",
                "k = 1\n", "l = [1, 2]\n", "m.n = 2\n", "m.o = \"é\"\n", "#c2\n", "#c3\n", "#c4", "\n",
                "\n\n", " ", "\t", "\u{feff}", "p = [ #c5\n 1, #c6\n #c7\n 2 #c8\n , #c9\n]\n",
                "q = { a = 1, b = [1,2] } #c1\n", "r = [{a=[ #c2\n]}, { b = { c = 1 } }]\n",
                "s = '''x\n  y '''\n", "v = { #c3\n a = 1, #c4\n b = 2 #c5\n #c6\n}\n", "x = []\r\n",
                "y = {}\n", "w = [\n1\n,\n\n2]\n", "server.listen = 1\n", "pool = { a = 1 }\n",
            ]), 0..8)
        ) {
            prop_assume!(check(&parts.concat()).is_some());
        }
    }
}
