//! Which node is meant by what somebody typed.

use raft_client::MemberStatus;

/// Why nobody is meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameError {
    /// Nothing fits.
    #[error("no node has a name, id or address that begins with \"{text}\"; there are: {known}")]
    Nobody {
        /// What was typed.
        text: String,
        /// Who there is.
        known: String,
    },
    /// Too much fits.
    #[error("\"{text}\" may be any of: {meant}; say more of its id or address")]
    Ambiguous {
        /// What was typed.
        text: String,
        /// Whom it fits.
        meant: String,
    },
}

/// Finds the node whose name, id or address is `text`, or else the only one of which one of these begins so. Nodes that have
/// left, or whose raft has not registered, are not meant.
///
/// # Errors
/// Nobody is meant, or several are.
pub(crate) fn find(members: &[MemberStatus], text: &str) -> Result<u64, NameError> {
    let there: Vec<&MemberStatus> = members
        .iter()
        .filter(|member| !member.id.is_empty())
        .filter(|member| member.configured != "none" || member.state == "alive")
        .collect();
    let called = |fits: fn(&str, &str) -> bool| -> Vec<&MemberStatus> {
        let is_meant = |member: &&&MemberStatus| {
            [&member.name, &member.id, &member.raft_address].iter().any(|of| fits(of, text))
        };
        there.iter().filter(is_meant).copied().collect()
    };
    let exact = called(|of, text| of == text);
    let meant = if exact.is_empty() { called(|of, text| of.starts_with(text)) } else { exact };
    match meant[..] {
        [one] => id_of(&one.id),
        [] => Err(NameError::Nobody { text: text.to_owned(), known: list(&there) }),
        _ => Err(NameError::Ambiguous { text: text.to_owned(), meant: list(&meant) }),
    }
}

/// An id as the nodes write it.
///
/// # Errors
/// It is none.
pub(crate) fn id_of(id: &str) -> Result<u64, NameError> {
    let nobody = |_no_number| NameError::Nobody { text: id.to_owned(), known: "none".to_owned() };
    u64::from_str_radix(id, 16).map_err(nobody)
}

fn list(members: &[&MemberStatus]) -> String {
    let one = |member: &&MemberStatus| {
        format!("{} ({}, {})", member.name, member.id, member.raft_address)
    };
    members.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, id: &str, port: u16, configured: &str, state: &str) -> MemberStatus {
        MemberStatus {
            name: name.to_owned(),
            id: id.to_owned(),
            state: state.to_owned(),
            configured: configured.to_owned(),
            raft_address: format!("host:{port}"),
            gossip_address: String::new(),
            http_address: String::new(),
        }
    }

    #[test]
    fn a_node_is_meant_by_a_name_an_id_an_address_or_how_only_one_of_them_begins() {
        let members = [
            member("node1", "00000000000000a1", 6004, "voter", "alive"),
            member("node2", "0b000000000000a2", 6014, "voter", "unseen"),
            member("node22", "0c000000000000a3", 6024, "learner", "alive"),
            member("gone", "0d000000000000a4", 6034, "none", "left"),
            member("new", "", 6044, "none", "alive"),
        ];
        for (text, expected) in [
            ("node1", Some(0xa1)),
            ("node2", Some(0x0b00_0000_0000_00a2)),
            ("node22", Some(0x0c00_0000_0000_00a3)),
            ("00", Some(0xa1)),
            ("0c", Some(0x0c00_0000_0000_00a3)),
            ("host:6014", Some(0x0b00_0000_0000_00a2)),
            ("host:602", Some(0x0c00_0000_0000_00a3)),
            ("node", None),
            ("0", None),
            ("host", None),
            ("gone", None),
            ("new", None),
            ("elsewhere", None),
        ] {
            assert_eq!(find(&members, text).ok(), expected, "{text}");
        }
        let error = find(&members, "node").unwrap_err().to_string();
        assert!(error.contains("node22") && error.contains("host:6014"), "{error}");
    }
}
