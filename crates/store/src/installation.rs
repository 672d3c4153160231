//! Draws the name of new books.

use remuda_core::name::InstallationId;
use ring::rand::{SecureRandom as _, SystemRandom};

const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const LENGTH: usize = 6;

/// Six letters and digits, by lot: one chance in two thousand million that two books share them.
pub(crate) fn draw() -> InstallationId {
    let random = SystemRandom::new();
    let mut text = String::with_capacity(LENGTH);
    while text.len() < LENGTH {
        let mut bytes = [0; 16];
        random.fill(&mut bytes).expect("the kernel has random bytes once it has booted");
        // 252 is the largest multiple of 36 a byte can hold: above it some letters would come up
        // more often than others.
        let fair = bytes.iter().filter(|byte| **byte < 252);
        text.extend(fair.map(|byte| char::from(LETTERS[usize::from(byte % 36)])));
    }
    text.truncate(LENGTH);
    InstallationId::new(&text).expect("lower-case letters and digits make a name")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn books_are_told_apart_by_six_letters_and_digits() {
        let drawn: BTreeSet<_> = (0..200).map(|_| draw()).collect();
        assert_eq!(drawn.len(), 200);
        assert!(drawn.iter().all(|id| id.as_str().len() == LENGTH));
    }
}
