//! The files through which a step speaks to later steps: `GITHUB_ENV`, `GITHUB_OUTPUT`,
//! `GITHUB_PATH`.

/// Reads `NAME=VALUE` lines and `NAME<<MARK … MARK` blocks, or says what is neither.
pub(super) fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim().is_empty() {
            continue;
        }
        let equals = line.find('=');
        let block = line.find("<<").filter(|place| equals.is_none_or(|equals| *place < equals));
        if let Some(place) = block {
            let (name, mark) = (&line[..place], &line[place + 2..]);
            let mut value: Vec<&str> = Vec::new();
            loop {
                match lines.next() {
                    Some(line) if line == mark => break,
                    Some(line) => value.push(line),
                    None => {
                        return Err(format!("no line ends the value of {name:?} with {mark:?}"));
                    }
                }
            }
            pairs.push((name.into(), value.join("\n")));
        } else if let Some(place) = equals {
            pairs.push((line[..place].into(), line[place + 1..].into()));
        } else {
            return Err(format!("{line:?} is not NAME=VALUE"));
        }
    }
    match pairs.iter().find(|(name, _)| name.is_empty() || name.contains('\0')) {
        Some((name, _)) => Err(format!("{name:?} is not a name")),
        None => Ok(pairs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, &str)]) {
        let expected = expected.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        assert_eq!(pairs(text), Ok(expected.collect()));
    }

    #[test]
    fn lines_and_blocks_are_read() {
        check("A=1\n\nB=x=y\n", &[("A", "1"), ("B", "x=y")]);
        check("T<<END\none\n two=2\nEND\nU=\n", &[("T", "one\n two=2"), ("U", "")]);
        check("V=a<<b\n", &[("V", "a<<b")]);
    }

    #[test]
    fn what_is_neither_is_named() {
        assert!(pairs("nonsense").unwrap_err().contains("nonsense"));
        assert!(pairs("A<<END\n1\n").unwrap_err().contains("END"));
        assert!(pairs("=1").is_err());
    }
}
