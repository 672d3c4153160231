//! Who asks, and where runners register: a tenant is not a scope, and neither is a credential.

use std::fmt;
use std::str::FromStr;

use crate::name::{ForgeName, Login, NameError, RepositoryName};
use crate::time::Timestamp;

/// What kind of account owns a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OwnerKind {
    /// A personal account.
    User,
    /// An organization.
    Organization,
    /// An enterprise.
    Enterprise,
}

impl OwnerKind {
    /// The word for it, as used in files and output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Organization => "organization",
            Self::Enterprise => "enterprise",
        }
    }
}

/// Whose demand it is. Organizations' and users' ids are different number spaces, so the kind is
/// part of the key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantKey {
    /// The forge that numbered it.
    pub forge: ForgeName,
    /// The number space of `id`.
    pub kind: OwnerKind,
    /// The owner's id at the forge.
    pub id: u64,
}

impl fmt::Display for TenantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.forge, self.kind.as_str(), self.id)
    }
}

/// A tenant as a forge tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its identity.
    pub key: TenantKey,
    /// Its name at that time; accounts can be renamed.
    pub login: Login,
}

/// A tenant we have met, and what is remembered of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    /// As last seen.
    pub tenant: Tenant,
    /// The logins that mean it where people write one: those it was the first here to bear. Whoever
    /// takes the login of an account that was renamed is not taken for it.
    pub logins: Vec<Login>,
    /// When a runner was last made for a job of its own: its last turn.
    pub served_at: Option<Timestamp>,
}

/// Most logins that mean one tenant; a later one takes the place of the last.
const LOGINS_MAX: usize = 4;

impl Met {
    /// What is remembered after one more sighting. `others` are all tenants met so far.
    pub fn seen<'a>(
        before: Option<&Self>,
        tenant: &Tenant,
        mut others: impl Iterator<Item = &'a Self>,
    ) -> Self {
        let mut met = before.cloned().unwrap_or_else(|| Self::from(tenant.clone()));
        met.tenant.clone_from(tenant);
        let login = &tenant.login;
        if before.is_some_and(|before| before.logins.contains(login)) {
            return met;
        }
        let taken = others.any(|other| {
            other.tenant.key != tenant.key
                && other.tenant.key.forge == tenant.key.forge
                && other.logins.contains(login)
        });
        met.logins.retain(|known| known != login);
        if !taken {
            met.logins.truncate(LOGINS_MAX - 1);
            met.logins.push(login.clone());
        }
        met
    }
}

impl From<Tenant> for Met {
    fn from(tenant: Tenant) -> Self {
        Self { logins: vec![tenant.login.clone()], tenant, served_at: None }
    }
}

/// A repository with its owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    /// The account it belongs to.
    pub owner: Login,
    /// Its own name.
    pub name: RepositoryName,
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

/// Why a text is not a scope or repository.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// Not of one of the known forms.
    #[error("scope {0:?} is not \"org:NAME\", \"repo:OWNER/NAME\" or \"enterprise:NAME\"")]
    Form(String),
    /// The account's or repository's name is not one.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl FromStr for Repository {
    type Err = ScopeError;
    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let (owner, name) = text.split_once('/').ok_or_else(|| ScopeError::Form(text.into()))?;
        Ok(Self { owner: Login::new(owner)?, name: RepositoryName::new(name)? })
    }
}

/// Where a runner registers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// All repositories of an organization that its runner group admits.
    Organization(Login),
    /// One repository.
    Repository(Repository),
    /// All organizations of an enterprise that its runner group admits.
    Enterprise(Login),
}

impl Scope {
    /// The account the scope belongs to.
    pub fn owner(&self) -> &Login {
        match self {
            Self::Organization(login) | Self::Enterprise(login) => login,
            Self::Repository(repository) => &repository.owner,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Organization(login) => write!(f, "org:{login}"),
            Self::Repository(repository) => write!(f, "repo:{repository}"),
            Self::Enterprise(login) => write!(f, "enterprise:{login}"),
        }
    }
}

impl FromStr for Scope {
    type Err = ScopeError;
    fn from_str(text: &str) -> Result<Self, ScopeError> {
        match text.split_once(':') {
            Some(("org", login)) => Ok(Self::Organization(Login::new(login)?)),
            Some(("repo", path)) => Ok(Self::Repository(path.parse()?)),
            Some(("enterprise", login)) => Ok(Self::Enterprise(Login::new(login)?)),
            Some(_) | None => Err(ScopeError::Form(text.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_reads_back_as_written() {
        for text in ["org:acme", "repo:acme/app", "enterprise:big"] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
        assert!("acme".parse::<Scope>().is_err());
        assert!("repo:acme".parse::<Scope>().is_err());
        assert!("repo:a/b/c".parse::<Scope>().is_err());
    }

    #[test]
    fn a_user_and_an_organization_with_one_id_are_two_tenants() {
        let forge = ForgeName::new("github").unwrap();
        let user = TenantKey { forge: forge.clone(), kind: OwnerKind::User, id: 7 };
        let org = TenantKey { forge, kind: OwnerKind::Organization, id: 7 };
        assert_ne!(user, org);
    }
}
