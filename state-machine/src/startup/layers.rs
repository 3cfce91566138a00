//! Puts the layers on top of each other.
//!
//! Clap parses them all, so that a value means the same wherever it is written: what file and preset say is put before the
//! flags, as flags, for those settings that neither flag nor variable gives.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use super::file::File;
use super::{Layered, Preset, SettingError, Source, Sources};

/// Settings that fit together.
#[derive(Debug)]
pub struct Loaded<S: Layered> {
    /// What the process works with.
    pub config: S::Config,
    /// The settings it was made of, derived defaults filled in.
    pub settings: S,
    /// Where each comes from.
    pub sources: Sources,
    pub(super) arguments: Vec<OsString>,
}

/// Parses a number within `range`; for clap's `value_parser`. Name the type, `within::<u32>(1..=9)`: it must be the field's.
pub fn within<T>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + Display + Clone + Send + Sync + 'static,
{
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("must be {} to {}", range.start(), range.end()))
    }
}

/// Reads the settings from all places and checks them. The first of `arguments` is the program's name.
///
/// # Errors
/// Names the setting, its value, what it may be, and where it was said.
pub fn load<S: Layered>(
    arguments: impl IntoIterator<Item = impl Into<OsString>>,
) -> Result<Loaded<S>, SettingError> {
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let command = command::<S>();
    let given = parse(&command, &arguments, |arg| upper_source(arg, &arguments))?;
    let file = given.get_one("config").map(|path: &PathBuf| File::read(path)).transpose()?;
    if let Some(file) = &file {
        file.check_keys(&command)?;
    }
    let lower = Lower { file: file.as_ref(), preset: preset::<S>(&given, file.as_ref()) };
    let mut sources = Sources::default();
    let mut all = arguments.clone();
    let flags_begin = all.len().min(1);
    for arg in settings(&command) {
        let key = arg.get_id().as_str();
        let (source, texts) = match given.value_source(key) {
            Some(ValueSource::CommandLine | ValueSource::EnvVariable) => {
                (upper_source(arg, &arguments), Vec::new())
            }
            _ => lower.find(key)?,
        };
        let said = texts.iter().map(|text| OsString::from(format!("{}={text}", flag(arg))));
        all.splice(flags_begin..flags_begin, said);
        sources.0.insert(key.to_owned(), source);
    }
    let matches = parse(&command, &all, |arg| sources.of(arg.get_id().as_str()).clone())?;
    let mut settings = S::from_arg_matches(&matches).map_err(SettingError::Usage)?;
    let config = settings.check(&sources)?;
    Ok(Loaded { config, settings, sources, arguments })
}

/// Those arguments that can be said in a file.
pub(super) fn settings(command: &Command) -> impl Iterator<Item = &Arg> {
    const OTHERS: [&str; 2] = ["config", "print_config"];
    command.get_arguments().filter(|arg| !OTHERS.contains(&arg.get_id().as_str()))
}

/// What the program takes. An empty variable, as compose files make them, is one that is not set.
pub(super) fn command<S: Layered>() -> Command {
    let value_of = |name: &OsStr| std::env::var_os(name).unwrap_or_default();
    S::command().mut_args(|arg| match arg.get_env() {
        Some(name) if !value_of(name).is_empty() => arg,
        Some(_) if arg.get_id() == "log" && !value_of(OsStr::new("RUST_LOG")).is_empty() => {
            arg.env("RUST_LOG")
        }
        Some(name) if std::env::var_os(name).is_some() => arg.env(None::<&'static str>),
        _ => arg,
    })
}

/// The two layers that clap does not know.
#[derive(Clone, Copy)]
struct Lower<'a> {
    file: Option<&'a File>,
    preset: Option<&'static Preset>,
}

impl Lower<'_> {
    /// Who says something about `key`, and what; more than one text for a list.
    fn find(self, key: &str) -> Result<(Source, Vec<String>), SettingError> {
        if let Some(said) = self.file.and_then(|file| file.texts(key)) {
            return said;
        }
        let Some(preset) = self.preset else { return Ok((Source::Default, Vec::new())) };
        let value = preset.values.iter().find(|(name, _)| *name == key);
        Ok(value.map_or((Source::Default, Vec::new()), |(_, value)| {
            (Source::Preset(preset.name), vec![(*value).to_owned()])
        }))
    }
}

/// The preset that is asked for. An unknown name is none; it is refused as a value of its own setting.
fn preset<S: Layered>(given: &ArgMatches, file: Option<&File>) -> Option<&'static Preset> {
    let is_given = |source| source != ValueSource::DefaultValue;
    let named = |name: &OsStr| S::PRESETS.iter().find(|preset| name == preset.name);
    if S::PRESETS.is_empty() {
        None
    } else if given.value_source("preset").is_some_and(is_given) {
        given.get_raw("preset")?.next().and_then(named)
    } else {
        named(OsStr::new(file?.texts("preset")?.ok()?.1.first()?))
    }
}

/// For a setting that a flag or a variable gives: which of them.
fn upper_source(arg: &Arg, arguments: &[OsString]) -> Source {
    let flag = flag(arg);
    let is_it = |word: &OsString| word.to_string_lossy().split('=').next() == Some(&*flag);
    match arg.get_env() {
        Some(name) if !arguments.iter().any(is_it) => {
            Source::Environment(name.to_string_lossy().into_owned())
        }
        _ => Source::Flag(flag),
    }
}

fn flag(arg: &Arg) -> String {
    format!("--{}", arg.get_long().unwrap_or_default())
}

fn parse(
    command: &Command,
    arguments: &[OsString],
    source_of: impl Fn(&Arg) -> Source,
) -> Result<ArgMatches, SettingError> {
    let matches = command.clone().try_get_matches_from(arguments);
    matches.map_err(|error| explain(error, command, source_of))
}

/// Clap's word on a value, with its source; all else, such as a flag that there is not, it says well itself.
fn explain(
    error: clap::Error,
    command: &Command,
    source_of: impl Fn(&Arg) -> Source,
) -> SettingError {
    let text_of = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text),
        _ => None,
    };
    let named = text_of(ContextKind::InvalidArg).and_then(|shown| {
        let is_part = |c: char| c == '-' || c.is_ascii_alphanumeric();
        let end = shown.find(|c| !is_part(c)).unwrap_or(shown.len());
        settings(command).find(|arg| flag(arg) == shown[..end])
    });
    let Some(arg) = named else { return SettingError::Usage(error) };
    let source_of_value = source_of(arg);
    let reason = match (error.source(), error.get(ContextKind::ValidValue), &source_of_value) {
        (Some(reason), _, _) => reason.to_string(),
        (None, Some(ContextValue::Strings(names)), _) if !names.is_empty() => {
            format!("must be {}", names.join(" or "))
        }
        (None, _, Source::Flag(_)) => return SettingError::Usage(error),
        (None, _, _) => "there may be one value only".to_owned(),
    };
    let value = match text_of(ContextKind::InvalidValue) {
        Some(_) if arg.is_hide_env_values_set() => "(not shown)".to_owned(),
        Some(number) if number.parse::<f64>().is_ok() => number.clone(),
        text => format!("{:?}", text.map_or("", String::as_str)),
    };
    let key = arg.get_id().to_string();
    SettingError::Value { key, value, reason, source_of_value }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::{Parser, ValueEnum};
    use serde::Serialize;

    use super::*;
    use crate::startup::Common;

    #[derive(Clone, Copy, Debug, Default, PartialEq, ValueEnum, Serialize)]
    #[serde(rename_all = "lowercase")]
    enum Pace {
        #[default]
        Default,
        Slow,
    }

    #[derive(Debug, Parser, Serialize)]
    struct Clock {
        #[arg(long)]
        #[serde(skip)]
        config: Option<PathBuf>,
        #[arg(long, value_enum, default_value_t)]
        preset: Pace,
        #[arg(long, default_value_t = 10, value_parser = within(1..=100u32))]
        tick_ms: u32,
        #[arg(long)]
        hour_ms: Option<u32>,
        #[arg(long, value_delimiter = ',')]
        zone: Vec<String>,
        #[arg(long, hide_env_values = true)]
        #[serde(skip)]
        key: Option<String>,
        #[command(flatten)]
        #[serde(flatten)]
        common: Common,
    }

    impl Layered for Clock {
        type Config = u32;
        const PRESETS: &'static [Preset] = &[Preset { name: "slow", values: &[("tick_ms", "77")] }];

        fn common(&self) -> &Common {
            &self.common
        }

        fn check(&mut self, sources: &Sources) -> Result<u32, SettingError> {
            let hour_ms = *self.hour_ms.get_or_insert(self.tick_ms * 60);
            sources.within("hour_ms", hour_ms, (self.tick_ms, 6_000))
        }
    }

    /// Loads with a file `f` that holds `text`.
    fn loaded(text: &str, flags: &[&str]) -> Result<Loaded<Clock>, SettingError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        fs::write(&path, text).unwrap();
        let file = format!("--config={}", path.display());
        load([&["clock", &file], flags].concat())
    }

    #[test]
    fn each_layer_gives_way_to_those_above_it() {
        let cases: [(&str, &[&str], u32, u32); 8] = [
            ("", &[], 10, 600),
            ("", &["--preset", "slow"], 77, 4620),
            ("preset = \"slow\"", &[], 77, 4620),
            ("preset = \"slow\"", &["--preset=default"], 10, 600),
            ("tick_ms = 5", &["--preset=slow"], 5, 300),
            ("tick_ms = \"5\"", &[], 5, 300),
            ("tick_ms = 5\nhour_ms = 50", &["--tick-ms", "3"], 3, 50),
            ("hour_ms = 50", &["--hour-ms=70"], 10, 70),
        ];
        for (file, flags, tick_ms, hour_ms) in cases {
            let loaded = loaded(file, flags).unwrap();
            assert_eq!(
                (loaded.settings.tick_ms, loaded.config),
                (tick_ms, hour_ms),
                "{file} {flags:?}"
            );
        }
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_source() {
        let cases: [(&str, &[&str], &str); 15] = [
            ("", &["--tick-ms=0"], "tick_ms = 0: must be 1 to 100 (flag --tick-ms)"),
            ("\ntick_ms = 500", &[], "tick_ms = 500: must be 1 to 100 (file \"DIR/f\", line 2)"),
            ("tick_ms = \"ten\"", &[], "tick_ms = \"ten\": must be 1 to 100 (file"),
            ("tick_ms = [1, 2]", &[], "tick_ms = \"\": there may be one value only (file"),
            (
                "tick_ms = {}",
                &[],
                "tick_ms = {}: must be a text, a number, true, false, or a list of these",
            ),
            ("hour_ms = 4", &[], "hour_ms = 4: must be 10 to 6000 (file \"DIR/f\", line 1)"),
            ("hour_ms = 70", &["--preset=slow"], "hour_ms = 70: must be 77 to 6000 (file"),
            ("preset = \"quick\"", &[], "preset = \"quick\": must be default or slow (file"),
            (
                "",
                &["--preset=quick"],
                "preset = \"quick\": must be default or slow (flag --preset)",
            ),
            ("tick_sm = 4", &[], "\"DIR/f\", line 1: there is no setting \"tick_sm\"; there are"),
            ("tick-ms = 4", &[], "there is no setting \"tick-ms\"; write tick_ms"),
            ("config = \"x\"", &[], "there is no setting \"config\""),
            ("= 3", &[], "configuration file \"DIR/f\": TOML parse error at line 1"),
            ("", &["--no-such-flag"], "unexpected argument '--no-such-flag'"),
            ("", &["--tick-ms"], "a value is required for '--tick-ms"),
        ];
        for (file, flags, expected) in cases {
            let error = loaded(file, flags).unwrap_err().to_string();
            for part in expected.split("DIR") {
                assert!(error.contains(part), "{file} {flags:?}: {error}");
            }
        }
        let error = load::<Clock>(["clock", "--config=/nowhere"]).unwrap_err().to_string();
        assert!(error.contains("cannot read the configuration file \"/nowhere\""), "{error}");
    }

    #[test]
    fn what_is_printed_says_whence_and_is_a_file_that_says_the_same() {
        let file = "tick_ms = 5\nzone = [\"a\", \"b\"]\nkey = \"secret\"";
        let first = loaded(file, &["--log=warn"]).unwrap();
        let text = first.print().unwrap();
        for line in [
            "tick_ms = 5",
            "hour_ms = 300",
            "zone = [\"a\", \"b\"]",
            "log = \"warn\"",
            "preset = \"default\"",
            "# key is not shown",
        ] {
            assert!(text.lines().any(|shown| shown.starts_with(line)), "{line}: {text}");
        }
        for (key, source) in
            [("tick_ms", "line 1"), ("hour_ms", "# default"), ("log =", "# flag --log")]
        {
            let line = text.lines().find(|line| line.starts_with(key)).unwrap();
            assert!(line.ends_with(source), "{line}");
        }
        assert!(!text.contains("secret"), "{text}");
        let again = loaded(&text, &[]).unwrap();
        let values = |text: &str| {
            text.lines()
                .filter_map(|line| line.split(" #").next())
                .map(str::trim_end)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let printed = again.print().unwrap();
        assert_eq!(
            values(&printed).iter().filter(|line| line.contains('=')).collect::<Vec<_>>(),
            values(&text).iter().filter(|line| line.contains('=')).collect::<Vec<_>>()
        );
    }
}
