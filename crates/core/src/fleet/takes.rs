//! What keys take: one description, from which come the words that people read, the bounds that the
//! reader keeps, and the JSON Schema that editors check by.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::section::ID_MAX;
use super::value::written;

/// What a key takes. Its words read after "takes".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// A table: of the section whose path continues with the key's name, or of such by name.
    Table,
    /// A list of tables of that section; the words for it.
    Tables(&'static str),
    /// Text.
    Text(Form),
    /// A list of texts.
    Texts(Texts),
    /// One of a few words.
    Word(&'static [&'static str]),
    /// True or false.
    Flag,
    /// A whole number, from the first to the last.
    Number(u64, u64),
    /// A whole number of 32 bits, or a word that is more than any.
    NumberOr(&'static str),
    /// An App's number or client id.
    Id,
    /// A share in percent, or a whole number of calls.
    Share,
    /// A duration.
    Duration,
    /// A duration from the first to the last.
    Span(Duration, Duration),
    /// A duration, or `"off"`.
    DurationOrOff,
    /// A reference to a secret.
    Secret,
    /// One such reference, or a list of them.
    Secrets,
    /// An amount of the resource that the key names.
    Amount,
    /// Lists of texts, by axis.
    Axes,
    /// A list of tables of texts or lists of texts, by axis.
    Exclude,
    /// Tables of texts, by name.
    Maps,
}

/// What a text looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// In words.
    pub words: &'static str,
    /// A regular expression (ECMA-262) that holds of every text that is taken, and perhaps of others.
    pub pattern: &'static str,
}

/// What a list of texts looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Texts {
    /// The list, in words.
    pub words: &'static str,
    /// What holds of each entry, as in [`Form::pattern`].
    pub pattern: &'static str,
    /// The fewest entries.
    pub least: usize,
    /// No entry may come twice.
    pub distinct: bool,
}

pub(super) const NAME: &str = "^[a-z0-9][a-z0-9._-]{0,62}$";
pub(super) const FOREIGN: &str = r"^[^\x00-\x1f\x7f-\x9f]{1,255}$";

pub(super) const SCOPES: Takes = Takes::Texts(Texts {
    words: "a list of scopes, `org:NAME`, `repo:OWNER/NAME` or `enterprise:NAME`",
    pattern: r"^((org|enterprise):[^/\s]+|repo:[^/\s]+/[^/\s]+)$",
    least: 0,
    distinct: true,
});
/// A number of things, of which there is at least one.
pub(super) const COUNT: Takes = Takes::Number(1, COUNT_MAX);
/// The greatest number of things.
pub(super) const COUNT_MAX: u64 = u32::MAX as u64;

pub(super) const fn text(words: &'static str, pattern: &'static str) -> Takes {
    Takes::Text(Form { words, pattern })
}

impl Takes {
    /// The whole numbers that it takes, if it takes any and says which.
    pub fn numbers(self) -> Option<RangeInclusive<u64>> {
        match self {
            Self::Number(least, most) => Some(least..=most),
            Self::NumberOr(_) => Some(0..=COUNT_MAX),
            Self::Id => Some(1..=ID_MAX),
            Self::Share => Some(1..=COUNT_MAX),
            Self::Table
            | Self::Tables(_)
            | Self::Text(_)
            | Self::Texts(_)
            | Self::Word(_)
            | Self::Flag
            | Self::Duration
            | Self::Span(..)
            | Self::DurationOrOff
            | Self::Secret
            | Self::Secrets
            | Self::Amount
            | Self::Axes
            | Self::Exclude
            | Self::Maps => None,
        }
    }
}

impl Takes {
    /// The words that it takes, if it takes only those as text.
    pub(super) const fn words(&self) -> &[&'static str] {
        if let Self::Word(words) = self {
            words
        } else if let Self::NumberOr(word) = self {
            std::slice::from_ref(word)
        } else {
            &[]
        }
    }
}

impl fmt::Display for Takes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Table => "a table",
            Self::Tables(words)
            | Self::Text(Form { words, .. })
            | Self::Texts(Texts { words, .. }) => words,
            Self::Word(words) => return choice(f, words),
            Self::Flag => "`true` or `false`",
            Self::Number(0, COUNT_MAX..) => "a whole number",
            Self::Number(least, COUNT_MAX..) => {
                return write!(f, "a whole number from {least}");
            }
            Self::Number(least, most) => {
                return write!(f, "a whole number from {least} to {most}");
            }
            Self::NumberOr(word) => return write!(f, "a whole number or `{word:?}`"),
            Self::Id => "the App's id or client id",
            Self::Share => "a share such as `\"50%\"`, or a whole number of calls an hour",
            Self::Duration => "a duration with a unit",
            Self::Span(least, most) => {
                return write!(f, "a duration from `{}` to `{}`", written(*least), written(*most));
            }
            Self::DurationOrOff => "a duration or `\"off\"`",
            Self::Secret => "a reference to a secret, `env:NAME`, `file:PATH` or `cmd:COMMAND`",
            Self::Secrets => {
                "a reference to a secret, `env:NAME`, `file:PATH` or `cmd:COMMAND`, or a list of them"
            }
            Self::Amount => {
                "an amount: cores for `cpu`, MiB, GiB or TiB for `memory`, a whole number for any \
                 other"
            }
            Self::Axes => "a table of lists of texts",
            Self::Exclude => "a list of tables, each with a value or a list of them for some axes",
            Self::Maps => "a table of tables of texts",
        })
    }
}

/// `"a"`, `"b"` or `"c"`.
fn choice(f: &mut fmt::Formatter<'_>, words: &[&str]) -> fmt::Result {
    for (at, word) in words.iter().enumerate() {
        let before = match words.len() - at {
            _ if at == 0 => "",
            1 => " or ",
            _ => ", ",
        };
        write!(f, "{before}`{word:?}`")?;
    }
    Ok(())
}
