use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::rpc::client::SESSION_WINDOW;

const NO_TIME: u64 = 0;

fn open() -> Command {
    open_for(0)
}

fn open_for(ttl_ms: u64) -> Command {
    Command { body: Command::ttl_body(ttl_ms), ..of_kind(Kind::OpenSession, 0) }
}

fn of_kind(kind: Kind, session: u64) -> Command {
    let (time_ms, sequence, acked_below) = (NO_TIME, 0, 0);
    Command { kind, time_ms, session, sequence, acked_below, body: Bytes::new() }
}

fn command(session: u64, sequence: u64, acked_below: u64) -> Command {
    Command { sequence, acked_below, ..of_kind(Kind::Apply, session) }
}

fn at(time_ms: u64, command: Command) -> Command {
    Command { time_ms, ..command }
}

fn name(session: u64, sequence: u64) -> Name {
    Name { session, sequence }
}

fn with_session_at_1() -> Sessions {
    let mut sessions = Sessions::default();
    assert_eq!(sessions.fold(Index(1), &open()), Verdict::Opened);
    sessions
}

#[test]
fn a_number_applies_once_in_any_order_of_arrival() {
    let mut sessions = with_session_at_1();
    assert_eq!(sessions.fold(Index(2), &command(1, 5, 1)), Verdict::Apply);
    assert_eq!(sessions.fold(Index(3), &command(1, 3, 1)), Verdict::Apply);
    let again = sessions.fold(Index(4), &command(1, 5, 1));
    assert_eq!(again, Verdict::Duplicate { first: Index(2) });
    let again = sessions.fold(Index(5), &command(1, 3, 1));
    assert_eq!(again, Verdict::Duplicate { first: Index(3) });
}

#[test]
fn without_a_session_everything_applies() {
    let mut sessions = Sessions::default();
    for index in 1..4 {
        assert_eq!(sessions.fold(Index(index), &command(0, 1, 0)), Verdict::Apply);
    }
}

#[test]
fn unknown_session_is_never_applied() {
    let mut sessions = with_session_at_1();
    assert_eq!(sessions.fold(Index(2), &command(9, 1, 0)), Verdict::Expired);
    assert_eq!(sessions.fold(Index(3), &of_kind(Kind::RenewSession, 9)), Verdict::Expired);
    assert_eq!(sessions.fold(Index(4), &of_kind(Kind::RenewSession, 0)), Verdict::Expired);
}

#[test]
fn window_is_half_open() {
    let mut sessions = with_session_at_1();
    let cases = [
        (9, Verdict::AlreadyAcknowledged),
        (10, Verdict::Apply),
        (10 + SESSION_WINDOW - 1, Verdict::Apply),
        (10 + SESSION_WINDOW, Verdict::OutsideWindow),
    ];
    for (index, (sequence, verdict)) in (2..).zip(cases) {
        assert_eq!(sessions.fold(Index(index), &command(1, sequence, 10)), verdict, "{sequence}");
    }
    assert_eq!(
        sessions.fold(Index(9), &command(1, 10, 5)),
        Verdict::Duplicate { first: Index(3) },
        "a delayed, lower acked_below takes nothing back"
    );
}

#[test]
fn least_recently_used_session_goes_first() {
    let mut sessions = Sessions::default();
    let full = MAX_SESSIONS as u64;
    for index in 1..=full {
        sessions.fold(Index(index), &open());
    }
    assert_eq!(sessions.fold(Index(full + 1), &command(1, 1, 0)), Verdict::Apply);
    sessions.fold(Index(full + 2), &open());
    assert_eq!(sessions.fold(Index(full + 3), &command(2, 1, 0)), Verdict::Expired);
    assert_eq!(sessions.fold(Index(full + 4), &command(1, 2, 0)), Verdict::Apply);
    assert_eq!(sessions.fold(Index(full + 5), &of_kind(Kind::RenewSession, 3)), Verdict::Renewed);
    sessions.fold(Index(full + 6), &open());
    assert!(sessions.is_open(3) && !sessions.is_open(4), "renewing is a use");
    assert_eq!(sessions.open.len(), MAX_SESSIONS);
    assert_eq!((sessions.last_used.len(), sessions.deadlines.len()), (MAX_SESSIONS, MAX_SESSIONS));
}

#[test]
fn so_many_commands_are_remembered_that_sessions_go_before_there_are_more() {
    let mut sessions = Sessions::default();
    let full = (MAX_REMEMBERED_COMMANDS as u64).div_ceil(SESSION_WINDOW);
    for index in 1..=full + 2 {
        sessions.fold(Index(index), &open());
    }
    let mut index = full + 2;
    for session in 1..=full {
        for sequence in 0..SESSION_WINDOW {
            index += 1;
            sessions.fold(Index(index), &command(session, sequence, 0));
        }
    }
    assert!(sessions.is_open(1) && sessions.remembered == MAX_REMEMBERED_COMMANDS);
    let last = full + 1;
    assert_eq!(sessions.fold(Index(index + 1), &command(last, 1, 0)), Verdict::Apply);
    assert!(!sessions.is_open(full + 2), "used least recently, and remembers nothing");
    assert!(!sessions.is_open(1), "the next");
    assert!(sessions.is_open(2) && sessions.is_open(last));
    assert!(sessions.remembered <= MAX_REMEMBERED_COMMANDS);
}

#[test]
fn a_session_expires_when_log_time_has_passed_it_by_and_not_before() {
    let mut sessions = Sessions::default();
    sessions.fold(Index(1), &at(1_000, open_for(50)));
    assert_eq!(sessions.fold(Index(2), &at(1_050, command(1, 1, 1))), Verdict::Apply);
    assert_eq!(sessions.fold(Index(3), &at(1_100, command(1, 2, 1))), Verdict::Apply);
    assert_eq!(sessions.fold(Index(4), &at(900, command(0, 0, 0))), Verdict::Apply);
    assert_eq!(sessions.fold(Index(5), &at(1_140, command(1, 3, 1))), Verdict::Apply);
    assert_eq!(sessions.fold(Index(6), &at(1_191, command(0, 0, 0))), Verdict::Apply);
    assert!(!sessions.is_open(1), "somebody else's command lets time pass");
    assert_eq!(sessions.fold(Index(7), &at(1_000, command(1, 1, 1))), Verdict::Expired);
    assert_eq!((sessions.remembered, sessions.deadlines.len()), (0, 0));
}

#[test]
fn renewing_is_a_use_and_closing_the_end() {
    let mut sessions = Sessions::default();
    sessions.fold(Index(1), &at(0, open_for(100)));
    let renew = of_kind(Kind::RenewSession, 1);
    assert_eq!(sessions.fold(Index(2), &at(90, renew.clone())), Verdict::Renewed);
    assert_eq!(sessions.fold(Index(3), &at(190, command(1, 1, 1))), Verdict::Apply);
    sessions.keep_result(name(1, 1), Index(3), &Outcome::Done(Bytes::from_static(b"r")));
    let close = of_kind(Kind::CloseSession, 1);
    assert_eq!(sessions.fold(Index(4), &at(190, close.clone())), Verdict::Closed);
    assert_eq!(sessions.fold(Index(5), &at(190, command(1, 1, 1))), Verdict::Expired);
    assert_eq!(sessions.fold(Index(6), &at(190, renew)), Verdict::Expired);
    assert_eq!(sessions.fold(Index(7), &at(190, close)), Verdict::Closed, "it is");
    assert_eq!(sessions.results.bytes(), 0);
}

#[test]
fn time_to_live_is_what_was_asked_for_within_limits() {
    assert_eq!(granted_ttl_ms(0), DEFAULT_TTL_MS);
    assert_eq!(granted_ttl_ms(1), 1);
    assert_eq!(granted_ttl_ms(u64::MAX), MAX_TTL_MS);
    let mut sessions = Sessions::default();
    sessions.fold(Index(1), &of_kind(Kind::OpenSession, 0));
    sessions.fold(Index(2), &open_for(u64::MAX));
    sessions.fold(Index(3), &at(DEFAULT_TTL_MS, command(0, 0, 0)));
    assert!(sessions.is_open(1) && sessions.is_open(2));
    sessions.fold(Index(4), &at(DEFAULT_TTL_MS + 1, command(0, 0, 0)));
    assert!(!sessions.is_open(1) && sessions.is_open(2));
    sessions.fold(Index(5), &at(u64::MAX, command(0, 0, 0)));
    assert!(!sessions.is_open(2));
    sessions.fold(Index(6), &open_for(1));
    sessions.fold(Index(7), &at(u64::MAX, command(0, 0, 0)));
    assert!(sessions.is_open(6), "a clock at its end harms nobody");
}

#[test]
fn results_are_kept_until_acknowledged() {
    let mut sessions = with_session_at_1();
    sessions.fold(Index(2), &command(1, 1, 1));
    let outcome = Outcome::Done(Bytes::from_static(b"41"));
    sessions.keep_result(name(1, 1), Index(2), &outcome);
    sessions.keep_result(name(1, 1), Index(2), &Outcome::AlreadyApplied);
    assert_eq!(sessions.result(name(1, 1), Index(2)), Some(&outcome));
    assert_eq!(sessions.result(name(1, 1), Index(3)), None, "another entry");
    sessions.fold(Index(3), &command(1, 2, 2));
    assert_eq!(sessions.result(name(1, 1), Index(2)), None);
    sessions.keep_result(name(1, 1), Index(2), &outcome);
    assert_eq!(sessions.results.bytes(), 0, "nobody can ask for it");
}

#[test]
fn results_stay_within_their_budget() {
    let mut sessions = with_session_at_1();
    let outcome = Outcome::Done(Bytes::from(vec![0; 1024 * 1024]));
    for index in 2..100 {
        sessions.fold(Index(index), &command(1, index, 1));
        sessions.keep_result(name(1, index), Index(index), &outcome);
        assert!(sessions.results.bytes() <= MAX_RESULT_BYTES);
    }
    assert_eq!(sessions.result(name(1, 2), Index(2)), None);
    assert_eq!(sessions.place(name(1, 2)), Some(Index(2)), "the verdict does not need it");
    assert_eq!(sessions.result(name(1, 99), Index(99)), Some(&outcome));
    let (restored, _) = Sessions::from_image(sessions.image(Index(99), BTreeSet::new()));
    assert_eq!(restored, sessions);
}

#[test]
fn a_table_that_goes_on_does_not_change_its_image() {
    let mut sessions = with_session_at_1();
    sessions.fold(Index(2), &command(1, 1, 1));
    let image = sessions.image(Index(2), BTreeSet::new());
    let before = image.encode();
    sessions.keep_result(name(1, 1), Index(2), &Outcome::Done(Bytes::from_static(b"r")));
    sessions.fold(Index(3), &command(1, 2, 2));
    assert_eq!(image.encode(), before);
}

/// One entry of a random log, and after how many entries the machine's result of it comes.
#[derive(Clone, Debug)]
struct Step {
    command: Command,
    result_after: usize,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        2 => Just(Kind::OpenSession),
        12 => Just(Kind::Apply),
        1 => Just(Kind::RenewSession),
        1 => Just(Kind::CloseSession),
    ];
    let numbers = (0..24u64, 0..12u64, 0..8u64);
    (kind, numbers, 0..400u64, 1..60u64, 0..9usize).prop_map(
        |(kind, (session, sequence, acked_below), time_ms, ttl_ms, result_after)| {
            let mut command = at(time_ms, command(session, sequence, acked_below));
            command.kind = kind;
            match kind {
                Kind::OpenSession => command.body = Command::ttl_body(ttl_ms),
                Kind::RenewSession | Kind::CloseSession => command.body = Bytes::new(),
                Kind::Apply => {}
            }
            Step { command, result_after }
        },
    )
}

/// A node that folds a log and hears the machine's results a little later.
#[derive(Debug, Default, PartialEq)]
struct Node {
    sessions: Sessions,
    passed_over: BTreeSet<Index>,
    verdicts: Vec<Verdict>,
    answers: Vec<Option<Outcome>>,
}

impl Node {
    fn fold(&mut self, index: Index, log: &[Step], due: &[(usize, usize)]) {
        let at = usize::try_from(index.0).unwrap() - 1;
        let command = &log[at].command;
        let verdict = self.sessions.fold(index, command);
        if command.kind == Kind::Apply && verdict != Verdict::Apply {
            self.passed_over.insert(index);
        }
        if let Verdict::Duplicate { first } = verdict {
            let name = Name::new(command.session, command.sequence).unwrap();
            self.answers.push(self.sessions.result(name, first).cloned());
        }
        self.verdicts.push(verdict);
        for (_, applied) in due.iter().filter(|(when, _)| *when == at) {
            let index = Index(*applied as u64 + 1);
            let command = &log[*applied].command;
            if let Some(name) = Name::new(command.session, command.sequence) {
                let result = Outcome::Done(Bytes::from(format!("r{index}")));
                self.sessions.keep_result(name, index, &result);
            }
        }
    }
}

fn image_of(log: &[Step]) -> (Node, Image) {
    let mut node = Node::default();
    for index in 1..=log.len() as u64 {
        node.fold(Index(index), log, &[]);
    }
    let image = node.sessions.image(Index(log.len() as u64), node.passed_over.clone());
    (node, image)
}

proptest! {
    /// The point of it all: whoever loads the table half-way is the same as whoever was there from the start.
    #[test]
    fn a_table_loaded_half_way_goes_on_like_the_one_it_was_made_of(
        mut log in prop::collection::vec(step(), 1..250),
        cut in any::<prop::sample::Index>(),
    ) {
        // A clock that goes on, and sometimes back.
        for (place, step) in log.iter_mut().enumerate() {
            step.command.time_ms += place as u64 * 4;
        }
        let due: Vec<_> =
            log.iter().enumerate().map(|(place, step)| (place + step.result_after, place)).collect();
        let cut = cut.index(log.len()) as u64;
        let (mut through, mut half) = (Node::default(), Node::default());
        for index in 1..=log.len() as u64 {
            through.fold(Index(index), &log, &due);
            half.fold(Index(index), &log, &due);
            if index == cut {
                let bytes = half.sessions.image(Index(index), half.passed_over).encode();
                let image = Image::decode(&bytes).expect("our own");
                prop_assert_eq!(image.folded(), Index(index));
                (half.sessions, half.passed_over) = Sessions::from_image(image);
            }
        }
        prop_assert_eq!(through, half);
    }

    #[test]
    fn foreign_bytes_are_refused_without_a_panic(bytes: Vec<u8>) {
        let _outcome = Image::decode(&bytes);
        let with_version = [&[1, 0], &bytes[..]].concat();
        let _outcome = Image::decode(&with_version);
    }

    /// What a damaged image passes for is a table of its own: it can be used, and written and read again.
    #[test]
    fn a_damaged_image_is_refused_or_a_table_that_holds_together(
        log in prop::collection::vec(step(), 1..60),
        place in any::<prop::sample::Index>(),
        byte: u8,
        cut: bool,
    ) {
        let (node, image) = image_of(&log);
        let mut bytes = image.encode();
        let place = place.index(bytes.len());
        if cut { bytes.truncate(place) } else { bytes[place] = byte }
        if let Ok(read) = Image::decode(&bytes) {
            prop_assert!(!cut, "a cut image is never whole");
            prop_assert_eq!(Image::decode(&read.encode()), Ok(read.clone()));
            let (mut sessions, _) = Sessions::from_image(read);
            let next = Index(node.verdicts.len() as u64 + 1);
            sessions.fold(next, &at(u64::MAX, command(0, 0, 0)));
            prop_assert_eq!((sessions.remembered, sessions.results.bytes()), (0, 0));
        }
    }
}

#[test]
fn nonsense_is_refused_by_its_name() {
    let (_, image) = image_of(&[]);
    let mut bytes = image.encode();
    bytes[0] = 2;
    assert_eq!(Image::decode(&bytes), Err(ImageError::UnknownVersion { version: 2 }));
    let what = |bytes: &[u8]| match Image::decode(bytes) {
        Err(ImageError::Malformed { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    let claims = |sessions: u32, passed_over: u32| {
        let mut bytes = image.encode();
        bytes[18..22].copy_from_slice(&sessions.to_le_bytes());
        bytes[22..26].copy_from_slice(&passed_over.to_le_bytes());
        bytes
    };
    assert_eq!(what(&claims(10_001, 0)), "too many sessions");
    assert_eq!(what(&claims(10_000, 0)), "cut off", "no memory is taken for what is not there");
    assert_eq!(what(&claims(0, u32::MAX)), "cut off");
    assert_eq!(what(&[image.encode(), vec![0]].concat()), "something follows the end");
    assert_eq!(what(&[]), "cut off");
}
