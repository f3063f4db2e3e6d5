//! Members: which user is what in which account, and who is invited to become one.
//!
//! Somebody becomes a member by an invitation, which is a secret for whoever reads that e-mail address, or because an
//! operator says so. The one who invites does not learn whether the address is a user's (S-52).

use crate::accounts::AccountStatus;
use crate::database::StoreError;
use crate::secrets::Digest;
use crate::sql::{Connection, OptionalExtension, Row};
use crate::users::{self, User};
use domain::{AccountId, Role, Timestamp, UserId};

/// Members of one account.
const MEMBERS_MAX: i64 = 1000;
/// Invitations of one account that are open at once.
const INVITATIONS_MAX: i64 = 100;
/// Accounts of one user.
pub const ACCOUNTS_MAX: u32 = 200;
/// How long an invitation is good for: 7 days.
pub const INVITATION_LIFE_MS: i64 = 7 * 24 * 3600 * 1000;

/// A member of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who it is.
    pub user: User,
    /// What they are.
    pub role: Role,
    /// Since when.
    pub created_at: Timestamp,
}

/// An account that a user is a member of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The account.
    pub account: AccountId,
    /// Its name.
    pub name: String,
    /// Whether its keys work.
    pub status: AccountStatus,
    /// What the user is there.
    pub role: Role,
}

/// An invitation, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// Its id.
    pub id: i64,
    /// To which account.
    pub account: AccountId,
    /// Whom.
    pub email: String,
    /// As what.
    pub role: Role,
    /// When.
    pub created_at: Timestamp,
    /// Until when it is good.
    pub expires_at: Timestamp,
}

fn role(name: &str) -> Result<Role, StoreError> {
    Role::from_name(name).ok_or_else(|| StoreError::Damaged(format!("role {name:?}")))
}

/// Members of an account whose user ids are greater than `after`, at most `limit`, by id.
pub fn list(connection: &Connection, account: AccountId, after: UserId, limit: u32) -> Result<Vec<Member>, StoreError> {
    let mut statement = connection.prepare_cached(&format!(
        "select members.role, members.created_at, {} from members join users on users.id = members.user_id
         where members.account = ?1 and members.user_id > ?2 order by members.user_id limit ?3",
        users::COLUMNS
    ))?;
    let mut rows = statement.query((account.0, after.0, limit))?;
    let mut members = Vec::new();
    while let Some(row) = rows.next()? {
        members.push(read(row)?);
    }
    Ok(members)
}

fn read(row: Row<'_>) -> Result<Member, StoreError> {
    Ok(Member {
        role: role(&row.get::<_, String>(0)?)?,
        created_at: Timestamp(row.get(1)?),
        user: users::read(row, 2)?,
    })
}

/// One member of an account.
pub fn find(connection: &Connection, account: AccountId, user: UserId) -> Result<Option<Member>, StoreError> {
    let mut statement = connection.prepare_cached(&format!(
        "select members.role, members.created_at, {} from members join users on users.id = members.user_id
         where members.account = ?1 and members.user_id = ?2",
        users::COLUMNS
    ))?;
    let mut rows = statement.query((account.0, user.0))?;
    rows.next()?.map(read).transpose()
}

/// The accounts of a user, by id; at most [`ACCOUNTS_MAX`], which nobody exceeds.
pub fn of_user(connection: &Connection, user: UserId) -> Result<Vec<Membership>, StoreError> {
    let mut statement = connection.prepare_cached(
        "select accounts.id, accounts.name, accounts.status, members.role
         from members join accounts on accounts.id = members.account
         where members.user_id = ?1 order by accounts.id limit ?2",
    )?;
    let mut rows = statement.query((user.0, ACCOUNTS_MAX))?;
    let mut memberships = Vec::new();
    while let Some(row) = rows.next()? {
        memberships.push(Membership {
            account: AccountId(row.get(0)?),
            name: row.get(1)?,
            status: AccountStatus::from_name(&row.get::<_, String>(2)?)?,
            role: role(&row.get::<_, String>(3)?)?,
        });
    }
    Ok(memberships)
}

/// What an active user is in an account now.
pub fn role_of(connection: &Connection, account: AccountId, user: UserId) -> Result<Option<Role>, StoreError> {
    let found: Option<String> = connection
        .prepare_cached(
            "select members.role from members join users on users.id = members.user_id
             where members.account = ?1 and members.user_id = ?2 and users.status = 'active'",
        )?
        .query_row((account.0, user.0), |row| row.get(0))
        .optional()?;
    found.map(|name| role(&name)).transpose()
}

/// Makes a user a member.
pub fn add(
    connection: &Connection,
    account: AccountId,
    user: UserId,
    role: Role,
    now: Timestamp,
) -> Result<Member, StoreError> {
    if find(connection, account, user)?.is_some() {
        return Err(StoreError::Conflict("the user is a member of the account already".to_owned()));
    }
    let count = |column: &str, id: i64| -> Result<i64, StoreError> {
        let sql = format!("select count(*) from members where {column} = ?1");
        Ok(connection.prepare_cached(&sql)?.query_row([id], |row| row.get(0))?)
    };
    if count("account", account.0)? >= MEMBERS_MAX {
        return Err(StoreError::Refused(format!("an account has at most {MEMBERS_MAX} members")));
    }
    if count("user_id", user.0)? >= i64::from(ACCOUNTS_MAX) {
        return Err(StoreError::Refused(format!("a user is a member of at most {ACCOUNTS_MAX} accounts")));
    }
    connection
        .prepare_cached("insert into members (account, user_id, role, created_at) values (?1, ?2, ?3, ?4)")?
        .execute((account.0, user.0, role.name(), now.0))?;
    find(connection, account, user)?.ok_or_else(|| StoreError::Damaged(format!("member {user} vanished")))
}

/// Gives a member another role; `None` if there is no such member. The last owner stays one.
pub fn change(
    connection: &Connection,
    account: AccountId,
    user: UserId,
    role: Role,
) -> Result<Option<Member>, StoreError> {
    let Some(member) = find(connection, account, user)? else { return Ok(None) };
    if role != Role::Owner {
        refuse_last_owner(connection, account, &member)?;
    }
    connection.prepare_cached("update members set role = ?3 where account = ?1 and user_id = ?2")?.execute((
        account.0,
        user.0,
        role.name(),
    ))?;
    find(connection, account, user)
}

/// Removes a member; false if there is none. The last owner stays.
pub fn remove(connection: &Connection, account: AccountId, user: UserId) -> Result<bool, StoreError> {
    let Some(member) = find(connection, account, user)? else { return Ok(false) };
    refuse_last_owner(connection, account, &member)?;
    connection
        .prepare_cached("delete from members where account = ?1 and user_id = ?2")?
        .execute((account.0, user.0))?;
    Ok(true)
}

fn refuse_last_owner(connection: &Connection, account: AccountId, member: &Member) -> Result<(), StoreError> {
    if member.role != Role::Owner {
        return Ok(());
    }
    let others: i64 = connection
        .prepare_cached("select count(*) from members where account = ?1 and role = 'owner' and user_id <> ?2")?
        .query_row((account.0, member.user.id.0), |row| row.get(0))?;
    if others == 0 {
        return Err(StoreError::Conflict("this is the account's last owner: make somebody else an owner first".into()));
    }
    Ok(())
}

const INVITATION_COLUMNS: &str = "id, account, email, role, created_at, expires_at";

fn read_invitation(row: Row<'_>) -> Result<Invitation, StoreError> {
    Ok(Invitation {
        id: row.get(0)?,
        account: AccountId(row.get(1)?),
        email: row.get(2)?,
        role: role(&row.get::<_, String>(3)?)?,
        created_at: Timestamp(row.get(4)?),
        expires_at: Timestamp(row.get(5)?),
    })
}

/// Invites somebody, in place of an earlier invitation to the same address.
pub fn invite(
    connection: &Connection,
    account: AccountId,
    email: &str,
    role: Role,
    digest: &Digest,
    now: Timestamp,
) -> Result<Invitation, StoreError> {
    let email = users::checked_email(email)?;
    if let Some(user) = users::by_email(connection, &email)?
        && find(connection, account, user.id)?.is_some()
    {
        return Err(StoreError::Conflict(format!("{email:?} is a member of the account already")));
    }
    connection
        .prepare_cached("delete from invitations where account = ?1 and (email = ?2 or expires_at <= ?3)")?
        .execute((account.0, &email, now.0))?;
    let open: i64 = connection
        .prepare_cached("select count(*) from invitations where account = ?1")?
        .query_row([account.0], |row| row.get(0))?;
    if open >= INVITATIONS_MAX {
        return Err(StoreError::Refused(format!(
            "an account has at most {INVITATIONS_MAX} open invitations: withdraw some first"
        )));
    }
    let expires_at = now.plus_ms(INVITATION_LIFE_MS);
    let id = connection
        .prepare_cached(
            "insert into invitations (digest, account, email, role, created_at, expires_at)
             values (?1, ?2, ?3, ?4, ?5, ?6) returning id",
        )?
        .query_row((digest.as_slice(), account.0, &email, role.name(), now.0, expires_at.0), |row| row.get(0))?;
    Ok(Invitation { id, account, email, role, created_at: now, expires_at })
}

/// The invitations of an account that are open, by id.
pub fn invitations(connection: &Connection, account: AccountId, now: Timestamp) -> Result<Vec<Invitation>, StoreError> {
    let mut statement = connection.prepare_cached(&format!(
        "select {INVITATION_COLUMNS} from invitations where account = ?1 and expires_at > ?2 order by id limit ?3"
    ))?;
    let mut rows = statement.query((account.0, now.0, INVITATIONS_MAX))?;
    let mut invitations = Vec::new();
    while let Some(row) = rows.next()? {
        invitations.push(read_invitation(row)?);
    }
    Ok(invitations)
}

/// The invitation with that secret, if it is still good.
pub fn invitation(connection: &Connection, digest: &Digest, now: Timestamp) -> Result<Option<Invitation>, StoreError> {
    let mut statement = connection.prepare_cached(&format!(
        "select {INVITATION_COLUMNS} from invitations where digest = ?1 and expires_at > ?2"
    ))?;
    let mut rows = statement.query((digest.as_slice(), now.0))?;
    rows.next()?.map(read_invitation).transpose()
}

/// Takes an account's invitation back; false if there is none.
pub fn withdraw(connection: &Connection, account: AccountId, id: i64) -> Result<bool, StoreError> {
    let withdrawn = connection
        .prepare_cached("delete from invitations where account = ?1 and id = ?2")?
        .execute((account.0, id))?;
    Ok(withdrawn > 0)
}

/// Takes the invitation with that secret, if it is still good: nobody takes it again.
pub fn take_invitation(
    connection: &Connection,
    digest: &Digest,
    now: Timestamp,
) -> Result<Option<Invitation>, StoreError> {
    let found = invitation(connection, digest, now)?;
    connection.prepare_cached("delete from invitations where digest = ?1")?.execute([digest.as_slice()])?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::projects::{self, ProjectChange, ProjectStatus};
    use crate::testing::databases;
    use crate::users::{UserChange, UserStatus};
    use crate::{accounts, keys};
    use domain::ProjectId;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    type Test = fn(&Connection, [AccountId; 2], [UserId; 2]) -> Result<(), StoreError>;

    /// On each database: what two users and two accounts do.
    async fn with_two(test: Test) {
        for scratch in databases() {
            let done = scratch.database.write(move |tx| {
                let accounts = [accounts::create(tx, "ours", NOW)?.id, accounts::create(tx, "theirs", NOW)?.id];
                let ann = users::create(tx, "ann@example.com", "Ann", NOW)?.id;
                let bob = users::create(tx, "bob@example.com", "Bob", NOW)?.id;
                test(tx, accounts, [ann, bob])
            });
            done.await.unwrap();
        }
    }

    #[tokio::test]
    async fn members_have_roles_and_one_owner_stays() {
        with_two(|connection, [ours, theirs], [ann, bob]| {
            let conflicts = |result: Result<(), StoreError>| matches!(result, Err(StoreError::Conflict(_)));
            add(connection, ours, ann, Role::Owner, NOW)?;
            add(connection, ours, bob, Role::Viewer, NOW)?;
            add(connection, theirs, ann, Role::Member, NOW)?;
            assert!(conflicts(add(connection, ours, ann, Role::Admin, NOW).map(drop)));
            assert_eq!(list(connection, ours, UserId(0), 10)?.len(), 2);
            assert_eq!(list(connection, ours, ann, 10)?[0].user.id, bob);
            let roles: Vec<_> = of_user(connection, ann)?.into_iter().map(|mine| (mine.account, mine.role)).collect();
            assert_eq!(roles, [(ours, Role::Owner), (theirs, Role::Member)]);
            assert!(conflicts(change(connection, ours, ann, Role::Admin).map(drop)));
            assert!(conflicts(remove(connection, ours, ann).map(drop)));
            assert_eq!(change(connection, theirs, bob, Role::Admin)?, None);
            change(connection, ours, bob, Role::Owner)?;
            assert!(remove(connection, ours, ann)? && !remove(connection, ours, ann)?);
            assert_eq!((role_of(connection, ours, ann)?, role_of(connection, ours, bob)?), (None, Some(Role::Owner)));
            let blocked = UserChange { status: Some(UserStatus::Blocked), ..UserChange::default() };
            users::change(connection, bob, &blocked)?;
            assert_eq!(role_of(connection, ours, bob)?, None);
            Ok(())
        })
        .await;
    }

    #[tokio::test]
    async fn s_42_invitations_and_tokens_are_good_once_and_for_a_while() {
        with_two(|connection, [ours, theirs], [ann, _]| {
            let first = invite(connection, ours, "Eve@example.com", Role::Viewer, &[1; 32], NOW)?;
            let second = invite(connection, ours, "eve@example.com", Role::Admin, &[2; 32], NOW)?;
            invite(connection, theirs, "eve@example.com", Role::Owner, &[3; 32], NOW)?;
            assert_eq!(invitation(connection, &[1; 32], NOW)?, None, "another took its place");
            assert_eq!(invitation(connection, &[2; 32], NOW)?, Some(second.clone()));
            assert_eq!(invitation(connection, &[2; 32], NOW.plus_ms(INVITATION_LIFE_MS))?, None);
            assert_eq!(invitations(connection, ours, NOW)?, std::slice::from_ref(&second));
            assert!(!withdraw(connection, theirs, second.id)?, "S-01");
            assert!(!withdraw(connection, ours, first.id)?, "its id is not another's");
            assert!(withdraw(connection, ours, second.id)? && !withdraw(connection, ours, second.id)?);
            let take = |now| take_invitation(connection, &[3; 32], now);
            assert_eq!(take(NOW)?.map(|taken| (taken.account, taken.role)), Some((theirs, Role::Owner)));
            assert_eq!(take(NOW)?, None);

            let of_token = |digest: u8, now| users::by_password_token(connection, &[digest; 32], now);
            users::allow_password(connection, ann, &[4; 32], NOW)?;
            users::allow_password(connection, ann, &[5; 32], NOW)?;
            assert!(of_token(4, NOW)?.is_none() && of_token(5, NOW)?.is_some());
            assert!(of_token(5, NOW.plus_ms(users::PASSWORD_TOKEN_LIFE_MS))?.is_none());
            users::set_password(connection, ann, "digest")?;
            assert!(of_token(5, NOW)?.is_none());
            assert_eq!(users::password(connection, ann)?.as_deref(), Some("digest"));
            assert!(users::by_email(connection, " ANN@example.com")?.is_some_and(|user| user.has_password));
            Ok(())
        })
        .await;
    }

    #[tokio::test]
    async fn keys_are_in_projects_of_their_own_account() {
        with_two(|connection, [ours, theirs], [ann, _]| {
            let project = projects::create(connection, ours, "p", NOW)?;
            projects::create(connection, theirs, "p", NOW)?;
            assert!(matches!(projects::create(connection, ours, "p", NOW), Err(StoreError::Conflict(_))));
            assert_eq!(projects::list(connection, Some(ours), ProjectId(0), 10)?, std::slice::from_ref(&project));
            assert_eq!(projects::list(connection, None, project.id, 10)?.len(), 1);
            let new = keys::NewKey {
                name: "k".to_owned(),
                project: Some(project.id),
                role: Some(Role::Member),
                made_by: Some(ann),
                ..keys::NewKey::default()
            };
            assert!(keys::create(connection, theirs, &new, "hint", &[1; 32], NOW).is_err());
            let key = keys::create(connection, ours, &new, "hint", &[2; 32], NOW)?;
            assert_eq!((key.project, key.role, key.made_by), (new.project, new.role, new.made_by));
            assert_eq!(keys::count(connection, ours)?, 1);
            let archived = ProjectChange { status: Some(ProjectStatus::Archived), ..ProjectChange::default() };
            projects::change(connection, project.id, &archived)?;
            assert!(keys::create(connection, ours, &new, "hint", &[3; 32], NOW).is_err());
            let free = keys::KeyChange {
                project: Some(None),
                role: Some(None),
                made_by: Some(None),
                ..keys::KeyChange::default()
            };
            let key = keys::change(connection, key.id, &free)?.expect("it is there");
            assert_eq!((key.project, key.role, key.made_by), (None, None, None));
            let owner = keys::KeyChange { role: Some(Some(Role::Owner)), ..keys::KeyChange::default() };
            assert!(keys::change(connection, key.id, &owner).is_err());
            Ok(())
        })
        .await;
    }
}
