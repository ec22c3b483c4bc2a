//! Roles: what a key may do, in the whole network or with one dataset.
//!
//! Owns: the roles, sets of them, and their encoding. Must not know: who holds which.
//! Invariant: a `RoleSet` holds no role that this version does not know, so that nobody is given a right by a bit
//! whose meaning came later.
//! Trust: decoding checks it. Threads: pure values.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

/// One right. The numbers are bits of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Role {
    /// May read what is not for everybody. Enforced by the nodes that serve it.
    Reader = 1,
    /// May publish, tag and withdraw.
    Publisher = 2,
    /// May store replicas, acknowledge them, and earn a score for it.
    Storage = 4,
    /// May join the validators.
    Validator = 8,
    /// May do all of the above, and decide who else may.
    Admin = 16,
}

impl Role {
    /// All of them, in the order of their bits.
    pub const ALL: [Self; 5] = [Self::Reader, Self::Publisher, Self::Storage, Self::Validator, Self::Admin];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reader => "reader",
            Self::Publisher => "publisher",
            Self::Storage => "storage",
            Self::Validator => "validator",
            Self::Admin => "admin",
        })
    }
}

/// A text that is no role: the user's mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a role: use reader, publisher, storage, validator or admin")]
pub struct ParseRoleError(String);

impl FromStr for Role {
    type Err = ParseRoleError;

    fn from_str(text: &str) -> Result<Self, ParseRoleError> {
        let found = Self::ALL.into_iter().find(|role| role.to_string() == text);
        found.ok_or_else(|| ParseRoleError(text.chars().take(80).filter(|c| !c.is_control()).collect()))
    }
}

/// Some of the roles. Encoded as the sum of their bits.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct RoleSet(u8);

impl RoleSet {
    /// No right at all: what everybody has, and what is left after everything was taken away.
    pub const NONE: Self = Self(0);

    /// Whether `role` is one of them, or all are, as an admin's are.
    pub fn allows(self, role: Role) -> bool {
        self.has(role) || self.has(Role::Admin)
    }

    /// Whether exactly this role is in the set.
    pub fn has(self, role: Role) -> bool {
        self.0 & role as u8 != 0
    }

    /// These and `role`.
    #[must_use]
    pub fn with(self, role: Role) -> Self {
        Self(self.0 | role as u8)
    }

    /// In the order of their bits.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.has(*role))
    }
}

impl FromIterator<Role> for RoleSet {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        roles.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Display for RoleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.iter().map(|role| role.to_string()).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join(", "))
    }
}

impl fmt::Debug for RoleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RoleSet({self})")
    }
}

impl<C> Encode<C> for RoleSet {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.u8(self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for RoleSet {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let bits = d.u8()?;
        let known = Role::ALL.into_iter().collect::<Self>().0;
        match bits & !known {
            0 => Ok(Self(bits)),
            _ => Err(decode::Error::message("a role that this version of bcai does not know; upgrade bcai")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn an_admin_may_do_everything_and_others_what_they_were_given() {
        let storage = RoleSet::NONE.with(Role::Storage);
        assert_eq!(
            Role::ALL.map(|role| storage.allows(role)),
            [false, false, true, false, false],
            "storage alone"
        );
        assert!(Role::ALL.iter().all(|role| RoleSet::NONE.with(Role::Admin).allows(*role)));
        assert!(!Role::ALL.iter().any(|role| RoleSet::NONE.allows(*role)));
    }

    #[test]
    fn names_round_trip_and_unknown_bits_are_refused() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().unwrap_err().to_string().contains("`root` is not a role"));
        let both: RoleSet = [Role::Reader, Role::Admin].into_iter().collect();
        assert_eq!(
            (both.to_string().as_str(), RoleSet::NONE.to_string().as_str()),
            ("reader, admin", "none")
        );
        assert_eq!(codec::decode("roles", &codec::encode(&both), 9), Ok(both));
        assert!(codec::decode::<RoleSet>("roles", &codec::encode(&32u8), 9).is_err());
    }
}
