//! Who may do what in an account: one table, looked up at every request.
//!
//! A role is a person's in an account, or a key's. Keys have at most [`Role::Admin`], and none at all unless they
//! were given one: then they see what they themselves have used and nothing else.

use serde::{Deserialize, Serialize};

/// What a member is in an account. Greater ones may do whatever lesser ones may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Also manages the keys of projects.
    Member,
    /// Manages everything but owners.
    Admin,
    /// Manages everything.
    Owner,
}

/// What a request wants of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Permission {
    /// What a key can know of itself without any role: its quota, what it used, the account's name.
    ReadSelf,
    /// Balance, keys, projects, members, usage, statements.
    ReadAccount,
    /// Create, change and delete keys; outside of projects and beyond the own role only as far as
    /// [`Role::may_manage_key`] goes.
    ManageKeys,
    /// Create and change projects.
    ManageProjects,
    /// Invite, change and remove members, as far as [`Role::may_change_member`] goes.
    ManageMembers,
    /// Budgets, top-ups, codes, the subscription.
    ManageMoney,
}

impl Permission {
    /// Every permission.
    pub const ALL: [Self; 6] = [
        Self::ReadSelf,
        Self::ReadAccount,
        Self::ManageKeys,
        Self::ManageProjects,
        Self::ManageMembers,
        Self::ManageMoney,
    ];

    /// It changes something.
    pub fn is_write(self) -> bool {
        !matches!(self, Self::ReadSelf | Self::ReadAccount)
    }
}

impl Role {
    /// Every role, the least first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Member, Self::Admin, Self::Owner];

    /// The name in the database and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }

    /// The role of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// Whether the role has a permission.
    pub fn allows(self, permission: Permission) -> bool {
        let least = match permission {
            Permission::ReadSelf | Permission::ReadAccount => Self::Viewer,
            Permission::ManageKeys => Self::Member,
            Permission::ManageProjects | Permission::ManageMembers | Permission::ManageMoney => Self::Admin,
        };
        self >= least
    }

    /// Whether the role may make, change or renew a key with that role, in a project or in none.
    ///
    /// Nobody touches a key that may do more than they may: its secret would be theirs (S-06).
    pub fn may_manage_key(self, key_role: Option<Self>, in_project: bool) -> bool {
        self.allows(Permission::ManageKeys) && key_role <= Some(self) && (in_project || self >= Self::Admin)
    }

    /// Whether the role may turn a member's role from `old` into `new`; none is no member, before or after.
    pub fn may_change_member(self, old: Option<Self>, new: Option<Self>) -> bool {
        self.allows(Permission::ManageMembers) && old <= Some(self) && new <= Some(self)
    }
}

/// Whether somebody may do that: with a role, or, as a key without one, only look at themselves.
pub fn allows(role: Option<Role>, permission: Permission) -> bool {
    role.map_or(permission == Permission::ReadSelf, |role| role.allows(permission))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s_03_every_role_against_every_permission() {
        use Permission as P;
        let table: [(Option<Role>, &[Permission]); 5] = [
            (None, &[P::ReadSelf]),
            (Some(Role::Viewer), &[P::ReadSelf, P::ReadAccount]),
            (Some(Role::Member), &[P::ReadSelf, P::ReadAccount, P::ManageKeys]),
            (Some(Role::Admin), &P::ALL),
            (Some(Role::Owner), &P::ALL),
        ];
        for (role, allowed) in table {
            for permission in P::ALL {
                assert_eq!(allows(role, permission), allowed.contains(&permission), "{role:?} {permission:?}");
            }
        }
    }

    #[test]
    fn s_06_nobody_makes_a_key_that_may_do_more() {
        let check = |role: Role, key_role: Option<Role>, in_project: bool, expected: bool| {
            assert_eq!(role.may_manage_key(key_role, in_project), expected, "{role:?} {key_role:?} {in_project}");
        };
        check(Role::Viewer, None, true, false);
        check(Role::Member, None, true, true);
        check(Role::Member, None, false, false);
        check(Role::Member, Some(Role::Member), true, true);
        check(Role::Member, Some(Role::Admin), true, false);
        check(Role::Admin, Some(Role::Admin), false, true);
        check(Role::Owner, Some(Role::Admin), false, true);
    }

    #[test]
    fn only_owners_make_and_unmake_owners() {
        let check = |role: Role, old: Option<Role>, new: Option<Role>, expected: bool| {
            assert_eq!(role.may_change_member(old, new), expected, "{role:?} {old:?} {new:?}");
        };
        check(Role::Member, None, Some(Role::Viewer), false);
        check(Role::Admin, None, Some(Role::Admin), true);
        check(Role::Admin, None, Some(Role::Owner), false);
        check(Role::Admin, Some(Role::Owner), Some(Role::Admin), false);
        check(Role::Admin, Some(Role::Owner), None, false);
        check(Role::Admin, Some(Role::Admin), None, true);
        check(Role::Owner, Some(Role::Owner), None, true);
        check(Role::Owner, Some(Role::Viewer), Some(Role::Owner), true);
    }

    #[test]
    fn names_and_roles_are_the_same() {
        for role in Role::ALL {
            assert_eq!(Role::from_name(role.name()), Some(role));
        }
        assert_eq!(Role::from_name("none"), None);
    }
}
