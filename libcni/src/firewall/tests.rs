use super::*;
use crate::kernel::nft::tidy;

fn net(name: &str) -> NetName {
    NetName::parse(name).unwrap()
}

fn attachment(id: &str) -> Attachment {
    Attachment {
        container_id: id.try_into().unwrap(),
        ifname: "eth0".try_into().unwrap(),
    }
}

#[test]
fn an_owner_is_readable_and_fits_a_comment() {
    assert_eq!(owner(&net("cbr0"), &attachment("0123")), "cbr0 0123 eth0");
    let (long, longer) = ("n".repeat(41), "n".repeat(42));
    let id = "c".repeat(300);
    for name in [&long, &longer] {
        let owner = owner(&net(name), &attachment(&id));
        assert!(
            owner.len() <= crate::kernel::nft::COMMENT_MAX_BYTES,
            "{owner}"
        );
        assert!(is_of_network(&owner, &net(name)));
    }
    assert!(!is_of_network(
        &owner(&net(&long), &attachment("c")),
        &net(&longer)
    ));
    assert!(!is_of_network("cbr0 0123 eth0", &net("cbr")));
    assert!(!is_of_network("cbr0 0123 eth0", &net("0123")));
    assert!(!is_of_network("", &net("cbr0")));
}

#[test]
fn short_text_is_left_alone() {
    assert_eq!(shortened("abc", 3), "abc");
    let text = "x".repeat(41);
    let short = shortened(&text, 40);
    assert_eq!(short.len(), 40);
    assert_eq!(
        short,
        format!("{}_{}", "x".repeat(23), sha512::hex(&text, 16))
    );
}

#[test]
fn errors_say_what_to_do() {
    let error = |errno| {
        FirewallError::kernel(
            "masquerade network n",
            NlError::new("add chain net/n", errno),
        )
    };
    for (errno, code, remedy) in [
        (Errno::EPERM as i32, Code::Internal, "CAP_NET_ADMIN"),
        (Errno::EOPNOTSUPP as i32, Code::Internal, "Linux 5.2"),
        (Errno::EBUSY as i32, Code::TryAgain, "try again"),
        (85, Code::TryAgain, "try again"),
        (Errno::ENOMEM as i32, Code::Internal, "ENOMEM"),
    ] {
        let shown = CniError::from(error(errno));
        assert_eq!(shown.code, code);
        assert!(shown.details.contains(remedy), "{shown}");
        assert!(
            shown
                .msg
                .starts_with("masquerade network n: add chain net/n: "),
            "{shown}"
        );
    }
}

#[test]
fn a_lost_race_is_run_again_but_not_for_ever() {
    let mut tries = Vec::new();
    let outcome = settle("x", |attempt| {
        tries.push(attempt);
        Err::<(), _>(NlError::new("y", Errno::EEXIST as i32))
    });
    assert!(outcome.unwrap_err().is_transient());
    assert_eq!(tries, (1..=16).collect::<Vec<_>>());
    let mut tries = 0;
    let outcome = settle("x", |_| {
        tries += 1;
        if tries < 3 {
            Err(NlError::new("y", 85))
        } else {
            Ok(tries)
        }
    });
    assert_eq!(outcome.unwrap(), 3);
    settle("x", |attempt| {
        assert_eq!(attempt, 1, "EPERM is no race");
        Err::<(), _>(NlError::new("y", Errno::EPERM as i32))
    })
    .unwrap_err();
}

#[test]
fn tidying_up_leaves_to_others_what_they_keep_using_and_nothing_else() {
    let ends_with = |errno| tidy(|| Err(NlError::new("y", errno as i32)));
    ends_with(Errno::EBUSY).unwrap();
    assert!(ends_with(Errno::ENOBUFS).unwrap_err().is(Errno::ENOBUFS));
}
