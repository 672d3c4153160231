//! What was meant: the nearest known name to one that is not known.

use super::schema::{Key, SCHEMA, Section};
use super::takes::Takes;

impl Section {
    /// The key of this name.
    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The key that was most likely meant by `name`, preferring those that are `free`.
    pub(super) fn meant(&self, name: &str, free: impl Fn(&Key) -> bool) -> Option<&'static Key> {
        let near = |keys: &mut dyn Iterator<Item = &'static Key>| {
            nearest(name, keys.map(|key| key.name)).and_then(|near| self.key(near))
        };
        let also = self.keys.iter().find(|key| key.also.contains(&name));
        also.or_else(|| near(&mut self.keys.iter().filter(|key| free(key))))
            .or_else(|| near(&mut self.keys.iter()))
    }
}

impl Key {
    /// True if its value must not be shown unless it is known to be a reference.
    pub(super) fn is_secret(&self) -> bool {
        matches!(self.takes, Takes::Secret | Takes::Secrets)
    }
}

/// Sections that have a key of this name, with the key.
pub(super) fn homes(name: &str) -> Vec<(&'static Section, &'static Key)> {
    SCHEMA.iter().filter_map(|section| section.key(name).map(|key| (*section, key))).collect()
}

/// True if some section takes a secret under this name.
pub(super) fn names_secret(name: &str) -> bool {
    SCHEMA.iter().any(|section| section.key(name).is_some_and(Key::is_secret))
}

/// True if `word` is one edit from `name`.
pub(super) fn misspells(word: &str, name: &str) -> bool {
    word.len() <= 80 && strsim::osa_distance(word, name) == 1
}

/// The candidate that `word` is most likely a misspelling of: at most one edit in three letters.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    // Longer words are no misspellings of ours, and the distance costs the product of the lengths.
    if word.len() > 80 {
        return None;
    }
    let lower = word.to_lowercase();
    candidates
        .filter(|candidate| candidate.len() <= 80)
        .map(|candidate| (strsim::osa_distance(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| {
            let letters = candidate.chars().count().max(lower.chars().count());
            *distance <= letters.div_ceil(3).min(4)
        })
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::super::pools::POOL;
    use super::*;

    #[test]
    fn misspellings_and_other_systems_words_lead_to_the_key() {
        for (written, meant) in [
            ("labls", "labels"),
            ("Labels", "labels"),
            ("tags", "labels"),
            ("provder", "provider"),
            ("max_runners", "max"),
            ("min", "min_idle"),
            ("scope", "scopes"),
        ] {
            assert_eq!(POOL.meant(written, |_| true).map(|key| key.name), Some(meant), "{written}");
        }
        assert!(POOL.meant("webhook_secret", |_| true).is_none());
        assert!(nearest(&"x".repeat(1000), ["x"].into_iter()).is_none());
    }
}
