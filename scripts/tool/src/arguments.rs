//! The words of a command line: options are taken out by name, then what is left by place.

use crate::Failure;
use std::ffi::OsString;
use std::path::PathBuf;

/// What has not been taken yet.
pub(crate) struct Arguments {
    words: Vec<OsString>,
    /// What stood behind `--`: never options.
    rest: Vec<OsString>,
}

impl Arguments {
    /// The words behind the command.
    pub(crate) fn new(mut words: Vec<OsString>) -> Self {
        let rest = match words.iter().position(|word| word == "--") {
            Some(at) => words.split_off(at).split_off(1),
            None => Vec::new(),
        };
        Self { words, rest }
    }

    /// Takes every `name VALUE`, and `nameVALUE` or `name=VALUE` as the name is short or long.
    pub(crate) fn options(&mut self, name: &str) -> Result<Vec<OsString>, Failure> {
        let mut values = Vec::new();
        let mut left = Vec::new();
        let mut words = std::mem::take(&mut self.words).into_iter();
        while let Some(word) = words.next() {
            let glued = word.to_str().and_then(|word| word.strip_prefix(name)).map(str::to_owned);
            match glued {
                Some(value) if value.is_empty() => {
                    values.push(words.next().ok_or_else(|| Failure::Usage(format!("{name} wants a value")))?);
                }
                Some(value) if !name.starts_with("--") => values.push(value.into()),
                Some(value) if value.starts_with('=') => values.push(value[1..].into()),
                _ => left.push(word),
            }
        }
        self.words = left;
        Ok(values)
    }

    /// Takes the one `name VALUE`, if it is there.
    pub(crate) fn option(&mut self, name: &str) -> Result<Option<OsString>, Failure> {
        let mut values = self.options(name)?;
        if values.len() > 1 {
            return Err(Failure::Usage(format!("{name} is given twice")));
        }
        Ok(values.pop())
    }

    /// Takes `-o FILE`, which must be there.
    pub(crate) fn output(&mut self) -> Result<PathBuf, Failure> {
        self.option("-o")?.map(PathBuf::from).ok_or_else(|| Failure::Usage("-o FILE is missing".into()))
    }

    /// Takes all that is left: as many words as there are `names`.
    pub(crate) fn places<const N: usize>(self, names: [&str; N]) -> Result<[PathBuf; N], Failure> {
        if let Some(option) = self.words.iter().find(|word| word.as_encoded_bytes().starts_with(b"-")) {
            return Err(Failure::Usage(format!("there is no option {}", option.display())));
        }
        let words: Vec<PathBuf> = self.words.into_iter().chain(self.rest).map(PathBuf::from).collect();
        words.try_into().map_err(|words: Vec<PathBuf>| match names.get(words.len()) {
            Some(missing) => Failure::Usage(format!("{missing} is missing")),
            None => Failure::Usage(format!("what is {} for?", words[N].display())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Arguments;
    use crate::Failure;
    use std::path::PathBuf;

    fn arguments(line: &str) -> Arguments {
        Arguments::new(line.split(' ').map(Into::into).collect())
    }

    fn usage<T>(result: Result<T, Failure>) -> String {
        match result {
            Err(Failure::Usage(text)) => text,
            _ => panic!("not refused"),
        }
    }

    #[test]
    fn options_may_stand_anywhere_and_be_glued() {
        let mut arguments = arguments("-Ia m.dts -I b -o out --gic=2 -- -x");
        assert_eq!(arguments.options("-I").ok().unwrap(), ["a", "b"]);
        assert_eq!(arguments.output().ok().unwrap(), PathBuf::from("out"));
        assert_eq!(arguments.option("--gic").ok().unwrap().unwrap(), "2");
        assert_eq!(arguments.places(["M", "N"]).ok().unwrap(), [PathBuf::from("m.dts"), PathBuf::from("-x")]);
    }

    #[test]
    fn what_is_missing_or_too_much_is_named() {
        assert_eq!(usage(arguments("a b").output()), "-o FILE is missing");
        assert_eq!(usage(arguments("a -o").output()), "-o wants a value");
        assert_eq!(usage(arguments("-o a -o b").output()), "-o is given twice");
        assert_eq!(usage(arguments("a").places(["A", "B"])), "B is missing");
        assert_eq!(usage(arguments("a b").places(["A"])), "what is b for?");
        assert_eq!(usage(arguments("a --what").places(["A"])), "there is no option --what");
    }
}
