//! Names: of things the fleet file declares, and of things the outside tells us about.
//!
//! Each kind of name is its own type, so that a pool's name can never be looked up among providers.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Why a text is not a name of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {text:?} {problem}")]
pub struct NameError {
    kind: &'static str,
    text: String,
    problem: &'static str,
}

fn refuse(kind: &'static str, text: &str, problem: &'static str) -> NameError {
    NameError { kind, text: text.chars().take(80).collect(), problem }
}

/// A declared name: 1 to 63 of `a-z 0-9 - _ .`, beginning with a letter or digit.
fn declared(kind: &'static str, text: &str) -> Result<Arc<str>, NameError> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    match text.chars().next() {
        None => Err(refuse(kind, text, "is empty")),
        Some(first) if !first.is_ascii_lowercase() && !first.is_ascii_digit() => {
            Err(refuse(kind, text, "must begin with a lower-case letter or a digit"))
        }
        Some(_) if text.len() > 63 => Err(refuse(kind, text, "is longer than 63 characters")),
        Some(_) if !text.chars().all(fits) => {
            Err(refuse(kind, text, "may hold only a-z, 0-9, '-', '_' and '.'"))
        }
        Some(_) => Ok(text.into()),
    }
}

/// A foreign name: 1 to 255 characters, none of them a control character.
fn foreign(kind: &'static str, text: &str) -> Result<Arc<str>, NameError> {
    if text.is_empty() {
        Err(refuse(kind, text, "is empty"))
    } else if text.chars().count() > 255 {
        Err(refuse(kind, text, "is longer than 255 characters"))
    } else if text.chars().any(char::is_control) {
        Err(refuse(kind, text, "holds a control character"))
    } else {
        Ok(text.into())
    }
}

/// A login or repository name, which forges compare without case: kept in lower case.
fn caseless(kind: &'static str, text: &str) -> Result<Arc<str>, NameError> {
    if text.contains('/') || text.contains(char::is_whitespace) {
        return Err(refuse(kind, text, "may hold neither '/' nor white space"));
    }
    foreign(kind, &text.to_lowercase())
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $kind:literal by $rule:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash)]
        pub struct $name(Arc<str>);

        // Names are mostly clones of one another, and are compared all the time.
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.cmp(&other.0) }
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl $name {
            /// Checks `text` and takes it as a name.
            pub fn new(text: &str) -> Result<Self, NameError> {
                $rule($kind, text).map(Self)
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    )*};
}

names! {
    /// A forge of the fleet file.
    ForgeName = "forge name" by declared;
    /// A provider of the fleet file.
    ProviderName = "provider name" by declared;
    /// A pool of the fleet file.
    PoolName = "pool name" by declared;
    /// An image of the fleet file.
    ImageName = "image name" by declared;
    /// A tenant of the fleet file.
    TenantName = "tenant name" by declared;
    /// One set of our books: part of every runner's name and every instance's tag.
    InstallationId = "installation id" by declared;
    /// A machine that hosts instances, as its provider calls it.
    NodeName = "node name" by foreign;
    /// A resource a node has units of: `cpu`, `memory`, `slot`, `gpu`, `kvm`.
    Resource = "resource" by declared;
    /// A runner group at the forge.
    GroupName = "runner group" by foreign;
    /// The name a runner is registered under.
    RunnerName = "runner name" by foreign;
    /// An account at a forge: organization, user or enterprise.
    Login = "login" by caseless;
    /// A repository's name, without its owner.
    RepositoryName = "repository name" by caseless;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declared_name_is_short_lower_case_and_plain() {
        for good in ["rvv-1.2_x", "7", "a", &"a".repeat(63)] {
            assert_eq!(PoolName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "Rvv", "-x", "a b", "aB", "é", "aé", &"a".repeat(64)] {
            assert!(PoolName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_foreign_name_is_any_plain_text_of_at_most_255_characters() {
        for good in ["Rack 7/é", &"é".repeat(255)] {
            assert_eq!(NodeName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "a\nb", &"a".repeat(256)] {
            assert!(NodeName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn logins_compare_without_case_and_hold_no_separators() {
        assert_eq!(Login::new("Acme").unwrap(), Login::new("acme").unwrap());
        for bad in ["", "a/b", "a b", "a\nb", "a\u{7}b"] {
            assert!(Login::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_error_says_the_kind_the_text_and_the_rule() {
        assert_eq!(
            PoolName::new("A").unwrap_err().to_string(),
            "pool name \"A\" must begin with a lower-case letter or a digit"
        );
    }
}
