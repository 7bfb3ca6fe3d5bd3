//! Tables of the file: probes and scrub rules.

use std::ffi::OsStr;

use serde::{
    Deserialize,
    de::{Deserializer, Visitor, value::Error as Fields},
    forward_to_deserialize_any,
};
use toml::{
    Spanned,
    de::{DeValue, ValueDeserializer},
};

use super::{
    file::unknown,
    kinds::{found, mistake},
    setting::{Kind, Mistake, Node, Wrong, utf8},
};
use pipeline::scrub::RuleSettings;
use planner::probe_spec::{GoSpawn, InlinedCalls, ProbeOptions, ProbeSpec};

/// A probe of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProbeEntry {
    workflow: Option<String>,
    function: String,
    module: Option<String>,
    #[serde(default)]
    capture: Texts,
    fails: Option<String>,
    #[serde(default)]
    inlined: InlinedCalls,
    #[serde(default)]
    go_spawn: GoSpawn,
}

/// One text alone is a list, too.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a list of texts is wanted")]
enum Texts {
    One(String),
    Many(Vec<String>),
}

impl Default for Texts {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

/// A probe: on the command line `WORKFLOW:FUNCTION…`, in the file that or a table.
pub struct Probe;

impl Kind for Probe {
    type Value = ProbeSpec;

    fn read(&self, text: &OsStr) -> Result<ProbeSpec, Wrong> {
        utf8(text)?
            .parse()
            .map_err(|error: planner::probe_spec::SpecError| Wrong::wanted(error.to_string()))
    }

    fn read_node(&self, node: &Node<'_>) -> Result<ProbeSpec, Mistake> {
        if let DeValue::String(text) = node.get_ref() {
            return self
                .read(OsStr::new(&**text))
                .map_err(|wrong| mistake(node, wrong.to_string()));
        }
        let entry: ProbeEntry = table(node, "probe")?;
        let capture = match entry.capture {
            Texts::One(one) => vec![one],
            Texts::Many(many) => many,
        };
        let options = ProbeOptions {
            inlined: entry.inlined,
            go_spawn: entry.go_spawn,
        };
        ProbeSpec::new(
            entry.workflow.as_deref(),
            &entry.function,
            entry.module.as_deref(),
        )
        .and_then(|spec| spec.reading(&capture, entry.fails.as_deref()))
        .map(|spec| spec.with(options))
        .map_err(|error| mistake(node, error.to_string()))
    }

    fn show(&self, value: &ProbeSpec) -> Vec<String> {
        vec![value.to_string()]
    }

    fn name(&self) -> &'static str {
        "probe"
    }

    fn is_checked_later(&self) -> bool {
        true
    }
}

/// A scrub rule.
pub struct Rule;

impl Kind for Rule {
    type Value = Checked;

    fn read(&self, _: &OsStr) -> Result<Checked, Wrong> {
        Err(Wrong::wanted("rules are tables of the file"))
    }

    fn read_node(&self, node: &Node<'_>) -> Result<Checked, Mistake> {
        let rule: RuleSettings = table(node, "scrub")?;
        rule.check()
            // A regular expression's mistake is drawn on several lines: they are one here.
            .map_err(|error| {
                mistake(node, error.split_whitespace().collect::<Vec<_>>().join(" "))
            })?;
        Ok(Checked(rule))
    }

    fn show(&self, value: &Checked) -> Vec<String> {
        vec![value.0.to_string()]
    }

    fn name(&self) -> &'static str {
        "rule"
    }
}

/// A scrub rule that makes sense.
#[derive(Clone, Debug)]
pub struct Checked(pub RuleSettings);

/// Never asked: rules have no bounds.
impl PartialEq for Checked {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_string() == other.0.to_string()
    }
}

/// Reads a table; a key that is none is told with the nearest.
fn table<T: for<'a> Deserialize<'a>>(node: &Node<'_>, what: &str) -> Result<T, Mistake> {
    let DeValue::Table(entries) = node.get_ref() else {
        let found = found(node);
        return Err(mistake(
            node,
            format!("a table is wanted ([[{what}]]), not {found}"),
        ));
    };
    let known = fields::<T>();
    for (key, _) in entries {
        if !known.contains(&&**key.get_ref()) {
            return Err(Mistake {
                at: Some(key.span()),
                what: unknown(key.get_ref(), known, &format!("[[{what}]]")),
            });
        }
    }
    let copy = Spanned::new(node.span(), node.get_ref().clone());
    T::deserialize(ValueDeserializer::from(copy)).map_err(|error| {
        let at = error.span().unwrap_or(node.span());
        // Which key it is that holds the mistake.
        let key = entries.iter().find(|(_, value)| value.span() == at);
        Mistake {
            what: match key {
                Some((key, _)) => format!("{}: {}", key.get_ref(), error.message()),
                None => error.message().to_owned(),
            },
            at: Some(at),
        }
    })
}

/// The fields of a structure, as it reads them.
fn fields<'a, T: Deserialize<'a>>() -> &'static [&'static str] {
    struct Ask<'s>(&'s mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Ask<'_> {
        type Error = Fields;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Fields> {
            Err(serde::de::Error::custom("only the fields are asked for"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Fields> {
            *self.0 = fields;
            self.deserialize_any(visitor)
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut fields: &'static [&'static str] = &[];
    let _ = T::deserialize(Ask(&mut fields));
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_structure_tells_its_fields() {
        assert_eq!(
            fields::<RuleSettings>(),
            ["drop", "replace", "hash", "keys"]
        );
        assert!(fields::<ProbeEntry>().contains(&"go_spawn"));
    }
}
