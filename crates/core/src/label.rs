//! Labels: what a job asks for and what a pool offers. Compared without case, as forges do.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// Most labels one job or runner may have: GitHub's limit for a runner
/// (`labels` of generate-jitconfig, `maxItems: 100`).
pub const LABELS_MAX: usize = 100;
/// Most characters of one label.
pub const LABEL_CHARS_MAX: usize = 256;

/// Why a text is not a label, or a list not a label set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// A label without a character in it.
    #[error("a label is empty")]
    Empty,
    /// A label over [`LABEL_CHARS_MAX`].
    #[error("a label has {0} characters; at most {LABEL_CHARS_MAX} are allowed")]
    TooLong(usize),
    /// A label that could break a line, a terminal or a log.
    #[error("label {0:?} holds a control character")]
    Control(String),
    /// A list over [`LABELS_MAX`].
    #[error("{0} labels; at most {LABELS_MAX} are allowed")]
    TooMany(usize),
}

/// One label, in lower case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(Arc<str>);

impl Label {
    /// Checks `text`, trims it and takes it in lower case.
    pub fn new(text: &str) -> Result<Self, LabelError> {
        // Some characters grow when their case is changed, so the bounds are on what is kept.
        let text = text.trim().to_lowercase();
        let chars = text.chars().count();
        if chars == 0 {
            Err(LabelError::Empty)
        } else if chars > LABEL_CHARS_MAX {
            Err(LabelError::TooLong(chars))
        } else if text.chars().any(char::is_control) {
            Err(LabelError::Control(text))
        } else {
            Ok(Self(text.into()))
        }
    }

    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// A set of labels; cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LabelSet(Arc<BTreeSet<Label>>);

impl Ord for LabelSet {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.cmp(&other.0) }
    }
}

impl PartialOrd for LabelSet {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl LabelSet {
    /// Takes a list of texts as a set; repeated labels count once.
    pub fn parse<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Result<Self, LabelError> {
        let mut set = BTreeSet::new();
        for (index, text) in texts.into_iter().enumerate() {
            if index >= LABELS_MAX {
                return Err(LabelError::TooMany(index + 1));
            }
            set.insert(Label::new(text.as_ref())?);
        }
        Ok(Self(Arc::new(set)))
    }

    /// True if every label of `wanted` is in this set.
    pub fn satisfies(&self, wanted: &LabelSet) -> bool {
        wanted.0.is_subset(&self.0)
    }

    /// True if this label is in the set.
    pub fn contains(&self, label: &Label) -> bool {
        self.0.contains(label)
    }

    /// The labels in order.
    pub fn iter(&self) -> impl Iterator<Item = &Label> {
        self.0.iter()
    }

    /// How many labels.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for LabelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, label) in self.0.iter().enumerate() {
            write!(f, "{}{label}", if index == 0 { "" } else { ", " })?;
        }
        f.write_str("]")
    }
}

/// What a job asks of a runner's labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wanted {
    /// Every one of these; GitHub's `runs-on`.
    AllOf(LabelSet),
}

impl Wanted {
    /// True if a runner with `offered` may take the job.
    pub fn satisfied_by(&self, offered: &LabelSet) -> bool {
        match self {
            Self::AllOf(labels) => offered.satisfies(labels),
        }
    }

    /// A label that every satisfying set must hold, if there is one: the key to look candidates up by.
    pub fn required_label(&self) -> Option<&Label> {
        match self {
            Self::AllOf(labels) => labels.iter().next(),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllOf(labels) => labels.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> LabelSet {
        LabelSet::parse(text.split_whitespace()).unwrap()
    }

    #[test]
    fn a_runner_must_have_all_labels_and_may_have_more() {
        assert!(set("self-hosted linux rvv").satisfies(&set("rvv linux")));
        assert!(!set("linux").satisfies(&set("linux rvv")));
        assert!(set("linux").satisfies(&set("")));
    }

    #[test]
    fn case_and_order_and_repetition_do_not_matter() {
        assert_eq!(set("B a A"), set("a b"));
    }

    #[test]
    fn labels_that_could_harm_a_page_or_a_log_are_refused() {
        assert_eq!(Label::new("a\u{7}b"), Err(LabelError::Control("a\u{7}b".into())));
        assert_eq!(Label::new(" \t"), Err(LabelError::Empty));
        assert_eq!(Label::new(&"x".repeat(257)), Err(LabelError::TooLong(257)));
        assert_eq!(Label::new(&"x".repeat(256)).unwrap().as_str().len(), 256);
        assert_eq!(Label::new(&"İ".repeat(200)), Err(LabelError::TooLong(400)));
    }

    #[test]
    fn an_endless_list_is_refused_at_its_hundred_and_first_label() {
        assert_eq!(LabelSet::parse((0..100).map(|n| n.to_string())).unwrap().len(), 100);
        assert_eq!(LabelSet::parse((0..).map(|n| n.to_string())), Err(LabelError::TooMany(101)));
    }
}
