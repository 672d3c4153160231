//! Accounts, repositories, Apps and their installations, runner groups, webhooks.

use std::collections::BTreeSet;

use remuda_core::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{Effect, World, next};
use crate::config::{AppConfig, OwnerKind, Visibility};
use crate::id::{AppId, GroupId, HookId, InstallationId, OwnerId, RepositoryId};

/// The default group of every organization.
pub(crate) const DEFAULT_GROUP: GroupId = GroupId(1);

#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) config: AppConfig,
    pub(crate) created_at: Timestamp,
}

#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) id: OwnerId,
    pub(crate) login: String,
    pub(crate) kind: OwnerKind,
}

#[derive(Clone, Debug)]
pub(crate) struct Repository {
    pub(crate) id: RepositoryId,
    pub(crate) owner: OwnerId,
    pub(crate) name: String,
    pub(crate) visibility: Visibility,
    pub(crate) created_at: Timestamp,
    pub(crate) runs: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Installation {
    pub(crate) id: InstallationId,
    pub(crate) app: AppId,
    pub(crate) owner: OwnerId,
    pub(crate) created_at: Timestamp,
}

#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) id: GroupId,
    pub(crate) name: String,
    pub(crate) visibility: GroupVisibility,
    pub(crate) allows_public: bool,
}

/// Which repositories of the organization a group serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GroupVisibility {
    All,
    Private,
    Selected(BTreeSet<RepositoryId>),
}

#[derive(Clone, Debug)]
pub(crate) struct Hook {
    pub(crate) id: HookId,
    pub(crate) at: HookAt,
    pub(crate) url: String,
    pub(crate) secret: SecretString,
    pub(crate) created_at: Timestamp,
}

/// What a webhook belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HookAt {
    App(AppId),
    Organization(OwnerId),
    Repository(RepositoryId),
}

/// Why something could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub(crate) enum AccountError {
    #[error("{0:?} is not a name: 1 to 100 letters, digits, `-`, `_` or `.`")]
    Name(String),
    #[error("{0:?} exists")]
    Exists(String),
    #[error("there is no account {0:?}")]
    NoOwner(String),
    #[error("there is no repository {0:?}")]
    NoRepository(String),
    #[error("there is no App {0}")]
    NoApp(AppId),
    #[error("{0:?} is a personal account; only organizations have runner groups and webhooks")]
    NotAnOrganization(String),
    #[error("{0:?} is not an http:// URL, and the sandbox sends webhooks nowhere else")]
    Url(String),
}

impl World {
    pub(crate) fn create_app(
        &mut self,
        config: AppConfig,
        now: Timestamp,
    ) -> Result<(), AccountError> {
        let id = config.id;
        if self.apps.contains_key(&id) {
            return Err(AccountError::Exists(format!("App {id}")));
        }
        let webhook = config.webhook_url.clone().map(|url| (url, config.webhook_secret.clone()));
        self.apps.insert(id, App { config, created_at: now });
        if let Some((url, secret)) = webhook {
            self.create_hook(HookAt::App(id), url, secret, now)?;
        }
        let owners: Vec<_> = self.owners.keys().copied().collect();
        for owner in owners {
            self.install_where_wanted(id, owner, now);
        }
        Ok(())
    }

    pub(crate) fn create_owner(
        &mut self,
        login: &str,
        kind: OwnerKind,
        now: Timestamp,
    ) -> Result<OwnerId, AccountError> {
        check_name(login)?;
        if self.owner(login).is_some() {
            return Err(AccountError::Exists(login.into()));
        }
        let id = OwnerId(next(&mut self.numbers.owner));
        self.owners.insert(id, Owner { id, login: login.into(), kind });
        self.owner_by_login.insert(login.to_lowercase(), id);
        // GitHub's default group serves every repository but, unless changed, no public one.
        let group = Group {
            id: DEFAULT_GROUP,
            name: "Default".into(),
            visibility: GroupVisibility::All,
            allows_public: false,
        };
        self.groups.insert((id, DEFAULT_GROUP), group);
        let apps: Vec<_> = self.apps.keys().copied().collect();
        for app in apps {
            self.install_where_wanted(app, id, now);
        }
        Ok(id)
    }

    pub(crate) fn create_repository(
        &mut self,
        owner: &str,
        name: &str,
        visibility: Visibility,
        now: Timestamp,
    ) -> Result<RepositoryId, AccountError> {
        check_name(name)?;
        let owner = self.owner(owner).ok_or_else(|| AccountError::NoOwner(owner.into()))?.id;
        if self.repository_by_name.contains_key(&(owner, name.to_lowercase())) {
            return Err(AccountError::Exists(name.into()));
        }
        let id = RepositoryId(next(&mut self.numbers.repository));
        let name = name.to_string();
        self.repository_by_name.insert((owner, name.to_lowercase()), id);
        let repository = Repository { id, owner, name, visibility, created_at: now, runs: 0 };
        self.repositories.insert(id, repository);
        Ok(id)
    }

    fn install_where_wanted(&mut self, app: AppId, owner: OwnerId, now: Timestamp) {
        let login = &self.owners[&owner].login;
        let wanted =
            self.apps[&app].config.owners.as_ref().is_none_or(|owners| {
                owners.iter().any(|listed| listed.eq_ignore_ascii_case(login))
            });
        if wanted {
            self.install(app, owner, now);
        }
    }

    /// Installs an App at an account; the installation it has, if it has one.
    pub(crate) fn install(&mut self, app: AppId, owner: OwnerId, now: Timestamp) -> InstallationId {
        if let Some(there) = self.installation(app, owner) {
            return there.id;
        }
        let id = InstallationId(next(&mut self.numbers.installation));
        self.installations.insert(id, Installation { id, app, owner, created_at: now });
        id
    }

    pub(crate) fn create_group(
        &mut self,
        owner: OwnerId,
        name: &str,
        visibility: GroupVisibility,
        allows_public: bool,
    ) -> Result<GroupId, AccountError> {
        let Owner { login, kind, .. } = &self.owners[&owner];
        if *kind != OwnerKind::Organization {
            return Err(AccountError::NotAnOrganization(login.clone()));
        }
        if name.is_empty() || name.len() > 100 || name.chars().any(char::is_control) {
            return Err(AccountError::Name(name.into()));
        }
        if self.groups_of(owner).any(|group| group.name.eq_ignore_ascii_case(name)) {
            return Err(AccountError::Exists(name.into()));
        }
        let id = GroupId(next(&mut self.numbers.group));
        self.groups.insert((owner, id), Group { id, name: name.into(), visibility, allows_public });
        Ok(id)
    }

    pub(crate) fn create_hook(
        &mut self,
        at: HookAt,
        url: String,
        secret: SecretString,
        now: Timestamp,
    ) -> Result<HookId, AccountError> {
        let host = url.strip_prefix("http://").unwrap_or_default();
        if host.is_empty() || url.parse::<http::Uri>().is_err() {
            return Err(AccountError::Url(url));
        }
        let id = HookId(next(&mut self.numbers.hook));
        self.hooks.insert(id, Hook { id, at, url, secret, created_at: now });
        self.effects.push(Effect::HookMade(id));
        Ok(id)
    }

    pub(crate) fn owner(&self, login: &str) -> Option<&Owner> {
        self.owners.get(self.owner_by_login.get(&login.to_lowercase())?)
    }

    pub(crate) fn repository(&self, owner: &str, name: &str) -> Option<&Repository> {
        let owner = self.owner(owner)?.id;
        let id = self.repository_by_name.get(&(owner, name.to_lowercase()))?;
        self.repositories.get(id)
    }

    pub(crate) fn repositories_of(&self, owner: OwnerId) -> impl Iterator<Item = &Repository> {
        self.repositories.values().filter(move |repository| repository.owner == owner)
    }

    pub(crate) fn groups_of(&self, owner: OwnerId) -> impl Iterator<Item = &Group> {
        let all = (owner, GroupId(0))..=(owner, GroupId(u64::MAX));
        self.groups.range(all).map(|(_, group)| group)
    }

    pub(crate) fn installation(&self, app: AppId, owner: OwnerId) -> Option<&Installation> {
        self.installations.values().find(|there| there.app == app && there.owner == owner)
    }

    /// The webhooks that hear of what happens in a repository.
    pub(crate) fn hooks_of(&self, repository: &Repository) -> impl Iterator<Item = &Hook> {
        self.hooks.values().filter(move |hook| match hook.at {
            HookAt::App(app) => self.installation(app, repository.owner).is_some(),
            HookAt::Organization(owner) => owner == repository.owner,
            HookAt::Repository(id) => id == repository.id,
        })
    }
}

fn check_name(name: &str) -> Result<(), AccountError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let dots = name.chars().all(|c| c == '.');
    if (1..=100).contains(&name.len()) && name.chars().all(plain) && !dots {
        Ok(())
    } else {
        Err(AccountError::Name(name.into()))
    }
}
