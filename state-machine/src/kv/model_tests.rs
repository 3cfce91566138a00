//! Random commands against a map of the standard library, on both engines: every result, and every snapshot that is taken on the way
//! and read while more is applied.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::tests::{dump, entries};
use super::*;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Clone)]
enum Step {
    /// Applies a batch.
    Apply(Vec<Command>),
    /// Lists what comes after a key.
    List(Bytes),
    /// Begins a snapshot.
    Pin,
    /// Reads so much of the oldest one that is not read to its end.
    Read(usize),
    /// Makes it durable.
    Sync,
    /// Restores the newest snapshot that was read to its end.
    Restore,
    /// Closes and opens it again.
    Reopen,
    /// Opens it as it was when it was synced last.
    Die,
}

fn key() -> impl Strategy<Value = Bytes> {
    (0_u8..5).prop_map(|number| Bytes::from(vec![b'k', number]))
}

fn value() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        Just(Bytes::new()),
        (0_u8..20).prop_map(|number| Bytes::from(number.to_string())),
        prop::collection::vec(any::<u8>(), 0..9).prop_map(Bytes::from),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        2 => (key(), value()).prop_map(|(key, value)| Command::Put { key, value }),
        1 => key().prop_map(|key| Command::Del { key }),
        2 => (key(), -9_i64..9).prop_map(|(key, by)| Command::Incr { key, by }),
        1 => key().prop_map(|key| Command::Get { key }),
        3 => (key(), prop::option::of(value()), value())
            .prop_map(|(key, expected, value)| Command::Cas { key, expected, value }),
        3 => (key(), value()).prop_map(|(key, value)| Command::Append { key, value }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => prop::collection::vec(command(), 1..8).prop_map(Step::Apply),
        2 => key().prop_map(Step::List),
        2 => Just(Step::Pin),
        4 => (1_usize..40).prop_map(Step::Read),
        1 => Just(Step::Sync),
        1 => Just(Step::Restore),
        1 => Just(Step::Reopen),
        1 => Just(Step::Die),
    ];
    prop::collection::vec(step, 1..60)
}

/// What the table in [`command`] says, and no more.
fn run(model: &mut Model, command: &Command) -> CommandResult {
    let present = model.get(&command.key()[..]).cloned();
    let done = |answer: &[u8]| CommandResult::Done(Bytes::copy_from_slice(answer));
    match command {
        Command::Put { key, value } => {
            model.insert(key.to_vec(), value.to_vec());
            done(b"")
        }
        Command::Del { key } => done(if model.remove(&key[..]).is_some() { b"1" } else { b"0" }),
        Command::Get { .. } => match present {
            None => done(&[0]),
            Some(value) => done(&[&[1], &value[..]].concat()),
        },
        Command::Incr { key, by } => {
            let number = present.as_deref().map_or(Some("0"), |value| str::from_utf8(value).ok());
            let Some(number) = number.and_then(|text| text.parse::<i64>().ok()) else {
                return refused("INCR: the value is not a whole number of 64 bits");
            };
            let sum = (number + by).to_string();
            model.insert(key.to_vec(), sum.clone().into());
            done(sum.as_bytes())
        }
        Command::Cas { key, expected, value } => match present {
            present if present.as_deref() == expected.as_deref() => {
                model.insert(key.to_vec(), value.to_vec());
                done(&[2])
            }
            None => done(&[0]),
            Some(value) => done(&[&[1], &value[..]].concat()),
        },
        Command::Append { key, value } => {
            let grown = [&present.unwrap_or_default()[..], value].concat();
            let bytes = grown.len().to_string();
            model.insert(key.to_vec(), grown);
            done(bytes.as_bytes())
        }
        Command::List(_) => unreachable!("not among the commands"),
    }
}

/// The body of a snapshot of that state.
fn body_of(model: &Model) -> Vec<u8> {
    let pair = |(key, value): (&Vec<u8>, &Vec<u8>)| {
        Ok((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)))
    };
    let pairs: Vec<_> = model.iter().map(pair).collect();
    let mut body = Vec::new();
    DumpReader::new(Box::new(pairs.into_iter())).read_to_end(&mut body).unwrap();
    body
}

/// A snapshot that is being read, and what it must turn out to be.
struct Pinned {
    reader: Box<dyn Read + Send>,
    read: Vec<u8>,
    model: Model,
    index: u64,
}

/// A machine, what it must hold, and how to open it again.
struct Checked<E, F> {
    machine: Option<Kv<E>>,
    open: F,
    model: Model,
    index: u64,
    pinned: Vec<Pinned>,
    whole: Option<(Vec<u8>, Model, u64)>,
    /// As it was when it was synced last; none of a machine that nothing survives.
    synced: Option<(Model, u64)>,
}

impl<E: Engine, F: Fn(Option<Kv<E>>) -> Kv<E>> Checked<E, F> {
    fn new(open: F, survives: bool) -> Self {
        let machine = Some(open(None));
        let synced = survives.then(|| (Model::new(), 0));
        Checked {
            machine,
            open,
            model: Model::new(),
            index: 0,
            pinned: Vec::new(),
            whole: None,
            synced,
        }
    }

    fn machine(&mut self) -> &mut Kv<E> {
        self.machine.as_mut().unwrap()
    }

    fn step(&mut self, step: &Step) -> TestCaseResult {
        match step {
            Step::Apply(commands) => self.apply(commands)?,
            Step::List(after) => self.list(after)?,
            Step::Pin => {
                let reader = self.machine().snapshot().unwrap();
                let (model, index) = (self.model.clone(), self.index);
                self.pinned.push(Pinned { reader, read: Vec::new(), model, index });
            }
            Step::Read(bytes) => self.read(*bytes)?,
            Step::Sync => self.sync(),
            Step::Restore => self.restore(),
            Step::Reopen => {
                self.sync();
                self.reopen();
            }
            Step::Die => {
                if let Some((model, index)) = self.synced.clone() {
                    self.reopen();
                    (self.model, self.index) = (model, index);
                }
            }
        }
        prop_assert_eq!(self.machine().applied().index, self.index);
        Ok(())
    }

    fn sync(&mut self) {
        self.machine().sync().unwrap();
        self.is_synced();
    }

    fn is_synced(&mut self) {
        if let Some(synced) = &mut self.synced {
            *synced = (self.model.clone(), self.index);
        }
    }

    fn reopen(&mut self) {
        // Its snapshots die with the process.
        self.pinned.clear();
        self.machine = Some((self.open)(self.machine.take()));
    }

    fn apply(&mut self, commands: &[Command]) -> TestCaseResult {
        let encoded: Vec<Bytes> =
            commands.iter().map(|command| command.encode().unwrap()).collect();
        let encoded: Vec<&[u8]> = encoded.iter().map(|command| &command[..]).collect();
        let results = self.machine().apply(&entries(&encoded)).unwrap();
        for (command, result) in commands.iter().zip(&results) {
            prop_assert_eq!(result, &run(&mut self.model, command), "{:?}", command);
        }
        self.index += results.len() as u64;
        Ok(())
    }

    fn list(&mut self, after: &Bytes) -> TestCaseResult {
        let range = list::Range { after: after.clone(), ..list::Range::of_prefix(Bytes::new()) };
        let query = Command::List(range).encode().unwrap();
        let answer = self.machine().query(&query).unwrap();
        let CommandResult::Done(answer) = answer else { panic!("{answer:?}") };
        let above = self.model.range((Bound::Excluded(after.to_vec()), Bound::Unbounded));
        let pairs = above.map(|(key, value)| (key.clone().into(), Some(value.clone().into())));
        let expected = list::List { pairs: pairs.collect(), more: false };
        prop_assert_eq!(list::decode_list(&answer).unwrap(), expected);
        Ok(())
    }

    fn read(&mut self, bytes: usize) -> TestCaseResult {
        let Some(pinned) = self.pinned.first_mut() else { return Ok(()) };
        let mut piece = vec![0; bytes];
        let got = pinned.reader.read(&mut piece).unwrap();
        pinned.read.extend(&piece[..got]);
        if got == 0 {
            let pinned = self.pinned.remove(0);
            prop_assert_eq!(&pinned.read, &body_of(&pinned.model), "at {}", pinned.index);
            self.whole = Some((pinned.read, pinned.model, pinned.index));
        }
        Ok(())
    }

    fn restore(&mut self) {
        let Some((body, model, index)) = self.whole.take() else { return };
        let machine = self.machine();
        machine.begin_restore().unwrap();
        for piece in body.chunks(7) {
            machine.write_restore(piece).unwrap();
        }
        machine.finish_restore(LogId { term: 2, index }).unwrap();
        (self.model, self.index) = (model, index);
        self.pinned.clear();
        self.is_synced();
    }

    fn end(mut self) -> TestCaseResult {
        while !self.pinned.is_empty() {
            self.read(64)?;
        }
        let body = body_of(&self.model);
        prop_assert_eq!(dump(self.machine()), body.clone());
        self.step(&Step::Reopen)?;
        prop_assert_eq!(dump(self.machine()), body);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn in_memory_it_does_what_a_map_does(steps in steps()) {
        let open = |old: Option<Kv<MemoryEngine>>| old.unwrap_or_else(|| Kv::new(MemoryEngine::new()));
        let mut checked = Checked::new(open, false);
        for step in &steps {
            checked.step(step)?;
        }
        checked.end()?;
    }

    #[test]
    fn on_disk_it_does_what_a_map_does(steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        let open = |old: Option<Kv<DiskEngine>>| {
            drop(old);
            Kv::new(DiskEngine::open(directory.path()).unwrap())
        };
        let mut checked = Checked::new(open, true);
        for step in &steps {
            checked.step(step)?;
        }
        checked.end()?;
    }
}
