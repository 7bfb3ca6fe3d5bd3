//! Rules of the configuration file.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use regex::Regex;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use wire::{Fields, Limits, MAX_ERROR_MESSAGE, Span, Value, cut};
use zeroize::Zeroizing;

use super::ScrubSettings;
use model::text::{self, glob};

/// What stands where something was taken out.
pub(super) const MARK: &str = "[scrubbed]";
/// Name under which rules see the error message.
const ERROR_MESSAGE: &str = "error_message";
/// Bytes of a compiled expression.
const MAX_EXPRESSION: usize = 1 << 20;

/// One rule, as in the file: `drop = "card*"`, `replace = '\d{16}'`, or `hash = "user_id"`; `keys`
/// limits a replacement to some keys.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuleSettings {
    drop: Option<String>,
    replace: Option<String>,
    hash: Option<String>,
    keys: Option<String>,
}

impl RuleSettings {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let actions = [&self.drop, &self.replace, &self.hash];
        if actions.into_iter().flatten().count() != 1 {
            return Err("a scrub rule has exactly one of drop, replace and hash".to_owned());
        }
        if self.keys.is_some() && self.replace.is_none() {
            return Err(
                "keys belongs to replace; drop and hash name the keys themselves".to_owned(),
            );
        }
        if let Some(pattern) = &self.replace {
            expression(pattern)?;
        }
        Ok(())
    }

    /// Whether it hashes.
    pub fn needs_key(&self) -> bool {
        self.hash.is_some()
    }
}

impl fmt::Display for RuleSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in [
            ("drop", &self.drop),
            ("replace", &self.replace),
            ("hash", &self.hash),
            ("keys", &self.keys),
        ] {
            if let Some(value) = value {
                write!(f, "{name}={} ", text::shown(value))?;
            }
        }
        Ok(())
    }
}

fn expression(pattern: &str) -> Result<Regex, String> {
    regex::RegexBuilder::new(pattern)
        .size_limit(MAX_EXPRESSION)
        .build()
        .map_err(|error| format!("replace: {error}"))
}

enum Rule {
    Drop(String),
    Replace { pattern: Regex, keys: String },
    Hash(String),
}

/// Compiled rules.
pub struct Rules {
    rules: Vec<Rule>,
    key: Zeroizing<Vec<u8>>,
}

impl Rules {
    /// Compiles rules.
    ///
    /// # Errors
    /// What is wrong with one.
    pub fn new(settings: &ScrubSettings) -> Result<Self, String> {
        let mut rules = Vec::new();
        for rule in &settings.rules {
            rule.check()?;
            if let Some(keys) = &rule.drop {
                rules.push(Rule::Drop(keys.clone()));
            } else if let Some(pattern) = &rule.replace {
                rules.push(Rule::Replace {
                    pattern: expression(pattern)?,
                    keys: rule.keys.clone().unwrap_or_else(|| "*".to_owned()),
                });
            } else if let Some(keys) = &rule.hash {
                rules.push(Rule::Hash(keys.clone()));
            }
        }
        let key = settings.hash_key.as_ref();
        Ok(Self {
            rules,
            key: Zeroizing::new(key.map_or_else(Vec::new, |key| key.as_bytes().to_vec())),
        })
    }

    /// Applies the rules to a span.
    pub fn apply(&self, span: &mut Span) {
        if self.rules.is_empty() {
            return;
        }
        self.fields(&mut span.metadata, Limits::METADATA);
        self.captured(&mut span.captured_params);
        span.error_message = span.error_message.take().and_then(|it| self.message(it));
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Applies the rules to what was captured of a call.
    pub fn captured(&self, fields: &mut Fields) {
        self.fields(fields, Limits::CAPTURED);
    }

    /// What is left of an error message.
    pub fn message(&self, message: String) -> Option<String> {
        let mut value = Value::Text(message);
        match (
            self.value(ERROR_MESSAGE, &mut value, MAX_ERROR_MESSAGE),
            value,
        ) {
            (true, Value::Text(message)) => Some(message),
            _ => None,
        }
    }

    fn fields(&self, fields: &mut Fields, limits: Limits) {
        fields.retain(|key, value| self.value(key, value, limits.text));
    }

    /// Changes a value; `false` where it must go.
    fn value(&self, key: &str, value: &mut Value, limit: usize) -> bool {
        let meant = |keys: &str| glob(keys.as_bytes(), key.as_bytes());
        for rule in &self.rules {
            match rule {
                Rule::Drop(keys) if meant(keys) => return false,
                Rule::Replace { pattern, keys } if meant(keys) => {
                    let shown = as_text(value);
                    if pattern.is_match(&shown) {
                        let mut text = pattern
                            .replace_all(&shown, regex::NoExpand(MARK))
                            .into_owned();
                        cut(&mut text, limit);
                        *value = Value::Text(text);
                    }
                }
                Rule::Hash(keys) if meant(keys) => {
                    // Any length of key will do.
                    let Ok(mut hash) = Hmac::<Sha256>::new_from_slice(&self.key) else {
                        return false;
                    };
                    hash.update(as_text(value).as_bytes());
                    let digest = hash.finalize().into_bytes();
                    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
                    *value = Value::Text(hex);
                }
                _ => {}
            }
        }
        true
    }
}

fn as_text(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Whole(number) => number.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Flag(flag) => flag.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Rules {
        #[derive(Deserialize)]
        struct File {
            scrub: Vec<RuleSettings>,
        }
        let file: File = toml::from_str(text).unwrap();
        Rules::new(&ScrubSettings {
            rules: file.scrub,
            hash_key: Some(Zeroizing::new("secret".to_owned())),
            ..ScrubSettings::default()
        })
        .unwrap()
    }

    #[test]
    fn drop_replace_and_hash() {
        let rules = rules(
            "[[scrub]]\ndrop = 'card*'\n[[scrub]]\nreplace = '\\d{4,}'\n[[scrub]]\nhash = 'user'\n",
        );
        let mut span = Span {
            error_message: Some("order 12345 of $1".into()),
            ..crate::batch::empty_span()
        };
        let text = |value: &str| Value::Text(value.to_owned());
        for (key, value) in [
            ("card_number", text("4111")),
            ("user", text("ann")),
            ("note", text("call 5551234, 12")),
            ("count", Value::Whole(123_456)),
            ("small", Value::Whole(7)),
        ] {
            span.metadata.set(key, value.clone(), Limits::METADATA);
            span.captured_params.set(key, value, Limits::CAPTURED);
        }
        rules.apply(&mut span);
        assert_eq!(
            span.error_message.as_deref(),
            Some("order [scrubbed] of $1")
        );
        for fields in [&span.metadata, &span.captured_params] {
            assert_eq!(fields.get("card_number"), None);
            // printf ann | openssl dgst -sha256 -hmac secret
            assert_eq!(
                fields.get("user"),
                Some(&text(
                    "aad4e6199b77de3305e568999486a8be43b4cbc7d6299ff32eacded10d1a126b"
                ))
            );
            assert_eq!(fields.get("note"), Some(&text("call [scrubbed], 12")));
            assert_eq!(fields.get("count"), Some(&text("[scrubbed]")));
            assert_eq!(fields.get("small"), Some(&Value::Whole(7)));
        }
    }

    #[test]
    fn a_rule_has_one_action() {
        for text in [
            "",
            "drop='a'\nhash='b'",
            "replace='('",
            "drop='a'\nkeys='b'",
        ] {
            let rule: RuleSettings = toml::from_str(text).unwrap();
            assert!(rule.check().is_err(), "{text}");
        }
    }
}
